"""What one isolate knows of one upstream's health: whether a call may go there now, and whether it may be tried again.

A client that leaves ends its handler, `finally` included, so nobody may be relied on to give anything back. Whatever a
call claims, a place under the cap or the probe of an open circuit, is a lease that ends by itself; a call that is
settled after that does no harm.
"""

import math
from heapq import heappop, heappush
from typing import NamedTuple

from model import Denied, Reason

SLOT, SLOTS = 3, 10  # what is recent: the slot that runs and the nine before it, of so many seconds
ENOUGH = 20  # recent calls: of fewer a ratio says nothing
LONGEST = 60.0  # seconds that a circuit stays open when probe after probe fails
FEW = 10  # recent retries that are always allowed
SHARE = 5  # beyond these, one recent call in so many may be a retry


class Settings(NamedTuple):
    """How much trouble an upstream may make, and be made."""

    failures: int | None = 5  # in a row; None: no breaker at all
    ratio: float = 0.5  # of the recent calls that failed
    open: float = 10.0  # seconds
    concurrency: int | None = None  # calls that may wait for its answer


class Ticket:
    """Leave to call the upstream once: every try takes one of its own."""

    __slots__ = ("end", "era", "settings")

    def __init__(self, end: int, era: int, settings: Settings) -> None:
        self.end = end  # of its lease, in whole seconds since the epoch; 0: it has been settled
        self.era = era
        self.settings = settings


class Health:
    """An upstream's health. Times are seconds since the epoch."""

    __slots__ = (
        "_count", "_ends", "_era", "_held", "_length", "_next", "_probe", "_recent", "_row", "_slot", "_until",
    )  # fmt: skip

    def __init__(self) -> None:
        self._held: dict[int, int] = {}  # calls under way, by the second in which their lease ends
        self._ends: list[int] = []  # these seconds as a heap
        self._count = 0  # of calls under way
        self._row = 0  # failures since a call last worked
        self._slot = [0, 0, 0]  # the one that runs: calls that were answered or failed, failures, retries
        self._recent = {0: self._slot}  # slots by their number
        self._next = 0.0  # when the next one begins
        self._until = 0.0  # when an open circuit may be probed; 0: it is closed
        self._length = 0.0  # seconds for which it was opened
        self._era = 0  # rises when the circuit closes: what was sent before says nothing of after
        self._probe: Ticket | None = None  # the last one

    def admit(self, settings: Settings, now: float, lease: float) -> Ticket:
        """Leave for one call, whose claims end after so many seconds, rounded up to a whole one.

        Raises Denied `upstream.circuit_open` or `upstream.overloaded`; nothing ever waits for its turn.
        """
        if self._ends and now >= self._ends[0]:
            self._expire(now)
        probing = False
        if self._until:
            probing = settings.failures is not None
            if probing:
                self._refuse_open(now)
            else:
                self._close(now)
        if settings.concurrency is not None and self._count >= settings.concurrency:
            raise Denied(Reason.UPSTREAM_OVERLOADED, f"{self._count} calls are under way", retry_after=1)
        end = int(now + lease) + 1
        if end in self._held:
            self._held[end] += 1
        else:
            self._held[end] = 1
            heappush(self._ends, end)
        self._count += 1
        ticket = Ticket(end, self._era, settings)
        if probing:
            self._probe = ticket
        return ticket

    def settle(self, ticket: Ticket, failed: bool | None, now: float) -> None:
        """Give back what a call claimed, and note how it went. None: it says nothing about the upstream."""
        end, ticket.end = ticket.end, 0
        if not end:
            return
        if left := self._held.get(end):
            self._held[end] = left - 1
            self._count -= 1
        if self._until:
            if self._probe is ticket:
                self._probed(ticket.settings, None if now >= end else failed, now)
            return
        if failed is None or ticket.era != self._era:
            return
        if now >= self._next:
            self._turn(now)
        slot = self._slot
        slot[0] += 1
        if not failed:
            self._row = 0
            return
        slot[1] += 1
        self._row += 1
        if self._failing(ticket.settings):
            self._open(ticket.settings.open, now)

    def may_retry(self, now: float) -> bool:
        """Whether a call that failed may be tried once more. A retry that may be is counted.

        Not while the circuit is open: it would be refused, and that would be told in place of what happened.
        """
        if self._until:
            return False
        if now >= self._next:
            self._turn(now)
        calls, _, retries = self._sums()
        if retries >= max(FEW, calls // SHARE):
            return False
        self._slot[2] += 1
        return True

    def circuit(self, now: float) -> str:
        """closed, open, or half-open: the next call is a probe, or one is under way."""
        if not self._until:
            return "closed"
        return "open" if now < self._until else "half-open"

    def _expire(self, now: float) -> None:
        while self._ends and now >= self._ends[0]:
            self._count -= self._held.pop(heappop(self._ends))

    def _turn(self, now: float) -> None:
        """Begin a slot, and forget the ones that are not recent any more."""
        number = int(now // SLOT)
        self._next = float((number + 1) * SLOT)
        self._recent = {each: slot for each, slot in self._recent.items() if each > number - SLOTS}
        self._slot = self._recent[number] = [0, 0, 0]

    def _sums(self) -> tuple[int, int, int]:
        calls = failures = retries = 0
        for slot in self._recent.values():
            calls += slot[0]
            failures += slot[1]
            retries += slot[2]
        return calls, failures, retries

    def _failing(self, settings: Settings) -> bool:
        if settings.failures is None:
            return False
        if self._row >= settings.failures:
            return True
        calls, failures, _ = self._sums()
        return calls >= ENOUGH and failures >= settings.ratio * calls

    def _refuse_open(self, now: float) -> None:
        """Refuse a call while the circuit is open, or half-open with its one probe under way."""
        if self._until - now > self._length:  # the clock was set back
            self._until = now + self._length
        if now < self._until:
            raise Denied(
                Reason.UPSTREAM_CIRCUIT_OPEN,
                f"opened for {self._length:g} s",
                retry_after=math.ceil(self._until - now),
            )
        if self._probe is not None and now < self._probe.end:
            # It may work at any moment; if it fails, the circuit stays open for longer than it was.
            wait = min(self._probe.end - now, self._length)
            raise Denied(
                Reason.UPSTREAM_CIRCUIT_OPEN, "a probe is under way", retry_after=max(1, math.ceil(wait))
            )

    def _open(self, length: float, now: float) -> None:
        self._length = length
        self._until = now + length

    def _probed(self, settings: Settings, failed: bool | None, now: float) -> None:
        if failed is None:
            return
        if failed:
            self._open(max(settings.open, min(2 * self._length, LONGEST)), now)
        else:
            self._close(now)

    def _close(self, now: float) -> None:
        self._until = 0.0
        self._row = 0
        self._era += 1
        self._recent = {}
        self._turn(now)
