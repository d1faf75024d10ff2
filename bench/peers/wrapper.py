"""The obvious FastAPI wrapper around transformers: one image (and one text) per POST, no batches. Images come in JSON,
as base64: forms would need one more package."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Protocol

import uvicorn
from fastapi import FastAPI
from PIL.Image import Image
from pydantic import BaseModel

from bench.peers.blip import Blip, arguments, open_image


class Asked(BaseModel):
    image: str = ""
    text: str = ""
    num_beams: int = 1
    num_tokens: int = 0

    def picture(self) -> Image:
        return open_image(base64.b64decode(self.image))


class Captioner(Protocol):
    def caption(self, images: Sequence[Image], num_beams: int, num_tokens: int) -> list[str]: ...


def captioning(captioner: Captioner) -> FastAPI:
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/caption")
    def caption(asked: Asked) -> dict[str, Any]:
        return {"caption": captioner.caption([asked.picture()], asked.num_beams, asked.num_tokens)[0]}

    return app


def create_app(blip: Blip) -> FastAPI:
    app = captioning(blip)

    @app.post("/vqa")
    def vqa(asked: Asked) -> dict[str, Any]:
        return {"answer": blip.answer([asked.picture()], [asked.text], asked.num_beams, asked.num_tokens)[0]}

    @app.post("/match")
    def match(asked: Asked) -> dict[str, Any]:
        return {"score": blip.match([asked.picture()], [asked.text])[0]}

    @app.post("/embed-image")
    def embed_image(asked: Asked) -> dict[str, Any]:
        return {"embedding": blip.embed_images([asked.picture()])[0]}

    @app.post("/embed-text")
    def embed_text(asked: Asked) -> dict[str, Any]:
        return {"embedding": blip.embed_texts([asked.text])[0]}

    return app


def main() -> None:
    options = arguments()
    serve(create_app(Blip(options.folder, options.dtype, options.device)), options.port)


def serve(app: FastAPI, port: int) -> None:
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_keep_alive=75)


if __name__ == "__main__":
    main()
