"""Who may: the stage of the pipeline that tells who calls, as what, and what policy says of it.

Everything comes from one bundle, the one in force when the decision is made, and from a view of revocations and grants
that is not too old.
"""

from typing import Protocol

import access
import audit
import dpop
import gatetoken
import tokens
from bundle import Bundle, Issuer
from conditions import Call
from identity import act, identify
from keys import Key, Keyring
from model import Caller, Decision, Denied, Exchanged, Identity, Inbound, Reason, Target
from obligations import merge
from shard import Shard
from state import State, Store
from verified import Seen


class Ports(Store, Protocol):
    """What this stage needs of the outside world."""

    def country(self) -> str | None: ...
    async def fetch(self, url: str, timeout: float, limit: int) -> bytes: ...


async def admit(
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
        exchanged = caller.identity.exchanged
        if exchanged is not None and exchanged.upstream != target.upstream:
            raise Denied(Reason.TOKEN_AUDIENCE, f"a gate token for {exchanged.upstream:.64}")
        shard, counters = state.held(bundle, target.upstream), state.telemetry.counters
        if shard is not None:
            counters.shard_hits += 1
        else:
            counters.shard_misses += 1
            shard = await state.shard(bundle, target.upstream, ports)
        if state.bundle is bundle or state.bundle is None:
            refuse_revoked(caller, state, ports)
            return bundle, caller, shard
        # Another policy came into force while this request waited for keys: it decides, roles included.
        bundle = state.bundle


def refuse_revoked(caller: Caller, state: State, ports: Ports) -> None:
    """Raises Denied: `token.revoked` or `policy.revoked` for a caller whom a revocation hits, else as refuse_ended."""
    if caller.identity.session is not None:
        refuse_ended(caller.identity, state, ports.now())
    if (exchanged := caller.identity.exchanged) is not None:
        for _, alone in exchanged.alone:
            refuse_ended(alone.identity, state, ports.now())
    acts = state.view.access
    revocation = acts.revoked(caller, ports.now()) if acts.revocations else None
    if revocation is not None:
        reason = Reason.TOKEN_REVOKED if "token_id" in dict(revocation.match) else Reason.POLICY_REVOKED
        raise Denied(reason, f"{revocation.id}: {revocation.reason}")


def refuse_ended(identity: Identity, state: State, now: float) -> None:
    """Raises Denied `token.session_…` when the session is over that its token was for, `state.stale` if none knows."""
    if identity.session is None or state.bundle is None:
        return
    for iss, issuer in state.bundle.issuers.items():
        if issuer.mapping.id == identity.issuer:
            state.view.sessions.refuse(iss, identity.session, now)


def decide(
    record: audit.Record, bundle: Bundle, caller: Caller, target: Target, shard: Shard, ports: Ports
) -> Decision:
    """What policy says, for the record as well."""
    inbound = record.inbound
    if shard.asks_country and record.page != "authz":  # the runtime knows the proxy's, not its client's
        record.country = ports.country()
    call = Call(caller, target, inbound.received_at, inbound.headers.get("cf-connecting-ip"), record.country)
    exchanged, upstream = caller.identity.exchanged, bundle.upstreams.get(target.upstream)
    if exchanged is None or not exchanged.alone:
        decision, record.grants = access.decide(shard, call)
    else:
        usual = upstream.credential if upstream is not None else None
        decision = delegated(shard, call, exchanged, usual)
    if decision.owner is None and upstream is not None:
        decision = decision._replace(owner=upstream.owner)
    record.decision = decision
    return decision


def delegated(shard: Shard, call: Call, exchanged: Exchanged, usual: str | None) -> Decision:
    """What policy says of a call that somebody makes for somebody else: each of them must be permitted it alone, too.

    What all of the permits ask for is asked. The ids are of whichever of the three decisions refused, or of all.
    `usual`: the upstream's credential where no permit names one. Each of the three has to come to the same.
    """
    decision = shard.decide(call)
    found = [decision]
    for name, alone in exchanged.alone:
        other = shard.decide(Call(alone, call.target, call.now, call.client, call.country))
        found.append(other._replace(alone=name))
    refused = [one for one in found if one.reason is not None]
    forbidden = [one for one in refused if one.reason is Reason.POLICY_FORBIDDEN]
    if refused:
        decision = (forbidden or refused)[0]
    else:
        asked = merge([one.obligations for one in found])
        shown = {one.obligations.credential or usual for one in found}
        if len(shown) > 1 and not asked.conflict:
            named = ", ".join(sorted([name or "none" for name in shown]))
            asked = asked._replace(conflict=f"alone they would be shown different credentials: {named}")
        permits = tuple(dict.fromkeys([name for one in found for name in one.permits]))
        conflict = Reason.POLICY_OBLIGATION if asked.conflict else None
        # The actor's limits hold for it whoever it acts for; by the subject's name it would have them many times.
        *for_subject, for_actor = [one.obligations for one in found]
        apart = (call.caller, merge(for_subject).limits), (exchanged.alone[-1][1], for_actor.limits)
        decision = decision._replace(
            permit=conflict is None, reason=conflict, permits=permits, obligations=asked, apart=apart
        )
    shadow = tuple(dict.fromkeys([name for one in found for name in one.shadow]))
    would = all([one.would if one.shadow else one.permit for one in found])
    return decision._replace(shadow=shadow, would=would)


async def _authenticate(
    record: audit.Record, bundle: Bundle, state: State, ports: Ports, proven: bool
) -> Caller:
    """Who is calling, and as what. A token that was verified before is not verified again while its key stands.

    `proven`: that the caller holds the key which its token is bound to has been seen to.
    """
    headers, now = record.inbound.headers, record.inbound.received_at
    token, scheme = tokens.presented(headers)
    seen = await recognise(token, bundle, state, ports, now)
    try:
        if seen.binding is None:
            dpop.refuse_unbound(scheme, headers)
        elif not proven:
            await _prove(record.inbound, scheme, seen, seen.binding, state, ports)
        caller = acting(record, seen, headers, state)
        if caller.tagged is None and seen.identity.must_tag:
            raise Denied(Reason.ROLE_REQUIRED)
    except Denied:
        # A tag that is refused is on record with the caller's name, and so is a token whose key somebody has not.
        _, record.described = state.verified.acts(seen, {})
        raise
    return caller


async def recognise(token: str, bundle: Bundle, state: State, ports: Ports, now: float) -> Seen:
    """Whom a token names, remembered or verified now. Raises Denied `token.*` and `issuer.unavailable`."""
    seen = state.verified.recall(token, now)
    counters = state.telemetry.counters
    if seen is None:
        counters.token_misses += 1
        seen = await _verify(token, bundle, state, ports, now)
        state.remember(token, seen, bundle)
    else:
        counters.token_hits += 1
        if seen.keyring.stale(now):
            seen.keyring.claim(now)
            ports.defer(seen.keyring.refresh(ports.fetch, now))
    return seen


def acting(record: audit.Record, seen: Seen, headers: dict[str, str], state: State) -> Caller:
    """As what a token's subject acts by these headers, with what grants lend it; for the record as well."""
    lent = state.view.access.lent(seen.identity, record.inbound.received_at)
    if lent is None:
        caller, record.described = state.verified.acts(seen, headers)
        return caller
    # Not remembered with the token: grants come and end without it.
    caller = act(access.with_roles(seen.identity, lent), headers)._replace(lent=lent)
    record.described = audit.describe(caller, record.names)
    return caller


async def _prove(
    inbound: Inbound, scheme: str, seen: Seen, bound: dpop.Binding, state: State, ports: Ports
) -> None:
    """See that the caller holds the key which its token is bound to (RFC 9449 §7.1). Raises Denied."""
    proof = dpop.read(bound, scheme, inbound.headers, inbound.method, inbound.url, ports.now())
    await use_up(proof, bound.strict, state, ports)
    state.verified.proved(seen, proof)


async def use_up(proof: dpop.Proof, strict: bool, state: State, ports: Ports) -> None:
    """See that a proof was signed by its key, and that it is the first use. Raises Denied."""
    try:
        right = await ports.verify(proof.key, proof.algorithm, proof.signature, proof.signed)
    except Denied as refused:  # the runtime will not have the key
        raise Denied(Reason.TOKEN_PROOF_INVALID, refused.detail) from None
    if not right:
        raise Denied(Reason.TOKEN_PROOF_INVALID, "the signature is wrong")
    state.proofs.claim(proof, ports.now())
    if strict:
        await dpop.claim_everywhere(proof, ports)
        if state.proofs.due(ports.now()):
            ports.defer(dpop.forget(ports.now(), ports))


async def signed_by(
    token: tokens.Unverified, issuer: Issuer, state: State, ports: Ports, now: float
) -> tuple[Key, Keyring]:
    """The issuer's key that has signed a token. Raises Denied as Keyring.verify does."""
    keyring = state.keyring(issuer)
    if keyring.stale(now) and keyring.usable(now):
        keyring.claim(now)
        ports.defer(keyring.refresh(ports.fetch, now))
    key = await keyring.verify(token, issuer.rules.algorithms, ports.fetch, ports.verify, now, ports.last)
    if keyring.news is not None:
        added, removed = keyring.news
        keyring.news = None
        ports.log(audit.keys_event(now, "issuer", token.issuer, added, removed))
    return key, keyring


async def _verify(token: str, bundle: Bundle, state: State, ports: Ports, now: float) -> Seen:
    """The identity that a token proves (RFC 8725). Raises Denied `token.*` or `issuer.unavailable`."""
    unverified = tokens.parse(token)
    own = state.own(ports)
    if own is not None and unverified.issuer == own.issuer:
        # Before the bundle is asked: an issuer there that calls itself the same would take the limits off gate tokens.
        return await gatetoken.recognise(token, unverified, own, bundle, ports.fetch, ports.verify, now)
    issuer = bundle.issuers.get(unverified.issuer)
    if issuer is None:
        raise Denied(Reason.TOKEN_ISSUER, f"{unverified.issuer!r:.200}")
    key, keyring = await signed_by(unverified, issuer, state, ports, now)
    subject, until = tokens.validate(unverified, issuer.rules, now)
    identity = identify(unverified.claims, subject, issuer.mapping)
    bound = None
    if identity.jkt is not None:
        bound = dpop.binding(identity.jkt, unverified.issuer, subject, token, issuer.strict)
    elif issuer.dpop == "required":
        raise Denied(Reason.TOKEN_UNBOUND)
    return Seen(token, identity, until, key, keyring, bound)
