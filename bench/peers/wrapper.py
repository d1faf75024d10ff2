"""The obvious FastAPI wrapper around transformers: one image (and one text) per POST, no batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

import uvicorn
from fastapi import FastAPI, File, Form
from PIL.Image import Image as Picture

from bench.peers.blip import Blip, arguments, open_image

Image = Annotated[bytes, File()]
Text = Annotated[str, Form()]
Number = Annotated[int, Form()]


class Captioner(Protocol):
    def caption(self, images: Sequence[Picture], num_beams: int, num_tokens: int) -> list[str]: ...


def captioning(captioner: Captioner) -> FastAPI:
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/caption")
    def caption(image: Image, num_beams: Number, num_tokens: Number) -> dict[str, Any]:
        return {"caption": captioner.caption([open_image(image)], num_beams, num_tokens)[0]}

    return app


def create_app(blip: Blip) -> FastAPI:
    app = captioning(blip)

    @app.post("/vqa")
    def vqa(image: Image, text: Text, num_beams: Number, num_tokens: Number) -> dict[str, Any]:
        return {"answer": blip.answer([open_image(image)], [text], num_beams, num_tokens)[0]}

    @app.post("/match")
    def match(image: Image, text: Text) -> dict[str, Any]:
        return {"score": blip.match([open_image(image)], [text])[0]}

    @app.post("/embed-image")
    def embed_image(image: Image) -> dict[str, Any]:
        return {"embedding": blip.embed_images([open_image(image)])[0]}

    @app.post("/embed-text")
    def embed_text(text: Text) -> dict[str, Any]:
        return {"embedding": blip.embed_texts([text])[0]}

    return app


def main() -> None:
    options = arguments()
    serve(create_app(Blip(options.folder, options.dtype, options.device)), options.port)


def serve(app: FastAPI, port: int) -> None:
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_keep_alive=75)


if __name__ == "__main__":
    main()
