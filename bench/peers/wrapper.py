"""The obvious FastAPI wrapper around transformers: one image (and one text) per POST, no batches."""

from __future__ import annotations

from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, File, Form

from bench.peers.blip import Blip, arguments, open_image

Image = Annotated[bytes, File()]
Text = Annotated[str, Form()]
Number = Annotated[int, Form()]


def create_app(blip: Blip) -> FastAPI:
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/caption")
    def caption(image: Image, num_beams: Number, num_tokens: Number) -> dict[str, Any]:
        return {"caption": blip.caption([open_image(image)], num_beams, num_tokens)[0]}

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
    app = create_app(Blip(options.folder, options.dtype))
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", timeout_keep_alive=75)


if __name__ == "__main__":
    main()
