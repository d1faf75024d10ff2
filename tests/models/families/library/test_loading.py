"""Loading the library's families: dtypes, names of older files, and every way in which a checkpoint can be wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub.utils._paths import filter_repo_objects
from PIL import Image
from safetensors.torch import load_file, save_file

from models import checkpoint as checkpoint_module
from models.base import Checkpoint, Task
from models.catalog import CatalogError
from models.families.library import texts
from models.inputs import ImageEmbeddingInput, ImageInput, TextInput
from tests.app.support import encoded
from tests.library.checkpoints import CHECKPOINTS, write_clip, write_lit
from tests.library.reference import Reference
from tests.models.spoiling import Spoil, changed, complaint, load, with_more_tokens, without

MATCH = 'match = { checkpoint = "tiny" }'
PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8)).resize((60, 45))
TEXTS = ("x", "red dog x a q 红 b z")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's checkpoint, written once."""
    written: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in written:
            written[name] = tmp_path_factory.mktemp(name)
            CHECKPOINTS[name].write(written[name] / "tiny")
        return written[name]

    return folder


def loaded(folder: Path, family: str, dtype: str = "fp32") -> Checkpoint:
    return load(folder, MATCH, dtype, family).checkpoints[Task.MATCH]


def embedded(checkpoint: Checkpoint) -> Any:
    """Of the picture and of the texts: `(1 + texts, dimensions)`."""
    encode = checkpoint.tower.prepare(ImageInput(PICTURE, checkpoint.preprocessing))
    [features] = checkpoint.tower.encode([encode])
    image = replace(checkpoint.heads.prepare(ImageEmbeddingInput()), features=features)
    [of_image] = checkpoint.heads.score([image])
    of_texts = checkpoint.heads.score([checkpoint.heads.prepare(TextInput(text)) for text in TEXTS])
    return np.concatenate([of_image, *of_texts])


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_half_precision_answers_nearly_the_same(kept: Callable[[str], Path], name: str) -> None:
    folder, family = kept(name), CHECKPOINTS[name].family
    exact = embedded(loaded(folder, family))
    for dtype, least in (("bf16", 0.98), ("fp16", 0.999), ("int8", 0.9)):
        checkpoint = loaded(folder, family, dtype)
        cosines = (embedded(checkpoint) * exact).sum(1)
        assert checkpoint.dtype == dtype
        assert cosines.min() > least
        if dtype != "int8":
            assert cosines[1:].min() > 1 - 1e-5  # heads are exact


def test_a_tower_has_one_dtype_and_heads_are_exact(kept: Callable[[str], Path]) -> None:
    checkpoint: Any = loaded(kept("align"), "align", "bf16")
    floats = [one for one in checkpoint.tower._tower.state_dict().values() if one.is_floating_point()]
    assert {one.dtype for one in floats} == {torch.bfloat16}
    assert {one.dtype for one in checkpoint.heads.network.parameters()} == {torch.float32}


def test_features_are_one_vector(kept: Callable[[str], Path]) -> None:
    checkpoint = loaded(kept("clip"), "clip")
    [features] = checkpoint.tower.encode([checkpoint.tower.prepare(ImageInput(PICTURE, checkpoint.preprocessing))])
    assert features.nbytes == 4 * 32


def test_the_end_of_a_text_is_the_largest_id_where_the_configuration_is_old(tmp_path: Path) -> None:
    """openai's say that it is 2, which is another token."""
    write_clip(tmp_path / "tiny", eos_token_id=2)
    expected = Reference(tmp_path / "tiny").answers([encoded(PICTURE)], TEXTS)
    np.testing.assert_allclose(embedded(loaded(tmp_path, "clip"))[1:], expected.texts, rtol=0, atol=1e-5)


def test_weights_go_by_the_names_of_older_files(tmp_path: Path) -> None:
    """As those of clip-italian, whose tower is a CLIP's."""
    write_lit(tmp_path / "tiny", model_type="clip_vision_model")
    file = tmp_path / "tiny" / "model.safetensors"
    expected, tensors = embedded(loaded(tmp_path, "lit")), load_file(file)
    older = {name.replace("vision_model.", "vision_model.vision_model.", 1): one for name, one in tensors.items()}
    assert older.keys() & tensors.keys() != tensors.keys()
    save_file(older, file, {"format": "pt"})
    np.testing.assert_array_equal(embedded(loaded(tmp_path, "lit")), expected)


def test_a_pickled_file_does_too(tmp_path: Path, kept: Callable[[str], Path]) -> None:
    shutil.copytree(kept("align"), tmp_path, dirs_exist_ok=True)
    file = tmp_path / "tiny" / "model.safetensors"
    torch.save(load_file(file), tmp_path / "tiny" / "pytorch_model.bin")
    file.unlink()
    np.testing.assert_array_equal(embedded(loaded(tmp_path, "align")), embedded(loaded(kept("align"), "align")))


def test_the_operators_temperature_is_taken(kept: Callable[[str], Path]) -> None:
    entry = 'match = { checkpoint = "tiny", temperature = 50 }'
    assert load(kept("clip"), entry, family="clip").checkpoints[Task.MATCH].temperature == 50


def test_another_task_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"wrong at models\.mine: clip has no caption, only match"):
        load(tmp_path, 'caption = { checkpoint = "a/x" }', family="clip")


WRONG = [
    (without("model.safetensors"), "no model.safetensors or pytorch_model.bin"),
    (changed("config.json", architectures=["CLIPVisionModel"]), "match needs CLIPModel"),
    (changed("config.json", vision_config__image_size=40), "the preprocessor makes 32, the tower takes 40"),
    (changed("config.json", vision_config__hidden_size=64), "its configuration says"),
    (changed("preprocessor_config.json", crop_size=24), "the preprocessor makes 24, the tower takes 32"),
    (changed("preprocessor_config.json", crop_size=40), "not a square of resized pixels"),
    (changed("preprocessor_config.json", do_center_crop=False), "leaves pictures as wide as they are"),
    (changed("preprocessor_config.json", size={"longest_edge": 32}), "which is no square"),
    (changed("preprocessor_config.json", image_processor_type="ViltImageProcessor"), "leaves pictures as wide as"),
    (changed("preprocessor_config.json", image_processor_type="SamImageProcessor"), "which is not supported"),
    (changed("preprocessor_config.json", image_processor_type="NobodysProcessor"), "which is not supported"),
    (without("tokenizer.json"), "it has no tokenizer.json and no vocab.txt"),
    (with_more_tokens, "the tokenizer has"),
]


@pytest.mark.parametrize(("spoil", "reason"), WRONG)
def test_a_wrong_checkpoint_is_one_line_that_names_it(
    tmp_path: Path, kept: Callable[[str], Path], spoil: Spoil, reason: str
) -> None:
    shutil.copytree(kept("clip"), tmp_path, dirs_exist_ok=True)
    spoil(tmp_path / "tiny")
    assert reason in complaint(tmp_path, MATCH, "tiny", "clip")


def test_without_sentencepiece_the_extra_is_named(kept: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "find_spec", lambda _: None)
    assert "install the extra `siglip`" in complaint(kept("siglip"), MATCH, "tiny", "siglip")


def test_older_files_of_the_processor_mean_the_same(kept: Callable[[str], Path], tmp_path: Path) -> None:
    """As openai's own: numbers in place of sizes, and the class by its first name."""
    expected = loaded(kept("clip"), "clip").preprocessing
    shutil.copytree(kept("clip"), tmp_path, dirs_exist_ok=True)
    older = {
        "size": 32,
        "crop_size": 32,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_processor_type": None,
    }
    changed("preprocessor_config.json", **older)(tmp_path / "tiny")
    assert loaded(tmp_path, "clip").preprocessing == expected


def test_its_sentence_pieces_are_fetched(kept: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, wanted = kept("siglip"), list[str]()

    def snapshot(_: str, revision: str, allow_patterns: list[str]) -> str:  # noqa: ARG001
        files = [path.name for path in (folder / "tiny").iterdir()]
        wanted.extend(filter_repo_objects(files, allow_patterns=allow_patterns))
        return str(folder / "tiny")

    monkeypatch.setattr(checkpoint_module, "snapshot_download", snapshot)
    assert load(folder, 'match = { checkpoint = "some/repository" }', family="siglip")
    assert {"spiece.model", "config.json", "model.safetensors", "tokenizer_config.json"} <= set(wanted)
