"""What of a query may be on record: the names of its parameters, and the values of those that policy lists.

A value may be a secret, or say something of a person. So may what only looks like a name: a word without "=" is one
only where policy lists it.
"""

import functools
import re
from json.encoder import encode_basestring_ascii as _quote

MOST = 32  # names
MOST_VALUES = 4  # of one name
LONGEST = 256  # characters of a value, as it was sent
LONGEST_KEPT = 256  # characters of a query whose text is remembered
OTHER = "?"  # stands for whatever does not look like a name

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,39}(?:\[[A-Za-z0-9_.\-]{0,39}\])?")


def told(query: str, shown: frozenset[str]) -> str:
    """A query, with its "?", as JSON: {name: None, or a list of values where the name is one of `shown`}."""
    return _told_again(query, shown) if len(query) <= LONGEST_KEPT else _told(query, shown)


def _told(query: str, shown: frozenset[str]) -> str:
    found: dict[str, list[str] | None] = {}
    for part in query[1:].split("&"):
        name, equals, value = part.partition("=")
        if not part:
            continue
        if name in shown:
            values = found.setdefault(name, [])
            if values is not None and len(values) < MOST_VALUES:
                values.append(value.partition(";")[0][:LONGEST])  # some take ";" for "&"
        else:
            # A secret in base64 ends in "=", too.
            named = equals and value.strip("=") and _NAME.fullmatch(name)
            found[name if named else OTHER] = None
        if len(found) >= MOST:
            break
    members = [
        f"{_quote(name)}:{'null' if values is None else '[' + ','.join(map(_quote, values)) + ']'}"
        for name, values in found.items()
    ]
    return "{" + ",".join(members) + "}"


_told_again = functools.lru_cache(512)(_told)  # tasks call the same few addresses again and again
