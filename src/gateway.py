"""One request, end to end: the pipeline that every call goes through, in this order."""

import json
from collections.abc import Coroutine
from typing import Any, Protocol

import audit
import authzen
import dpop
import duty
import forward
import oauth
import tokens
from bundle import OWN, Bundle
from conditions import Call
from identity import identify
from keys import Key
from model import (
    ANSWERS,
    Caller,
    Decision,
    Denied,
    Inbound,
    Outbound,
    Reason,
    Refusal,
    Relay,
    Target,
    UpstreamAnswer,
)
from obligations import NOTHING, Limit
from shard import Shard
from state import State
from verified import Seen


class Ports(Protocol):
    """What the pipeline needs of the outside world. `worker.py` has the real ones."""

    def now(self) -> float: ...
    def log(self, line: str) -> None: ...
    def defer(self, work: Coroutine[Any, Any, Any]) -> None: ...
    async def last(self, work: Coroutine[Any, Any, bool]) -> bool:
        """Run work to its end, and wait for it. It goes on when the caller hangs up."""

    def country(self) -> str | None: ...
    async def kv(self, key: str, timeout: float) -> str | None: ...
    async def fetch(self, url: str, timeout: float, limit: int) -> bytes: ...
    async def verify(self, key: Key, algorithm: str, signature: bytes, signed: bytes) -> bool: ...
    async def allow(self, binding: str, key: str) -> bool:
        """Count a call with a rate-limiting binding. Raises LookupError when there is none of that name."""

    async def body(self, limit: int) -> bytes:
        """The request's body. Raises Denied `request.body_too_large`."""

    async def send(self, call: Outbound) -> UpstreamAnswer:
        """Raises Denied `upstream.unreachable` or `upstream.timeout`."""


_PACE = Limit(600, 60, ("subject",), "")  # of AuthZEN questions, where the permit to ask says nothing

# After these an upstream may have acted, though nobody heard of it.
_MAY_HAVE_ACTED = frozenset({Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_TIMEOUT})

_PAGES = {
    ("GET", OWN, ("health",)): "health",
    ("HEAD", OWN, ("health",)): "health",
    ("GET", ".well-known", ("authzen-configuration",)): "authzen-configuration",
    ("GET", ".well-known", ("oauth-protected-resource",)): "oauth-protected-resource",
    ("POST", "access", ("v1", "evaluation")): "evaluation",
    ("POST", "access", ("v1", "evaluations")): "evaluations",
}


async def handle(inbound: Inbound, state: State, ports: Ports) -> Refusal | Relay:
    """Answer one request. Exactly one decision line is logged, before anything is forwarded. Never raises."""
    record = audit.Record(inbound)
    denied: Denied | None = None
    page: Refusal | None = None
    try:
        forward.refuse_unsendable(inbound)
        target = record.target = forward.parse_target(inbound.method, inbound.url)
        record.page = _PAGES.get((target.method, target.upstream, target.segments), "")
        if record.page:
            page = await _page(record, target, state, ports)
        else:
            bundle, caller, shard = await _admit(record, target, state, ports)
            upstream = bundle.upstreams.get(target.upstream)
            if upstream is None:
                raise Denied(Reason.ROUTE_UNKNOWN_UPSTREAM)
            record.log_path = upstream.log_path
            decision = _decide(record, bundle, caller, target, shard, ports)
            if decision.reason is not None:
                raise Denied(decision.reason, decision.obligations.conflict)
            if decision.obligations is not NOTHING:
                await duty.honour(decision.obligations, caller, target, record, ports)
            call = forward.outbound(inbound, target, upstream)
    except Denied as refused:
        denied = refused
    except Exception as error:  # a mistake of ours must refuse, and be on record like any refusal
        denied = Denied(Reason.INTERNAL, _where(error))

    ports.log(record.decided(denied))
    for line in record.evaluations:
        ports.log(line)
    if denied is not None:
        return _refusal(denied.reason, record, denied.hint, decided="deny")
    if page is not None:
        return page

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


async def _admit(
    record: audit.Record, target: Target, state: State, ports: Ports
) -> tuple[Bundle, Caller, Shard]:
    """Who is calling, and the policies for where they want to go: all of them from one bundle, the one in force."""
    bundle = state.bundle
    if bundle is None or not state.fresh(record.inbound.received_at):
        bundle = await state.current(ports)
    proven = False
    while True:
        record.bundle, record.sequence = bundle.version, state.sequence
        caller = await _authenticate(record, bundle, state, ports, proven)
        proven = True  # the same token again: its proof has been used up
        shard = state.held(bundle, target.upstream)
        if shard is None:
            shard = await state.shard(bundle, target.upstream, ports)
        if state.bundle is bundle or state.bundle is None:
            return bundle, caller, shard
        # Another policy came into force while this request waited for keys: it decides, roles included.
        bundle = state.bundle


def _decide(
    record: audit.Record, bundle: Bundle, caller: Caller, target: Target, shard: Shard, ports: Ports
) -> Decision:
    """What policy says, for the record as well."""
    inbound = record.inbound
    if shard.asks_country:
        record.country = ports.country()
    call = Call(caller, target, inbound.received_at, inbound.headers.get("cf-connecting-ip"), record.country)
    decision = shard.decide(call)
    if decision.owner is None and (upstream := bundle.upstreams.get(target.upstream)) is not None:
        decision = decision._replace(owner=upstream.owner)
    record.decision = decision
    return decision


async def _authenticate(
    record: audit.Record, bundle: Bundle, state: State, ports: Ports, proven: bool
) -> Caller:
    """Who is calling, and as what. A token that was verified before is not verified again while its key stands.

    `proven`: that the caller holds the key which its token is bound to has been seen to.
    """
    headers, now = record.inbound.headers, record.inbound.received_at
    token, scheme = tokens.presented(headers)
    seen = state.verified.recall(token, now)
    if seen is None:
        seen = await _verify(token, bundle, state, ports, now)
        state.remember(token, seen, bundle)
    elif seen.keyring.stale(now):
        seen.keyring.claim(now)
        ports.defer(seen.keyring.refresh(ports.fetch, now))
    try:
        if seen.binding is None:
            dpop.refuse_unbound(scheme, headers)
        elif not proven:
            await _prove(record.inbound, scheme, seen, seen.binding, state, ports)
        caller, record.described = state.verified.acts(seen, headers)
        if caller.tagged is None and seen.identity.must_tag:
            raise Denied(Reason.ROLE_REQUIRED)
    except Denied:
        # A tag that is refused is on record with the caller's name, and so is a token whose key somebody has not.
        _, record.described = state.verified.acts(seen, {})
        raise
    return caller


async def _prove(
    inbound: Inbound, scheme: str, seen: Seen, bound: dpop.Binding, state: State, ports: Ports
) -> None:
    """See that the caller holds the key which its token is bound to (RFC 9449 §7.1). Raises Denied."""
    proof = dpop.read(bound, scheme, inbound.headers, inbound.method, inbound.url, ports.now())
    try:
        right = await ports.verify(proof.key, proof.algorithm, proof.signature, proof.signed)
    except Denied as refused:  # the runtime will not have the key
        raise Denied(Reason.TOKEN_PROOF_INVALID, refused.detail) from None
    if not right:
        raise Denied(Reason.TOKEN_PROOF_INVALID, "the signature is wrong")
    state.proofs.claim(proof, ports.now())
    state.verified.proved(seen, proof)


async def _verify(token: str, bundle: Bundle, state: State, ports: Ports, now: float) -> Seen:
    """The identity that a token proves (RFC 8725). Raises Denied `token.*` or `issuer.unavailable`."""
    unverified = tokens.parse(token)
    issuer = bundle.issuers.get(unverified.issuer)
    if issuer is None:
        raise Denied(Reason.TOKEN_ISSUER, f"{unverified.issuer!r:.200}")
    keyring = state.keyring(issuer)
    if keyring.stale(now) and keyring.usable(now):
        keyring.claim(now)
        ports.defer(keyring.refresh(ports.fetch, now))
    key = await keyring.verify(
        unverified, issuer.rules.algorithms, ports.fetch, ports.verify, now, ports.last
    )
    subject, until = tokens.validate(unverified, issuer.rules, now)
    identity = identify(unverified.claims, subject, issuer.mapping)
    bound = None
    if identity.jkt is not None:
        bound = dpop.binding(identity.jkt, unverified.issuer, subject, token)
    elif issuer.dpop == "required":
        raise Denied(Reason.TOKEN_UNBOUND)
    return Seen(token, identity, until, key, keyring, bound)


async def _page(record: audit.Record, target: Target, state: State, ports: Ports) -> Refusal:
    """One of the gate's own pages."""
    if record.page == "health":
        return await _health(record, target, state, ports)
    if record.page == "authzen-configuration":
        return _document(record, authzen.configuration(forward.origin(record.inbound.url)))
    if record.page == "oauth-protected-resource":
        bundle = await state.current(ports)
        record.bundle, record.sequence = bundle.version, state.sequence
        return _document(record, oauth.metadata(forward.origin(record.inbound.url), bundle.issuers))
    return await _evaluate(record, target, state, ports)


async def _evaluate(record: audit.Record, target: Target, state: State, ports: Ports) -> Refusal:
    """Answer AuthZEN questions of a caller whom policy lets ask. Each is on record before the answer goes out."""
    inbound = record.inbound
    target = target._replace(upstream=OWN, segments=(target.upstream, *target.segments))
    record.target = target
    bundle, asker, shard = await _admit(record, target, state, ports)
    decision = _decide(record, bundle, asker, target, shard, ports)
    if decision.reason is not None:
        raise Denied(decision.reason, decision.obligations.conflict)
    asked = decision.obligations
    limits = asked.limits or (_PACE,)
    await duty.honour(asked._replace(limits=limits), asker, target, record, ports)
    asking, client = authzen.asking(asked), inbound.headers.get("cf-connecting-ip")
    authzen.refuse_other_media(inbound.headers.get("content-type"))
    questions, semantics = authzen.questions(
        await ports.body(authzen.LIMIT),
        record.page == "evaluations",
        asker,
        asking,
        bundle.issuers,
        client,
        ports.country(),
        bundle.upstreams,
        forward.origin(inbound.url).partition("://")[2],
    )
    shards: dict[str, Shard] = {}
    for number, question in enumerate(questions):
        if number:  # the first was counted as the request
            await duty.count(limits, asker, target, ports)
        if isinstance(question, authzen.Question):
            name = question.target.upstream
            shards[name] = state.held(bundle, name) or await state.shard(bundle, name, ports)

    numbers = {id(question): number for number, question in enumerate(questions)}

    def decide(question: authzen.Question) -> Decision:
        caller, of = question.caller, question.target
        decision = shards[of.upstream].decide(
            Call(caller, of, ports.now(), question.client, question.country)
        )
        record.evaluations.append(record.evaluated(numbers[id(question)], of, caller, decision))
        return decision

    return _document(record, authzen.answer(questions, semantics, asking, decide))


def _document(record: audit.Record, document: dict[str, Any], status: int = 200) -> Refusal:
    headers = {"content-type": "application/json", "cache-control": "no-store", **_headers(record)}
    if (echoed := authzen.echo(record.inbound.headers.get("x-request-id"))) is not None:
        headers["x-request-id"] = echoed
    return Refusal(status, headers, json.dumps(document) + "\n")


async def _health(record: audit.Record, target: Target, state: State, ports: Ports) -> Refusal:
    """`ok` or `failing` for anyone; what is in force and how fresh, for a caller whom policy lets see it."""
    report: dict[str, Any] = {"status": "failing"}
    try:
        await state.current(ports)
        report["status"] = "ok"
        bundle, caller, shard = await _admit(record, target, state, ports)
        decision = _decide(record, bundle, caller, target, shard, ports)
        if decision.permit:
            await duty.honour(decision.obligations, caller, target, record, ports)
            report |= state.report(record.inbound.received_at)
    except Denied as denied:
        record.note = str(denied)
    except Exception as error:
        record.note = _where(error)
    return _document(record, report, 200 if report["status"] == "ok" else 503)


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


def _refusal(reason: Reason, record: audit.Record, hint: str = "", decided: str = "permit") -> Refusal:
    headers = _headers(record)
    if record.decision is not None:  # what permits ask for may refuse a call that they let through
        headers["airgate-decision"] = decided
    if record.page and (echoed := authzen.echo(record.inbound.headers.get("x-request-id"))) is not None:
        headers["x-request-id"] = echoed
    if ANSWERS[reason].status == 401:
        headers["www-authenticate"] = oauth.challenge(reason, forward.origin(record.inbound.url))
    owner = record.decision.owner if record.decision is not None else None
    # Doing it again is the caller's decision, where it is not the same as once (RFC 9110 §9.2.2).
    twice = reason in _MAY_HAVE_ACTED and record.inbound.method in ("POST", "PATCH")
    return refusal(reason, record.inbound.request_id, headers, owner, hint, final=twice)


def refusal(
    reason: Reason,
    request_id: str,
    headers: dict[str, str],
    contact: str | None = None,
    hint: str = "",
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
    if hint:
        problem["detail"] = hint
    return Refusal(told.status, headers, json.dumps(problem) + "\n")
