"""One request, end to end: the pipeline that every call goes through, in this order."""

import json
from collections.abc import Coroutine
from typing import Any, Protocol

import audit
import forward
import tokens
from bundle import OWN, Bundle
from identity import identify
from keys import Key
from model import ANSWERS, Caller, Denied, Inbound, Outbound, Reason, Refusal, Relay, Target, UpstreamAnswer
from state import Seen, State


class Ports(Protocol):
    """What the pipeline needs of the outside world. `worker.py` has the real ones."""

    def now(self) -> float: ...
    def log(self, line: str) -> None: ...
    def defer(self, work: Coroutine[Any, Any, Any]) -> None: ...
    async def kv(self, key: str, timeout: float) -> str | None: ...
    async def fetch(self, url: str, timeout: float, limit: int) -> bytes: ...
    async def verify(self, key: Key, algorithm: str, signature: bytes, signed: bytes) -> bool: ...
    async def send(self, call: Outbound) -> UpstreamAnswer:
        """Raises Denied `upstream.unreachable` or `upstream.timeout`."""


# After these an upstream may have acted, though nobody heard of it.
_MAY_HAVE_ACTED = frozenset({Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_TIMEOUT})


async def handle(inbound: Inbound, state: State, ports: Ports) -> Refusal | Relay:
    """Answer one request. Exactly one decision line is logged, before anything is forwarded. Never raises."""
    record = audit.Record(inbound)
    denied: Denied | None = None
    try:
        forward.refuse_unsendable(inbound)
        target = record.target = forward.parse_target(inbound.method, inbound.url)
        if target.upstream == OWN and target.segments == ("health",) and target.method in ("GET", "HEAD"):
            return await _health(record, target, state, ports)
        bundle = state.bundle
        if bundle is None or not state.fresh(inbound.received_at):
            bundle = await state.current(ports)
        record.bundle, record.sequence = bundle.version, state.sequence
        caller = await _authenticate(record, bundle, state, ports)
        if state.bundle is not None and state.bundle is not bundle:
            # Another policy came into force while this request waited for keys: it decides, roles included.
            bundle = state.bundle
            record.bundle, record.sequence = bundle.version, state.sequence
            caller = await _authenticate(record, bundle, state, ports)
        upstream = bundle.upstreams.get(target.upstream)
        if upstream is None:
            raise Denied(Reason.ROUTE_UNKNOWN_UPSTREAM)
        record.log_path = upstream.log_path
        decision = record.decision = bundle.decide(caller, target)
        if decision.reason is not None:
            raise Denied(decision.reason)
        call = forward.outbound(inbound, target, upstream)
    except Denied as refused:
        denied = refused
    except Exception as error:  # a mistake of ours must refuse, and be on record like any refusal
        denied = Denied(Reason.INTERNAL, _where(error))

    ports.log(record.decided(denied))
    if denied is not None:
        return _refusal(denied.reason, record)

    sent_at = ports.now()
    try:
        answer = await ports.send(call)
    except Exception as error:
        failed = error if isinstance(error, Denied) else Denied(Reason.INTERNAL, _where(error))
        reason, result = failed.reason, failed.reason.rpartition(".")[2]
        ports.log(record.ended(ports.now(), result, None, sent_at, failed.detail))
        return _refusal(reason, record)
    ports.log(record.ended(ports.now(), "answered", answer.status, sent_at))
    return Relay(answer, _headers(record))


async def _authenticate(record: audit.Record, bundle: Bundle, state: State, ports: Ports) -> Caller:
    """Who is calling, and as what. A token that was verified before is not verified again while its key stands."""
    headers, now = record.inbound.headers, record.inbound.received_at
    token = tokens.bearer(headers)
    seen = state.recall(token, now)
    if seen is None:
        seen = await _verify(token, bundle, state, ports, now)
        state.remember(token, seen, bundle)
    elif seen.keyring.stale(now):
        seen.keyring.claim(now)
        ports.defer(seen.keyring.refresh(ports.fetch, now))
    try:
        caller, record.described = seen.acts(headers)
    except Denied:
        _, record.described = seen.acts({})  # a tag that is refused is on record with the caller's name
        raise
    return caller


async def _verify(token: str, bundle: Bundle, state: State, ports: Ports, now: float) -> Seen:
    """The identity that a token proves (RFC 8725). Raises Denied `token.*` or `issuer.unavailable`."""
    unverified = tokens.parse(token)
    issuer = bundle.issuers.get(unverified.issuer)
    if issuer is None:
        raise Denied(Reason.TOKEN_ISSUER, f"{unverified.issuer!r:.200}")
    algorithm = unverified.algorithm
    if algorithm not in issuer.rules.algorithms:
        raise Denied(Reason.TOKEN_ALGORITHM, f"{algorithm!r:.20}")
    keyring = state.keyring(issuer)
    if keyring.stale(now) and keyring.usable(now):
        keyring.claim(now)
        ports.defer(keyring.refresh(ports.fetch, now))
    key = await keyring.find(unverified.kid, algorithm, ports.fetch, now)
    signature = unverified.signature
    if not key.fits(algorithm, signature) or not await ports.verify(
        key, algorithm, signature, unverified.signed
    ):
        raise Denied(Reason.TOKEN_SIGNATURE)
    subject, until = tokens.validate(unverified, issuer.rules, now)
    identity = identify(unverified.claims, subject, issuer.mapping)
    return Seen(identity, until, key, keyring, {})


async def _health(record: audit.Record, target: Target, state: State, ports: Ports) -> Refusal:
    """`ok` or `failing` for anyone; what is in force and how fresh, for a caller whom policy lets see it."""
    inbound, record.page = record.inbound, "health"
    report: dict[str, Any] = {"status": "failing"}
    try:
        bundle = await state.current(ports)
        report["status"] = "ok"
        record.bundle, record.sequence = bundle.version, state.sequence
        caller = await _authenticate(record, bundle, state, ports)
        record.decision = bundle.decide(caller, target)
        if record.decision.permit:
            report |= state.report(inbound.received_at)
    except Denied as denied:
        record.note = str(denied)
    except Exception as error:
        record.note = _where(error)
    ports.log(record.decided(None))
    headers = {"content-type": "application/json", "cache-control": "no-store", **_headers(record)}
    return Refusal(200 if report["status"] == "ok" else 503, headers, json.dumps(report) + "\n")


def _where(error: Exception) -> str:
    """An unforeseen error for the audit log: its kind and place, never its text, which may quote a secret."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else ""
    return type(error).__name__ + place


def _headers(record: audit.Record) -> dict[str, str]:
    headers = {"airgate-request-id": record.inbound.request_id}
    if (decision := record.decision) is not None:
        headers["airgate-decision"] = "permit" if decision.permit else "deny"
        if decision.policies:
            headers["airgate-policy"] = f"{decision.policies[0]}@{record.bundle}"
    return headers


def _refusal(reason: Reason, record: audit.Record) -> Refusal:
    headers = _headers(record)
    owner = record.decision.owner if record.decision is not None else None
    # Doing it again is the caller's decision, where it is not the same as once (RFC 9110 §9.2.2).
    twice = reason in _MAY_HAVE_ACTED and record.inbound.method in ("POST", "PATCH")
    return refusal(reason, record.inbound.request_id, headers, owner, final=twice)


def refusal(
    reason: Reason,
    request_id: str,
    headers: dict[str, str],
    contact: str | None = None,
    *,
    final: bool = False,
) -> Refusal:
    """A problem document (RFC 9457): stable, dull, with what a caller needs to ask about it and nothing else.

    `final`: not to be tried again, though the reason alone would allow it.
    """
    told = ANSWERS[reason]
    if final:
        told = told._replace(retry_after=None)
    problem: dict[str, Any] = {
        "type": f"urn:airgate:reason:{reason}",
        "title": told.title,
        "status": told.status,
        "code": reason,
        "request_id": request_id,
        "retryable": told.retry_after is not None,
    }
    headers = {"content-type": "application/problem+json", "cache-control": "no-store", **headers}
    if told.retry_after is not None:
        problem["retry_after"] = told.retry_after
        headers["retry-after"] = str(told.retry_after)
    if contact is not None:
        problem["contact"] = contact
    if told.status == 401:  # RFC 6750 §3: no error code for a request that brought no token at all
        error = "" if reason is Reason.TOKEN_MISSING else ', error="invalid_token"'
        headers["www-authenticate"] = f'Bearer realm="airgate"{error}'
    return Refusal(told.status, headers, json.dumps(problem) + "\n")
