"""How a checkpoint's pictures are prepared: what its preprocessor_config.json says, as the library's processor reads
it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers

from models.framing import Fit, Framing
from models.inputs import Preprocessing
from models.weights import CheckpointError

# Those that go their own way, which is one of ours.
UNDERSTOOD = frozenset({"EfficientNetImageProcessorPil", "Owlv2ImageProcessorPil", "ViltImageProcessorPil"})


def preprocessing(processor: Mapping[str, Any], usual: str, image_size: int | None) -> Preprocessing:
    """`processor`: the content of preprocessor_config.json. `usual`: the class of processor where it names none.
    `image_size`: pixels that the tower takes; None: any.

    Raises CheckpointError if it prepares in a way that is not ours, or for another size."""
    if image_size is None and not processor:  # nothing would say that the library's own defaults are another model's
        raise CheckpointError("it has no preprocessor_config.json, and the tower takes pictures of any size")
    how = _reader(processor, usual).from_dict(dict(processor))
    framing = _framing(how)
    if image_size not in (None, framing.side):
        raise CheckpointError(f"the preprocessor makes {framing.side}, the tower takes {image_size} pixels")
    if image_size is not None and framing.fit is Fit.WHOLE:
        raise CheckpointError("the preprocessor leaves pictures as wide as they are; the tower takes squares")
    return Preprocessing(framing, *_normalisation(how))


def _reader(processor: Mapping[str, Any], usual: str) -> Any:
    """The library's class that prepares with Pillow. Raises CheckpointError."""
    from transformers.image_processing_backends import PilBackend  # takes time, which other families need not pay

    named = processor.get("image_processor_type") or processor.get("feature_extractor_type") or usual
    name = named.removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor") + "Pil"
    reader = getattr(transformers, name, None)
    if reader is None or (name not in UNDERSTOOD and reader._preprocess is not PilBackend._preprocess):
        raise CheckpointError(f"its pictures are prepared by {named}, which is not supported")
    return reader


def _framing(how: Any) -> Framing:
    """Raises CheckpointError."""
    size, crop = how.size, how.crop_size if how.do_center_crop else None
    match type(how).__name__:
        case "ViltImageProcessorPil" if how.do_resize and size.shortest_edge:
            return Framing(int(how.size_divisor), Fit.WHOLE, int(size.shortest_edge), int(how.resample))
        case "Owlv2ImageProcessorPil" if how.do_resize and how.do_pad and size.height == size.width:
            return Framing(int(size.height), Fit.PAD)  # by a filter of its own, whatever `resample` says
    if size.shortest_edge and not size.longest_edge:
        fit, resized = Fit.CROP, int(size.shortest_edge)
    elif size.height and size.height == size.width:
        fit, resized = Fit.SQUEEZE, int(size.height)
    else:
        raise CheckpointError(f"the preprocessor makes {size}, which is no square")
    side = resized if crop is None else int(crop.height)
    if not how.do_resize or (crop is not None and crop.height != crop.width) or not 0 < side <= resized:
        raise CheckpointError(f"the preprocessor makes {size}, and {crop} of it: not a square of resized pixels")
    if crop is None and fit is Fit.CROP:
        raise CheckpointError("the preprocessor leaves pictures as wide as they are; the tower takes squares")
    return Framing(side, fit, resized, int(how.resample))


def _normalisation(how: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of values in 0..1, by channel. The library's are of values that it may have scaled elsewhere:
    ALIGN's to -1..1."""
    factor = 255 * how.rescale_factor if how.do_rescale else 255.0
    offset = 1.0 if getattr(how, "rescale_offset", False) else 0.0
    mean, std = (how.image_mean, how.image_std) if how.do_normalize else ((0.0,) * 3, (1.0,) * 3)
    again = how.image_std if getattr(how, "include_top", False) else (1.0,) * 3
    red, green, blue = [(offset + one) / factor for one in mean]
    of_red, of_green, of_blue = [one * other / factor for one, other in zip(std, again, strict=True)]
    return (red, green, blue), (of_red, of_green, of_blue)
