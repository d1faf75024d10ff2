"""Which picture is decoded next, and by whom."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

Ticket = TypeVar("Ticket")  # a picture that waits
Decoder = TypeVar("Decoder")


class Assignment(NamedTuple, Generic[Ticket, Decoder]):
    ticket: Ticket
    decoder: Decoder
    is_dear: bool


class Lanes(Generic[Ticket, Decoder]):
    """Two of them: for pictures that are cheap or not yet opened, and for those that are known to be dear.

    Each in its order. Dear pictures leave one decoder at least to the others; while cheap ones wait, they have one at
    most. A decoder that does not answer gets no picture, and is not counted as the one that is left.
    """

    def __init__(self) -> None:
        self._cheap: dict[Ticket, None] = {}  # in order
        self._dear: dict[Ticket, None] = {}
        self._well: set[Decoder] = set()
        self._free: dict[Decoder, None] = {}
        self._with_dear: set[Decoder] = set()

    # --- pictures ---

    def add(self, ticket: Ticket) -> None:
        self._cheap[ticket] = None

    def add_first(self, ticket: Ticket) -> None:
        """Back again, without its fault."""
        self._cheap = {ticket: None} | self._cheap

    def add_dear(self, ticket: Ticket) -> None:
        self._dear[ticket] = None

    def discard(self, ticket: Ticket) -> None:
        self._cheap.pop(ticket, None)
        self._dear.pop(ticket, None)

    @property
    def num_waiting(self) -> int:
        return len(self._cheap) + len(self._dear)

    # --- decoders ---

    def free(self, decoder: Decoder) -> None:
        """It can take a picture."""
        self._well.add(decoder)
        self._free[decoder] = None
        self._with_dear.discard(decoder)

    def answers(self, decoder: Decoder) -> None:
        """It does again, and has a picture."""
        self._well.add(decoder)

    def is_silent(self, decoder: Decoder) -> None:
        """It does not answer; it may have a picture."""
        self._well.discard(decoder)
        self._free.pop(decoder, None)

    def leave(self, decoder: Decoder) -> None:
        """It has ended."""
        self.is_silent(decoder)
        self._with_dear.discard(decoder)

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_with_dear(self) -> int:
        return len(self._with_dear)

    # --- who gets what ---

    def assign(self) -> Assignment[Ticket, Decoder] | None:
        """The next picture, and the decoder that is to have it; None: there is none of either."""
        if not self._free:
            return None
        decoder = next(reversed(self._free))  # the one that was used last: the others' memory can be swapped out
        if self._dear and not (self._cheap and self._with_dear) and self.let_be_dear(decoder):
            lane, is_dear = self._dear, True
        elif self._cheap:
            lane, is_dear = self._cheap, False
        else:
            return None
        ticket = next(iter(lane))
        del lane[ticket], self._free[decoder]
        return Assignment(ticket, decoder, is_dear)

    def let_be_dear(self, decoder: Decoder) -> bool:
        """Whether the picture that this decoder has, or is to have, may be a dear one; if so, it is."""
        if decoder not in self._with_dear and not self._well - self._with_dear - {decoder}:
            return False
        self._with_dear.add(decoder)
        return True
