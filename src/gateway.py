"""One request, end to end: the pipeline that every call goes through, in this order."""

import json
from collections.abc import Coroutine
from functools import partial
from typing import Any, NamedTuple, Protocol

import assertion
import audit
import authz
import authzen
import cookie
import cors
import delivery
import dpop
import duty
import forward
import location
import oauth
import problem
import tokens
from bundle import OWN, Bundle
from conditions import Call
from credential import Own
from identity import identify
from keys import Key
from model import (
    ANSWERS,
    Caller,
    Decision,
    Denied,
    Inbound,
    Reason,
    Refusal,
    Relay,
    Target,
    UpstreamAnswer,
)
from obligations import NOTHING, Limit
from shard import Shard
from state import State
from upstream import Upstream
from verified import Seen


class Ports(delivery.Ports, Protocol):
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


_PACE = Limit(600, 60, ("subject",), "")  # of AuthZEN questions, where the permit to ask says nothing

# After these an upstream may have acted, though nobody heard of it.
_MAY_HAVE_ACTED = frozenset({Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_TIMEOUT})

_PAGES = {
    ("GET", OWN, ("jwks.json",)): "jwks",
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
    dialect = authz.dialect(inbound.url)
    try:
        if dialect is not None:
            record.page = "authz"
            page = await _check(record, state, ports)
        else:
            authz.refuse_stray(inbound.headers)
            forward.refuse_unsendable(inbound)
            target = record.target = forward.parse_target(inbound.method, inbound.url)
            record.page = _PAGES.get((target.method, target.upstream, target.segments), "")
            if "origin" in inbound.headers:
                page = await _meet_browser(record, target, state, ports)
            if page is None and record.page:
                page = await _page(record, target, state, ports)
        if page is None:
            approved = await _approve(record, target, state, ports)
            sending = _delivery(record, approved, target, state)
            await _honour(record, approved, target, ports)
    except Denied as refused:
        denied = refused
    except Exception as error:  # a mistake of ours must refuse, and be on record like any refusal
        denied = Denied(Reason.INTERNAL, audit.where(error))

    ports.log(record.decided(denied))
    for line in record.evaluations:
        ports.log(line)
    if denied is not None:
        answer = _refusal(denied, record, decided="deny")
        return answer if dialect is None else authz.refused(dialect, answer)
    if page is not None:
        return page

    sent_at, upstream = ports.now(), approved.upstream
    try:
        if upstream.assertion:
            sending.vouch = partial(_vouch, record, approved, target, state, ports)
        reply = await sending.send(ports)
        record.tries = sending.sent
        relay = _relay(record, reply, upstream, target, ports)
    except Exception as error:
        failed = error if isinstance(error, Denied) else Denied(Reason.INTERNAL, audit.where(error))
        result, record.tries = failed.reason.rpartition(".")[2], sending.sent
        ports.log(record.ended(ports.now(), result, None, sent_at, failed.detail))
        return _refusal(failed, record)
    ports.log(record.ended(ports.now(), "answered", reply.status, sent_at))
    return relay


def _relay(
    record: audit.Record, reply: UpstreamAnswer, upstream: Upstream, target: Target, ports: Ports
) -> Relay:
    """An upstream's answer, as it is passed on."""
    told, inbound = _headers(record), record.inbound
    if reply.status >= 400:
        told["airgate-error"] = "upstream"
    if upstream.cors is not None:
        told |= cors.shown(upstream.cors, inbound.headers.get("origin"), ports.header(reply, "vary"))
    return Relay(reply, told, partial(_passed, target, upstream.base, inbound.url))


def _passed(target: Target, base: str, url: str, name: str, value: str) -> str | None:
    """A header of an answer that concerns the gate, as callers may see it; None: not at all."""
    if name in location.NAMES:
        return location.rewrite(value, target, base, forward.origin(url))
    return cookie.scoped(value, target, base) if name == cookie.NAME else None


class _Approved(NamedTuple):
    """A call that policy permits."""

    bundle: Bundle
    upstream: Upstream
    caller: Caller
    decision: Decision


async def _approve(
    record: audit.Record, target: Target, state: State, ports: Ports, host: str | None = None
) -> _Approved:
    """Who is calling what, and that policy permits it. Raises Denied."""
    bundle, caller, shard = await _admit(record, target, state, ports, host)
    target = record.target or target  # with the upstream whose host it is
    upstream = bundle.upstreams.get(target.upstream)
    if upstream is None:
        raise Denied(Reason.ROUTE_UNKNOWN_UPSTREAM)
    forward.fits(target, upstream)
    record.log_path = upstream.log_path
    decision = _decide(record, bundle, caller, target, shard, ports)
    if decision.reason is not None:
        raise Denied(decision.reason, decision.obligations.conflict)
    return _Approved(bundle, upstream, caller, decision)


async def _honour(record: audit.Record, approved: _Approved, target: Target, ports: Ports) -> None:
    """See to what the permits ask for. The last thing before a call: one that is refused is not counted."""
    asked, most = approved.decision.obligations, approved.upstream.max_body
    if most is not None and record.page != "authz":
        asked = asked.within(most)
    if asked is not NOTHING:
        await duty.honour(asked, approved.caller, target, record, ports)


def _delivery(record: audit.Record, approved: _Approved, target: Target, state: State) -> delivery.Delivery:
    """The call to the upstream, with the credential that policy or the upstream's settings choose."""
    inbound, upstream = record.inbound, approved.upstream
    call = forward.outbound(inbound, target, upstream)
    record.keyed = bool(call.headers.get("idempotency-key"))
    record.credential = name = approved.decision.obligations.credential or upstream.credential
    credential = None
    if name is not None:
        credential = upstream.credentials.get(name)
        if credential is None:
            raise Denied(Reason.POLICY_OBLIGATION, f"the upstream has no credential {name:.80}")
        if isinstance(credential, Own) and (own := tokens.own(inbound.headers)) is not None:
            if tokens.for_gate(own, approved.bundle.rules):
                hint = "Authorization goes on to the upstream here: it must not hold a token for this gate"
                raise Denied(Reason.REQUEST_HEADER_INVALID, "a token for this gate in Authorization", hint)
            call.headers["authorization"] = own
    health = state.health(target.upstream)
    return delivery.Delivery(call, upstream, credential, inbound, health, state.minted)


async def _check(record: audit.Record, state: State, ports: Ports) -> Refusal:
    """What a proxy asks: the decision on its client's request, which the proxy then forwards itself."""
    try:
        secrets: str | None = ports.secret(authz.SECRETS)
    except LookupError:
        secrets = None
    authz.believe(record.inbound.headers, secrets)
    check = authz.read(record.inbound)
    # From here on, who calls is the proxy's client.
    record.inbound, record.target = check.inbound, check.target
    approved = await _approve(record, check.target, state, ports, check.host)
    authz.refuse_unenforceable(approved.decision.obligations)
    await _honour(record, approved, record.target, ports)
    vouched = None
    if approved.upstream.assertion:
        vouched = await _vouch(record, approved, record.target, state, ports)
    return authz.permitted(check, approved.caller, _headers(record), vouched)


async def _vouch(
    record: audit.Record, approved: _Approved, target: Target, state: State, ports: Ports
) -> str:
    """The statement, signed, by which an upstream knows that a call came through the gate, and whose it is."""
    decision = approved.decision._replace(bundle=approved.bundle.version)
    now, request_id = ports.now(), record.inbound.request_id
    keys = state.assertion_keys(ports)
    return await assertion.assertion(
        keys, approved.caller, decision, target.upstream, request_id, now, ports.sign
    )


async def _meet_browser(record: audit.Record, target: Target, state: State, ports: Ports) -> Refusal | None:
    """What a page of another origin may read of the answer. A preflight is answered here (Fetch, CORS)."""
    inbound = record.inbound
    bundle = await state.current(ports)
    upstream = bundle.upstreams.get(target.upstream)
    if upstream is None or upstream.cors is None:
        return None
    told = cors.shown(upstream.cors, inbound.headers["origin"])
    if cors.ALLOWED not in told:
        return None  # and nothing tells this upstream from one that knows of no pages
    record.cors = told
    if not cors.asks(inbound.method, inbound.headers):
        return None
    preflight = cors.preflight(upstream.cors, inbound.headers)
    if preflight is None:
        return None  # and so it is refused, as any call without a token is
    record.page, record.bundle, record.sequence = "preflight", bundle.version, state.sequence
    return Refusal(204, {"airgate-request-id": inbound.request_id, **preflight}, "")


async def _admit(
    record: audit.Record, target: Target, state: State, ports: Ports, host: str | None = None
) -> tuple[Bundle, Caller, Shard]:
    """Who is calling, and the policies for where they want to go: all of them from one bundle, the one in force.

    `host`: of a request that a proxy asks about; the bundle says which upstream's it is.
    """
    bundle = state.bundle
    if bundle is None or not state.fresh(record.inbound.received_at):
        bundle = await state.current(ports)
    proven = False
    while True:
        if host is not None:
            target = record.target = target._replace(upstream=bundle.hosts.get(host, ""))
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
    if shard.asks_country and record.page != "authz":  # the runtime knows the proxy's, not its client's
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
    if record.page == "jwks":
        return _keys(record, state, ports)
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


def _keys(record: audit.Record, state: State, ports: Ports) -> Refusal:
    """The public keys of the gate's assertions (RFC 7517 §5); none, while it signs none."""
    try:
        document = state.assertion_keys(ports).jwks
    except Denied as denied:
        record.note = denied.detail
        document = '{"keys":[]}'
    headers = {"content-type": "application/jwk-set+json", "cache-control": "max-age=300", **_headers(record)}
    return Refusal(200, headers, document + "\n")


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
        record.note = audit.where(error)
    return _document(record, report, 200 if report["status"] == "ok" else 503)


def _headers(record: audit.Record) -> dict[str, str]:
    headers = {"airgate-request-id": record.inbound.request_id, **record.cors}
    if (decision := record.decision) is not None:
        headers["airgate-decision"] = "permit" if decision.permit else "deny"
        if decision.policies:
            headers["airgate-policy"] = f"{decision.policies[0]}@{record.bundle}"
    return headers


def _refusal(denied: Denied, record: audit.Record, decided: str = "permit") -> Refusal:
    reason, inbound = denied.reason, record.inbound
    headers = _headers(record)
    if record.decision is not None:  # what permits ask for may refuse a call that they let through
        headers["airgate-decision"] = decided
    if record.page and (echoed := authzen.echo(inbound.headers.get("x-request-id"))) is not None:
        headers["x-request-id"] = echoed
    if ANSWERS[reason].status == 401:
        headers["www-authenticate"] = oauth.challenge(reason, forward.origin(record.url))
    owner = record.decision.owner if record.decision is not None else None
    # Doing it again is the caller's decision, where it is not the same as once (RFC 9110 §9.2.2).
    once = inbound.method in ("POST", "PATCH") and not record.keyed
    return problem.refusal(
        reason,
        inbound.request_id,
        headers,
        owner,
        denied.hint,
        retry_after=None
        if reason in _MAY_HAVE_ACTED and once
        else denied.retry_after or ANSWERS[reason].retry_after,
    )
