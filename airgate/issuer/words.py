"""How is shown what others wrote: documents and claims can hold anything, a terminal's escapes among it."""

import json
from typing import Any

LONGEST = 120  # characters of one value
MOST = 12  # values of one list


def shown(value: Any) -> str:
    """A value as JSON in ASCII, on one line, and not too long."""
    text = json.dumps(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def listing(values: Any) -> str:
    """Values side by side: `RS256, ES256`. Whatever isn't plain is shown as JSON."""
    each = values if isinstance(values, list) else [values]
    words = [
        shown_plain(item) if isinstance(item, str) and " " not in item else shown(item)
        for item in each[:MOST]
    ]
    return ", ".join(words + [f"and {len(each) - MOST} more"] * (len(each) > MOST)) or "none"


def shown_plain(text: str) -> str:
    """A text without quotes, unless it holds what can't be printed."""
    return text if 0 < len(text) <= 2 * LONGEST and text.isascii() and text.isprintable() else shown(text)


def size(octets: int) -> str:
    """`312 bytes`, `1.2 KB`."""
    return f"{octets} bytes" if octets < 1000 else f"{octets / 1000:.1f} KB"


def duration(seconds: float) -> str:
    """`45 s`, `15 min`, `24 h`, `1 h 5 min`."""
    whole = round(abs(seconds))
    if whole < 120:
        return f"{whole} s"
    hours, minutes = divmod(round(whole / 60), 60)
    parts = [f"{hours} h"] * (hours > 0) + [f"{minutes} min"] * (minutes > 0)
    return " ".join(parts)
