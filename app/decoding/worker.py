"""A decoder's process: one picture after the other, from a socket. Started by process.py; imports little."""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Callable

import numpy as np
from PIL import (  # noqa: F401  # or the first picture of each format would wait for its plugin
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from app.decoding.drawings import unpacked
from app.decoding.guards import give_memory_back, guard_process, lift_limits, limit_cpu, limit_memory, lowered
from app.decoding.picture import Opened, finish, open_picture
from app.decoding.protocol import DONE, ERRORS, GO, HEAD, JOB, OPENED, Buffer, Job, Kind, frame
from app.errors import BadImageError, ServiceError
from models.framing import Fit, Framing

ROOM_BYTES = 32 * 2**20  # for what is not counted: a codec's tables, the resize, the stack of a thread
COPIES = 3  # of the upload, in plugins that take it whole, and of its metadata
SLACK = 1.25  # over what was counted for the bitmaps
IDLE_SECONDS = 1
CANVAS_BYTES = 8  # of a pixel: WebP's decoder reserves its canvases when it opens


class Worker:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def run(self) -> None:
        """Until the service closes the connection."""
        self._send(frame(Kind.READY))
        while message := self._wait():
            kind, length = message
            if kind is Kind.JOB:
                self._take(length)

    def _wait(self) -> tuple[Kind, int] | None:
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        if not poll.poll(1000 * IDLE_SECONDS):
            give_memory_back()
        return self._receive_head()

    def _take(self, length: int) -> None:
        self._send(frame(Kind.TAKEN))
        side, fit, resized, resampling, *limits = JOB.unpack(self._read(JOB.size))
        max_pixels, max_side, enough_side, most_frames, is_dear, cpu_seconds, drawing_bytes = limits
        drawing = unpacked(self._read(drawing_bytes))
        data = self._read(length - JOB.size - drawing_bytes)
        framing = Framing(side, Fit(fit), resized, resampling)
        job = Job(data, framing, max_pixels, max_side, enough_side or None, most_frames, drawing)
        limit_cpu(cpu_seconds)
        try:
            _at_priority(lambda: self._decode(job), is_dear=is_dear)
        except (ServiceError, MemoryError) as error:
            self._refuse(error)
        finally:
            lift_limits()

    def _decode(self, job: Job) -> None:
        room = ROOM_BYTES + COPIES * len(job.data)
        limit_memory(room + (CANVAS_BYTES * job.max_pixels if job.data.startswith(b"RIFF") else 0))
        opened = open_picture(job)
        self._send(frame(Kind.OPENED, OPENED.pack(opened.num_bytes, opened.answer_bytes, opened.seconds)))
        kind, length = self._receive_head() or (Kind.DROP, 0)
        if kind is not Kind.GO:
            return
        is_dear, cpu_seconds = GO.unpack(self._read(length))
        limit_cpu(cpu_seconds)
        limit_memory(room + int(SLACK * opened.num_bytes))
        _at_priority(lambda: self._finish(opened, job), is_dear=is_dear)

    def _finish(self, opened: Opened, job: Job) -> None:
        decoded = finish(opened, job)
        head = DONE.pack(decoded.began, decoded.decoded, *decoded.size)
        self._send(HEAD.pack(Kind.DONE, len(head) + len(decoded.data)) + head)
        self._send(decoded.data)

    def _refuse(self, error: ServiceError | MemoryError) -> None:
        if isinstance(error, MemoryError):
            error = BadImageError("The image needs more memory than its header tells.")
        detail = error.detail.encode()[:2000]
        self._send(frame(Kind.REFUSED, bytes([ERRORS.index(type(error))]) + detail))

    def _receive_head(self) -> tuple[Kind, int] | None:
        """None: the service has closed the connection."""
        head = self._read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        kind, length = HEAD.unpack(head)
        return Kind(kind), length

    def _read(self, num_bytes: int) -> bytes:
        return self._connection.recv(num_bytes, socket.MSG_WAITALL)

    def _send(self, data: Buffer) -> None:
        self._connection.sendall(data)


def _at_priority(function: Callable[[], None], *, is_dear: bool) -> None:
    if is_dear:
        lowered(function)
    else:
        function()


def main() -> None:
    """Arguments: the descriptor of the socket, and the process id of the service."""
    descriptor, parent = map(int, sys.argv[1:])
    guard_process(parent)
    # A thread for each CPU in each decoder would be too many, and their stacks count as memory.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    square = np.ones((256, 256), np.float32)
    _ = square @ square  # BLAS takes its memory now, and not from what a picture may take
    Worker(socket.socket(fileno=descriptor)).run()


if __name__ == "__main__":
    main()
