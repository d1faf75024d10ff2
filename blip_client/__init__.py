"""A client of blip-serve: `Client`, and `AsyncClient` for asyncio. It needs httpx and pydantic alone.

with Client() as client:
    print(client.caption("photo.jpg").captions[0].text)
"""

from blip_client.clients import AsyncClient, Client
from blip_client.errors import AnswerError, BlipError, ProblemError, UnreachableError
from blip_client.images import Image
from blip_client.tries import Retrying, Try
from blip_client.version import __version__

__all__ = [
    "AnswerError",
    "AsyncClient",
    "BlipError",
    "Client",
    "Image",
    "ProblemError",
    "Retrying",
    "Try",
    "UnreachableError",
    "__version__",
]
