"""One canonical target out of a raw URL, and the call to the upstream.

A path that policy and an upstream could read differently is refused instead of repaired: dot segments in any
encoding, encoded separators, empty segments, path parameters, doubly encoded octets, control characters. What is left
has one reading, and the same `Target` is authorised and forwarded.
"""

import functools
import re
from urllib.parse import unquote_to_bytes

import escapes
import forwarded
import headers
import traceparent
from model import EMPTY_SEGMENT, ENCODED_SLASH, Denied, Inbound, Outbound, Reason, Target
from policy import METHODS
from traceparent import Trace
from upstream import Upstream

MAX_URL = 8192  # characters
LONGEST_KEPT = 1024  # characters of an address whose reading is remembered
MAX_SEGMENTS = 64

_ORIGIN = re.compile(r"https?://[^/?#]*")
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9\-._~!$&'()*+,=:@]|%[0-9A-Fa-f]{2})*)*")  # RFC 3986 §3.3, less ";"
# Printable, without space, quote, "#", "<", ">". No character fits both halves: nothing to try a second way.
_QUERY = re.compile(r"(?:[!$&-;=?-~]|%[0-9A-Fa-f]{2})*")
_NOT_IN_SEGMENT = re.compile(r"[\\;\x00-\x1f\x7f-\x9f]|%[0-9A-Fa-f]{2}|\A[. ]+\Z")
_DOTS_BETWEEN = re.compile(r"(?:\A|/)[. ]*(?:/|\Z)")  # nothing, or dots only, between slashes that are data


def _segment(raw: str) -> str:
    if "%" not in raw:
        decoded = raw
    else:
        try:
            decoded = unquote_to_bytes(raw).decode("utf-8")  # strict: overlong forms and surrogates fail
        except UnicodeDecodeError:
            raise Denied(Reason.ROUTE_PATH_AMBIGUOUS, "not UTF-8") from None
    # A server that reads encoded slashes as slashes after all must not find its way up, or to a shorter path.
    if _NOT_IN_SEGMENT.search(decoded) is not None or ("/" in decoded and _DOTS_BETWEEN.search(decoded)):
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
    if "/" in upstream:
        raise Denied(Reason.ROUTE_PATH_AMBIGUOUS, "an upstream with a slash in its name")
    segments = tuple(_segment(part) for part in parts)
    path = slash + rest
    odd = (ENCODED_SLASH if any(["/" in segment for segment in segments]) else 0) | (
        EMPTY_SEGMENT if "" in segments else 0
    )
    return Target(
        method, upstream, segments, escapes.normal(path) if "%" in path else path, mark + query, odd=odd
    )


_parse_again = functools.lru_cache(512)(
    _parse
)  # tasks call the same few addresses again and again; refusals are not kept


def fits(target: Target, upstream: Upstream | None) -> None:
    """Refuse what only some upstreams may be sent: an encoded slash, an empty segment. Raises Denied."""
    if target.odd & ENCODED_SLASH and not (upstream is not None and upstream.encoded_slash):
        raise Denied(Reason.ROUTE_PATH_AMBIGUOUS, "an encoded slash")
    if target.odd & EMPTY_SEGMENT and not (upstream is not None and upstream.empty_segments):
        raise Denied(Reason.ROUTE_PATH_AMBIGUOUS, "an empty segment")


def origin(url: str) -> str:
    """Scheme and authority of a URL that `parse_target` has read."""
    found = _ORIGIN.match(url)
    return found[0] if found is not None else ""


def refuse_unsendable(inbound: Inbound) -> None:
    """What has no meaning (a GET with a body, RFC 9110 §9.3.1), or what the gate could not pass on. Raises Denied."""
    if inbound.has_body and inbound.method in ("GET", "HEAD"):
        raise Denied(Reason.REQUEST_BODY_NOT_ALLOWED)
    if (
        inbound.headers.get("upgrade", "h2c").strip(" \t").lower() != "h2c"
    ):  # which is only an offer: RFC 9110 §7.8
        raise Denied(Reason.REQUEST_UPGRADE)
    if inbound.headers.get("content-type", "").lower().startswith("application/grpc"):
        raise Denied(Reason.REQUEST_GRPC)


def outbound(inbound: Inbound, target: Target, upstream: Upstream, trace: Trace) -> Outbound:
    """The call that goes to the upstream for an approved request, less what the gate shows of itself."""
    sent = headers.passing(inbound.headers, upstream.rule)
    if upstream.set_headers:
        sent.update(upstream.set_headers)
    sent.update(traceparent.written(trace, inbound.request_id))
    if upstream.forwarded:
        sent.update(
            forwarded.told(inbound.headers.get("cf-connecting-ip"), origin(inbound.url), target.upstream)
        )
    return Outbound(
        target.method,
        upstream.base + target.path + target.query,
        sent,
        upstream.timeout,
        upstream.total_timeout,
        upstream.via,
    )
