"""Decisions, questions and outcomes as API Activity (6003)."""

import re
from collections.abc import Iterable
from ipaddress import ip_address

from airgate.audit.fields import Event, clean, fact, members, moment, text, texts, whole
from airgate.audit.ocsf.envelope import (
    FAILURE,
    HEAD,
    INFORMATIONAL,
    LOW,
    MEDIUM,
    OTHER,
    STATUSES,
    SUCCESS,
    UNKNOWN,
    Mapped,
    base,
    rest,
)
from airgate.engine import ANSWERS

_METHODS = {"GET": 2, "HEAD": 2, "POST": 1, "PUT": 3, "PATCH": 3, "DELETE": 4, "OPTIONS": OTHER}
_KINDS = {"human": (1, "User"), "workload": (4, "Service"), "agent": (OTHER, "AI agent")}
# Somebody shows what isn't theirs, or the gate itself is at fault: worth more attention than a plain no.
_WORSE = {
    "token.signature",
    "token.proof_replayed",
    "token.revoked",
    "policy.revoked",
    "proxy.unknown",
    "internal",
}
_STATUS_BY_REASON = {str(reason): answer.status for reason, answer in ANSWERS.items()}
_ALLOWED, _BLOCKED, _REJECTED, _UNAUTHORIZED, _ERROR = (
    (1, "Allowed"), (2, "Blocked"), (25, "Rejected"), (26, "Unauthorized"), (27, "Error")
)  # fmt: skip

_REQUEST = HEAD | {
    "request_id", "trace_id", "decision", "reason", "detail", "method", "upstream", "route", "permits", "forbids",
    "shadow", "bundle", "sequence", "client", "issuer", "subject", "kind", "actor", "token_id", "workload", "country",
    "path", "request_bytes", "worker",
}  # fmt: skip
_OUTCOME = HEAD | {
    "request_id",
    "trace_id",
    "upstream",
    "result",
    "detail",
    "status",
    "upstream_ms",
    "response_bytes",
}
_IP = re.compile(r"[0-9A-Fa-f.:]{2,40}")


def decision(event: Event, outcome: Event | None) -> Mapped:
    permit = event.get("decision") == "permit"
    reason = text(event, "reason", 64)
    found = _request(event, permit, reason)
    status, code, detail = FAILURE, reason, text(event, "detail")
    if permit:
        status, code = _result(outcome) if outcome is not None else (UNKNOWN, None)
        if event.get("page") is not None:
            status = SUCCESS
        if outcome is not None:
            detail = text(outcome, "detail") or detail
            _add_outcome(found, outcome)
    found |= {"status_id": status, "status": STATUSES[status]}
    found |= {
        name: value for name, value in (("status_code", code), ("status_detail", detail)) if value is not None
    }
    response: Mapped = {
        name: value for name, value in (("error", reason), ("error_message", detail)) if value
    }
    if outcome is not None:
        response |= {"message": text(outcome, "result", 64) or "?"}
        if (answered := whole(outcome, "status")) is not None:
            response["code"] = answered
    elif reason in _STATUS_BY_REASON:
        response["code"] = _STATUS_BY_REASON[reason]
    if response:
        found["api"]["response"] = response
    return found


def _result(outcome: Event) -> tuple[int, str | None]:
    status = whole(outcome, "status")
    if outcome.get("result") != "answered" or status is None:
        return FAILURE, text(outcome, "result", 64)
    return (SUCCESS if status < 400 else FAILURE), str(status)


def _add_outcome(found: Mapped, outcome: Event) -> None:
    if (status := whole(outcome, "status")) is not None:
        response = {"code": status}
        if (size := whole(outcome, "response_bytes")) is not None:
            response["body_length"] = size
        if (taken := whole(outcome, "upstream_ms")) is not None:
            response["latency"] = taken
        found["http_response"] = response
    ended = moment(outcome)
    if ended is not None:
        found["end_time"] = round(ended * 1000)
        found["duration"] = max(0, found["end_time"] - found["time"])
        found["start_time"] = found["time"]
    if more := rest(outcome, _OUTCOME):
        found.setdefault("unmapped", {})["outcome"] = more


def evaluation(event: Event) -> Mapped:
    """A question about a call, or about an action on a resource: nothing was called."""
    permit, reason = event.get("decision") == "permit", text(event, "reason", 64)
    found = _request(event, permit, reason)
    found["api"]["operation"] = "evaluate " + found["api"]["operation"]
    found.pop("http_request", None)
    found |= {
        "activity_id": 2,
        "activity_name": "Read",
        "type_uid": 600302,
        "type_name": "API Activity: Read",
    }
    found |= {"status_id": SUCCESS, "status": "Success"}
    if reason is not None:
        found["status_code"] = reason
    return found


def _request(event: Event, permit: bool, reason: str | None) -> Mapped:
    method, upstream, route = text(event, "method", 64), text(event, "upstream", 128), text(event, "route")
    page = text(event, "page", 64)
    subject = text(event, "subject")
    action, disposition = _control(permit, reason)
    what = (
        " ".join(filter(None, (method, upstream, route or (f"page {page}" if page else None)))) or "a request"
    )
    by = texts(event, "forbids") or texts(event, "permits")
    message = (
        f"{subject or 'Somebody unknown'}: {what} was {'permitted' if permit else 'denied'}"
        + (f", {reason}" if reason else "")
        + (f", by {', '.join(by[:5])}" if by else "")
    )
    severity = INFORMATIONAL if permit else MEDIUM if reason in _WORSE else LOW
    client, ip = text(event, "client", 64), _address(text(event, "client", 64))
    source: Mapped = {"name": client or "not recorded"} if ip is None else {"ip": ip}
    if (country := text(event, "country", 8)) is not None:
        source["location"] = {"country": country}
    found = base(
        event,
        6003,
        _METHODS.get(method or "", UNKNOWN if method is None else OTHER),
        message,
        severity=severity,
        status=UNKNOWN,
        action_id=1 if permit else 2,
        action=action,
        disposition_id=disposition[0],
        disposition=disposition[1],
        actor=_actor(event),
        api={
            "operation": " ".join(filter(None, (method, route))) or (f"page {page}" if page else "unknown"),
            "request": {"uid": text(event, "request_id", 64) or "unknown"},
            **({} if upstream is None else {"service": {"name": upstream}}),
        },
        src_endpoint=source,
        dst_endpoint=None if upstream is None else {"svc_name": upstream},
        http_request=_http_request(event, method),
        resources=None if route is None or upstream is None else [_resource(upstream, route)],
        policy=_policy(event),
        authorizations=_authorizations(event),
        enrichments=_enrichments(event),
        observables=_observables(event, ip),
        unmapped=rest(event, _REQUEST),
    )
    if (trace := text(event, "trace_id", 64)) is not None:
        found["trace"] = {"uid": trace}
        found["metadata"]["profiles"].append("trace")
    return found


def _control(permit: bool, reason: str | None) -> tuple[str, tuple[int, str]]:
    if permit:
        return "Allowed", _ALLOWED
    status = _STATUS_BY_REASON.get(reason or "", 403)
    if status == 401:
        return "Denied", _UNAUTHORIZED
    if status == 403:
        return "Denied", _BLOCKED
    return "Denied", _ERROR if status >= 500 else _REJECTED


def _actor(event: Event) -> Mapped:
    subject = text(event, "subject")
    if subject is None:
        return {"user": {"name": "unknown", "type_id": UNKNOWN, "type": "Unknown"}}
    kind = text(event, "kind", 64)
    type_id, type_name = _KINDS.get(kind or "", (UNKNOWN, "Unknown"))
    user: Mapped = {"uid": subject, "name": subject, "type_id": type_id, "type": type_name}
    issuer = text(event, "issuer")
    if issuer is not None:
        user["domain"] = issuer
    held = texts(members(event, "roles"), "effective") or texts(event, "roles")
    if held:
        user["groups"] = [{"name": role, "type": "role"} for role in held]
    token = text(event, "token_id")
    if token is not None:
        user["credential_uid"] = token
    found: Mapped = {"user": user}
    if issuer is not None:
        found["idp"] = {"name": issuer}
    if (acts := text(event, "actor")) is not None:
        found["invoked_by"] = acts
    return found


def _address(client: str | None) -> str | None:
    """An address as the schema takes it."""
    if client is None or _IP.fullmatch(client) is None:
        return None
    try:
        return str(ip_address(client))
    except ValueError:
        return None


def _http_request(event: Event, method: str | None) -> Mapped | None:
    found: Mapped = {}
    if method in _METHODS:
        found["http_method"] = method
    if (request := text(event, "request_id", 64)) is not None:
        found["uid"] = request
    if (path := text(event, "path", 1024)) is not None:
        found["url"] = {"path": path}
    if (size := whole(event, "request_bytes")) is not None:
        found["body_length"] = size
    return found or None


def _resource(upstream: str, route: str) -> Mapped:
    return {"name": route, "type": "path pattern", "namespace": upstream, "role_id": 1, "role": "Target"}


def _policy(event: Event) -> Mapped | None:
    bundle, sequence = text(event, "bundle"), whole(event, "sequence")
    if bundle is None:
        return None
    return {"name": "policy bundle", "uid": bundle} | ({} if sequence is None else {"version": str(sequence)})


def _authorizations(event: Event) -> list[Mapped]:
    """One for each policy that matched; those in shadow aren't applied."""
    would = text(event, "would", 64)
    found = (
        (("permits", "permit", True), ("forbids", "deny", True), ("shadow", f"would: {would or '?'}", False))
    )  # fmt: skip
    return [
        {"decision": decision, "policy": {"uid": policy, "name": policy, "is_applied": applied}}
        for name, decision, applied in found
        for policy in texts(event, name)
    ]


def _enrichments(event: Event) -> list[Mapped]:
    found = []
    workload = members(event, "workload")
    for name in list(workload)[:20]:
        one = fact(event, name)
        values = texts(members(workload, name), "value")
        if one is None and not values:
            continue
        attested = members(workload, name).get("attested") is True
        found.append(
            {
                "name": f"workload.{clean(str(name))}",
                "value": one[0] if one is not None else ", ".join(values),
                "data": {"value": list(values) if one is None else one[0], "attested": attested},
                "provider": "token" if attested else "header",
                "type": "Airflow",
            }
        )
    return found


def _observables(event: Event, ip: str | None) -> list[Mapped]:
    subject, issuer = text(event, "subject"), text(event, "issuer")
    rows: Iterable[tuple[str, int, str, str | None]] = (
        ("src_endpoint.ip", 2, "IP Address", ip),
        ("actor.user.uid", 31, "User Object: uid", subject),
        ("actor.user.name", 4, "User Name", subject),
        ("actor.user.credential_uid", 19, "User Credential ID", text(event, "token_id") if subject else None),
        ("actor.idp.name", OTHER, "Issuer", issuer if subject else None),
        ("src_endpoint.location.country", 14, "Country", text(event, "country", 8)),
    )
    return [
        {"name": name, "type_id": number, "type": kind, "value": value}
        for name, number, kind, value in rows
        if value
    ]


def stray(event: Event) -> Mapped:
    """An outcome whose decision isn't at hand, or one that says that the answer was lost."""
    status, code = _result(event)
    upstream, result, detail = (
        text(event, "upstream", 128),
        text(event, "result", 64) or "?",
        text(event, "detail"),
    )
    response: Mapped = {"message": result} | ({"error_message": detail} if detail else {})
    if (answered := whole(event, "status")) is not None:
        response["code"] = answered
    found = base(
        event,
        6003,
        UNKNOWN,
        f"How a call to {upstream or 'an upstream'} ended: {result}",
        severity=LOW if status == FAILURE else INFORMATIONAL,
        status=status,
        status_code=code,
        status_detail=detail,
        actor={"user": {"name": "unknown", "type_id": UNKNOWN, "type": "Unknown"}},
        api={
            "operation": "unknown",
            "request": {"uid": text(event, "request_id", 64) or "unknown"},
            "response": response,
            **({} if upstream is None else {"service": {"name": upstream}}),
        },
        src_endpoint={"name": "not recorded"},
        dst_endpoint=None if upstream is None else {"svc_name": upstream},
    )
    _add_outcome(found, event)
    for name in ("start_time", "end_time", "duration"):
        found.pop(name, None)
    if "unmapped" in found:
        found["unmapped"] = found["unmapped"].pop("outcome")
    if (trace := text(event, "trace_id", 64)) is not None:
        found["trace"] = {"uid": trace}
        found["metadata"]["profiles"].append("trace")
    return found
