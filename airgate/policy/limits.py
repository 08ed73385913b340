"""Amounts that obligations name: rates of calls, and sizes of bodies."""

import re

from airgate.policy.words import quoted

# A rate-limiting binding has its limit in wrangler.toml, so there is one for each of these: LIMIT_60_PER_60S.
LADDER: dict[int, tuple[int, ...]] = {  # seconds: calls
    10: (5, 10, 20, 50, 100),
    60: (10, 30, 60, 120, 300, 600, 1200),
}
PERIODS = {"10s": 10, "minute": 60}

_SIZE = re.compile(r"(0|[1-9][0-9]{0,8})(B|KB|KiB|MB|MiB)")
_UNITS = {"B": 1, "KB": 1000, "KiB": 1024, "MB": 1000**2, "MiB": 1024**2}


def rate(limit: int, per: str) -> int:
    """The period in seconds. ValueError names the nearest limits that can be counted."""
    steps = LADDER[PERIODS[per]]
    if limit in steps:
        return PERIODS[per]
    below = [step for step in steps if step < limit][-1:]
    above = [step for step in steps if step > limit][:1]
    near = " or ".join(str(step) for step in below + above)
    raise ValueError(
        f"{limit}: not a limit that can be counted per {per}; write {near} (of {', '.join(map(str, steps))})"
    )


def size(text: str) -> int:
    """`1MB` in bytes."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{quoted(text)}: no size; write a whole number with B, KB, MB, KiB or MiB, such as 1MB"
        )
    return int(match[1]) * _UNITS[match[2]]


def written(number: int) -> str:
    """A size as `size` reads it, in the largest unit that fits."""
    unit, each = max((item for item in _UNITS.items() if number % item[1] == 0), key=lambda item: item[1])
    return f"{number // each}{unit if number else 'B'}"
