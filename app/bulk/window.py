"""How many requests may be with the service at a time: policy alone, without clock or network."""

from __future__ import annotations

FIRST = 4.0
SHRINK = 0.9  # gentler than TCP's half: who is refused is told so at once, and most of the room stays in use


class Window:
    """Additive increase, multiplicative decrease, as TCP has it (RFC 5681): one more for each answered request until
    the service refuses for the first time, then one more for each windowful of them; on a refusal a tenth less, once
    for all that were sent before the window shrank. A connection that fails takes it back to one."""

    def __init__(self, most: int, first: float = FIRST) -> None:
        self.most = most
        self.size = min(first, float(most))
        self.in_flight = 0
        self._sent = 0
        self._sent_when_shrunk = 0  # tickets up to this one were sent under a window that was known to be too large
        self._refused = False

    @property
    def has_room(self) -> bool:
        return self.in_flight < int(self.size)

    def send(self) -> int:
        """The ticket of a request that begins."""
        self.in_flight += 1
        self._sent += 1
        return self._sent

    def answered(self, ticket: int) -> None:  # noqa: ARG002
        """Only a window that is filled may grow: else it says nothing of what the service can take."""
        if self.in_flight >= int(self.size):
            self.size = min(self.size + (1 / self.size if self._refused else 1), float(self.most))
        self.in_flight -= 1

    def refused(self, ticket: int) -> None:
        """429 or 503."""
        self._shrink(ticket, self.size * SHRINK)

    def lost(self, ticket: int) -> None:
        """No connection, or a broken one."""
        self._shrink(ticket, 1)

    def ended(self, ticket: int) -> None:  # noqa: ARG002
        """With what says nothing of the service's load."""
        self.in_flight -= 1

    def _shrink(self, ticket: int, size: float) -> None:
        self.in_flight -= 1
        self._refused = True
        if ticket > self._sent_when_shrunk:
            self.size = max(1.0, size)
            self._sent_when_shrunk = self._sent
