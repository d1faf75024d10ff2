"""Chinese CLIP: Yang et al. 2022. Texts are cut after 52 tokens, as OFA-Sys/Chinese-CLIP does."""

from models.families.library.embedding import TwoEncoders, two_encoders
from models.families.library.texts import Texts

FAMILY = two_encoders(
    TwoEncoders(
        config="ChineseCLIPConfig",
        architecture="ChineseCLIPModel",
        image_processor="ChineseCLIPImageProcessor",
        texts=Texts(limit=52, cut=True),
    )
)
