"""A model hub on this machine: the part of the Hugging Face hub's API that downloads use."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TREE = re.compile(r"/api/models/(.+)/tree/([0-9a-f]{40})")
FILE = re.compile(r"/(.+)/resolve/([0-9a-f]{40})/(.+)")


class Hub(ThreadingHTTPServer):
    """Repositories by name, each a folder; every revision of one is the same. `served` has each file that was sent,
    with the byte at which it began."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.served: list[tuple[str, str, int]] = []
        self.cut_at: int | None = None  # the next file that is longer is cut off there

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving_hub(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    with Hub(repositories) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        yield hub
        hub.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if found := TREE.fullmatch(path):
            folder = self.server.repositories[found[1]]
            files = [
                {"type": "file", "path": one.name, "size": one.stat().st_size, "oid": _oid(one)}
                for one in sorted(folder.iterdir())
            ]
            self._send(json.dumps(files).encode(), {"Content-Type": "application/json"}, with_body)
        elif found := FILE.fullmatch(path):
            self._file(self.server.repositories[found[1]] / found[3], found[1], found[2], with_body)
        else:
            self._send(b"", {}, with_body, status=404)

    def _file(self, file: Path, repository: str, revision: str, with_body: bool) -> None:
        content = file.read_bytes()
        first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {"ETag": f'"{_oid(file)}"', "X-Repo-Commit": revision, "Accept-Ranges": "bytes"}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        if with_body:
            self.server.served.append((repository, file.name, first))
        cut_at, rest = self.server.cut_at, content[first:]
        if with_body and cut_at is not None and len(rest) > cut_at:
            self.server.cut_at = None
            self._head(206 if first else 200, headers | {"Content-Length": str(len(rest))})
            self.wfile.write(rest[:cut_at])
            self.close_connection = True
            return
        self._send(rest, headers, with_body, status=206 if first else 200)

    def _send(self, content: bytes, headers: dict[str, str], with_body: bool, status: int = 200) -> None:
        self._head(status, headers | {"Content-Length": str(len(content))})
        if with_body:
            self.wfile.write(content)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _oid(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()
