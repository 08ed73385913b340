"""Moments and lengths of time as commands take them (`4h`, `2026-11-22T08:00+01:00`) and as they tell them."""

import re
from datetime import UTC, datetime

_LENGTH = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d)?([Zz]|[+-]\d\d:\d\d)?")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
EXAMPLE = "2026-11-22T08:00+01:00"


def length(text: str) -> int:
    """`90s`, `30m`, `4h` or `2d` in seconds. Raises ValueError."""
    found = _LENGTH.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r:.80} is no length of time; write it as 90s, 30m, 4h or 2d")
    return int(found[1]) * _SECONDS[found[2]]


def moment(text: str) -> int:
    """An RFC 3339 date-time with its zone in seconds since the epoch; seconds may be left out. Raises ValueError."""
    if _DAY.fullmatch(text) is not None:
        raise ValueError(
            f"{text} says no time of day, nor its zone; write it as {EXAMPLE}, or with Z for UTC"
        )
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r:.80} is no moment; write it as {EXAMPLE}, or with Z for UTC")
    if found[2] is None:
        raise ValueError(f"{text} says no zone; add one, as in {EXAMPLE}, or Z for UTC")
    try:
        return int(datetime.fromisoformat(text.upper()).timestamp())
    except (ValueError, OverflowError):
        raise ValueError(f"{text}: there is no such day or time") from None


def clock(seconds: int) -> str:
    """A moment to the minute, in UTC."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s after 1970"


def span(seconds: float) -> str:
    """A length of time in its two largest units: `4 h`, `1 day 6 h`, `12 min`."""
    left = max(0, round(seconds))
    if left < 60:
        return f"{left} s"
    left = -(-left // 60) * 60  # to the minute above
    days, hours, minutes = left // 86_400, left // 3600 % 24, left // 60 % 60
    parts = [
        f"{days} day{'s' if days > 1 else ''}" if days else "",
        f"{hours} h" if hours else "",
        f"{minutes} min" if minutes and not days else "",
    ]
    return " ".join(part for part in parts if part)


def ahead(seconds: int, now: float) -> str:
    """A moment, and how far it is."""
    off = seconds - now
    return f"{clock(seconds)} ({f'in {span(off)}' if off >= 0 else f'{span(-off)} ago'})"
