"""Where an upstream's answer points to (RFC 9110 §10.2.2, §8.7), in the addresses that callers know.

An upstream names its own addresses, in Location and Content-Location. Those under its base become the gate's. Those
that would name another place of the same machine are left out: they tell of what is behind the gate, and a caller who
followed them would ask the gate for another upstream.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

import escapes
from model import Target

NAMES = ("location", "content-location")
LONGEST = 8192  # characters

# RFC 3986 §2, and what is common in queries; no white space, quote, backslash, "<", ">".
_PLAIN = re.compile(r"(?:[!#$&-;=?-\[\]^_`a-z{|}~]|%[0-9A-Fa-f]{2})+")
_PATH = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_PLACE = re.compile(r"([A-Za-z0-9._\-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_USUAL = {"http": 80, "https": 443}
# Browsers find a host in these however many slashes there are (URL standard, "special schemes").
_SPECIAL = frozenset({"http", "https", "ws", "wss", "ftp", "file"})


class _Place(NamedTuple):
    """Scheme, host and port, each in one spelling."""

    scheme: str
    host: str
    port: int | None


def rewrite(location: str, target: Target, base: str, gate: str) -> str | None:
    """The same place as a caller reaches it, unchanged where it is none of the upstream's; None: leave it out.

    `target`: of the request that this answers. `base`: the upstream's, as `upstream.py` has read it. `gate`: the gate's
    scheme and authority, as the caller wrote them.
    """
    if len(location) > LONGEST or _PLAIN.fullmatch(location) is None:
        return None
    reference, hash_mark, fragment = location.partition("#")
    reference, question_mark, query = reference.partition("?")
    after = question_mark + query + hash_mark + fragment
    scheme = ""
    if (read := _SCHEME.match(reference)) is not None:
        scheme, reference = read[1].lower(), reference[read.end() :]
    if reference.startswith("//"):
        authority, slash, rest = reference[2:].partition("/")
        return _absolute(location, scheme, authority, slash + rest, after, target, base, gate)
    if _PATH.fullmatch(reference) is None:
        return None
    if scheme:
        return None if scheme in _SPECIAL else location
    if reference.startswith("/"):
        return _inside(reference, after, _path(base), target)
    return location if _stays(reference, target) else None


def _absolute(
    location: str, scheme: str, authority: str, path: str, after: str, target: Target, base: str, gate: str
) -> str | None:
    if _PATH.fullmatch(path) is None:
        return None
    if not authority and scheme and scheme not in _SPECIAL:
        return location  # such as app:///callback
    home, here = _origin(base), _origin(gate)
    user, _, written = authority.rpartition("@")
    place = _place(scheme or (home.scheme if home is not None else ""), written)
    if place is None or "@" in user:
        return None
    if home is None or place.host == home.host or (here is not None and place.host == here.host):
        if "@" in authority:
            return None
        if place == home:
            return _inside(path, after, _path(base), target)
        # An upstream that goes by X-Forwarded-Host speaks of the gate itself: of its own part of it, or, where it does
        # not know of X-Forwarded-Prefix, as if all of it were its own.
        if place == here:
            own = _inside(path, after, f"/{target.upstream}", target)
            return own if own is not None else _inside(path, after, _path(base), target)
        return None
    return location


def _inside(path: str, after: str, prefix: str, target: Target) -> str | None:
    """A path under a prefix as the gate has it; None when it is not there, or leaves."""
    if path != prefix and not path.startswith(prefix + "/"):
        return None
    rest = _resolved(path[len(prefix) :])
    return None if rest is None else f"/{target.upstream}{rest}{after}"


def _stays(reference: str, target: Target) -> bool:
    """Whether a relative reference, as a caller resolves it (RFC 3986 §5.2), stays with the upstream."""
    if reference == "":
        return True  # the same path again
    if ":" in reference.partition("/")[0]:
        return False  # RFC 3986 §4.2: it would be read as a scheme
    folder, slash, _ = target.path.rpartition("/")
    return bool(slash) and _resolved(folder + slash + reference) is not None


def _resolved(path: str) -> str | None:
    """A path without dot segments, in any encoding (RFC 3986 §5.2.4); None when they lead out of it."""
    if path.count("%") > escapes.MOST:
        return None
    kept: list[str] = []
    parts = escapes.normal(path).split("/")[1:]
    if ".." in parts and "" in parts[:-1]:
        return None  # Python's urljoin leaves empty segments out before it goes up, and gets further
    for number, part in enumerate(parts, 1):
        if part == "..":
            if not kept:
                return None
            kept.pop()
        elif part != ".":
            kept.append(part)
            continue
        if number == len(parts):
            kept.append("")
    return "".join(["/" + part for part in kept])


@lru_cache(256)  # bases, and the gate's own name
def _origin(url: str) -> _Place | None:
    scheme, _, rest = url.partition("://")
    return _place(scheme.lower(), rest.partition("/")[0])


def _path(base: str) -> str:
    _, slash, path = base.partition("://")[2].partition("/")
    return slash + path


def _place(scheme: str, written: str) -> _Place | None:
    read = _PLACE.fullmatch(written)
    if read is None:
        return None
    host = _host(read[1].lower())
    port = int(read[2]) if read[2] else _USUAL.get(scheme)
    if host is None or (port is not None and port > 65535):
        return None
    return _Place(scheme, host, port)


def _host(text: str) -> str | None:
    """A host in its one spelling; None for an address in an unusual one, which could hide which it is."""
    try:
        if text.startswith("["):
            return str(IPv6Address(text[1:-1]))
        name = text.removesuffix(".")
        return str(IPv4Address(name)) if _NUMBER.fullmatch(name.rpartition(".")[2]) else name
    except ValueError:
        return None
