"""Calls from a browser's pages (Fetch standard, CORS): the gate answers their preflights, by the upstream's settings.

A preflight carries no credentials (Fetch §3.2.2), so it is answered before anybody is known, and says nothing but what
the origin may send; the call itself is decided like any other.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from policy import METHODS

ALLOWED = "access-control-allow-origin"
MOST_NAMES = 64  # of headers that a preflight asks for
LONGEST = 2048  # characters of these

_ORIGIN = re.compile(r"(https?)://((?:[a-z0-9_-]+\.)*[a-z0-9_-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?")
_USUAL = {"http": "80", "https": "443"}
_NAME = re.compile(r"[a-z0-9!#$%&'*+\-.^_`|~]+")
_METHODS = ", ".join(sorted(METHODS))

# What a call through the gate is made of may always be sent: who calls, as what, and what HTTP itself needs.
_ALWAYS = frozenset(
    {
        "accept", "accept-language", "authorization", "cache-control", "content-language", "content-type", "dpop",
        "idempotency-key", "if-match", "if-modified-since", "if-none-match", "if-unmodified-since", "last-event-id",
        "pragma", "range", "traceparent", "tracestate", "x-request-id", "x-requested-with",
    }
)  # fmt: skip
_OWN_FAMILY = "airgate-"
_EXPOSED = (
    "airgate-decision", "airgate-error", "airgate-policy", "airgate-request-id", "location", "retry-after",
    "www-authenticate",
)  # fmt: skip
_ASKED = "origin, access-control-request-method, access-control-request-headers"  # what a preflight's answer hangs on


class Cors(NamedTuple):
    """Which pages may call an upstream."""

    origins: tuple[str, ...]  # as browsers spell them: see `valid`
    headers: tuple[str, ...] = ()  # in lower case, beside those that may always be sent; "*": all
    expose: tuple[str, ...] = ()  # of the answer, beside the gate's own and those that browsers show anyway
    credentials: bool = False  # cookies and the like; then "*" means nothing
    max_age: int = 600  # seconds that a browser may remember a preflight


def valid(origin: str) -> bool:
    """Whether this is an http origin as browsers spell it (RFC 6454 §6.2): lower case, without the usual port."""
    read = _ORIGIN.fullmatch(origin)
    if read is None:
        return False
    port = read[3]
    return port is None or (int(port) <= 65535 and port != _USUAL[read[1]])


def asks(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a request is a preflight. Names of headers in lower case."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def preflight(cors: Cors, headers: Mapping[str, str]) -> dict[str, str] | None:
    """The headers of a preflight's answer, whose status is 204; None when its page may not make the call."""
    if not _listed(cors, headers.get("origin", "")):
        return None
    if headers.get("access-control-request-method") not in METHODS:
        return None
    asked = _names(headers.get("access-control-request-headers", ""))
    if asked is None or not all([_allowed(cors, name) for name in asked]):
        return None
    answer = {
        **_granted(cors, headers["origin"]),
        "access-control-allow-methods": _METHODS,
        "access-control-max-age": str(cors.max_age),
        "vary": _ASKED,
    }
    if asked:
        answer["access-control-allow-headers"] = ", ".join(asked)
    return answer


def shown(cors: Cors, origin: str | None, vary: str | None = None) -> dict[str, str]:
    """The headers that let the page read an answer; without them a browser keeps it back.

    `vary`: what the answer has as `Vary` already. A cache must tell origins apart even where this one may not read it.
    """
    if vary is None or not vary.strip(" \t"):
        vary = "origin"
    elif not {"*", "origin"} & {name.strip(" \t").lower() for name in vary.split(",")}:
        vary = f"{vary}, origin"
    if origin is None or not _listed(cors, origin):
        return {"vary": vary}
    exposed = dict.fromkeys([*_EXPOSED, *cors.expose])
    return {**_granted(cors, origin), "access-control-expose-headers": ", ".join(exposed), "vary": vary}


def _listed(cors: Cors, origin: str) -> bool:
    """Compared whole, as it was sent: "null", which any sandboxed page sends, is no http origin and never listed."""
    return origin in cors.origins and valid(origin)


def _granted(cors: Cors, origin: str) -> dict[str, str]:
    granted = {ALLOWED: origin}
    if cors.credentials:
        granted["access-control-allow-credentials"] = "true"
    return granted


def _names(text: str) -> list[str] | None:
    """The names that a preflight asks for, in lower case; None when they are no names, or too many."""
    if len(text) > LONGEST:
        return None
    names = [name.strip(" \t").lower() for name in text.split(",")] if text.strip(" \t") else []
    if len(names) > MOST_NAMES or not all([_NAME.fullmatch(name) for name in names]):
        return None
    return names


def _allowed(cors: Cors, name: str) -> bool:
    if name in _ALWAYS or name.startswith(_OWN_FAMILY):
        return True
    return name in cors.headers or ("*" in cors.headers and not cors.credentials)
