"""Conditions on the time of a call: hours of the week in a time zone, and from when until when."""

from bisect import bisect_right
from typing import NamedTuple

from conditions import Call, Truth

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 86_400


class Zone(NamedTuple):
    """A time zone's offsets from UTC, worked out by whoever compiled: the edge has no table of them."""

    name: str
    starts: tuple[int, ...]  # seconds since the epoch, rising
    offsets: tuple[int, ...]  # seconds east of UTC from then on
    until: int  # seconds since the epoch; from then on nothing is known

    def local(self, now: float) -> int | None:
        """Seconds since the epoch as a clock on the wall would count them."""
        if not self.starts[0] <= now < self.until:
            return None
        return int(now) + self.offsets[bisect_right(self.starts, now) - 1]


class Window(NamedTuple):
    """Hours of the days of a week in a time zone. One that ends before it begins runs into the next day."""

    zone: Zone
    days: frozenset[int]  # on which it begins; 0 is Monday
    start: int  # minutes since midnight
    end: int  # the first minute after it; 1440 is midnight

    @property
    def name(self) -> str:
        return "when.time"

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        local = self.zone.local(call.now)
        if local is None:
            return None
        day, minute = (local // _DAY + 3) % 7, local % _DAY // 60  # the epoch began on a Thursday
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        if minute >= self.start:
            return day in self.days
        return minute < self.end and (day - 1) % 7 in self.days

    def seen(self, call: Call, used: frozenset[str]) -> str | None:
        local = self.zone.local(call.now)
        if local is None:
            return None
        hour, minute = divmod(local % _DAY // 60, 60)
        return f"{DAYS[(local // _DAY + 3) % 7]} {hour:02}:{minute:02} {self.zone.name}"


class Dates(NamedTuple):
    """From one moment on, until another: seconds since the epoch, None where it is open."""

    start: int | None
    until: int | None  # the first second after it

    @property
    def name(self) -> str:
        return "when.dates"

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        return (self.start is None or call.now >= self.start) and (
            self.until is None or call.now < self.until
        )

    def seen(self, call: Call, used: frozenset[str]) -> str:
        return str(int(call.now))
