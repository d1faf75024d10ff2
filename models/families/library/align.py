"""ALIGN: Jia et al. 2021, as Kakao Brain trained it. Its tower is a convolutional network, its temperature divides, and
texts have at most 64 tokens."""

from models.families.library.embedding import TwoEncoders, two_encoders
from models.families.library.texts import Texts

FAMILY = two_encoders(
    TwoEncoders(
        config="AlignConfig",
        architecture="AlignModel",
        image_processor="EfficientNetImageProcessor",
        texts=Texts(limit=64),
        image_projection=None,
        any_size=True,
        scale=lambda network: 1 / float(network.temperature),
    )
)
