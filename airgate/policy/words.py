"""Words of messages: how values are shown, and what was probably meant."""

import difflib
import json
from collections.abc import Iterable

LONGEST = 80  # characters of a value in a message
MOST_COMPARED = 500  # words that a misspelt one is compared with, letter by letter
MOST_LISTED = 20


def listed(value: str | list[str]) -> list[str]:
    """Seeds allow one name in place of a list of one."""
    return [value] if isinstance(value, str) else value


def nearest(word: str, known: Iterable[str]) -> str:
    """A question that names the nearest known word, or an empty string: `; did you mean "ledger"?`"""
    words = list(known)
    if len(words) > MOST_COMPARED:
        words = [each for each in words if each[:2] == word[:2]][:MOST_COMPARED]
    found = difflib.get_close_matches(word, words, n=1, cutoff=0.6) if len(word) <= LONGEST else []
    return f'; did you mean "{found[0]}"?' if found else ""


def either(words: Iterable[str]) -> str:
    """`a, b or c`"""
    *others, last = words
    return " or ".join(part for part in (", ".join(others), last) if part)


def several(words: Iterable[str]) -> str:
    """`a, b, c`, and how many more there are."""
    each = sorted(words)
    more = [f"and {len(each) - MOST_LISTED:,} more"] if len(each) > MOST_LISTED else []
    return ", ".join([*each[:MOST_LISTED], *more]) or "none"


def quoted(value: object) -> str:
    """A value as it's shown in a message: as JSON, on one line, and not too long."""
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 3] + "..."
