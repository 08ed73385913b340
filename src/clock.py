"""Conditions on the time of a call: hours of the week in a time zone, and from when until when."""

from bisect import bisect_right
from time import gmtime
from typing import NamedTuple

from conditions import Call, Truth

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MONTH_DAYS = frozenset({*range(-31, 0), *range(1, 32)})  # from -1 on counted from the month's end
_DAY = 86_400
_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


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


def month_day(local: int) -> tuple[int, int]:
    """The day of the month as a clock on the wall shows it: from the month's beginning, 1 on, and its end, -1 back."""
    date = gmtime(local)
    day, month, year = date.tm_mday, date.tm_mon, date.tm_year
    leaps = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return day, day - _LENGTHS[month - 1] - leaps - 1


class Window(NamedTuple):
    """Hours of some days in a time zone. One that ends before it begins runs into the next day."""

    zone: Zone
    days: frozenset[int]  # of the week, on which it begins; 0 is Monday
    start: int  # minutes since midnight
    end: int  # the first minute after it; 1440 is midnight
    month_days: frozenset[int] = frozenset()  # of the month, on which it begins; empty: on any

    @property
    def name(self) -> str:
        return "when.time"

    def truth(self, call: Call, used: frozenset[str]) -> Truth:
        local = self.zone.local(call.now)
        if local is None:
            return None
        minute = local % _DAY // 60
        if self.start < self.end:
            return self.start <= minute < self.end and self.begins(local)
        if minute >= self.start:
            return self.begins(local)
        return minute < self.end and self.begins(local - _DAY)

    def begins(self, local: int) -> bool:
        """Whether one begins on the day of that time."""
        if (local // _DAY + 3) % 7 not in self.days:  # the epoch began on a Thursday
            return False
        return not self.month_days or not self.month_days.isdisjoint(month_day(local))

    def seen(self, call: Call, used: frozenset[str]) -> str | None:
        local = self.zone.local(call.now)
        if local is None:
            return None
        _, month, day, hour, minute, _, weekday, *_ = gmtime(local)
        date = f" {day} {MONTHS[month - 1]}" if self.month_days else ""
        return f"{DAYS[weekday]}{date} {hour:02}:{minute:02} {self.zone.name}"


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
