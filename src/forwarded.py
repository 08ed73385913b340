"""What an upstream is told of the call as it reached the gate: Forwarded (RFC 7239), and what came before it."""

import re
from functools import lru_cache
from ipaddress import ip_address

LONGEST = 261  # characters of a host: a name, or an address in brackets, and a port

_ORIGIN = re.compile(r"(https?)://([A-Za-z0-9._\-]+|\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\])(:[0-9]{1,5})?")

Headers = tuple[tuple[str, str], ...]


def told(client: str | None, origin: str, upstream: str) -> Headers:
    """The headers that say who called, at which address of the gate.

    `client`: the caller's address; None where nobody knows it. `origin`: scheme, host and port as the caller wrote
    them, so anything that is not plainly these is left out. `upstream`: the first segment of the path, cut off here.
    """
    if client is not None and len(client) > 45:  # the longest that an address can be (RFC 4291 §2.2)
        client = None
    return _told(client, origin if len(origin) <= len("https://") + LONGEST else "", upstream)


@lru_cache(512)  # the same callers come to the same address again and again
def _told(client: str | None, origin: str, upstream: str) -> Headers:
    address = _address(client)
    element = [f"for={_node(address)}"]
    headers = [] if address is None else [("x-forwarded-for", address)]
    if (read := _ORIGIN.fullmatch(origin)) is not None:
        proto, host = read[1], read[2] + (read[3] or "")
        # RFC 7239 §4: a value with a colon or brackets is no token, and is quoted.
        element += [f'host="{host}"' if ":" in host else f"host={host}", f"proto={proto}"]
        headers += [("x-forwarded-host", host), ("x-forwarded-proto", proto)]
    return (("forwarded", ";".join(element)), *headers, ("x-forwarded-prefix", f"/{upstream}"))


def _address(client: str | None) -> str | None:
    """An address in its one spelling. One that names a zone of the machine that saw it means nothing elsewhere."""
    if client is None or "%" in client:
        return None
    try:
        return str(ip_address(client))
    except ValueError:
        return None


def _node(address: str | None) -> str:
    if address is None:
        return "unknown"  # RFC 7239 §6.2
    return f'"[{address}]"' if ":" in address else address
