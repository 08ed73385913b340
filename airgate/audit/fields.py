"""Members of an event, read as what they should be: a log is input, so whatever isn't that counts as not there."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from math import isfinite
from typing import Any

LONGEST = 512  # characters of a text; the gate's own have no more, but for paths and documents
MOST = 100  # entries of a list
MOST_WHOLE = 2**53 - 1

Event = Mapping[str, Any]


def text(event: Event, name: str, longest: int = LONGEST) -> str | None:
    """A text, cut where it is too long."""
    value = event.get(name)
    if not isinstance(value, str):
        return None
    if len(value) > longest:
        value = value[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return value if value.isascii() else whole_characters(value)


def whole_characters(value: str) -> str:
    """A text without halves of character pairs, which JSON can hold and nothing else can."""
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def texts(event: Event, name: str) -> tuple[str, ...]:
    """The texts of a list, or the text that stands there alone."""
    value = event.get(name)
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        return ()
    return tuple(whole_characters(one[:LONGEST]) for one in value[:MOST] if isinstance(one, str))


def whole(event: Event, name: str) -> int | None:
    """A whole number from 0."""
    value = event.get(name)
    return value if type(value) is int and 0 <= value <= MOST_WHOLE else None


def members(event: Event, name: str) -> Event:
    value = event.get(name)
    return value if isinstance(value, dict) else {}


def fact(event: Event, name: str) -> tuple[str, bool] | None:
    """A single value of the workload context, and whether the token attests it."""
    found = members(members(event, "workload"), name)
    value = text(found, "value")
    return None if value is None else (value, found.get("attested") is True)


def moment(event: Event) -> float | None:
    """`time` in seconds since the epoch; None for what no gate writes."""
    time = event.get("time")
    if not isinstance(time, str) or len(time) != 24 or time[19] != "." or time[23] != "Z":
        return None
    minute, second, part = _minute(time[:16]), time[16:19], time[20:23]
    if minute is None or second[0] != ":" or not (time.isascii() and second[1:].isdigit() and part.isdigit()):
        return None
    return minute + int(second[1:]) + int(part) / 1000


@lru_cache(65_536)
def _minute(written: str) -> float | None:
    try:
        found = datetime.strptime(written, "%Y-%m-%dT%H:%M").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    return found if 0 <= found <= MOST_WHOLE else None


def uid(event: Event) -> str:
    """What no other event has: its chain and place; of an older gate's event, which has neither, a hash of it."""
    chain, position = text(event, "chain", 64), whole(event, "position")
    if chain is not None and position is not None:
        return f"{chain}:{position}"
    return sha256(json.dumps(event, sort_keys=True).encode("ascii")).hexdigest()


def clean(value: Any) -> Any:
    """A value as every reader of JSON takes it: whole characters, numbers that are numbers."""
    if isinstance(value, str):
        return value if value.isascii() else whole_characters(value)
    if isinstance(value, dict):
        return {clean(str(name)): clean(one) for name, one in value.items()}
    if isinstance(value, list):
        return [clean(one) for one in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
