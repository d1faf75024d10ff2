"""OWL-ViT: Minderer et al. 2022; and OWLv2: Minderer et al. 2023, whose pictures are padded to squares."""

from models.families.library.detection import Detecting, detecting
from models.families.library.texts import Texts

OWLVIT = detecting(
    Detecting(
        config="OwlViTConfig",
        architecture="OwlViTForObjectDetection",
        image_processor="OwlViTImageProcessor",
        encoders="owlvit",
        texts=Texts(),
    )
)
OWLV2 = detecting(
    Detecting(
        config="Owlv2Config",
        architecture="Owlv2ForObjectDetection",
        image_processor="Owlv2ImageProcessor",
        encoders="owlv2",
        texts=Texts(),
    )
)
