"""Acts: what changes access at once and for a time, without a new policy.

A revocation refuses tokens, sessions, subjects, DAGs, tasks, runs or an issuer; a grant lends a role or a permit. A
lift takes a revocation back, an end a grant. They are sets, so their order says nothing: revocations less those lifted,
grants less those ended, each of them only in its time. What opens something, a grant or a lift, is signed by an
operator's key; what closes something need not be. An act is known by the hash of its text, so it can't be altered in
place.

A grant never overrides a forbid: forbids are asked with and without what it lends, and either refuses.
"""

import hashlib
import math
from collections.abc import Iterable
from typing import NamedTuple

from conditions import Call
from document import NAME, Reader, read_object
from model import Caller, Decision, Fact, Identity, Lent, Reason
from shard import Shard

LIMIT = 2048  # bytes of an act
MOST = 10_000  # acts that are not over, in one isolate
LONGEST = 512  # characters of a subject, a token's id, a reason
LONGEST_GRANT = 7 * 86_400  # seconds
MATCHED = ("token_id", "session", "issuer", "subject", "dag", "task", "run")
_WORKLOAD = ("dag", "task", "run")
_EVERYTHING = frozenset(MATCHED)


class Act(NamedTuple):
    """One act. What it doesn't have is empty."""

    id: str
    act: str  # revoke | lift | grant | end
    gate: str
    at: int  # seconds since the epoch, as the next two
    begins: int
    until: int
    by: str
    reason: str
    of: str  # the act that it takes back
    match: tuple[tuple[str, str], ...]  # of a revocation: all of these
    to: tuple[tuple[str, str], ...]  # of a grant: issuer and subject, or role
    role: str
    policy: str

    @property
    def opens(self) -> bool:
        """Whether it gives anybody anything."""
        return self.act in ("grant", "lift")


def act_id(text: str) -> str:
    """What an act is known by."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


def _short(reader: Reader, name: str) -> str:
    value = reader.text(name)
    if not 0 < len(value) <= LONGEST:
        raise reader.wrong(name, f"1 to {LONGEST} characters")
    return value


def _named(reader: Reader, name: str) -> str:
    value = reader.text(name)
    if NAME.fullmatch(value) is None:
        raise reader.wrong(name, "a name")
    return value


def _match(reader: Reader) -> tuple[tuple[str, str], ...]:
    names = sorted(reader.all_names())
    if not names or not _EVERYTHING.issuperset(names):
        raise ValueError(f"{reader.where}: expected some of {', '.join(MATCHED)}")
    return tuple([(name, _short(reader, name)) for name in names])


def _to(reader: Reader) -> tuple[tuple[str, str], ...]:
    if reader.has("role"):
        to: tuple[tuple[str, str], ...] = (("role", _named(reader, "role")),)
    else:
        to = (("issuer", _named(reader, "issuer")), ("subject", _short(reader, "subject")))
    reader.done()
    return to


def load_act(text: str) -> Act:
    """Read an act's JSON (docs/d1-schema.md). Raises ValueError."""
    reader = Reader(read_object(text.encode("utf-8"), limit=LIMIT, depth=3), "act")
    kind = reader.one_of("act", "revoke", "lift", "grant", "end")
    at, until = reader.whole("at", 0, 2**53), reader.whole("until", 0, 2**53)
    gate, by, reason = _short(reader, "gate"), _short(reader, "by"), _short(reader, "reason")
    begins, of, role, policy = at, "", "", ""
    match: tuple[tuple[str, str], ...] = ()
    to: tuple[tuple[str, str], ...] = ()
    if kind == "revoke":
        match = _match(reader.within("match"))
    elif kind == "grant":
        begins = reader.whole("from", 0, 2**53)
        if not 0 < until - begins <= LONGEST_GRANT:
            raise reader.wrong("until", f"at most {LONGEST_GRANT} s after `from`")
        to, gives = _to(reader.within("to")), reader.within("gives")
        if gives.has("role"):
            role = _named(gives, "role")
        else:
            policy = _short(gives, "policy")
        gives.done()
    else:
        of = _short(reader, "of")
    reader.done()
    return Act(act_id(text), kind, gate, at, begins, until, by, reason, of, match, to, role, policy)


class Access:
    """The acts that an isolate knows of and that are not over."""

    def __init__(self) -> None:
        self._acts: dict[str, Act] = {}
        self._by_match: dict[tuple[str, str], list[Act]] = {}  # revocations, by one of what each matches
        self._by_holder: dict[tuple[str, str], list[Act]] = {}  # grants, by subject or role
        self.revocations = 0
        self.grants = 0
        self._soonest = math.inf  # when the first of them is over

    def knows(self, name: str) -> bool:
        return name in self._acts

    def add(self, acts: Iterable[Act], now: float) -> None:
        """Take acts in: those that open something only after their signature has been checked.

        Raises ValueError when there are too many: to leave one out could open something.
        """
        taken = {one.id: one for one in acts}
        if not taken and now < self._soonest:
            return
        whole = {name: one for name, one in (self._acts | taken).items() if now < one.until}
        if len(whole) > MOST:
            raise ValueError(f"more than {MOST} acts that are not over")
        if whole.keys() == self._acts.keys():
            return
        self._acts = whole
        self._soonest = min([one.until for one in whole.values()], default=math.inf)
        undone = {(one.act, one.of) for one in whole.values() if one.of}
        self._by_match, self._by_holder = {}, {}
        self.revocations = self.grants = 0
        for one in whole.values():
            if one.act == "revoke" and ("lift", one.id) not in undone:
                # By the one that says most: a token's id before its subject, a subject before its issuer.
                matched = min(one.match, key=_sharpness)
                self._by_match.setdefault(matched, []).append(one)
                self.revocations += 1
            elif one.act == "grant" and ("end", one.id) not in undone:
                self._by_holder.setdefault(one.to[-1], []).append(one)
                self.grants += 1

    def revoked(self, caller: Caller, now: float, told: bool = False) -> Act | None:
        """The revocation that hits a caller, or whoever acts for it; None when there is none.

        What a caller merely says of its task counts only in a revocation that names the subject too: on its own it
        would hit whom it pleases the caller to say it is. `told`: it was said by somebody who is trusted with it.
        """
        if not self.revocations:
            return None
        identity, workload = caller.identity, caller.workload
        held: set[tuple[str, str]] = set()
        if identity.token_id is not None:
            held.add(("token_id", identity.token_id))
        if identity.session is not None:
            held.add(("session", identity.session))
        for name in _WORKLOAD:
            fact = workload.get(name)
            if fact is not None and isinstance(fact.value, str):
                held.add((name, fact.value))
        parties = [{("issuer", identity.issuer), ("subject", identity.subject)}]
        exchanged = identity.exchanged
        if exchanged is not None:
            held.update([("token_id", parent) for parent in exchanged.parents])
            for name, alone in exchanged.alone:
                if (found := self.revoked(alone, now, told)) is not None:
                    return found
                if name == "actor":  # of an issuer of its own, and here at work for the subject's task
                    parties.append({("issuer", alone.identity.issuer), ("subject", alone.identity.subject)})
        if identity.actor is not None and len(parties) == 1:
            parties[0].add(("subject", identity.actor))
        for party in parties:
            if (found := self._hit(held | party, workload, now, told)) is not None:
                return found
        return None

    def _hit(
        self, held: set[tuple[str, str]], workload: dict[str, Fact], now: float, told: bool
    ) -> Act | None:
        for pair in sorted(held, key=_sharpness):  # the same one everywhere, and the one that says most
            for one in self._by_match.get(pair, ()):
                if now < one.until and held.issuperset(one.match) and (told or _counts(one, workload)):
                    return one
        return None

    def lent(self, identity: Identity, now: float) -> Lent | None:
        """What grants lend to an identity. Nothing to one for which somebody else acts, or may."""
        if not self.grants or identity.actor is not None or "subject.delegated" in identity.untold:
            return None
        held = [("subject", identity.subject), *[("role", role) for role in identity.granted]]
        grants = [
            one
            for pair in held
            for one in self._by_holder.get(pair, ())
            if one.begins <= now < one.until and one.to[0] in (pair, ("issuer", identity.issuer))
        ]
        if not grants:
            return None
        return Lent(
            frozenset([one.role for one in grants if one.role]) - identity.granted,
            frozenset([(one.policy, dict(one.to).get("role", "")) for one in grants if one.policy]),
            tuple(sorted([one.id for one in grants])),
            identity,
        )

    def lend(self, caller: Caller, now: float) -> Caller:
        """The caller with what grants lend it. For one who has named no roles, the roles lent are among those used."""
        if caller.lent is not None:
            return caller
        lent = self.lent(caller.identity, now)
        if lent is None:
            return caller
        effective = caller.effective | lent.roles if caller.tagged is None else caller.effective
        return caller._replace(identity=with_roles(caller.identity, lent), effective=effective, lent=lent)

    def listed(self) -> list[Act]:
        return list(self._acts.values())


_ORDER = ("token_id", "session", "run", "subject", "task", "dag", "issuer")


def _sharpness(pair: tuple[str, str]) -> int:
    return _ORDER.index(pair[0])


def _counts(one: Act, workload: dict[str, Fact]) -> bool:
    names = {name for name, _ in one.match}
    return "subject" in names or all([workload[name].attested for name in _WORKLOAD if name in names])


def with_roles(identity: Identity, lent: Lent) -> Identity:
    """The identity with the roles that grants lend it."""
    if not lent.roles:
        return identity
    return identity._replace(granted=identity.granted | lent.roles, unknown=identity.unknown - lent.roles)


def _without(caller: Caller, lent: Lent) -> Caller:
    """The caller as the token alone has it."""
    return Caller(lent.own, caller.tagged, caller.effective - lent.roles, caller.workload)


def decide(shard: Shard, call: Call) -> tuple[Decision, tuple[str, ...]]:
    """What policy says, and which grants that took: those without which it would have been another decision."""
    lent = call.caller.lent
    if lent is None:
        return shard.decide(call), ()
    own = Call(_without(call.caller, lent), call.target, call.now, call.client, call.country)
    before = shard.decide(own)
    if before.reason is Reason.POLICY_FORBIDDEN:
        return before, ()
    effective = call.caller.effective  # a role that the caller has put down brings no permit either
    policies = frozenset([policy for policy, role in lent.policies if not role or role in effective])
    decision = shard.decide(call, policies)
    same = (decision.reason, decision.permits, decision.forbids) == (
        before.reason,
        before.permits,
        before.forbids,
    )
    return decision, () if same else lent.grants
