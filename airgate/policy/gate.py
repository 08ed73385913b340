"""The gate's own answer to a request: parsed, identified, decided and obliged by the code that runs at the edge."""

import json
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from airgate.engine import (
    CONFIGURATION,
    EMPTY,
    OWN,
    RESOURCE,
    ROUTE,
    Asking,
    Call,
    Caller,
    Candidate,
    Dates,
    Decision,
    Denied,
    Identity,
    Inbound,
    Invalid,
    Issuer,
    Obligations,
    Reason,
    Record,
    Shard,
    Target,
    Upstream,
    Window,
    act,
    fits,
    honour,
    identify,
    questions,
    refuse_unsendable,
)
from airgate.policy.claims import claims_of
from airgate.policy.policyset import PolicySet
from airgate.policy.request import PAGES, Flaw, InvalidRequest, Request, is_page, no_such
from airgate.policy.seed import either, quoted


@dataclass(frozen=True)
class Answer:
    """What the gate says to a request, and all that led to it."""

    permit: bool
    reason: Reason | None
    detail: str  # for the log's reader
    hint: str  # what the caller has to do
    identity: Identity | None  # None: nobody could be told from the token
    call: Call | None  # None: refused before policy was asked; then there's no decision either
    decision: Decision | None
    shard: Shard
    upstream: Upstream | None = None  # that the call would go to

    @property
    def considered(self) -> list[Candidate]:
        """The policies whose target matches, whatever the caller's roles."""
        return [] if self.call is None else self.shard.lookup.reachable(self.call.target)


class Gate:
    """A policy set as the gate holds it."""

    def __init__(self, policies: PolicySet) -> None:
        self.policies = policies
        self.bundle = policies.bundle
        self.issuers: dict[str, Issuer] = {
            issuer.mapping.id: issuer for issuer in self.bundle.issuers.values()
        }

    def shard(self, upstream: str) -> Shard:
        """The policies of an upstream, `-` or `resource:TYPE`; none when no policy names it."""
        return self.policies.shards.get(upstream, EMPTY)

    def answer(
        self,
        request: Request,
        caller: Caller | None = None,
        now: float | None = None,
        *,
        obliged: bool = True,
    ) -> Answer:
        """Decide a request as the gate would, but that rate limits never run out.

        `caller`: instead of the one that the request describes. `now`: for a request that says no time; without
        either, one that a policy about time could decide is refused. `obliged`: false, when it isn't known what the
        caller sent beside the address. Raises InvalidRequest.
        """
        call: Call | None = None
        decision: Decision | None = None
        reason: Reason | None = None
        detail = hint = ""
        shard, upstream = EMPTY, None
        identity = caller.identity if caller is not None else None
        try:
            if not request.resource:
                refuse_unsendable(_inbound(request))
            target = None if request.resource else request.target
            if caller is None:
                identity = self.identity(request)
                caller = act(identity, request.sent)
                if caller.tagged is None and identity.must_tag:
                    raise Denied(Reason.ROLE_REQUIRED)
            if target is None:
                target = self._resource(request, caller)
            elif target.upstream not in self.bundle.upstreams and not is_page(target):
                raise Denied(Reason.ROUTE_UNKNOWN_UPSTREAM)
            if not request.resource:
                upstream = self.bundle.upstreams.get(target.upstream)
                fits(target, upstream)
            shard = self.shard(target.upstream)
            at = request.at if request.at is not None else now
            call = Call(caller, target, at or 0.0, request.client, request.country)
            if at is None:
                _refuse_timeless(shard.lookup.reachable(target), call)
            decision = self.policies.decide(call)
            if decision.reason is not None:
                raise Denied(decision.reason)
            if obliged:
                _honour(_bounded(decision.obligations, upstream), call, request)
        except Denied as denied:
            reason, detail, hint = denied.reason, denied.detail, denied.hint
        return Answer(reason is None, reason, detail, hint, identity, call, decision, shard, upstream)

    def identity(self, request: Request) -> Identity:
        """Who a token with these claims names. Raises Denied and InvalidRequest."""
        issuer = self._issuer(request)
        subject, claims = claims_of(request, issuer, self.bundle.roles)
        identity = identify({"iss": issuer.source.issuer, **claims}, subject, issuer.mapping)
        if identity.jkt is None and issuer.dpop == "required":
            raise Denied(Reason.TOKEN_UNBOUND)
        return identity

    def unknown_names(self, request: Request, caller: Caller | None = None) -> list[Flaw]:
        """Names in a request that the policy set doesn't have, and what no token of the issuer says."""
        flaws: list[Flaw] = []
        if caller is None:
            try:
                self.identity(request)
            except InvalidRequest as invalid:
                flaws += invalid.flaws
            except Denied:  # which is an answer, not a mistake
                pass
        for number, role in enumerate(request.tag or ()):
            if role not in self.bundle.roles:
                flaws.append(Flaw(("tag", number), no_such("role", role, self.bundle.roles)))
        if request.resource:
            types = [name.removeprefix(RESOURCE) for name in self.bundle.shards if name.startswith(RESOURCE)]
            name = request.resource["type"]
            if name not in types and name != ROUTE:
                flaws.append(Flaw(("resource", "type"), no_such("type of a resource", name, types)))
            return flaws
        try:
            target = request.target
        except Denied:
            return flaws
        if f"/{target.upstream}{target.path}" == CONFIGURATION:
            flaws.append(Flaw(("path",), f"{CONFIGURATION}: everyone is answered; policy isn't asked"))
        elif target.upstream == OWN and not is_page(target):
            shown = f"{request.method} {target.path}"
            flaws.append(
                Flaw(("path",), f"{quoted(shown)}: the gate has no such page; it has {either(PAGES)}")
            )
        elif target.upstream not in self.bundle.upstreams and not is_page(target):
            flaws.append(Flaw(("path",), no_such("upstream", target.upstream, self.bundle.upstreams)))
        return flaws

    def _resource(self, request: Request, caller: Caller) -> Target:
        """What is asked about, as the gate reads it from a question of the caller about itself. Raises Denied."""
        who = caller.identity
        question = {
            "subject": {"type": who.kind, "id": who.subject, "properties": {"issuer": who.issuer}},
            "action": {"name": request.method},
            "resource": request.resource,
        }
        own = Asking("self", frozenset())
        [read], _ = questions(
            json.dumps(question).encode(), False, caller, own, self.bundle.issuers, None, None,
            self.bundle.upstreams,
        )  # fmt: skip
        if isinstance(read, Invalid):
            raise InvalidRequest(Flaw(("resource",), read.message))
        return read.target

    def _issuer(self, request: Request) -> Issuer:
        if request.issuer is None:
            possible = [issuer for issuer in self.issuers.values() if _could_say(issuer, request)]
            if len(possible) == 1 or len(self.issuers) == 1:
                return (possible or [*self.issuers.values()])[0]
            named = sorted(issuer.mapping.id for issuer in possible) or sorted(self.issuers)
            text = f"say which: {either(named)}" if self.issuers else "there is none"
            raise InvalidRequest(Flaw(("issuer",), text))
        if request.issuer not in self.issuers:
            raise InvalidRequest(Flaw(("issuer",), no_such("issuer", request.issuer, self.issuers)))
        return self.issuers[request.issuer]


def _could_say(issuer: Issuer, request: Request) -> bool:
    """Whether tokens of an issuer can grant the roles that a request has, and attest what it says is attested."""
    granted = {grant.role for grant in issuer.mapping.grants}
    return (
        granted.issuperset(request.roles or ()) and request.attested <= dict(issuer.mapping.attested).keys()
    )


def upstream_of(request: Request) -> str | None:
    """Whose policies decide a request. None: it is refused before."""
    if request.resource and request.resource["type"] != ROUTE:
        return f"{RESOURCE}{request.resource['type']}"
    try:
        return request.target.upstream if request.url else None
    except Denied:
        return None


def _refuse_timeless(considered: list[Candidate], call: Call) -> None:
    """Without a time of its own, the answer to a request would change by itself."""
    for policy, route in considered:
        timeless = tuple([each for each in policy.conditions if not isinstance(each, Window | Dates)])
        asks = len(timeless) < len(policy.conditions)
        if asks and policy._replace(conditions=timeless).truth(call, route) is not False:
            text = f'is missing; policy {policy.id} asks for the time: "at: 2026-03-02T09:30:00Z"'
            raise InvalidRequest(Flaw(("at",), text))


class _Unlimited:
    """Rate limits that never run out."""

    async def allow(self, binding: str, key: str) -> bool:
        return True


def _bounded(asked: Obligations, upstream: Upstream | None) -> Obligations:
    """With the size that the upstream takes at most."""
    return asked if upstream is None or upstream.max_body is None else asked.within(upstream.max_body)


def _honour(asked: Obligations, call: Call, request: Request) -> None:
    """What the gate does about obligations before a call passes. Raises Denied."""
    if request.resource:  # whoever asked gets them in the answer
        if asked.conflict:
            raise Denied(Reason.POLICY_OBLIGATION, f"the permits conflict: {asked.conflict}")
        return
    if call.target.upstream == OWN:
        if call.target.segments == ("health",):
            return
        asked = asked._replace(max_body=None)  # there it bounds what is read, instead of what is declared
    _finish(honour(asked, call.caller, call.target, Record(_inbound(request)), _Unlimited()))


def _inbound(request: Request) -> Inbound:
    return Inbound("", request.at or 0.0, request.method, request.url, request.sent, request.body is not None)


def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise RuntimeError("waits for something")
