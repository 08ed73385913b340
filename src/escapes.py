"""Percent-encoded octets of a path (RFC 3986 §2.1), in one spelling."""

MOST = 512  # in a path: each is looked at several times, and a caller chooses how many there are

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_HEX = "0123456789ABCDEFabcdef"
_SPELT = {
    high + low: chr(int(high + low, 16))
    if chr(int(high + low, 16)) in _UNRESERVED
    else f"%{high}{low}".upper()
    for high in _HEX
    for low in _HEX
}


def normal(path: str) -> str:
    """A path with upper-case escapes, and none for what needs none (RFC 3986 §6.2.2). The rest is left alone."""
    first, *rest = path.split("%")
    return first + "".join([_SPELT.get(part[:2], "%" + part[:2]) + part[2:] for part in rest])
