"""MetaCLIP 2: Chuang et al. 2025, for some 300 languages. Texts are cut after 77 tokens, as facebookresearch/MetaCLIP
does."""

from models.families.library.embedding import TwoEncoders, two_encoders
from models.families.library.texts import Texts

FAMILY = two_encoders(
    TwoEncoders(
        config="MetaClip2Config",
        architecture="MetaClip2Model",
        image_processor="CLIPImageProcessor",
        texts=Texts(cut=True),
    )
)
