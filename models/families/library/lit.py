"""LiT (Zhai et al. 2022), and other pairs of a vision and a text model that transformers joins. Texts longer than the
text model takes are cut, as in the library's training of such pairs."""

from models.families.library.embedding import TwoEncoders, two_encoders
from models.families.library.texts import Texts

FAMILY = two_encoders(
    TwoEncoders(
        config="VisionTextDualEncoderConfig",
        architecture="VisionTextDualEncoderModel",
        image_processor="ViTImageProcessor",
        texts=Texts(cut=True),
    )
)
