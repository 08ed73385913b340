"""One canonical target out of a raw URL, and the call to the upstream.

A path that policy and an upstream could read differently is refused instead of repaired: dot segments in any
encoding, encoded separators, empty segments, path parameters, doubly encoded octets, control characters. What is left
has one reading, and the same `Target` is authorised and forwarded.
"""

import functools
import re
from urllib.parse import unquote_to_bytes

import escapes
from bundle import Upstream
from model import Denied, Inbound, Outbound, Reason, Target
from policy import METHODS

MAX_URL = 8192  # characters
LONGEST_KEPT = 1024  # characters of an address whose reading is remembered
MAX_SEGMENTS = 64
MOST_NAMES = 64  # of headers in a set whose passing ones are remembered

_ORIGIN = re.compile(r"https?://[^/?#]*")
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9\-._~!$&'()*+,=:@]|%[0-9A-Fa-f]{2})*)*")  # RFC 3986 §3.3, less ";"
# Printable, without space, quote, "#", "<", ">". No character fits both halves: nothing to try a second way.
_QUERY = re.compile(r"(?:[!$&-;=?-~]|%[0-9A-Fa-f]{2})*")
_NOT_IN_SEGMENT = re.compile(r"[/\\;\x00-\x1f\x7f-\x9f]|%[0-9A-Fa-f]{2}|\A[. ]+\Z")

# Names are compared with "_" and "." read as "-": some servers make no difference between them.
_KEPT_BACK = frozenset(
    {
        # RFC 9110 §7.6.1: for this connection only; the runtime sets its own.
        "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        "content-length", "expect", "host",
        # The caller's credential for this gate.
        "authorization", "dpop",
        # Only a proxy may say these, and a caller is none.
        "forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "fastly-client-ip",
        "client-ip", "wl-proxy-client-ip", "x-host", "x-scheme", "x-http-method", "x-http-method-override",
        "x-method-override", "remote-user", "x-authenticated-user", "x-webauth-user",
        # RFC 9440: the client certificate that a proxy has seen.
        "client-cert", "client-cert-chain",
    }
)  # fmt: skip
_KEPT_BACK_FAMILIES = (
    "airgate-", "cf-", "proxy-", "ssl-client-", "x-airgate-", "x-amzn-oidc-", "x-auth-request-", "x-client-cert",
    "x-envoy-", "x-forwarded", "x-goog-authenticated-user-", "x-goog-iap-", "x-ms-client-principal", "x-original-",
    "x-remote-", "x-rewrite-", "x-ssl-",
)  # fmt: skip
_NAME = re.compile(r"[a-z0-9!#$%&'*+\-.^_`|~]+")


def _segment(raw: str) -> str:
    if raw == "":
        raise Denied(Reason.ROUTE_PATH_AMBIGUOUS, "an empty segment")
    if "%" not in raw:
        decoded = raw
    else:
        try:
            decoded = unquote_to_bytes(raw).decode("utf-8")  # strict: overlong forms and surrogates fail
        except UnicodeDecodeError:
            raise Denied(Reason.ROUTE_PATH_AMBIGUOUS, "not UTF-8") from None
    if _NOT_IN_SEGMENT.search(decoded) is not None:
        raise Denied(
            Reason.ROUTE_PATH_AMBIGUOUS, "a separator, dot segment, control character or double encoding"
        )
    return decoded


def parse_target(method: str, url: str) -> Target:
    """The one reading of a raw request URL (RFC 3986). Looks nothing up. Raises Denied."""
    return _parse_again(method, url) if len(url) <= LONGEST_KEPT else _parse(method, url)


def _parse(method: str, url: str) -> Target:
    if method not in METHODS:
        raise Denied(Reason.REQUEST_METHOD)
    if len(url) > MAX_URL:
        raise Denied(Reason.ROUTE_MALFORMED, f"longer than {MAX_URL} characters")
    origin = _ORIGIN.match(url)
    if origin is None or "#" in url:
        raise Denied(Reason.ROUTE_MALFORMED, "not an http address without a fragment")
    raw, mark, query = url[origin.end() :].partition("?")
    if _PATH.fullmatch(raw) is None:
        ambiguous = any(character in raw for character in ";\\\0")
        raise Denied(
            Reason.ROUTE_PATH_AMBIGUOUS if ambiguous else Reason.ROUTE_MALFORMED,
            "a character that RFC 3986 keeps out",
        )
    if _QUERY.fullmatch(query) is None:
        raise Denied(Reason.ROUTE_MALFORMED, "a character in the query that RFC 3986 keeps out")
    if raw.count("%") > escapes.MOST:
        raise Denied(Reason.ROUTE_MALFORMED, f"more than {escapes.MOST} percent-encoded octets")
    first, slash, rest = raw[1:].partition("/")
    parts = rest.split("/") if rest else []
    if parts and parts[-1] == "":
        parts.pop()  # "/v1/entries/" is "/v1/entries" to policy, and keeps its slash on the way out
    if len(parts) > MAX_SEGMENTS:
        raise Denied(Reason.ROUTE_MALFORMED, f"more than {MAX_SEGMENTS} segments")
    upstream = _segment(first) if first else ""  # no upstream has an empty name
    segments = tuple(_segment(part) for part in parts)
    path = slash + rest
    return Target(method, upstream, segments, escapes.normal(path) if "%" in path else path, mark + query)


_parse_again = functools.lru_cache(512)(
    _parse
)  # tasks call the same few addresses again and again; refusals are not kept


def origin(url: str) -> str:
    """Scheme and authority of a URL that `parse_target` has read."""
    found = _ORIGIN.match(url)
    return found[0] if found is not None else ""


def refuse_unsendable(inbound: Inbound) -> None:
    """A GET or HEAD with a body has no meaning (RFC 9110 §9.3.1), and the runtime could not send it on."""
    if inbound.has_body and inbound.method in ("GET", "HEAD"):
        raise Denied(Reason.REQUEST_BODY_NOT_ALLOWED)


def passes(name: str) -> bool:
    """Whether a caller's header goes to an upstream. Name in lower case."""
    if _NAME.fullmatch(name) is None:
        return False
    plain = name.replace("_", "-").replace(".", "-")
    return plain not in _KEPT_BACK and not plain.startswith(_KEPT_BACK_FAMILIES)


def _passing(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if passes(name))


_passing_again = functools.lru_cache(128)(_passing)  # clients send the same set of headers with every call


def outbound(inbound: Inbound, target: Target, upstream: Upstream) -> Outbound:
    """The call that goes to the upstream for an approved request."""
    names = tuple(inbound.headers)
    passing = _passing_again(names) if len(names) <= MOST_NAMES else _passing(names)
    headers = {name: inbound.headers[name] for name in passing}
    if (named := inbound.headers.get("connection")) is not None:
        for name in named.lower().split(","):
            headers.pop(name.strip(" \t"), None)
    return Outbound(target.method, upstream.base + target.path + target.query, headers, upstream.timeout)


def reserved(name: str) -> bool:
    """Whether only the gate may set this header of an answer. Name in lower case."""
    return name.replace("_", "-").replace(".", "-").startswith("airgate-")
