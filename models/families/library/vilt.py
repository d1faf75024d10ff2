"""ViLT: Kim et al. 2021. It answers with one of the answers that it was trained on, or judges a sentence about two
pictures (NLVR2), and matches."""

from models.base import Task
from models.families.family import Family
from models.families.library.pairs import Pairing, pairing
from models.families.library.texts import Texts

VILT: Family = pairing(
    Pairing(
        config="ViltConfig",
        architectures={Task.VQA: "ViltForQuestionAnswering", Task.MATCH: "ViltForImageAndTextRetrieval"},
        image_processor="ViltImageProcessor",
        texts=Texts(),
        model="vilt",
        heads={Task.VQA: "classifier", Task.MATCH: "rank_output"},
    )
)
NLVR2: Family = pairing(
    Pairing(
        config="ViltConfig",
        architectures={Task.VQA: "ViltForImagesAndTextClassification"},
        image_processor="ViltImageProcessor",
        texts=Texts(),
        model="vilt",
        heads={Task.VQA: "classifier"},
        each=False,
    )
)
