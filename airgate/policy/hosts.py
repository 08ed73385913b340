"""Hosts of addresses: how they are written, and which of them lead into a private network.

A gate that can be told to call such a host is a way into it (server-side request forgery), so policy has to say so.
"""

import ipaddress
import re
import socket

from airgate.policy.words import quoted

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")  # this machine, for local use

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*|\[[0-9A-Fa-f:.]+\]")
_DOTTED = re.compile(r"(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])){3}")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
# RFC 6761, RFC 6762, RFC 8375, and what ICANN has set aside for private use.
_PRIVATE_ENDINGS = ("localhost", "local", "internal", "lan", "home.arpa")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # RFC 4291 §2.4: nothing else is given out
_LONGEST = 253  # characters (RFC 1035 §2.3.4)


def host(text: str) -> str:
    """What is wrong with the host of an address; empty when nothing is."""
    if not _HOST.fullmatch(text) or len(text) > _LONGEST or text != text.lower():
        return f"{quoted(text)} is not a host name in small letters (no wildcards)"
    if text.startswith("["):
        try:
            ipaddress.IPv6Address(text[1:-1])
        except ValueError:
            return f"{quoted(text)} is no IPv6 address"
    # The URL standard takes any host whose last label is a number for an IPv4 address, in many spellings.
    elif _NUMBER.fullmatch(text.rpartition(".")[2]) and not _plain(text):
        try:
            meant = f"; write {socket.inet_ntoa(socket.inet_aton(text))}"
        except OSError:
            meant = ""
        return f"{quoted(text)} is an odd spelling of an IPv4 address{meant}"
    return ""


def private(text: str) -> str:
    """What keeps a host that `host` has found right from being a public one; empty when nothing does."""
    if text.startswith("["):
        return _private_address(ipaddress.IPv6Address(text[1:-1]))
    if _plain(text):
        return _private_address(ipaddress.IPv4Address(text))
    if "." not in text:
        return "a name of one word is known in a private network only"
    ending = next((each for each in _PRIVATE_ENDINGS if text.endswith("." + each)), None)
    return f"names that end with .{ending} are known in a private network only" if ending else ""


def _plain(text: str) -> bool:
    """Four numbers, without a zero in front of one, which some read as octal."""
    return _DOTTED.fullmatch(text) is not None and not any(
        len(part) > 1 and part.startswith("0") for part in text.split(".")
    )


def _private_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return _private_address(inner)
        public = address in _GLOBAL_UNICAST and address.is_global
    else:
        public = address.is_global and not address.is_multicast and not address.is_reserved
    return "" if public else "the address is not a public one"
