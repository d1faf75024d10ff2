"""The client without asyncio, over sockets, of a real server process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from blip_client import Client, ProblemError, Retrying, Try, UnreachableError
from tests.app.support import BLUE, RED
from tests.app.test_server import start


def test_one_client_serves_many_threads_until_the_service_is_gone(tmp_path: Path) -> None:
    (path := tmp_path / "red.png").write_bytes(RED)
    seen: list[Try] = []
    with start() as server, Client(server.url, retries=Retrying(1, backoff_seconds=0), on_try=seen.append) as client:
        with httpx.Client(base_url=server.url) as http:
            server.until_ready(http)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(client.caption, [path, BLUE] * 16))
        texts = [answer.captions[0].text for answer in answers]
        assert texts == [client.caption(image).captions[0].text for image in (RED, BLUE)] * 16
        with pytest.raises(ProblemError, match="422 /errors/invalid-input: num_captions: Input should be less"):
            client.caption(path, num_captions=9)
        assert server.stop() == 0
        seen.clear()
        with pytest.raises(UnreachableError, match=r"no answer from 127\.0\.0\.1 \("):
            client.caption(path)
    assert [type(one.error) for one in seen] == [UnreachableError] * 2
