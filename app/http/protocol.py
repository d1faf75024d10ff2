"""HTTP/1.1 as uvicorn speaks it over httptools, with four repairs: an offered upgrade is ignored without losing the
body (RFC 9110, 7.8), a head is bounded in size and time, one that a proxy might read otherwise is refused (RFC 9112),
and what cannot be parsed is answered with a problem."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.errors import MalformedError, ServiceError, TransferCodingError
from app.http.exchange import LINGER_SECONDS, Connection, new_id
from app.problems import HEAD_TOO_LARGE, PROBLEMS, SLOW_HEAD, Problem, problem_body, problem_of

HEAD_BYTES = 64 * 1024
_HOST = re.compile(rb"(\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~!$&'()*+,;=%-]*)(:[0-9]*)?")  # RFC 3986, 3.2


class SocketConnection(Connection):
    def __init__(self, transport: asyncio.Transport, flow: FlowControl) -> None:
        self._transport = transport
        self._flow = flow

    @property
    def num_waiting(self) -> int:
        return self._transport.get_write_buffer_size()

    async def drained(self) -> None:
        if self.num_waiting and not self._transport.is_closing():
            self._transport.set_write_buffer_limits(0)  # writing is paused now, until nothing waits
            await self._flow.drain()
            self._transport.set_write_buffer_limits(HIGH_WATER_LIMIT)

    def abort(self) -> None:
        self._transport.abort()


class Protocol(HttpToolsProtocol):
    def __init__(self, *args: Any, head_timeout_seconds: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timeout_seconds = head_timeout_seconds
        self._room = HEAD_BYTES  # what may come before a head, or a piece of a body, is complete; trailers count too
        self._timer: asyncio.TimerHandle | None = None  # for a head, or for the rest of what was refused
        self._in_head = False
        self._refused = False

    # --- the connection ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        try:
            self._parse(memoryview(data))
        except httptools.HttpParserError as error:
            if isinstance(cause := error.__context__, ServiceError):
                self._refuse(problem_of(cause), cause.detail)
            else:
                self.send_400_response("The request is not valid HTTP/1.1.")
        if self._timer is None and self._is_idle:
            self._await_head()

    def _parse(self, data: memoryview) -> None:
        while data and not self._refused:
            piece = data[: self._room]
            self._room -= len(piece)
            try:
                self.parser.feed_data(piece)
                data = data[len(piece) :]
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
                self._ignore_upgrade()
            if not self._room:
                self._refuse(HEAD_TOO_LARGE, f"A request head may have at most {HEAD_BYTES} bytes.")

    # --- an offered upgrade: llhttp would take what follows the head for another protocol ---

    def _should_upgrade(self) -> bool:
        return True  # so that the callbacks of uvicorn leave this head alone: it comes again

    def _ignore_upgrade(self) -> None:
        """Parse the head again, without the offer."""
        method = self.scope["method"]
        if method == "CONNECT":
            self.send_400_response("CONNECT is not served.")
            return
        fields = b"".join(b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade")
        self.parser.feed_data(b"%b %b HTTP/%b\r\n" % (method.encode(), self.url, self.scope["http_version"].encode()))
        self.parser.feed_data(fields + b"\r\n")

    # --- a head, in size and time, and what it says ---

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else a trailer: it must not pass for a field of the head, which is what a proxy looked at
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._room = HEAD_BYTES
        self._stop_timer()
        _check_head(self.parser.get_http_version(), self.headers)
        self.scope["blip.connection"] = SocketConnection(self.transport, self.flow)  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._room = HEAD_BYTES
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._room = HEAD_BYTES
        super().on_message_complete()

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(self._head_timeout_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._room == HEAD_BYTES:
            self.transport.close()
        else:
            self._refuse(SLOW_HEAD, f"The request head took more than {self._head_timeout_seconds:g} s.")

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- the refusal ---

    def send_400_response(self, msg: str) -> None:
        self._refuse(PROBLEMS[MalformedError], msg)

    def _refuse(self, problem: Problem, detail: str) -> None:
        """The connection ends, with this answer unless the client would take it for that of another request."""
        self._refused = True
        self._stop_timer()
        if self.transport.is_closing():
            return
        if not self._is_idle:
            if not self.cycle.more_body:  # accepted before: it completes, and is the last
                self.cycle.keep_alive = False
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started or self.pipeline:
                self.transport.close()
                return
        request_id = new_id()
        fields = {"request_id": request_id, "status": problem.status}
        self.logger.warning("refused: %s", detail, extra={"fields": fields})
        self.transport.write(_answer(problem, detail, request_id))
        self.transport.write_eof()  # what still comes is read and dropped: closing at once would reset the answer away
        self.flow.resume_reading()
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)


def _check_head(version: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """What the parser lets pass. Raises MalformedError, TransferCodingError."""
    if version not in ("1.0", "1.1"):
        raise MalformedError("The request must be HTTP/1.1 or HTTP/1.0.")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        raise MalformedError("The request must have one Host.")
    if hosts and not _HOST.fullmatch(hosts[0].strip()):
        raise MalformedError("Host: is not a host and port.")
    codings = [
        coding.strip().lower()
        for name, value in headers
        if name == b"transfer-encoding"
        for coding in value.split(b",")
    ]
    if not {*codings} <= {b"chunked", b""}:
        raise TransferCodingError("Transfer-Encoding: only chunked is supported.")
    if codings and (codings != [b"chunked"] or version == "1.0"):
        raise MalformedError("Transfer-Encoding: must be chunked, once, in HTTP/1.1.")


def _answer(problem: Problem, detail: str, request_id: str) -> bytes:
    body = json.dumps(problem_body(problem, detail, request_id), separators=(",", ":"))
    return (
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n"
        f"content-type: application/problem+json\r\ncontent-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n{body}"
    ).encode()
