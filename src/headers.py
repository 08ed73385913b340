"""Which headers of a caller go to an upstream, and which of an upstream's answer go to the caller.

The outbound set is built from a rule, never by deleting from the inbound set.
"""

import functools
import re
from typing import NamedTuple

LONGEST_KEPT = 2048  # characters of a set of names that is remembered

# Names are compared with "_" and "." read as "-": some servers make no difference between them.
_HOP_BY_HOP = frozenset(
    {
        # RFC 9110 §7.6.1: for this connection only; the runtime sets its own.
        "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        "content-length", "expect", "host", "http2-settings",
    }
)  # fmt: skip
_KEPT_BACK = _HOP_BY_HOP | frozenset(
    {
        # The caller's credential for this gate.
        "authorization", "dpop",
        # Only a proxy may say these, and a caller is none.
        "forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "fastly-client-ip",
        "client-ip", "wl-proxy-client-ip", "x-host", "x-scheme", "x-http-method", "x-http-method-override",
        "x-method-override", "x-azure-clientip", "x-jwt-assertion", "x-originating-ip", "x-serverless-authorization",
        "x-url-scheme", "x-userinfo",
        # RFC 9440: the client certificate that a proxy has seen.
        "client-cert", "client-cert-chain",
        # Set by traceparent.py.
        "traceparent", "tracestate",
    }
)  # fmt: skip
_KEPT_BACK_FAMILIES = (
    "airgate-", "cf-", "impersonate-", "oidc-claim-", "proxy-", "remote-", "ssl-client-", "tailscale-",
    "x-airgate-", "x-amzn-mtls-", "x-amzn-oidc-", "x-apigateway-api-", "x-appengine-", "x-arr-",
    "x-auth-request-", "x-authenticated-", "x-client-cert", "x-consumer-", "x-endpoint-api-", "x-envoy-",
    "x-forwarded", "x-goog-authenticated-user-", "x-goog-iap-", "x-middleware-", "x-ms-client-principal",
    "x-ms-token-", "x-original-", "x-pomerium-", "x-remote-", "x-rewrite-", "x-ssl-", "x-webauth-",
)  # fmt: skip
# What the gate says of itself and of its caller: no setting may say it instead.
_OWN = frozenset({"forwarded", "via", "traceparent", "tracestate"})
_OWN_FAMILIES = ("airgate-", "x-airgate-", "x-forwarded", "proxy-")
# Of an answer: the gate's own, and what browsers ask about (cors.py).
_GATES_FAMILIES = ("airgate-", "access-control-")
# These hold for everything at the gate's address, so no single upstream may say them.
_ORIGIN_WIDE = frozenset(
    {
        "alt-svc", "clear-site-data", "nel", "origin-agent-cluster", "public-key-pins", "refresh", "report-to",
        "reporting-endpoints", "service-worker-allowed", "set-cookie2", "strict-transport-security",
    }
)  # fmt: skip
_PLACES = frozenset({"location", "content-location", "set-cookie"})
_NAME = re.compile(r"[a-z0-9!#$%&'*+\-.^_`|~]+")
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class Rule(NamedTuple):
    """Which headers of its callers an upstream gets, beside the rules that hold for all."""

    only: tuple[str, ...] | None = None  # names in lower case; one may end with *. None: all that may pass
    taken: frozenset[str] = frozenset()  # those that the gate sets itself, with "-" for "_" and "."
    # Beginnings of names that pass only where `only` has the whole name, with "-" for "_" and ".".
    named_only: tuple[str, ...] = ()


def plain(name: str) -> str:
    """A header's name as servers that make no difference between "-", "_" and "." read it."""
    return name.replace("_", "-").replace(".", "-")


def valid(name: str) -> bool:
    """Whether it is a header's name (RFC 9110 §5.1) in lower case."""
    return _NAME.fullmatch(name) is not None


def sendable(value: str) -> bool:
    """Whether a header may have this value: printable ASCII, without white space around it."""
    return _VALUE.fullmatch(value) is not None


def settable(name: str) -> bool:
    """Whether an upstream's settings may set this header. Name in lower case."""
    usual = plain(name)
    return (
        valid(name) and usual not in _HOP_BY_HOP and usual not in _OWN and not usual.startswith(_OWN_FAMILIES)
    )


def passes(name: str, rule: Rule) -> bool:
    """Whether a caller's header goes to an upstream. Name in lower case."""
    if not valid(name):
        return False
    usual = plain(name)
    if usual in _KEPT_BACK or usual.startswith(_KEPT_BACK_FAMILIES) or usual in rule.taken:
        return False
    if usual.startswith(rule.named_only):
        return rule.only is not None and name in rule.only
    if rule.only is None:
        return True
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in rule.only)


def _passing(names: tuple[str, ...], rule: Rule) -> tuple[str, ...]:
    return tuple(name for name in names if passes(name, rule))


_passing_again = functools.lru_cache(128)(_passing)  # clients send the same set of headers with every call


def _short(names: tuple[str, ...]) -> bool:
    return sum(map(len, names)) <= LONGEST_KEPT


def passing(headers: dict[str, str], rule: Rule) -> dict[str, str]:
    """Those of a caller's headers that go to an upstream. Names in lower case."""
    names = tuple(headers)
    kept = _passing_again(names, rule) if _short(names) else _passing(names, rule)
    sent = {name: headers[name] for name in kept}
    if (named := headers.get("connection")) is not None:
        for name in named.lower().split(","):
            sent.pop(name.strip(" \t"), None)
    return sent


def reserved(name: str) -> bool:
    """Whether only the gate may set this header of an answer: for all that stands behind it. Name in lower case."""
    usual = plain(name)
    return usual in _ORIGIN_WIDE or usual.startswith(_GATES_FAMILIES)


def concerning(names: str) -> tuple[str, ...]:
    """Those of an answer's headers that concern the gate: reserved ones, and those that name places at its address.

    `names`: all of them, in lower case, with commas between.
    """
    return _concerning_again(names) if len(names) <= LONGEST_KEPT else _concerning(names)


def _concerning(names: str) -> tuple[str, ...]:
    found = [name for name in names.split(",") if name in _PLACES or reserved(name)]
    return tuple(dict.fromkeys(found))


_concerning_again = functools.lru_cache(128)(_concerning)  # and servers answer with the same set
