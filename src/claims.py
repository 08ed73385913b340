"""A token's claims, read by their paths: the names that lead to one, such as ("realm_access", "roles")."""

from typing import Any

from model import Denied, Reason

MOST_VALUES = 1000  # in one claim
LONGEST = 512  # characters of a value that policy compares: as many as a subject may have

SCOPES = frozenset({("scope",), ("scp",)})

Path = tuple[str, ...]


def at(claims: dict[str, Any], path: Path) -> Any:
    """The value at a path; None where there is none."""
    value: Any = claims
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def said(claims: dict[str, Any], path: Path) -> Any:
    """As `at`, but of scopes each by itself, in whichever claim and form the issuer has them.

    RFC 9068 §2.2.3 and RFC 8693 §4.2: `scope`, one text with spaces between. Entra has that under `scp`, and Okta a
    list.
    """
    if path not in SCOPES:
        return at(claims, path)
    scopes = claims.get("scope", claims.get("scp"))
    return [scope for scope in scopes.split(" ") if scope] if isinstance(scopes, str) else scopes


def strings(value: Any) -> tuple[str, ...]:
    """A claim that grants something: a text, or a list of texts. Raises Denied `token.claims`."""
    values = value if isinstance(value, list) else [value]
    if len(values) > MOST_VALUES or not all([isinstance(item, str) for item in values]):
        raise Denied(Reason.TOKEN_CLAIMS, "a claim that grants roles is not strings, or holds too many")
    return tuple(values)


def texts(value: Any) -> tuple[str, ...] | None:
    """A claim as conditions compare it: true, false and whole numbers as JSON writes them. None: not to be compared."""
    values = value if isinstance(value, list) else [value]
    if len(values) > MOST_VALUES:
        return None
    found = []
    for item in values:
        if isinstance(item, bool):
            found.append("true" if item else "false")
        elif isinstance(item, str | int) and len(text := str(item)) <= LONGEST:
            found.append(text)
        else:
            return None
    return tuple(found)
