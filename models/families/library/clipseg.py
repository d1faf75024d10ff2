"""CLIPSeg: Lüddecke and Ecker 2022. Pictures of 352 pixels on a CLIP of 224."""

from models.families.library.segmentation import Segmenting, segmenting
from models.families.library.texts import Texts

FAMILY = segmenting(
    Segmenting(
        config="CLIPSegConfig",
        architecture="CLIPSegForImageSegmentation",
        image_processor="ViTImageProcessor",
        texts=Texts(),
        tower="clip.vision_model",
        encoders="clip",
        decoder="decoder",
    )
)
