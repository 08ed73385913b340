"""The spans of one request: the gate's own, and its call to the upstream. What each attribute means: docs/telemetry.md.

They say what the audit line says, names by OpenTelemetry's conventions for HTTP where these have one. Tokens, secrets,
bodies and queries are never in them, a path only where its upstream opted in, and subjects read as they do in the log.
"""

import functools
import json
import re
from typing import NamedTuple

import metrics
from model import Decision
from otlp import CLIENT, SERVER, attributes, joined, span
from policy import METHODS
from traceparent import SAMPLED, Trace, client_span, server_span

OTHER_METHOD = "_OTHER"  # as OpenTelemetry has it for a method that HTTP does not
LONGEST = 1024  # characters of an address

_ORIGIN = re.compile(
    r"(https?)://([^/?#@\[\]:]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?([^?#]*)", re.IGNORECASE
)


class Call(NamedTuple):
    """The call to the upstream."""

    base: str  # the upstream's address
    path: str  # what follows it; empty where paths are not told
    start: float  # seconds since the epoch
    result: str  # answered, or why not
    status: int  # of its answer; 0: there is none
    tries: int  # one at least


class Served(NamedTuple):
    """An answered request, as its spans will tell it."""

    trace: Trace
    request_id: str
    start: float  # seconds since the epoch
    end: float
    method: str
    origin: str  # of the address that it came to
    upstream: str | None  # one of those in force
    path: str  # at the upstream; empty where paths are not told
    page: str  # which of the gate's own it is for; empty for an upstream
    status: int  # of the answer
    reason: str  # why it was refused; empty for a permit
    failure: str  # why the gate itself could not do what was permitted; empty where it could
    ruling: Decision | None
    bundle: str | None
    sequence: int | None
    described: str  # the audit line's part about the caller
    call: Call | None


def told(served: Served) -> list[str]:
    """The spans, in OTLP's words."""
    trace, call, ruling, request_id = served.trace, served.call, served.ruling, served.request_id
    flags = trace.flags & 0xFF | SAMPLED
    method = served.method if served.method in METHODS else OTHER_METHOD
    prefix = "" if served.page else f"/{served.upstream}"  # a proxy's client has the upstream's own paths
    route = prefix + ruling.route if ruling is not None and ruling.route is not None else None
    own = {
        "airgate.request_id": request_id,
        "url.path": f"{prefix}{served.path}"[:LONGEST] if served.path else None,
    }
    usual = _usual(
        method,
        served.status,
        route,
        served.origin,
        served.reason,
        served.failure,
        served.upstream,
        served.page,
        served.bundle,
        served.sequence,
        *((ruling.permits, ruling.forbids, ruling.shadow) if ruling is not None else ((), (), ())),
    )
    made = [
        span(
            trace.trace_id,
            server_span(request_id),
            trace.parent,
            f"{method} {route or served.page}".strip(),
            SERVER,
            served.start,
            served.end,
            joined(attributes(own), usual, _caller(served.described)),
            flags=flags,
            state=trace.state,
            failed=served.status >= 500,
        )
    ]
    if call is not None:
        made.append(_called(served, call, method, flags))
    return made


@functools.lru_cache(256)
def _usual(
    method: str,
    status: int,
    route: str | None,
    origin: str,
    reason: str,
    failure: str,
    upstream: str | None,
    page: str,
    bundle: str | None,
    sequence: int | None,
    permits: tuple[str, ...],
    forbids: tuple[str, ...],
    shadow: tuple[str, ...],
) -> str:
    """What many requests have in common, as attributes."""
    scheme, host, port, _ = _address(origin)
    return attributes(
        {
            "http.request.method": method,
            "http.response.status_code": status,
            "http.route": route,
            "url.scheme": scheme,
            "server.address": host,
            "server.port": port,
            "error.type": (failure or reason or str(status)) if status >= 500 else None,
            "airgate.decision": "deny" if reason else "permit",
            "airgate.reason": reason,
            "airgate.failure": failure,
            "airgate.upstream": upstream,
            "airgate.page": page,
            "airgate.permits": permits,
            "airgate.forbids": forbids,
            "airgate.shadow": shadow,
            "airgate.bundle": bundle,
            "airgate.sequence": sequence,
        }
    )


def _called(served: Served, call: Call, method: str, flags: int) -> str:
    request_id, ruling = served.request_id, served.ruling
    error = metrics.error(call.result, call.status)
    own = {
        "airgate.request_id": request_id,
        "url.full": f"{call.base}{call.path}"[:LONGEST] if call.path else None,
    }
    template, usual = _usual_call(
        method,
        call.status,
        ruling.route if ruling is not None else None,
        call.base,
        call.result,
        call.tries,
        served.upstream,
    )
    return span(
        served.trace.trace_id,
        client_span(request_id),
        server_span(request_id),
        f"{method} {template}".strip(),
        CLIENT,
        call.start,
        served.end,
        joined(attributes(own), usual),
        flags=flags,
        state=served.trace.state,
        failed=error is not None,
    )


@functools.lru_cache(256)
def _usual_call(
    method: str, status: int, route: str | None, base: str, result: str, tries: int, upstream: str | None
) -> tuple[str, str]:
    """The path's template, and what many calls have in common, as attributes."""
    scheme, host, port, _ = _address(base)
    template = route or ""  # less the base's own path: some hold a secret
    told = {
        "http.request.method": method,
        "http.response.status_code": status or None,
        "http.request.resend_count": tries - 1 or None,
        "url.scheme": scheme,
        "url.template": template,
        "server.address": host,
        "server.port": port,
        "error.type": metrics.error(result, status),
        "airgate.upstream": upstream,
        "airgate.result": result,
    }
    return template, attributes(told)


def _address(url: str) -> tuple[str | None, str | None, int | None, str]:
    """Scheme, host, port and path of an address."""
    found = _ORIGIN.match(url)
    if found is None:
        return None, None, None, ""
    scheme = found[1].lower()
    port = int(found[3]) if found[3] else 443 if scheme == "https" else 80
    return scheme, found[2].lower(), port, found[4]


@functools.lru_cache(256)
def _caller(described: str) -> str:
    """Who called, for which task: out of the audit line's own words, with its pseudonyms if it has any."""
    if not described:
        return ""
    said = json.loads(f"{{{described[1:]}}}")
    workload = said["workload"]
    told = {
        "airgate.issuer": said["issuer"],
        "airgate.subject": said["subject"],
        "airgate.actor": said.get("actor"),
        "airgate.kind": said["kind"],
        "airgate.roles": said["roles"]["effective"],
    }
    for name in ("dag", "task", "run", "try", "map_index"):
        if name in workload:
            told[f"airgate.{name}"] = workload[name]["value"]
    told["airgate.attested"] = [name for name, fact in workload.items() if fact["attested"]]
    return attributes(told)
