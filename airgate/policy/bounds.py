"""What is demanded of one attribute of a call, and a value that meets all of it, or that there is none.

An attribute has a key, such as `("subject",)` or `("claim", "org", "unit")`; a demand is a tuple that begins with its
name. Attributes are taken as independent of each other. Where they are not, more seems possible than is: a proof
stays a proof, and an example has to pass the gate anyway.
"""

import ipaddress
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator
from functools import lru_cache, reduce
from hashlib import sha256
from operator import and_
from typing import Any

from airgate.engine import (
    LISTS,
    LONGEST_SUBJECT,
    Call,
    Caller,
    Dates,
    Denied,
    Identity,
    Target,
    Truth,
    Window,
    confirmed,
)
from airgate.policy import patterns

Key = tuple[str, ...]
Demand = tuple[Any, ...]
Demands = frozenset[Demand]

# In which way a value is there, the first one that is possible being preferred.
THERE, MISSING, UNREADABLE = "there", "missing", "unreadable"
ONE, SEVERAL = "one", "several"
_STATES = {
    "country": (THERE, MISSING),
    "header": (MISSING, THERE),
    "claimed": (MISSING, THERE),
    "query": (MISSING, ONE, SEVERAL),
    "property": (MISSING, THERE),
    "claim": (MISSING, THERE, UNREADABLE),
    "groups": (THERE, MISSING, UNREADABLE),
    "client": (THERE, MISSING),
    "jkt": (MISSING, THERE),
    "actor": (MISSING, THERE),
}

# What a person would expect to see, tried before anything is worked out.
_USUAL = {
    "subject": ("somebody", "somebody-else"),
    "kind": ("", "workload", "human", "agent"),
    "method": ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"),
    "action": ("read", "write"),
    "id": ("1", "2"),
    "header": ("other", "another"),
    "claimed": ("other", "another"),
    "query": ("other", "another"),
}

_COUNTRIES = ("DE", "US", "FR", "JP", "BR")
_ALL_COUNTRIES = tuple(
    first + second for first in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" for second in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"  # of the key in RFC 9449 §6.1
DEPUTY = "deputy"  # somebody who acts for another

WEEK, DAY = 604_800, 86_400
CALENDAR = 400 * 365 * DAY + 97 * DAY  # then dates come on the same days of the week again
_NOBODY = Caller(Identity("", "", "", frozenset(), {}), None, frozenset(), {})
_NOWHERE = Target("", "", (), "", "")
# Such an address is read as the IPv4 address that it stands for (RFC 4291 §2.5.5.2).
_MAPPED = (6, 0xFFFF_0000_0000, 0xFFFF_FFFF_FFFF)


def state(*allowed: str) -> Demand:
    return ("state", frozenset(allowed))


def one_of(pieces: Iterable[patterns.Pieces | patterns.PathPattern]) -> Demand:
    return ("one of", frozenset(pieces))


def plain_path(odd: int) -> Demand:
    """No segment holds what a path isn't allowed to: of slashes and nothing at all, only what `odd` has."""
    return ("odd", odd)


def odd_path(odd: int) -> Demand:
    """The opposite: there is a segment that holds something else."""
    return ("odder", odd)


def none_of(pieces: Iterable[patterns.Pieces | patterns.PathPattern]) -> Demand:
    return ("none of", frozenset(pieces))


@lru_cache(262_144)
def meet(key: Key, demands: Demands) -> Any:
    """A value of the attribute that meets the demands, None if no value does. Raises patterns.ExhaustedError.

    What the value is depends on the key: a text, or a state and a text, or a state and several texts, ...
    """
    kind = key[0]
    if kind in ("subject", "kind", "method", "action", "id"):
        return _text(kind, demands, patterns.TEXT)
    if kind == "path":
        return _path(demands)
    if kind == "used":
        return _used(demands)
    if kind == "now":
        return _moment(demands)
    if kind == "equals":
        return _states(("true", "false", "unknown"), demands) or None
    states = _states(_STATES[kind], demands)
    for each in states:
        value = _in_state(key, each, demands)
        if value is not None:
            return each, value
    return None


def _states(known: tuple[str, ...], demands: Demands) -> list[str]:
    allowed = [demand[1] for demand in demands if demand[0] == "state"]
    return [each for each in known if all(each in some for some in allowed)]


def _in_state(key: Key, in_state: str, demands: Demands) -> Any:
    """A value in that state: a text or texts, empty where there is nothing to say. None if there is none."""
    kind = key[0]
    if in_state in (MISSING, SEVERAL):
        return ()
    if kind == "client":
        return _address(demands)
    if kind in ("jkt", "actor"):
        return _single(kind, demands)
    if kind == "country":
        return _country(demands)
    if kind == "query" or (kind in ("header", "claimed") and key[1] not in LISTS):
        return _text(kind, demands, patterns.HEADER if kind == "header" else patterns.TEXT)
    return _several(kind, demands)


def _text(kind: str, demands: Demands, sort: str) -> str | None:
    wanted = frozenset(demand[1] for demand in demands if demand[0] == "one of")
    unwanted = frozenset(pieces for demand in demands if demand[0] == "none of" for pieces in demand[1])
    for usual in _USUAL[kind]:
        if all(_one_matches(group, usual) for group in wanted) and not _one_matches(unwanted, usual):
            return usual
    return patterns.text(wanted, unwanted, sort)


def _one_matches(group: patterns.Pieced, text: str) -> bool:
    return any(patterns.matches(pieces, text) for pieces in group)


def _single(kind: str, demands: Demands) -> str | None:
    """A text that the gate accepts in such a claim. Every demand on it names texts, not patterns."""
    wanted = [{text for (text,) in demand[1]} for demand in demands if demand[0] == "one of"]
    unwanted = {text for demand in demands if demand[0] == "none of" for (text,) in demand[1]}
    candidates = sorted(set.intersection(*wanted)) if wanted else _names(kind, len(unwanted) + 1)
    for text in candidates:
        if text not in unwanted and _accepted(kind, text):
            return text
    return None


def _names(kind: str, number: int) -> Iterator[str]:
    """So many that a person can tell for made up."""
    for each in range(number):
        if kind == "jkt":
            digest = urlsafe_b64encode(sha256(str(each).encode()).digest()).decode()
            yield digest.rstrip("=") if each else THUMBPRINT
        else:
            yield f"{DEPUTY}-{each}" if each else DEPUTY


def _accepted(kind: str, text: str) -> bool:
    if kind == "actor":
        return 0 < len(text) <= LONGEST_SUBJECT
    try:
        return confirmed({"cnf": {"jkt": text}}) == text
    except Denied:
        return False


def _country(demands: Demands) -> str | None:
    for candidate in (*_COUNTRIES, *_ALL_COUNTRIES):
        for demand in demands:
            if demand[0] in ("one of", "none of") and ((candidate,) in demand[1]) is (demand[0] == "none of"):
                break
        else:
            return candidate
    return None


def _several(kind: str, demands: Demands) -> tuple[str, ...] | None:
    """Values of which some are asked for and some are kept out. A value that nobody names fills an empty list."""
    held = {demand[1] for demand in demands if demand[0] == "has"}
    out = {demand[1] for demand in demands if demand[0] == "lacks"}
    if held & out:
        return None
    if ("single",) in demands and len(held) > 1:
        return None
    if not held and kind not in ("groups", "used"):
        held = {
            next(name for name in ("other", *(f"other-{n}" for n in range(1, 10_000))) if name not in out)
        }
    return tuple(sorted(held))


def _path(demands: Demands) -> tuple[str, ...] | None:
    groups = {demand[1] for demand in demands if demand[0] == "one of"}
    for _, number, text in (demand for demand in demands if demand[0] == "segment"):
        before = (patterns.ANYTHING,) * number
        groups.add(frozenset({patterns.PathPattern((*before, patterns.exactly(text)), True)}))
    unwanted = frozenset(pattern for demand in demands if demand[0] == "none of" for pattern in demand[1])
    odd = reduce(and_, [demand[1] for demand in demands if demand[0] == "odd"], patterns.ODD)
    needed = frozenset(odd & ~demand[1] for demand in demands if demand[0] == "odder")
    return patterns.path(frozenset(groups), unwanted, odd, needed)


def _used(demands: Demands) -> tuple[frozenset[str], frozenset[str]] | None:
    """The roles that are in use, and those that are not."""
    used = frozenset(demand[1] for demand in demands if demand[0] == "in")
    unused = frozenset(demand[1] for demand in demands if demand[0] == "out")
    return None if used & unused else (used, unused)


def _address(demands: Demands) -> str | None:
    """The address lies in a range of each network that is asked for, and outside the others."""
    wanted = [demand[1].bounds for demand in demands if demand[0] == "in"]
    unwanted = [demand[1].bounds for demand in demands if demand[0] == "out"]
    starts = [bound[:2] for bounds in wanted for bound in bounds]
    starts += [(version, high + 1) for bounds in [*unwanted, [_MAPPED]] for version, _, high in bounds]
    example = ipaddress.ip_address("203.0.113.7")
    for version, number in sorted(starts) if wanted else [(4, int(example)), (4, 0), (6, 0), *sorted(starts)]:
        if number >= 1 << (32 if version == 4 else 128) or _within(version, number, [_MAPPED]):
            continue
        if all(_within(version, number, bounds) for bounds in wanted) and not any(
            _within(version, number, bounds) for bounds in unwanted
        ):
            address = ipaddress.IPv4Address(number) if version == 4 else ipaddress.IPv6Address(number)
            return str(address)
    return None


def _within(version: int, number: int, bounds: Iterable[tuple[int, int, int]]) -> bool:
    return any(version == of and low <= number <= high for of, low, high in bounds)


def _moment(demands: Demands) -> int | None:
    """The first moment from `since` on at which every window and every date is what it is asked to be."""
    tests = [(demand[1], demand[2]) for demand in demands if demand[0] == "when"]
    since = max((demand[1] for demand in demands if demand[0] == "since"), default=0)
    windows = [test for test, _ in tests if isinstance(test, Window)]
    breaks = {since}
    for test, _ in tests:
        if isinstance(test, Dates):
            breaks.update(bound for bound in test if bound is not None and bound > since)
    for window in windows:
        breaks.update(moment for moment in (*window.zone.starts, window.zone.until) if moment > since)
    ordered = sorted(breaks)
    for number, begin in enumerate(ordered):
        # Until the next one the offsets don't change: the windows repeat every week, or with the calendar.
        by_month = any(window.month_days and window.zone.local(begin) is not None for window in windows)
        period = CALENDAR if by_month else WEEK
        end = begin + period if number + 1 == len(ordered) else min(ordered[number + 1], begin + period)
        seen: set[tuple[tuple[bool, ...], ...]] = set()
        for day in range(begin, end, DAY):
            around = tuple(_around(window, day) for window in windows)
            if around in seen:  # then all is as on an earlier day
                continue
            seen.add(around)
            for moment in sorted({day, *_changes(windows, day, min(end, day + DAY))}):
                if all(_truth(test, moment) in truths for test, truths in tests):
                    return moment
    return None


def _around(window: Window, begin: int) -> tuple[bool, ...]:
    """Whether the window begins on the days that 24 hours touch, and on the one before; empty: not known."""
    local = window.zone.local(begin)
    return () if local is None else tuple(window.begins(local + day * DAY) for day in (-1, 0, 1))


def _changes(windows: list[Window], begin: int, end: int) -> set[int]:
    """When one of the windows may open or shut, within 24 hours."""
    moments = set()
    for window in windows:
        local = window.zone.local(begin)
        if local is None:
            continue
        midnight = begin - local % DAY
        for day in range(2):
            for minute in (0, window.start, window.end):
                moments.add(midnight + day * DAY + minute * 60)
    return {moment for moment in moments if begin < moment < end}


def _truth(test: Window | Dates, moment: int) -> Truth:
    return test.truth(Call(_NOBODY, _NOWHERE, moment), frozenset())
