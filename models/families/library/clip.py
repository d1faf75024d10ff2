"""CLIP: Radford et al. 2021. Texts of more than 77 tokens are refused, as openai/CLIP does unless told otherwise."""

from models.families.library.embedding import TwoEncoders, two_encoders
from models.families.library.texts import Texts

FAMILY = two_encoders(
    TwoEncoders(
        config="CLIPConfig",
        architecture="CLIPModel",
        image_processor="CLIPImageProcessor",
        texts=Texts(),
    )
)
