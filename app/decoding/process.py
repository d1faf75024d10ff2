"""One decoder's process, as the event loop sees it."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from mmap import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from app.decoding.protocol import DONE, HEAD, MOST_TOLD_BYTES, Buffer, Kind

if TYPE_CHECKING:
    from app.decoding.pool import Ticket

ROOT = Path(__file__).parents[2]  # that `app` is imported from
KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")  # no key or token of the service's
MAPPED_BYTES = (
    2**20
)  # of a frame, from which on it is not on the heap, which would have to be filled with zeros at once
WAIT_SECONDS = 10  # for a process that was killed


class Owner(Protocol):
    def heard(self, decoder: DecoderProcess, kind: Kind, payload: Buffer) -> None: ...

    def lost(self, decoder: DecoderProcess) -> None:
        """Its connection has ended."""


class DecoderProcess(asyncio.BufferedProtocol):
    """It is believed no more than a client: what it says that cannot be read ends it."""

    def __init__(self, owner: Owner, log: int) -> None:
        """`log`: the descriptor that it writes its complaints to."""
        ours, theirs = socket.socketpair()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)  # room for the pixels, where it is allowed
        command = [sys.executable, "-P", "-m", "app.decoding.worker", str(theirs.fileno()), str(os.getpid())]
        try:
            with theirs:  # all other descriptors are closed: it inherits no listener
                self._process = subprocess.Popen(  # noqa: S603
                    command,
                    env=_environment(),
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        except OSError:
            ours.close()
            raise
        self._owner = owner
        self._socket = ours
        self._descriptor = ours.fileno()
        self._transport: asyncio.Transport | None = None
        self._want(HEAD.size, None)
        self._most_bytes = 0  # of an answer
        self._timer: asyncio.TimerHandle | None = None
        self.ticket: Ticket | None = None
        self.is_started = False
        self.has_taken = False  # the picture that it has
        self.is_lowered = False  # in priority, for this picture
        self.killed_because: str | None = None
        self.held = ExitStack()  # the bytes of its picture
        self.buried = asyncio.get_running_loop().create_future()

    async def connect(self) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=self._socket)

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self, ticket: Ticket, *, is_lowered: bool) -> None:
        self.ticket, self.is_lowered = ticket, is_lowered
        self.has_taken = False
        self._most_bytes = DONE.size + ticket.job.most_bytes

    def expect(self, num_bytes: int) -> None:
        """An answer may be as large."""
        self._most_bytes = max(self._most_bytes, DONE.size + num_bytes)

    def send(self, *parts: bytes) -> None:
        if self._transport is not None:
            self._transport.writelines(parts)

    def has_spoken(self) -> bool:
        """Whether something that it said waits for the event loop: then the loop is late, not the decoder."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def after(self, seconds: float, function: Callable[[DecoderProcess], None]) -> None:
        """Call it unless something else happens before."""
        self.stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, function, self)

    def stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def kill(self, reason: str) -> None:
        self.killed_because = self.killed_because or reason
        self._process.kill()

    async def end(self) -> int:
        """Returns its exit code, or minus the signal that has ended it: ours, unless it came too late."""
        self._process.kill()
        try:
            return await asyncio.to_thread(self._process.wait, WAIT_SECONDS)
        except subprocess.TimeoutExpired:  # stuck in the kernel
            return -signal.SIGKILL

    # --- asyncio.BufferedProtocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, _: int) -> memoryview:
        return self._wanted[self._num_received :]

    def buffer_updated(self, num_bytes: int) -> None:
        if self.killed_because is not None:  # whatever it still says
            return
        self._num_received += num_bytes
        if self._num_received < len(self._wanted):
            return
        try:
            if self._kind is None:
                self._begin_message()
            else:
                self._end_message(self._kind)
        except (IndexError, TypeError, ValueError, struct.error):
            self._want(HEAD.size, None)
            self.kill("garbled")

    def _begin_message(self) -> None:
        kind, length = HEAD.unpack(self._wanted)
        if length > (self._most_bytes if kind == Kind.DONE else MOST_TOLD_BYTES):
            raise ValueError("too long")
        if length:
            self._want(length, Kind(kind))
        else:
            self._end_message(Kind(kind), empty=True)

    def _end_message(self, kind: Kind, *, empty: bool = False) -> None:
        payload: Buffer = b"" if empty else self._wanted
        self._want(HEAD.size, None)
        self._owner.heard(self, kind, payload)

    def _want(self, num_bytes: int, kind: Kind | None) -> None:
        """`kind`: of the message whose payload it is; None: a head."""
        room = mmap(-1, num_bytes) if num_bytes >= MAPPED_BYTES else bytearray(num_bytes)
        self._wanted, self._num_received, self._kind = memoryview(room), 0, kind

    def connection_lost(self, _: Exception | None) -> None:
        self.stop_timer()
        self._owner.lost(self)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",  # each further one reserves addresses, which count as memory
        # Kept for the next picture, for a second: to get it from the kernel again takes as long as to decode a JPEG.
        "PILLOW_BLOCKS_MAX": "4",  # of 16 MiB
        "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    }
