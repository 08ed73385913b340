"""External authorization: a proxy asks what the gate would decide, and forwards the request itself.

`/-/authz/<dialect>` answers 200 for a request that may pass, with headers that say who called, and refuses any other.
The proxy tells what its client sent, each kind of proxy in its own words. That is believed only beside a secret that
the gate shares with its proxies, so nothing of a check is looked at before. Then it is an ordinary request: one parser
reads its path, and policy sees what it would see of a call through the gate.
"""

import hmac
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import quote

import forward
from duty import JUSTIFICATION
from identity import SAID
from model import Caller, Denied, Inbound, Reason, Refusal, Target
from obligations import Obligations

SECRETS = "PROXY_SECRETS"  # the Worker's secret: one or two values, with white space between them
SHORTEST = 32  # characters of each
MOST = 2  # of them: the old one and the new one, while proxies change over
PROXY = "airgate-proxy"
CLIENT = "airgate-client"  # the client's address, where the proxy tells it
LONGEST = 2048  # characters of an answer's header: proxies have little room for all headers together

_CHECK = re.compile(r"https?://[^/?#]*/-/authz/([a-z]*)(.*)", re.DOTALL)
_HOST = re.compile(r"([a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_PORTS = {"http": 80, "https": 443}
# A check's own headers, and those that only a proxy may set: none of them is the client's.
_NOT_THE_CLIENTS = frozenset({PROXY, CLIENT, "content-length", "host"})
_NOT_THE_CLIENTS_FAMILIES = ("cf-", "x-envoy-", "x-forwarded-", "x-original-", "x-real-ip")
# What the gate has read is for nobody behind it: above all the token.
_SPENT = ("authorization", "dpop", "airgate-token", PROXY, CLIENT, JUSTIFICATION, *SAID)
_ASSERTION = "airgate-assertion"
# In a header as they are, beside letters, digits and "_.-~". Not "%", so that decoding gives back what was encoded, and
# no comma, which divides lists.
_PLAIN = "!#$&'()*+/:;=?@[]^`{|}"


class _Dialect(NamedTuple):
    """The headers in which a kind of proxy tells what its client asked for. None may be missing.

    A proxy that were not told to set one of them would pass on what its client has written there.
    """

    method: str | None  # None: a check has the method of the original request
    address: str | None  # path and query. None: they follow in the check's own address
    host: str
    scheme: str
    client: (
        str | None
    )  # the client's address. None: this kind of proxy cannot tell it in a way that could be believed


_DIALECTS = {
    "envoy": _Dialect(None, None, "x-original-host", "x-original-proto", CLIENT),
    "nginx": _Dialect("x-original-method", "x-original-uri", "x-original-host", "x-original-proto", CLIENT),
    "traefik": _Dialect(
        "x-forwarded-method", "x-forwarded-uri", "x-forwarded-host", "x-forwarded-proto", None
    ),
}


class Check(NamedTuple):
    """A request that a proxy asks about."""

    dialect: str
    inbound: Inbound  # as the client sent it to the proxy, as far as the proxy tells
    host: str  # in lower case, with the port where that isn't the scheme's usual one
    target: Target  # the upstream's name is empty: the bundle in force says whose host it is


def dialect(url: str) -> str | None:
    """The dialect of a check, by its raw URL; None for a request that is no check. It need not be a known one."""
    found = _CHECK.match(url) if "/-/authz/" in url else None
    return None if found is None else found[1]


def believe(headers: dict[str, str], secrets: str | None) -> None:
    """See that a check comes from a proxy. Raises Denied `proxy.unknown`.

    `secrets`: what the Worker's PROXY_SECRETS holds; None: there is none, so there are no proxies.
    """
    held = (secrets or "").split()
    if not 0 < len(held) <= MOST or min(map(len, held)) < SHORTEST:
        wrong = f"{SECRETS} is not one or two secrets of {SHORTEST} characters or more"
        raise Denied(Reason.PROXY_UNKNOWN, f"{SECRETS} is not set" if secrets is None else wrong)
    shown = _digest(headers.get(PROXY, ""))
    # Every one is compared, so that the time says nothing of which it was.
    if not any([hmac.compare_digest(_digest(secret), shown) for secret in held]):
        raise Denied(
            Reason.PROXY_UNKNOWN, "another secret" if PROXY in headers else "no secret in Airgate-Proxy"
        )


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def refuse_stray(headers: dict[str, str]) -> None:
    """Refuse what a proxy asks of any page but this one. Raises Denied `proxy.unknown`.

    A path that leads out of the check's (`/-/authz/envoy/../../-/health`), and that somebody on the way has resolved,
    must not find an answer of 200: a proxy would take it for a permit.
    """
    if PROXY in headers:
        raise Denied(Reason.PROXY_UNKNOWN, "a proxy's secret beside a request that is no check")


def read(inbound: Inbound) -> Check:
    """The original request of a check that comes from a proxy. Raises Denied `route.*` and `request.*`."""
    found = _CHECK.match(inbound.url)
    spoken = _DIALECTS.get(found[1]) if found is not None else None
    if found is None or spoken is None:
        raise Denied(Reason.ROUTE_MALFORMED, "no such dialect")
    headers, address, method = inbound.headers, found[2], inbound.method
    if spoken.address is not None:
        if address not in ("", "/"):
            raise Denied(Reason.ROUTE_MALFORMED, "more than the dialect in the address of a check")
        address = _told(headers, spoken.address)
    if not address.startswith("/"):
        raise Denied(Reason.ROUTE_MALFORMED, "the original path does not begin with a slash")
    if spoken.method is not None:
        method = _told(headers, spoken.method)
    scheme = _SCHEMES.get(_told(headers, spoken.scheme).lower())
    if scheme is None:
        raise Denied(Reason.ROUTE_MALFORMED, "the original scheme is none of HTTP's")
    host = _host(_told(headers, spoken.host), scheme)
    target = forward.parse_target(method, "https://gate/original" + address)
    client = "" if spoken.client is None else _told(headers, spoken.client)
    original = Inbound(
        inbound.request_id,
        inbound.received_at,
        method,
        f"{scheme}://{host}{address}",
        _clients(headers, client),
        False,  # a check has none, whatever the original has
    )
    return Check(found[1], original, host, target._replace(upstream=""))


def _told(headers: dict[str, str], name: str) -> str:
    value = headers.get(name)
    if value is None:
        raise Denied(Reason.ROUTE_MALFORMED, f"the proxy does not set {name}")
    return value


def _host(text: str, scheme: str) -> str:
    """A host in the one spelling that upstreams declare it in."""
    parts = _HOST.fullmatch(text.lower())
    if parts is None:
        raise Denied(Reason.ROUTE_MALFORMED, "the original host is none, or more than one")
    name, port = parts.groups()
    if port is None or int(port) == _PORTS[scheme]:
        return name
    return f"{name}:{int(port)}"


def _clients(headers: dict[str, str], address: str) -> dict[str, str]:
    """The headers that the client sent, and its address in the place where the gate looks for it."""
    kept = {
        name: value
        for name, value in headers.items()
        if name not in _NOT_THE_CLIENTS and not name.startswith(_NOT_THE_CLIENTS_FAMILIES)
    }
    # Where it is not known it is left out: the address that a check comes from is the proxy's, and stands for nobody.
    with suppress(ValueError):
        kept["cf-connecting-ip"] = str(ip_address(address))
    return kept


def refuse_unenforceable(asked: Obligations) -> None:
    """Refuse what only a gate that forwards can do. Raises Denied `policy.obligation`."""
    for name, there in (
        ("credential", asked.credential is not None),
        ("max_body", asked.max_body is not None),
    ):
        if there:
            raise Denied(
                Reason.POLICY_OBLIGATION,
                f"{name}: cannot be honoured in a check",
                f"policy asks for {name}, which only the gate itself can do: call it through the gate",
            )


def permitted(check: Check, caller: Caller, said: dict[str, str], assertion: str | None) -> Refusal:
    """The answer for a request that may pass: 200, nothing in it, and the headers for the upstream.

    `said`: what the gate says with every decision. `assertion`: the signed one, where the upstream wants it. Raises
    Denied `policy.obligation` for a caller whose name or roles have no room in a header: a part would be another's.
    """
    identity = caller.identity
    headers = {
        "cache-control": "no-store",
        **said,
        "airgate-issuer": identity.issuer,
        "airgate-subject": _fitting("subject", [identity.subject], ""),
        "airgate-roles": _fitting("roles", sorted(caller.effective), "name fewer in Airgate-Role"),
    }
    spent = _SPENT
    if assertion is None:
        spent = (*spent, _ASSERTION)
    else:
        headers[_ASSERTION] = assertion
    if check.dialect == "envoy":
        headers["x-envoy-auth-headers-to-remove"] = ",".join(spent)
    return Refusal(200, headers, "")


def _fitting(name: str, values: Iterable[str], hint: str) -> str:
    text = ",".join([quote(value, _PLAIN, errors="surrogatepass") for value in values])
    if len(text) > LONGEST:
        raise Denied(Reason.POLICY_OBLIGATION, f"{name}: longer than {LONGEST} characters in a header", hint)
    return text


def refused(spoken: str, refusal: Refusal) -> Refusal:
    """A refusal as the proxy needs it that asked in this dialect.

    nginx passes 401 and 403 on, and makes 500 of any other. So what stays refused is 403 there, and what may pass later
    503, of which nginx can be told to make that again. The true status stands beside, in a header.
    """
    if spoken != "nginx":
        return refusal
    status = refusal.status
    later = status == 429 or status >= 500
    headers = {
        **refusal.headers,
        "airgate-status": str(status),
        "airgate-reason": str(json.loads(refusal.body)["code"]),
    }
    return Refusal(503 if later else 401 if status == 401 else 403, headers, refusal.body)
