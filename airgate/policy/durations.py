"""Lengths of time as policy writes them: `30s`, `5m`, `1h`."""

import re

_DURATION = re.compile(r"[1-9][0-9]{0,5}[smh]")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def seconds(duration: str) -> int:
    """`30s`, `5m` and `1h` in seconds."""
    return int(duration[:-1]) * _SECONDS[duration[-1]]


def is_duration(text: object) -> bool:
    return isinstance(text, str) and _DURATION.fullmatch(text) is not None
