"""SigLIP and SigLIP 2 of fixed size: Zhai et al. 2023, Tschannen et al. 2025. Their texts were always 64 tokens long,
padding included, which is read as any other; longer ones are cut, as big_vision does. Each label has a probability of
its own."""

from models.families.library.embedding import TwoEncoders, two_encoders
from models.families.library.texts import Padding, Texts

FAMILY = two_encoders(
    TwoEncoders(
        config="SiglipConfig",
        architecture="SiglipModel",
        image_processor="SiglipImageProcessor",
        texts=Texts(cut=True, lower=True, padding=Padding.FIXED),
        image_projection=None,
        text_projection="text_model.head",
        bias=lambda network: float(network.logit_bias),
    )
)
