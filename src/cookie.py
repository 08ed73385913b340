"""Cookies of an upstream (RFC 6265), kept to it: behind the gate all upstreams have one host."""

import re

from model import Target

NAME = "set-cookie"
LONGEST = 8192  # characters

_PATH = re.compile(r"/[!-:<-~]*")


def scoped(value: str, target: Target, base: str) -> str | None:
    """One Set-Cookie for callers of the gate: sent back to this upstream only. None: it cannot be read.

    Its Domain goes, so that it is for the gate's host alone (§5.3). Its Path is put below the upstream's name; one
    outside of the base's, or none, is the whole upstream.
    """
    if len(value) > LONGEST or not value.isprintable():
        return None
    pair, *attributes = value.split(";")
    kept, path = [], ""
    for attribute in attributes:
        name, _, given = attribute.strip(" ").partition("=")
        if name.strip(" ").lower() == "path":
            path = given.strip(" ")
        elif name.strip(" ").lower() != "domain":
            kept.append(attribute)
    return ";".join([pair, *kept, f" Path=/{target.upstream}{_below(path, base)}"])


def _below(path: str, base: str) -> str:
    """The part of a cookie's path that lies below the base's."""
    _, slash, rest = base.partition("://")[2].partition("/")
    prefix = slash + rest
    inside = path == prefix or path.startswith(prefix + "/")
    if not inside or _PATH.fullmatch(path) is None or "//" in path or "/." in path:
        return ""
    return path[len(prefix) :].rstrip("/")
