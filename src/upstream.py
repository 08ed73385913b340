"""Something that tasks call, as the bundle names it: where it is, what it gets, and how much trouble it may make."""

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

import headers
from breaker import Settings
from cors import Cors
from credential import Credential, SigV4, load_credential, taken
from document import Reader

VIA = re.compile(r"VIA_[A-Z0-9_]{1,64}")

_BASE = re.compile(r"(https?)://([A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?((?:/[A-Za-z0-9._~\-]+)*)")
_HOST = re.compile(r"[a-z0-9.\-]+(?::[0-9]{1,5})?|\[[0-9a-f:.]+\](?::[0-9]{1,5})?")
_NUMBERS = re.compile(
    r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+))*\.?"
)  # IPv4, in any of its spellings
_HERE = frozenset({"127.0.0.1", "localhost", "[::1]"})
_NAT64 = IPv6Network("64:ff9b::/96")
_INSIDE = (
    "localhost",
    "local",
    "internal",
    "lan",
    "home.arpa",
)  # last labels of names that mean nothing outside


class Upstream(NamedTuple):
    """Something that tasks call. `base` has no trailing slash."""

    base: str
    owner: str
    timeout: float  # seconds until the answer's headers must be here
    log_path: bool  # whether the audit log may hold full paths
    via: str | None = None  # the service or VPC binding that leads to it; None: the public network
    hosts: tuple[str, ...] = ()  # of the requests that a proxy asks about (authz.py)
    encoded_slash: bool = False  # %2F in its paths is data inside a segment
    empty_segments: bool = False  # its paths may have empty segments
    rule: headers.Rule = headers.Rule()
    set_headers: tuple[tuple[str, str], ...] = ()
    forwarded: bool = True  # it is told who called, by Forwarded and X-Forwarded-*
    cors: Cors | None = None
    assertion: bool = False  # it gets a signed statement of who called (assertion.py)
    max_body: int | None = None  # bytes
    total_timeout: float | None = None  # seconds until the whole answer must be here
    retries: int = 0
    limits: Settings = Settings()
    credential: str | None = None  # which of them is used where policy names none
    credentials: dict[str, Credential] = {}  # noqa: RUF012  by name
    log_query: frozenset[str] = frozenset()  # parameters whose values the audit log may hold


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host[1:-1] if host.startswith("[") else host)
    except ValueError:
        return None


def _carried(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv6 address leads to, where it does (RFC 4291 §2.5.5.2, RFC 6052, RFC 3056)."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def inside(host: str) -> bool:
    """Whether a host, as a URL has it, is one that only this machine or its own network reaches (RFC 6890)."""
    host = host.lower()
    literal = _literal(host)
    if literal is None:
        labels = host.rstrip(".").split(".")
        return len(labels) == 1 or labels[-1] in _INSIDE or ".".join(labels[-2:]) in _INSIDE
    address = _carried(literal)
    return not address.is_global or address.is_multicast or address.is_reserved


def _base(reader: Reader, via: str | None, private: bool) -> str:
    base = reader.text("base")
    read = _BASE.fullmatch(base)
    if read is None or "/." in base:
        raise reader.wrong("base", "an address without user, query, fragment or trailing slash")
    scheme, host = read[1], read[2].lower()
    if (host.startswith("[") or _NUMBERS.fullmatch(host)) and _literal(host) is None:
        raise reader.wrong("base", "an address of four decimal numbers, or of IPv6 in brackets")
    if via is None and host not in _HERE:
        if scheme != "https":
            raise reader.wrong("base", "an https address")
        if not private and inside(host):
            raise reader.wrong("base", "a public address, or private: true")
    return base


def _via(reader: Reader) -> str | None:
    if reader.null("via"):
        return None
    name = reader.text("via")
    if VIA.fullmatch(name) is None:
        raise reader.wrong("via", "a name such as VIA_LEDGER")
    return name


def _hosts(reader: Reader) -> tuple[str, ...]:
    hosts = reader.texts("hosts")
    if not all([_HOST.fullmatch(host) for host in hosts]):
        raise reader.wrong("hosts", "hosts in lower case, with a port where it is not the usual one")
    return hosts


def _set_headers(reader: Reader) -> tuple[tuple[str, str], ...]:
    values = reader.within("set_headers")
    pairs = tuple([(name, values.text(name)) for name in sorted(values.all_names())])
    for name, text in pairs:
        if not headers.settable(name) or name == "authorization" or not headers.sendable(text):
            raise values.wrong(name, "a header that settings may set, and printable characters")
    return pairs


def _rule(
    reader: Reader, pairs: tuple[tuple[str, str], ...], credentials: dict[str, Credential]
) -> headers.Rule:
    only = None if reader.null("request_headers") else reader.texts("request_headers")
    if only is not None and not all([headers.valid(name.removesuffix("*") or "x") for name in only]):
        raise reader.wrong("request_headers", "names of headers in lower case, which may end with *")
    # Of all of them, though a call uses one: a caller's header must not pass for another credential.
    names = {headers.plain(name) for name, _ in pairs}.union(*[taken(one) for one in credentials.values()])
    # All of these are signed with the gate's key, and some name what a call is about (x-amz-copy-source, x-amz-target).
    signed = any([isinstance(one, SigV4) for one in credentials.values()])
    return headers.Rule(only, frozenset(names), ("x-amz-",) if signed else ())


def _cors(reader: Reader) -> Cors | None:
    if reader.null("cors"):
        return None
    told = reader.within("cors")
    cors = Cors(
        told.some("origins"),
        told.texts("headers"),
        told.texts("expose"),
        told.flag("credentials"),
        told.whole("max_age", 0, 86_400),
    )
    told.done()
    if "*" in cors.origins or "null" in cors.origins:
        raise reader.wrong("cors", "origins by name")
    return cors


def _limits(reader: Reader) -> Settings:
    concurrency = None if reader.null("concurrency") else reader.whole("concurrency", 1, 10_000)
    if reader.null("breaker"):
        return Settings(failures=None, concurrency=concurrency)
    told = reader.within("breaker")
    settings = Settings(
        told.whole("failures", 1, 1000),
        told.number("ratio", 0.01, 1),
        told.number("open", 1, 600),
        concurrency,
    )
    told.done()
    return settings


def load_upstream(reader: Reader) -> Upstream:
    """One of a bundle's upstreams. ValueError says where it is wrong."""
    via = _via(reader)
    each = reader.within("credentials")
    credentials = {name: load_credential(each.within(name)) for name in each.names()}
    credential = None if reader.null("credential") else reader.text("credential")
    if credential is not None and credential not in credentials:
        raise reader.wrong("credential", "one of credentials")
    set_headers = _set_headers(reader)
    upstream = Upstream(
        base=_base(reader, via, reader.flag("private")),
        owner=reader.text("owner"),
        timeout=reader.number("timeout", 0.01, 3600),
        log_path=reader.flag("log_path"),
        via=via,
        hosts=_hosts(reader),
        encoded_slash=reader.one_of("encoded_slash", "refuse", "segment") == "segment",
        empty_segments=reader.flag("empty_segments"),
        rule=_rule(reader, set_headers, credentials),
        set_headers=set_headers,
        forwarded=reader.flag("forwarded"),
        cors=_cors(reader),
        assertion=reader.flag("assertion"),
        max_body=None if reader.null("max_body") else reader.whole("max_body", 0, 2**53),
        total_timeout=None if reader.null("total_timeout") else reader.number("total_timeout", 0.01, 86_400),
        retries=reader.whole("retries", 0, 5),
        limits=_limits(reader),
        credential=credential,
        credentials=credentials,
        log_query=frozenset(reader.texts("log_query")) if reader.has("log_query") else frozenset(),
    )
    reader.done()
    return upstream
