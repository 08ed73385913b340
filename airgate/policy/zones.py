"""Time zones, worked out when policy is compiled: the edge has no table of them.

Only the pinned `tzdata` package counts, never the machine's own table, so one seed has one hash everywhere.
"""

import functools
from datetime import UTC, date, datetime
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

YEARS_BEFORE, YEARS_AFTER = 1, 10
DAY = 86_400

_STEP = DAY // 4  # no zone has ever changed its offset and changed it back within so little
_EPOCH = date(1970, 1, 1)


@functools.cache
def names() -> frozenset[str]:
    """Every zone that there is, such as `Europe/Berlin`."""
    listed = resources.files("tzdata").joinpath("zones").read_text("utf-8").split()
    return frozenset(listed) - {"Factory"}  # which stands for a clock that nobody has set


@functools.cache
def countries() -> frozenset[str]:
    """The codes of ISO 3166-1 alpha-2, and XK: Kosovo has none, and this one is in use everywhere."""
    table = resources.files("tzdata").joinpath("zoneinfo", "iso3166.tab").read_text("utf-8")
    return frozenset(line[:2] for line in table.splitlines() if not line.startswith("#")) | {"XK"}


def nearest_zone(name: str) -> str | None:
    """The zone that differs only in letter case, or in `_` for a space; or that is of the same city."""
    plain = name.replace(" ", "_").casefold()
    city = plain.rpartition("/")[2]
    same = [known for known in names() if known.casefold().endswith(f"/{city}")]
    return next((known for known in names() if known.casefold() == plain), min(same, default=None))


@functools.cache
def document(name: str, year: int) -> dict[str, Any]:
    """A zone as shards hold it: its offsets from a year before 1 January of `year` until ten years after it."""
    start, until = _new_year(year - YEARS_BEFORE), _new_year(year + YEARS_AFTER)
    starts, offsets = changes(name, start, until)
    return {"starts": starts, "offsets": offsets, "until": until}


def changes(name: str, start: int, until: int) -> tuple[list[int], list[int]]:
    """When the offset from UTC changes, to the second, and what it is from then on: both in seconds.

    The first is `start` itself. Raises KeyError for a name that is not a zone's.
    """
    zone = _zone(name)
    starts, offsets = [start], [_offset(zone, start)]
    for before in range(start, until, _STEP):
        after = min(before + _STEP, until - 1)
        while (offset := _offset(zone, after)) != offsets[-1]:
            low, high = max(before, starts[-1]), after  # the offset is another one at `high`
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset(zone, middle) == offsets[-1] else (low, middle)
            starts.append(high)
            offsets.append(_offset(zone, high))
            if offsets[-1] == offset:
                break
    return starts, offsets


def midnight(name: str, day: date) -> int:
    """The first moment at which clocks there show that day, or a later one. Seconds since the epoch.

    Where clocks are put forward over midnight that is not 00:00, and where they are put back it comes twice.
    """
    wall = (day - _EPOCH).days * DAY
    starts, offsets = changes(name, wall - 2 * DAY, wall + 2 * DAY)
    ends = [*starts[1:], wall + 2 * DAY]
    firsts = [
        (max(start, wall - offset), end) for start, offset, end in zip(starts, offsets, ends, strict=True)
    ]
    return min(first for first, end in firsts if first < end)


@functools.cache
def _zone(name: str) -> ZoneInfo:
    if name not in names():
        raise KeyError(name)
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def _offset(zone: ZoneInfo, moment: int) -> int:
    offset = datetime.fromtimestamp(moment, zone).utcoffset()
    assert offset is not None  # every zone of the table has one
    return int(offset.total_seconds())


def _new_year(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
