"""The gate's own pages: health, keys, metadata, and the answers to AuthZEN questions. Nothing is forwarded for them."""

import json
from contextlib import suppress
from typing import Any, Protocol

import access
import admission
import audit
import authzen
import duty
import exchange
import forward
import oauth
import secevent
from bundle import OWN
from conditions import Call
from model import Decision, Denied, Reason, Refusal, Target
from obligations import Limit
from shard import Shard
from state import State

_PACE = Limit(600, 60, ("subject",), "")  # of AuthZEN questions, where the permit to ask says nothing

_PAGES = {
    ("GET", OWN, ("jwks.json",)): "jwks",
    ("POST", OWN, ("token",)): exchange.PAGE,
    ("GET", ".well-known", ("oauth-authorization-server",)): "oauth-authorization-server",
    ("GET", OWN, ("health",)): "health",
    ("HEAD", OWN, ("health",)): "health",
    ("GET", ".well-known", ("authzen-configuration",)): "authzen-configuration",
    ("GET", ".well-known", ("oauth-protected-resource",)): "oauth-protected-resource",
    ("POST", OWN, ("events",)): "events",
    ("POST", "access", ("v1", "evaluation")): "evaluation",
    ("POST", "access", ("v1", "evaluations")): "evaluations",
}


class Ports(exchange.Ports, Protocol):
    """What the pages need of the outside world."""


def page(target: Target) -> str:
    """The page that a request is for; empty for one that goes to an upstream."""
    return _PAGES.get((target.method, target.upstream, target.segments), "")


async def answer(record: audit.Record, target: Target, state: State, ports: Ports) -> Refusal:
    """One of the gate's own pages."""
    if record.page == exchange.PAGE:
        return await exchange.answer(record, target, state, ports)
    if record.page == "health":
        return await _health(record, target, state, ports)
    if record.page == "authzen-configuration":
        return _document(record, authzen.configuration(forward.origin(record.inbound.url)))
    if record.page == "jwks":
        return _keys(record, state, ports)
    if record.page == "events":
        return await secevent.receive(record, state, ports)
    if record.page == "oauth-protected-resource":
        bundle = await state.current(ports)
        record.bundle, record.sequence = bundle.version, state.sequence
        own, origin = state.own(ports), forward.origin(record.inbound.url)
        return _document(
            record, oauth.metadata(origin, bundle.issuers, own.issuer if own is not None else None)
        )
    if record.page == "oauth-authorization-server":
        own = state.own(ports)
        if own is None:
            raise Denied(Reason.ROUTE_UNKNOWN_UPSTREAM, "the gate has no keys to sign tokens with")
        return _document(record, oauth.server(own.issuer))
    return await _evaluate(record, target, state, ports)


async def _evaluate(record: audit.Record, target: Target, state: State, ports: Ports) -> Refusal:
    """Answer AuthZEN questions of a caller whom policy lets ask. Each is on record before the answer goes out."""
    inbound = record.inbound
    target = target._replace(upstream=OWN, segments=(target.upstream, *target.segments))
    record.target = target
    bundle, asker, shard = await admission.admit(record, target, state, ports)
    decision = admission.decide(record, bundle, asker, target, shard, ports)
    if decision.reason is not None:
        raise Denied(decision.reason, decision.detail)
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

    acts = state.view.access
    numbers = {id(question): number for number, question in enumerate(questions)}

    def decide(question: authzen.Question) -> Decision:
        of, now = question.target, ports.now()
        caller = acts.lend(question.caller, now)
        if acts.revoked(caller, now, told="workload" in asking.trust) is None:
            call = Call(caller, of, now, question.client, question.country)
            decision, grants = access.decide(shards[of.upstream], call)
        else:
            decision, grants = Decision(False, Reason.POLICY_REVOKED), ()
        try:
            admission.refuse_ended(caller.identity, state, now)
        except Denied as ended:
            decision, grants = Decision(False, ended.reason), ()
        record.evaluations.append(record.evaluated(numbers[id(question)], of, caller, decision, grants))
        return decision

    return _document(record, authzen.answer(questions, semantics, asking, decide))


def _document(record: audit.Record, document: dict[str, Any], status: int = 200) -> Refusal:
    headers = {"content-type": "application/json", "cache-control": "no-store", **record.headers()}
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
    headers = {"content-type": "application/jwk-set+json", "cache-control": "max-age=300", **record.headers()}
    return Refusal(200, headers, document + "\n")


async def _health(record: audit.Record, target: Target, state: State, ports: Ports) -> Refusal:
    """`ok` or `failing`, and which Worker, for anyone; what is in force and how fresh, for whom policy lets see it."""
    report: dict[str, Any] = {"status": "failing"}
    with suppress(LookupError, ValueError):
        report["version"] = ports.secret("VERSION")
    try:
        await state.current(ports)
        report["status"] = "ok"
        bundle, caller, shard = await admission.admit(record, target, state, ports)
        decision = admission.decide(record, bundle, caller, target, shard, ports)
        if decision.permit:
            await duty.honour(decision.obligations, caller, target, record, ports)
            report |= state.report(record.inbound.received_at)
    except Denied as denied:
        record.note = str(denied)
    except Exception as error:
        record.note = audit.where(error)
    return _document(record, report, 200 if report["status"] == "ok" else 503)
