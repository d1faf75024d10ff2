"""What admitted requests hold: bytes of bodies, pixels and answers, and work that is still to be done."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from app.engine.batching import Kind
from app.errors import BytesFullError, TooManyBytesError


class Ledger:
    """The sum over all of them. Bodies are refused beyond the limit of bytes; pixels and answers, of requests that are
    already admitted, are not, but leave less room for the next. Bytes from any thread, work from the event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self.bytes = 0
        self.answer_bytes = 0  # those of them that clients have still to read
        self.unfinished: Counter[Kind] = Counter()  # work items
        self._of_keys: dict[int, Counter[Kind]] = {}

    def check_bytes(self, num_bytes: int) -> None:
        """Raises BytesFullError if there is no room for so many."""
        if self.bytes + num_bytes > self._max_bytes:
            raise BytesFullError("Too many bytes are in flight.")

    def check_alone(self, num_bytes: int) -> None:
        """Raises TooManyBytesError if so many of one request never have room."""
        if num_bytes > self._max_bytes:
            raise TooManyBytesError(
                f"The request needs more than {self._max_bytes} bytes at once, for its images or its answer."
            )

    def add_bytes(self, num_bytes: int, *, refuse: bool = False) -> None:
        with self._lock:
            if refuse:
                self.check_bytes(num_bytes)
            self.bytes += num_bytes

    def add_answer_bytes(self, num_bytes: int) -> None:
        self.answer_bytes += num_bytes
        self.add_bytes(num_bytes)

    def of_key(self, key: int) -> Counter[Kind]:
        """The unfinished work of one API key."""
        return self._of_keys.get(key, Counter())

    def add_work(self, kind: Kind, number: int, key: int | None) -> None:
        _add(self.unfinished, kind, number)
        if key is not None:
            _add(own := self._of_keys.setdefault(key, Counter()), kind, number)
            if not own:
                del self._of_keys[key]

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """What one request holds, given back at its end."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            lease.close()


class Lease:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.key: int | None = None  # the number of the request's API key, where keys are set
        self._lock = threading.Lock()
        self._closed = False
        self._expected = False
        self._unfinished: Counter[Kind] = Counter()
        self._unsubmitted: Counter[Kind] = Counter()
        self.held = 0  # bytes
        self._promised = 0  # bytes of images by URL, which are still to come

    # --- work ---

    @property
    def will_submit(self) -> bool:
        """Whether something is still to be put into the queue."""
        return self._expected or bool(self._unsubmitted)

    def expect(self) -> None:
        """The body is there; what is to be done for it is not known yet."""
        self._expected = True

    def take_on(self, work: Mapping[Kind, int]) -> None:
        """Now it is."""
        self._expected = False
        for kind, number in work.items():
            if number:
                self._unsubmitted[kind] = self._unfinished[kind] = number
                self._ledger.add_work(kind, number, self.key)

    def put_off(self) -> Mapping[Kind, int]:
        """Nothing is to be done for now; returns what was, for `take_on`."""
        self._expected = False
        work = Counter(self._unfinished)
        for kind, number in work.items():
            self.finish(kind, number)
        return work

    def submit(self, kind: Kind) -> None:
        """One item goes into the queue."""
        if self._unsubmitted[kind]:
            _add(self._unsubmitted, kind, -1)

    def finish(self, kind: Kind, number: int) -> None:
        """So many items are done, or need not be."""
        number = min(number, self._unfinished[kind])
        _add(self._unfinished, kind, -number)
        self._ledger.add_work(kind, -number, self.key)
        surplus = self._unsubmitted[kind] - self._unfinished[kind]
        if surplus > 0:
            _add(self._unsubmitted, kind, -surplus)

    # --- bytes ---

    def promise(self, num_bytes: int) -> None:
        """So many are to come, in `add_body`: they hold nobody else up. Raises TooManyBytesError."""
        self._promised += num_bytes
        self._ledger.check_alone(self.held + self._promised)

    def add_body(self, num_bytes: int) -> None:
        """Raises BytesFullError, TooManyBytesError."""
        self._promised = max(0, self._promised - num_bytes)
        self._ledger.check_alone(self.held + self._promised + num_bytes)
        self._ledger.add_bytes(num_bytes, refuse=True)
        self.held += num_bytes

    def add_pixels(self, num_bytes: int) -> None:
        """Held to the end of the request; nothing when it has ended: a decode thread cannot be stopped."""
        with self._lock:
            if not self._closed:
                self._ledger.add_bytes(num_bytes)
                self.held += num_bytes

    @contextmanager
    def pixels(self, num_bytes: int, answer_bytes: int = 0) -> Iterator[None]:
        """Held while it lasts. Raises BytesFullError or TooManyBytesError if there is no room for an answer of so
        many."""
        if answer_bytes:
            self._ledger.check_alone(self.held + answer_bytes)
            self._ledger.check_bytes(answer_bytes)
        self._ledger.add_bytes(num_bytes + answer_bytes)
        try:
            yield
        finally:
            self._ledger.add_bytes(-num_bytes - answer_bytes)

    @contextmanager
    def answer(self, num_bytes: int) -> Iterator[Callable[[int], None]]:
        """Bytes of an answer; yields what to call with the number of those that the client has read."""
        left = num_bytes
        self._ledger.add_answer_bytes(num_bytes)

        def read(number: int) -> None:
            nonlocal left
            left -= number
            self._ledger.add_answer_bytes(-number)

        try:
            yield read
        finally:
            self._ledger.add_answer_bytes(-left)

    def close(self) -> None:
        self.put_off()
        with self._lock:
            self._closed = True
            self._ledger.add_bytes(-self.held)


def _add(counts: Counter[Kind], kind: Kind, number: int) -> None:
    counts[kind] += number
    if not counts[kind]:
        del counts[kind]
