"""Sessions that have ended before their tokens: a try of a task, say, which has succeeded, failed or been cleared.

A token says by `sid` which session it is for. Its issuer tells the gate when that has ended (secevent.py), D1 keeps it
for as long as a token of the session could be accepted, and every isolate learns of it with its view. What an isolate
holds is bounded. Of an issuer with more ended sessions than that nobody can tell which of its sessions go on, so then
all of them are refused.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any, NamedTuple

from model import Denied, Reason

ENDED, SUPERSEDED = "ended", "superseded"  # superseded: another try of the same task has taken its place
LONGEST = 256  # characters of a session's id
MOST = 50_000  # ended sessions in one isolate; about 200 bytes each
MOST_FULL = 64  # issuers of which an isolate remembers that they have too many; with more, all of them have
SWEEP = 60.0  # seconds between two times that those which are over are dropped, here and in D1
AGAIN = 60  # seconds by which a later telling must reach further than the one before, to be worth a row

_REASONS = {SUPERSEDED: Reason.TOKEN_SESSION_SUPERSEDED}
_EVERY = ""  # in place of an issuer: all of them


class Ended(NamedTuple):
    """A row of D1's table `sessions`."""

    number: int
    issuer: str  # exact iss
    session: str
    result: str  # ended | superseded
    until: int  # seconds since the epoch, from when on no token of it can be accepted any more


class Sessions:
    """The ended sessions that an isolate knows of."""

    def __init__(self) -> None:
        self._ended: dict[
            str, dict[bytes, tuple[int, str]]
        ] = {}  # by issuer and session: until when, and how
        self._full: dict[str, int] = {}  # issuers with too many, and until when
        self._count = 0
        self._swept_at = self._forgot_at = 0.0
        self.whole = True  # whether all that D1 has told of has been read
        self.missing = (
            False  # whether D1 lacks the table: then no issuer has been told that a session is over
        )

    def __len__(self) -> int:
        return self._count

    def due(self, now: float) -> bool:
        """Whether it is time for this isolate to clear D1 up: once in a while, and not by two requests at once."""
        due = now - self._forgot_at >= SWEEP
        if due:
            self._forgot_at = now
        return due

    def add(self, rows: Iterable[Ended], now: float) -> None:
        """Take in what D1 tells. Rows that are over, or known, change nothing."""
        if not 0 <= now - self._swept_at < SWEEP:
            self._sweep(now)
        for row in rows:
            if now >= row.until:
                continue
            held = self._ended.setdefault(row.issuer, {})
            key = _key(row.session)
            self._count += key not in held
            held[key] = row.until, row.result
            if self._count > MOST:
                self._sweep(now)
            if self._count > MOST:
                self._give_up_most()

    def refuse(self, issuer: str, session: str, now: float) -> None:
        """Raises Denied for a session that has ended, or of which that can't be told. `issuer`: the exact iss."""
        if not self.whole:
            raise Denied(Reason.STATE_STALE, "not all sessions that have ended are read yet")
        if self.full(issuer, now):
            raise Denied(
                Reason.STATE_STALE, f"more than {MOST} sessions have ended, most of them of this issuer"
            )
        held = self._ended.get(issuer)
        if held is not None and (found := held.get(_key(session))) is not None and now < found[0]:
            raise Denied(_REASONS.get(found[1], Reason.TOKEN_SESSION_ENDED), f"session {session}")

    def knows(self, issuer: str, session: str, until: float) -> bool:
        """Whether it is known to have ended, about as long as until then."""
        found = self._ended.get(issuer, {}).get(_key(session))
        return found is not None and until - AGAIN < found[0]

    def full(self, issuer: str, now: float) -> bool:
        """Whether an issuer has more ended sessions than are remembered."""
        return bool(self._full) and now < max(self._full.get(issuer, 0), self._full.get(_EVERY, 0))

    def report(self, now: float) -> dict[str, Any]:
        """How many there are, for health, and the issuers that have too many; `*` for all of them."""
        return {
            "ended": self._count,
            "full": sorted([issuer or "*" for issuer, until in self._full.items() if now < until]),
        }

    def warnings(self, now: float) -> list[str]:
        """What whoever runs the gate should know, for health."""
        if self.missing:
            return ["D1 lacks the table sessions, so no session that ends is known: airgate deploy"]
        full = self.report(now)["full"]
        return (
            [f"more sessions have ended than are remembered: all of {', '.join(full)} are refused"]
            if full
            else []
        )

    def _sweep(self, now: float) -> None:
        self._swept_at = now
        ended = {
            issuer: {key: found for key, found in held.items() if now < found[0]}
            for issuer, held in self._ended.items()
        }
        self._ended = {issuer: held for issuer, held in ended.items() if held}
        self._full = {issuer: until for issuer, until in self._full.items() if now < until}
        self._count = sum([len(held) for held in self._ended.values()])

    def _give_up_most(self) -> None:
        """Forget the sessions of the issuer that has most: all of its sessions are refused, and no other's are.

        They are refused until the last of those is over; what it ends meanwhile is remembered like any. Who has most
        has more than an even share of MOST, so an issuer that keeps to its share is never the one.
        """
        issuer = max(self._ended, key=lambda name: len(self._ended[name]))
        held = self._ended.pop(issuer)
        self._count -= len(held)
        named = issuer if len(self._full) < MOST_FULL else _EVERY
        until = max([until for until, _ in held.values()])
        self._full[named] = max(self._full.get(named, 0), until)


def _key(session: str) -> bytes:
    """What a session is known by: ids may be long."""
    return sha256(session.encode("utf-8", "surrogatepass")).digest()[:16]
