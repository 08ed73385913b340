"""What stands under `when`, read: hours, days, dates, networks, and attributes to compare.

Each function takes one value as the seed writes it. ValueError says what is wrong with it, and what would be right.
"""

import functools
import ipaddress
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import groupby

from airgate.engine import DAYS, EQUATED, MONTH_DAYS, NAMED, equated
from airgate.policy import zones
from airgate.policy.words import either, listed, nearest, quoted

MIDNIGHT = 24 * 60  # minutes
FIRST_YEAR, LAST_YEAR = 2000, 2999

_LAST = re.compile(r"last(?: ([1-9][0-9]?))?")
_MONTH_RUN = re.compile(r"(-?[0-9]{1,2})(?:-(-?[0-9]{1,2}))?")
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATE_TIME = re.compile(_DATE.pattern + r"T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})")
_WORKLOAD = [*NAMED, "run"]


def minute(time: str, *, ends: bool = False) -> int:
    """`06:30` in minutes since midnight. `ends`: it is the end of a window, where midnight is the end of the day."""
    if ends and time in ("24:00", "00:00"):
        return MIDNIGHT
    match = _TIME.fullmatch(time)
    if match is None:
        latest = "24:00" if ends else "23:59"
        raise ValueError(f'{quoted(time)}: no time; write hours and minutes, "00:00" to "{latest}"')
    return int(match[1]) * 60 + int(match[2])


def days(words: str | list[str]) -> list[str]:
    """`mon-fri`, `mon` or a list of such, as days from Monday on. A run may go over the week's end: `sat-mon`."""
    found: set[str] = set()
    for word in listed(words):
        first, dash, last = word.partition("-")
        for day in (first, last) if dash else (first,):
            if day not in DAYS:
                hint = nearest(day, DAYS)
                raise ValueError(
                    f"{quoted(word)}: days are {', '.join(DAYS)}, and runs such as mon-fri{hint}"
                )
        if first == last:
            raise ValueError(f'{quoted(word)}: runs from a day to itself; write "{first}"')
        begin, end = DAYS.index(first), DAYS.index(last if dash else first)
        found.update(DAYS[number % 7] for number in range(begin, end + 1 if end >= begin else end + 8))
    return [day for day in DAYS if day in found]


def month_days(words: int | str | list[int | str]) -> list[int]:
    """Days of the month, rising: `15`, `-1` (the last one), `28-31`, `last 3`, or a list of such."""
    found: set[int] = set()
    for word in words if isinstance(words, list) else [words]:
        found.update(_month_run(word))
    if found.issuperset(range(1, 32)):
        raise ValueError(f"{quoted(words)}: is every day of the month; leave month_days out")
    return sorted(found)


def _month_run(word: int | str) -> range:
    first = end = 0
    if last := _LAST.fullmatch(str(word)):
        first, end = -int(last[1] or 1), -1
    elif run := _MONTH_RUN.fullmatch(str(word)):
        first, end = int(run[1]), int(run[2] or run[1])
        if first == end and run[2]:
            raise ValueError(f"{quoted(word)}: runs from a day to itself; write {first}")
    if first not in MONTH_DAYS or end not in MONTH_DAYS:
        known = "days of a month are 1 to 31, runs such as 28-31, and from its end last, last 3 or -3"
        raise ValueError(f"{quoted(word)}: {known}")
    if first > end or (first < 0) is not (end < 0):
        alike = (first < 0) is (end < 0)
        advice = f"write {quoted(f'{end}-{first}')}" if alike else "count both from one end, or write two"
        raise ValueError(f"{quoted(word)}: doesn't run from an earlier day to a later one; {advice}")
    return range(first, end + 1)


def month_words(days: Iterable[int]) -> list[int | str]:
    """Days of the month as `month_days` reads them: those that follow one another joined."""
    words: list[int | str] = []
    for _, group in groupby(enumerate(sorted(days, key=lambda day: (day < 0, day))), _run):
        each = [day for _, day in group]
        if each[-1] == -1:
            words.append(f"last {len(each)}" if len(each) > 1 else "last")
        else:
            words.append(each[0] if len(each) == 1 else f"{each[0]}-{each[-1]}")
    return words


def _run(numbered: tuple[int, int]) -> tuple[bool, int]:
    """The same for days that follow one another."""
    number, day = numbered
    return day < 0, day - number


def zone(name: str) -> str:
    """The name of a time zone, as it stands in the IANA's database."""
    if name in zones.names():
        return name
    same = zones.nearest_zone(name)
    hint = f'; did you mean "{same}"?' if same else nearest(name, zones.names())
    raise ValueError(f"{quoted(name)}: no such time zone{hint or '; write one such as Europe/Berlin or UTC'}")


def is_date(text: str) -> bool:
    """Whether it is written as a day, without a time."""
    return _DATE.fullmatch(text) is not None


@functools.lru_cache(4096)
def moment(text: str, zone_name: str, *, ends: bool = False) -> int:
    """A day's beginning, or a date-time with its offset, in seconds since the epoch. `ends`: the day's end."""
    if not is_date(text) and _DATE_TIME.fullmatch(text) is None:
        raise ValueError(
            f'{quoted(text)}: no date; write a day such as 2026-01-31, or a moment such as "2026-01-31T08:00:00Z"'
        )
    slack = 0 if is_date(text) else 1  # a day's beginning may lie in another year of UTC
    if not FIRST_YEAR - slack <= int(text[:4]) <= LAST_YEAR + slack:
        raise ValueError(f"{quoted(text)}: out of range; years go from {FIRST_YEAR} to {LAST_YEAR}")
    try:
        if not is_date(text):
            return int(datetime.fromisoformat(text).timestamp())
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{quoted(text)}: there is no such day or time{_last_day(text)}") from None
    return zones.midnight(zone_name, day + timedelta(days=1) if ends else day)


def _last_day(text: str) -> str:
    """Of 2026-02-30: where that month ends."""
    year, month = int(text[:4]), int(text[5:7])
    if not 1 <= month <= 12:
        return "; months are 01 to 12"
    last = date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)
    return f"; the month ends on {last}" if int(text[8:10]) > last.day else ""


def written(seconds: int) -> str:
    """A moment as `moment` reads it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@functools.lru_cache(4096)
def network(text: str) -> str:
    """A range of addresses (RFC 4632, RFC 4291) in its one spelling; a single address is a range of one."""
    address, slash, prefix = text.partition("/")
    if slash and not (prefix.isascii() and prefix.isdigit()):
        raise ValueError(f"{_not_a_range(text)}")
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(_not_a_range(text)) from None
    if found.network_address != ipaddress.ip_address(address):
        raise ValueError(f"{quoted(text)}: has bits set behind the prefix; write {quoted(str(found))}")
    if isinstance(found, ipaddress.IPv6Network):
        if "%" in text:
            raise ValueError(_not_a_range(text))
        mapped = found.network_address.ipv4_mapped
        if mapped is not None and found.prefixlen >= 96:
            instead = f"{mapped}/{found.prefixlen - 96}"
            raise ValueError(f"{quoted(text)}: is compared as IPv4; write {quoted(instead)}")
    return str(found)


def _not_a_range(text: str) -> str:
    return f'{quoted(text)}: no range of addresses; write one such as "198.51.100.0/24" or "2001:db8::/32"'


def country(code: str) -> str:
    """A country's code."""
    if code in zones.countries():
        return code
    hint = {"UK": "GB", "EL": "GR"}.get(code.upper(), code.upper())
    text = f'; did you mean "{hint}"?' if hint in zones.countries() else "; write two capitals, such as DE"
    raise ValueError(f"{quoted(code)}: no country of ISO 3166-1{text}")


def attribute(name: str) -> str:
    """An attribute that `equals` may compare. What paths and resources have is not looked at."""
    if equated(name):
        return name
    space, _, rest = name.partition(".")
    if space == "workload" and rest:
        raise ValueError(
            f"{quoted(name)}: of the workload {either(_WORKLOAD)} can be compared{nearest(rest, _WORKLOAD)}"
        )
    if space in EQUATED:
        raise ValueError(
            f"{quoted(name)}: which one? Write a name behind the dot, such as {_EXAMPLES[space]}"
        )
    known = f"attributes begin with {either([f'{each}.' for each in EQUATED])}"
    raise ValueError(f"{quoted(name)}: {known}{nearest(space, EQUATED)}")


_EXAMPLES = {
    "subject": "subject.email",
    "workload": "workload.dag",
    "resource": "resource.owner",
    "query": "query.account",
}


def pairs(equals: list[str] | list[list[str]]) -> list[list[str]]:
    """One pair, or a list of pairs, as a list of pairs."""
    return [[str(item) for item in equals]] if isinstance(equals[0], str) else [list(pair) for pair in equals]


def asks_workload(equals: list[str] | list[list[str]]) -> bool:
    """Whether one of the pairs looks at the workload."""
    return any(name.startswith("workload.") for pair in pairs(equals) for name in pair)
