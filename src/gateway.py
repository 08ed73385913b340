"""One request, end to end: the pipeline that every call goes through, in this order."""

from functools import partial
from typing import NamedTuple, Protocol

import admission
import assertion
import audit
import authz
import authzen
import cookie
import cors
import delivery
import duty
import exchange
import forward
import gatetoken
import location
import oauth
import pages
import problem
import secevent
import telemetry
import tokens
from bundle import Bundle
from credential import Own
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
from obligations import NOTHING
from state import State
from upstream import Upstream


class Ports(pages.Ports, delivery.Ports, telemetry.Ports, Protocol):
    """What the pipeline needs of the outside world. `worker.py` has the real ones."""


# After these an upstream may have acted, though nobody heard of it.
_MAY_HAVE_ACTED = frozenset({Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_TIMEOUT})


async def handle(inbound: Inbound, state: State, ports: Ports) -> Refusal | Relay:
    """Answer one request. Exactly one decision line is logged, before anything is forwarded. Never raises."""
    journal, observed = state.journal, state.telemetry
    record = audit.Record(inbound, journal.worker, journal.names, observed.begin(inbound, ports))
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
            record.page = pages.page(target)
            if "origin" in inbound.headers:
                page = await _meet_browser(record, target, state, ports)
            if page is None and record.page:
                page = await pages.answer(record, target, state, ports)
        if page is None:
            approved = await _approve(record, target, state, ports)
            sending = _delivery(record, approved, target, state, ports)
            await _honour(record, approved, target, ports)
    except Denied as refused:
        denied = refused
    except Exception as error:  # a mistake of ours must refuse, and be on record like any refusal
        denied = Denied(Reason.INTERNAL, audit.where(error))

    if state.bundle is not None:
        record.known = state.bundle.upstreams
    now = _now(inbound, ports)
    if not record.logged:
        ports.log(record.decided(denied, now))
    for line in record.evaluations:
        ports.log(line)
    observed.decided(record, denied, state.bundle)
    if denied is not None:
        page = _refusal(denied, record, decided="deny")
        if dialect is not None:
            page = authz.refused(dialect, page)
        elif record.page == "events":
            page = secevent.refused(denied, page)
        elif record.page == exchange.PAGE:
            page = exchange.refused(denied, page)
    if page is not None:
        observed.answered(record, page.status, now, denied)
        return page

    sent_at, upstream = now, approved.upstream
    try:
        sending.refuse = partial(admission.refuse_revoked, approved.caller, state, ports)
        if upstream.assertion:
            sending.vouch = partial(_vouch, record, approved, target, state, ports)
        reply = await sending.send(ports)
        record.tries = sending.sent
        relay = _relay(record, reply, upstream, target, ports)
        length = ports.header(reply, "content-length")
    except Exception as error:
        failed = error if isinstance(error, Denied) else Denied(Reason.INTERNAL, audit.where(error))
        result, record.tries, now = failed.reason.rpartition(".")[2], sending.sent, _now(inbound, ports)
        ports.log(record.ended(now, result, None, sent_at, failed.detail))
        answer = _refusal(failed, record)
        observed.forwarded(record, answer.status, now, upstream, sent_at, result, failed)
        return answer
    now = _now(inbound, ports)
    ports.log(record.ended(now, "answered", reply.status, sent_at, length=length))
    observed.forwarded(record, reply.status, now, upstream, sent_at, "answered", None)
    return relay


def _now(inbound: Inbound, ports: Ports) -> float:
    """The time, for the record: a clock that fails must not keep a line from being written."""
    try:
        return ports.now()
    except Exception:
        return inbound.received_at


def _relay(
    record: audit.Record, reply: UpstreamAnswer, upstream: Upstream, target: Target, ports: Ports
) -> Relay:
    """An upstream's answer, as it is passed on."""
    told, inbound = record.headers(), record.inbound
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
    bundle, caller, shard = await admission.admit(record, target, state, ports, host)
    target = record.target or target  # with the upstream whose host it is
    upstream = bundle.upstreams.get(target.upstream)
    if upstream is None:
        raise Denied(Reason.ROUTE_UNKNOWN_UPSTREAM)
    forward.fits(target, upstream)
    record.log_path, record.log_query = upstream.log_path, upstream.log_query
    decision = admission.decide(record, bundle, caller, target, shard, ports)
    if decision.reason is not None:
        raise Denied(decision.reason, decision.detail)
    return _Approved(bundle, upstream, caller, decision)


async def _honour(record: audit.Record, approved: _Approved, target: Target, ports: Ports) -> None:
    """See to what the permits ask for. The last thing before a call: one that is refused is not counted."""
    asked, most = approved.decision.obligations, approved.upstream.max_body
    if most is not None and record.page != "authz":
        asked = asked.within(most)
    if approved.decision.apart:
        await duty.honour(asked._replace(limits=()), approved.caller, target, record, ports)
        for caller, limits in approved.decision.apart:
            await duty.count(limits, caller, target, ports)
    elif asked is not NOTHING:
        await duty.honour(asked, approved.caller, target, record, ports)


def _delivery(
    record: audit.Record, approved: _Approved, target: Target, state: State, ports: Ports
) -> delivery.Delivery:
    """The call to the upstream, with the credential that policy or the upstream's settings choose."""
    inbound, upstream = record.inbound, approved.upstream
    call = forward.outbound(inbound, target, upstream, record.trace)
    record.keyed = bool(call.headers.get("idempotency-key"))
    record.credential = name = approved.decision.obligations.credential or upstream.credential
    credential = None
    if name is not None:
        credential = upstream.credentials.get(name)
        if credential is None:
            raise Denied(Reason.POLICY_OBLIGATION, f"the upstream has no credential {name:.80}")
        if isinstance(credential, Own) and (own := tokens.own(inbound.headers)) is not None:
            if tokens.for_gate(own, partial(gatetoken.rules, state.own(ports), approved.bundle)):
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
    return authz.permitted(check, approved.caller, record.headers(), vouched)


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


def _refusal(denied: Denied, record: audit.Record, decided: str = "permit") -> Refusal:
    reason, inbound = denied.reason, record.inbound
    headers = record.headers()
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
