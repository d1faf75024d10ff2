"""LitServe around transformers: one API for all tasks, up to eight requests a batch, those of one kind run together.

No `from __future__ import annotations`: LitServe reads the annotation of `decode_request`."""

import base64
from pathlib import Path
from typing import Any, NamedTuple

import litserve
from PIL import Image

from bench.budget import MAX_BATCH_SIZE
from bench.peers.blip import Blip, arguments, open_image

BATCH_SECONDS = 0.02  # waited for a batch to fill; 0 would poll without a pause


class Asked(NamedTuple):
    task: str
    image: Image.Image | None
    text: str
    num_beams: int
    num_tokens: int


class BlipAPI(litserve.LitAPI):  # type: ignore[misc]
    def __init__(self, folder: Path, dtype: str) -> None:
        super().__init__(max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_SECONDS)
        self.folder, self.dtype = folder, dtype

    def setup(self, device: str) -> None:  # noqa: ARG002
        self.blip = Blip(self.folder, self.dtype)

    def decode_request(self, request: dict[str, Any]) -> Asked:
        image = request.get("image")
        return Asked(
            task=request["task"],
            image=open_image(base64.b64decode(image)) if image else None,
            text=request.get("text", ""),
            num_beams=request.get("num_beams", 1),
            num_tokens=request.get("num_tokens", 0),
        )

    def batch(self, inputs: list[Asked]) -> list[Asked]:
        return inputs

    def predict(self, x: list[Asked]) -> list[Any]:
        """Requests of one kind are one batch of the model."""
        groups: dict[tuple[str, int, int], list[int]] = {}
        for place, asked in enumerate(x):
            groups.setdefault((asked.task, asked.num_beams, asked.num_tokens), []).append(place)
        outputs: list[Any] = [None] * len(x)
        for (task, num_beams, num_tokens), places in groups.items():
            alike = [x[place] for place in places]
            for place, output in zip(places, self._run(task, alike, num_beams, num_tokens), strict=True):
                outputs[place] = output
        return outputs

    def _run(self, task: str, alike: list[Asked], num_beams: int, num_tokens: int) -> list[Any]:
        images = [asked.image for asked in alike if asked.image is not None]
        texts = [asked.text for asked in alike]
        match task:
            case "caption":
                return self.blip.caption(images, num_beams, num_tokens)
            case "vqa":
                return self.blip.answer(images, texts, num_beams, num_tokens)
            case "match":
                return self.blip.match(images, texts)
            case "embed-image":
                return self.blip.embed_images(images)
        return self.blip.embed_texts(texts)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"output": output}


def main() -> None:
    options = arguments()
    server = litserve.LitServer(
        BlipAPI(options.folder, options.dtype), accelerator="cpu", timeout=False, disable_openapi_url=True
    )
    server.run(host="127.0.0.1", port=options.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
