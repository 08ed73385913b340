"""What a policy set would say of recorded calls: yes, no, or perhaps, since a log doesn't hold all that policy sees.

The gate's own code matches and decides. Where something isn't in the log, it is asked about the two ends: everything
unknown in the caller's favour, and everything against it. Only where both give the same answer is it certain.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

from airgate.engine import (
    EMPTY,
    KIND,
    OWN,
    Among,
    Caller,
    Claim,
    Condition,
    Dates,
    Decision,
    Denied,
    Equal,
    Issuer,
    Network,
    Policy,
    Query,
    Reason,
    Roles,
    Shard,
    Target,
    Truth,
    Window,
    fits,
    parse_target,
)
from airgate.engine import Call as Asked
from airgate.policy import patterns
from airgate.policy.index import Rule
from airgate.policy.phrases import joined
from airgate.policy.policyset import PolicySet
from airgate.policy.request import UNKNOWN_QUERY, Request
from airgate.policy.traffic import CUT_LIST, CUT_PATH, Call, Group
from policy import Index

MOST_ADDRESSES = 200_000  # whose policies are remembered

ANYWHERE = "/**"
SHORTENED = "its line was too long for the log, which holds only the beginning of the {}"
DELEGATED = "an agent made them for somebody, and the log doesn't hold which roles are whose"
NARROWED = (
    "they were made with gate tokens for the roles {}, which are not granted now: the tokens would lose them"
)
LENT = "a temporary grant had a part in the decision, and grants aren't part of policy"
_PLAIN = re.compile(r"(?:/[A-Za-z0-9_-]+)+")


class Found(NamedTuple):
    """A policy that may be about a call."""

    policy: Policy
    route: str
    certain: bool  # its path pattern matches for certain


class _Alone(NamedTuple):
    """One condition, as a policy of its own."""

    policy: Policy
    route: str


class Place:
    """Where calls go, as far as policies tell places apart."""

    __slots__ = ("compares_path", "found", "refused", "somewhere", "varying")

    def __init__(self, found: tuple[Found, ...], refused: Reason | None, somewhere: str | None) -> None:
        self.found = found
        self.refused = refused  # before policy is asked
        self.somewhere = somewhere  # the pattern that its path matched; None: the path is known
        self.varying = [
            _Alone(each.policy._replace(conditions=(condition,)), each.route)
            for each in found
            for condition in each.policy.conditions
            if _varies(condition, somewhere is None)
        ]
        self.compares_path = any(isinstance(alone.policy.conditions[0], Equal) for alone in self.varying)


class Case(NamedTuple):
    """Calls that get one answer."""

    group: Group
    place: Place
    truths: tuple[Truth, ...]  # of what depends on time, client and path


@dataclass(frozen=True)
class Judgement:
    """An answer, and what it rests on."""

    permits: bool | None  # None: nobody can tell
    policies: tuple[str, ...] = ()  # that decide; of an uncertain one: that may
    route: str | None = None
    reason: Reason | None = None
    why: tuple[str, ...] = ()  # it isn't certain


class Set(Protocol):
    """A policy set that has been compiled, and the rules that it was compiled from."""

    @property
    def engine(self) -> PolicySet: ...

    @property
    def rules(self) -> Mapping[str, list[Rule]]: ...


@dataclass
class Known:
    """A policy set that decisions of a log were made by, so what they say of its policies holds for equal ones."""

    compiled: Set
    versions: Collection[str]  # of its bundle; the local stack's has other addresses in it

    @cached_property
    def grants(self) -> Mapping[str, frozenset[object]]:
        return _grants(self.compiled.engine)


@dataclass
class Judge:
    """Answers recorded calls with a policy set.

    `known`: sets that the log's decisions were made by, as far as they are at hand.
    """

    compiled: Set
    known: list[Known] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._policies = self.compiled.engine
        bundle = self._policies.bundle
        self._issuers: dict[str, Issuer] = {issuer.mapping.id: issuer for issuer in bundle.issuers.values()}
        self._seen: dict[tuple[str, str, str], tuple[Place, Target]] = {}
        self._addresses: dict[tuple[str, str, str], tuple[Place, Target]] = {}
        self._named: dict[str, tuple[str, frozenset[str]]] = {}
        self._places: dict[tuple[object, ...], Place] = {}
        self._somewhere: dict[tuple[str, str, str], Place] = {}
        self._every: dict[tuple[int, str], dict[str, Policy]] = {}
        self.seen: dict[str, set[str]] = {}  # roles that callers of an issuer had, by the log
        self._grants = _grants(self._policies)

    @property
    def compares_run(self) -> bool:
        rows = [row for rules in self.compiled.rules.values() for rule in rules for row in rule.conditions]
        return any(row[0] == "when.equals" and "workload.run" in row[1:3] for row in rows)

    def case(self, call: Call) -> Case:
        """Which calls this one gets its answer with."""
        place, target = self._place(call)
        if not place.varying:
            return Case(call.group, place, ())
        asked = self._asked(call, target, call.group.caller)
        return Case(
            call.group, place, tuple([alone.policy.truth(asked, alone.route) for alone in place.varying])
        )

    def learn(self, groups: Iterable[Group]) -> None:
        """Take note of the roles that callers had: one that nobody had may be new."""
        for group in groups:
            identity = group.caller.identity
            seen = self.seen.setdefault(identity.issuer, set())
            seen |= identity.granted | identity.unknown

    def judge(self, case: Case, call: Call) -> Judgement:
        """The answer to the calls of a case, of which `call` is one."""
        group, place = case.group, case.place
        for name in ("issuer", "upstream"):
            if name in group.record.cut:
                return Judgement(None, why=(SHORTENED.format(name),))
        issuer = self._issuers.get(group.caller.identity.issuer)
        if issuer is None:
            return Judgement(False, reason=Reason.TOKEN_ISSUER)
        if issuer.dpop == "required" and group.caller.identity.jkt is None:
            return Judgement(False, reason=Reason.TOKEN_UNBOUND)
        if issuer.mapping.must_tag and group.caller.tagged is None:
            return Judgement(False, reason=Reason.ROLE_REQUIRED)
        if place.refused is not None:
            return Judgement(False, reason=place.refused)
        past = self._past(group)
        if group.record.delegated and (past is None or past.compiled is not self.compiled):
            return Judgement(None, why=(DELEGATED,))
        caller, told, hidden = self._caller(group, issuer, past)
        open_roles = told | hidden
        missing = set(caller.tagged or ()) - caller.identity.granted
        if missing - open_roles:
            if group.record.lent:
                return Judgement(None, why=(LENT,))
            if group.record.exchanged:
                return Judgement(None, why=(NARROWED.format(joined(sorted(missing - open_roles))),))
            return Judgement(False, reason=Reason.ROLE_NOT_GRANTED)
        _, target = self._place(call)
        if group.record.query == "":
            target = target._replace(query="")
        asked = self._asked(call, target, caller)
        other = self._asked(call, target, _with(caller, open_roles, hidden)) if open_roles else asked
        must: list[Found] = []
        may: list[Found] = []
        why: dict[str, None] = {}
        for each in place.found:
            surely, possibly, reasons = self._matches(each, asked, other, group, told, hidden, past, place)
            if possibly:
                (must if surely else may).append(each)
                if not surely:
                    why.update(dict.fromkeys(reasons))
        answer = self._decide(must, may, asked, tuple(why))
        doubts = []
        if group.record.lent:
            doubts.append(LENT)
        if missing & hidden:
            doubts.append("the log doesn't hold all roles of these callers")
        elif missing:
            doubts.append(
                f"the roles of Airgate-Role: {', '.join(sorted(missing))}, are granted in another way now"
            )
        if doubts and answer.permits is not None and (answer.permits is not group.permit or missing):
            return Judgement(None, answer.policies, answer.route, why=tuple(doubts))
        return answer

    def _place(self, call: Call) -> tuple[Place, Target]:
        event = call.group.record.event
        method, upstream, path = event["method"], event["upstream"], call.path
        if path is None:
            path = call.group.record.path  # of one of the gate's own pages
            if path is None:
                nowhere = Target(method, upstream, (), "", UNKNOWN_QUERY)
                return self._anywhere(nowhere, call.group.record.route)
            return self._at(method, upstream, path)
        seen = (method, upstream, path)
        at = self._seen.get(seen)
        if at is not None:
            return at
        if len(path) >= CUT_PATH:
            nowhere = Target(method, upstream, (), "", UNKNOWN_QUERY)
            return self._anywhere(nowhere, call.group.record.route)
        path = f"/{upstream}{path}"
        at = self._at(method, upstream, self._alike(upstream, path))
        if at[0].compares_path:
            at = self._at(method, upstream, path)
        if len(self._seen) >= MOST_ADDRESSES:
            self._seen.clear()
        self._seen[seen] = at
        return at

    def _at(self, method: str, upstream: str, path: str) -> tuple[Place, Target]:
        key = (method, upstream, path)
        at = self._addresses.get(key)
        if at is None:
            if len(self._addresses) >= MOST_ADDRESSES:
                self._addresses.clear()
            at = self._addresses[key] = self._locate(*key)
        return at

    def _alike(self, upstream: str, path: str) -> str:
        """A path that the same patterns match: plain segments that none of them names are as good as each other."""
        named = self._named.get(upstream)
        if named is None:
            named = self._named[upstream] = _named(self.compiled.rules.get(upstream, ()), upstream)
        other, names = named
        if not other or _PLAIN.fullmatch(path) is None:
            return path
        return "/".join([segment if segment in names else other for segment in path.split("/")])

    def _locate(self, method: str, upstream: str, path: str) -> tuple[Place, Target]:
        refused: Reason | None = None
        found: tuple[Found, ...] = ()
        target = Target(method, upstream, (), path, UNKNOWN_QUERY)
        try:
            if upstream == OWN:
                target = Request.read({"method": method, "path": path + UNKNOWN_QUERY}).target
            else:
                target = parse_target(method, "https://gate" + path + UNKNOWN_QUERY)
                settings = self._policies.bundle.upstreams.get(target.upstream)
                if settings is None or target.upstream != upstream:
                    raise Denied(Reason.ROUTE_UNKNOWN_UPSTREAM)
                fits(target, settings)
            shard = self._policies.shards.get(upstream, EMPTY)
            found = tuple(
                [
                    Found(policy, route, True)
                    for policy, route in shard.lookup.reachable(target)
                    if not policy.shadow
                ]
            )
        except Denied as denied:
            refused = denied.reason
        return self._shared(upstream, found, refused, None), target

    def _shared(
        self, upstream: str, found: tuple[Found, ...], refused: Reason | None, somewhere: str | None
    ) -> Place:
        names = tuple([(each.policy.id, each.route, each.certain) for each in found])
        key = (upstream, names, refused, somewhere)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = Place(found, refused, somewhere)
        return place

    def _anywhere(self, target: Target, pattern: str | None) -> tuple[Place, Target]:
        """Where a call may have gone of which only a path pattern is known, or not even that."""
        upstream, route = target.upstream, pattern or ANYWHERE
        key = (target.method, upstream, route)
        place = self._somewhere.get(key)
        if place is None:
            if upstream != OWN and upstream not in self._policies.bundle.upstreams:
                place = self._shared(upstream, (), Reason.ROUTE_UNKNOWN_UPSTREAM, route)
            else:
                found = []
                for policy in self._all(self.compiled, upstream).values():
                    if policy.shadow or not {target.method, "*"} & set(policy.methods):
                        continue
                    meeting = [path for path in policy.paths if _meet(path, route)]
                    if meeting:
                        found.append(Found(policy, meeting[0], _within(route, policy.paths)))
                place = self._shared(upstream, tuple(found), None, route)
            self._somewhere[key] = place
        return place, target

    def _all(self, compiled: Set, upstream: str) -> dict[str, Policy]:
        """The policies of an upstream, as the gate has built them."""
        key = (id(compiled), upstream)
        if key not in self._every:
            shard = compiled.engine.shards.get(upstream, EMPTY)
            self._every[key] = {
                rule.id: _built(rule, shard, upstream) for rule in compiled.rules.get(upstream, ())
            }
        return self._every[key]

    def _past(self, group: Group) -> Known | None:
        """The set that has decided a call, if it's at hand and its answer says which of its policies matched."""
        event = group.record.event
        if (
            "lent" in event["roles"]
            or event.get("grants")
            or group.record.cut & {"permits", "forbids", "shadow"}
            or max(len(event[name]) for name in ("permits", "forbids", "shadow")) >= CUT_LIST
        ):
            return None
        return next((known for known in self.known if event.get("bundle") in known.versions), None)

    def _caller(
        self, group: Group, issuer: Issuer, past: Known | None
    ) -> tuple[Caller, frozenset[str], frozenset[str]]:
        """A caller with the roles that this set grants, and those of which that can't be told.

        Of these, first those that it may grant in another way, then those that the log may have left out.
        """
        caller = group.caller
        identity = caller.identity
        if group.record.lent:
            return caller, frozenset(), frozenset()
        unnamed = group.record.unnamed
        seen = self.seen.get(identity.issuer, set())
        lent = group.record.event["roles"].get(
            "lent", ()
        )  # whether the token grants those, too, isn't in the log
        name = identity.issuer
        granted, unknown, told = set(), set(), set()
        for grant in issuer.mapping.grants:
            if grant.claim == KIND or (grant.claim is None and not unnamed):
                if grant.value == (identity.subject if grant.claim is None else identity.kind):
                    granted.add(grant.role)
                continue
            if past is not None:
                same = past.grants.get(f"{name} {grant.role}") == self._grants.get(f"{name} {grant.role}")
            else:
                same = grant.role in seen and grant.claim is not None
            if not same or grant.role in lent:
                told.add(grant.role)
            elif grant.role in identity.granted:
                granted.add(grant.role)
            elif grant.role in identity.unknown:
                unknown.add(grant.role)
        hidden: set[str] = set()
        if "roles" in group.record.cut or len(identity.granted) >= CUT_LIST:
            hidden = {grant.role for grant in issuer.mapping.grants} - granted
        effective = frozenset(granted) if caller.tagged is None else caller.effective
        identity = identity._replace(granted=frozenset(granted), unknown=frozenset(unknown - granted))
        caller = caller._replace(identity=identity, effective=effective)
        return caller, frozenset(told - granted), frozenset(hidden)

    def _matches(
        self,
        each: Found,
        asked: Asked,
        other: Asked,
        group: Group,
        told: frozenset[str],
        hidden: frozenset[str],
        past: Known | None,
        place: Place,
    ) -> tuple[bool, bool, list[str]]:
        """Whether a policy matches for certain, and whether it may; why that isn't the same."""
        policy, route, open_roles = each.policy, each.route, told | hidden
        if past is not None:
            matched = self._remembered(policy, past, group, asked.target, told)
            if matched is not None:
                return matched, matched, []
        favour, against = [], []
        reasons = []
        for condition in policy.conditions:
            truths = {_truth(policy, condition, route, asked)}
            if truths != {False} and (doubt := _unlogged(condition, asked, group, place.somewhere)):
                truths = {True, None, False}
                reasons.append(f"{policy.id} {doubt}")
            elif isinstance(condition, Roles) and condition.values & open_roles:
                truths.add(_truth(policy, condition, route, other))
                names = ", ".join(sorted(condition.values & open_roles))
                reasons.append(
                    f"{policy.id} asks for the role {names}; whether these callers have it now is not in the log"
                )
            favour.append(_Certain(next(truth for truth in (True, None, False) if truth in truths)))
            against.append(_Certain(next(truth for truth in (False, None, True) if truth in truths)))
        if not each.certain:
            where = "was not logged" if place.somewhere == ANYWHERE else f"is somewhere in {place.somewhere}"
            reasons.append(f"{policy.id} is about {_listed(policy.paths)}, and the path {where}")
        possibly = policy._replace(conditions=tuple(favour)).matches(asked, route)
        surely = each.certain and policy._replace(conditions=tuple(against)).matches(asked, route)
        return surely, possibly, reasons

    def _remembered(
        self, policy: Policy, past: Known, group: Group, target: Target, open_roles: frozenset[str]
    ) -> bool | None:
        """Whether a policy matches, as follows from whether it did when the log was written. None: nothing follows."""
        event = group.record.event
        matched = any(policy.id in event[name] for name in ("permits", "forbids", "shadow"))
        if past.compiled is self.compiled:
            return matched
        old = self._all(past.compiled, target.upstream).get(policy.id)
        if old is None or (old.forbids, old.conditions) != (policy.forbids, policy.conditions):
            return None
        if any(isinstance(one, Roles) and one.values & open_roles for one in policy.conditions):
            return None
        if (old.methods, old.paths) == (policy.methods, policy.paths):
            return matched
        if any(isinstance(one, Equal) for one in policy.conditions):  # which may read a name of the pattern
            return None
        if matched:
            return True if all(_within(path, policy.paths) for path in old.paths) else None
        asked_then = not {target.method, "*"}.isdisjoint(old.methods)
        return False if asked_then and all(_within(path, old.paths) for path in policy.paths) else None

    def _decide(self, must: list[Found], may: list[Found], asked: Asked, why: tuple[str, ...]) -> Judgement:
        if not may:
            decision = self._decision(must, asked)
            return Judgement(decision.permit, decision.policies, decision.route, decision.reason)
        permits = [each for each in may if not each.policy.forbids]
        # Of permits that exclude each other none lets anything through, so more of them isn't always more.
        kind = [self._decision([*must, *chosen], asked) for chosen in ([], *[[each] for each in permits])]
        strict = [self._decision([*must, *chosen], asked) for chosen in ([], permits, may)]
        yes = next((decision for decision in kind if decision.permit), None)
        no = next((decision for decision in strict if not decision.permit), None)
        if yes is not None and no is not None:
            names = tuple(each.policy.id for each in may)
            return Judgement(None, names, may[0].route, why=why)
        decision = yes or kind[0]
        return Judgement(decision.permit, decision.policies, decision.route, decision.reason)

    def _decision(self, matching: list[Found], asked: Asked) -> Decision:
        """What the gate makes of policies that match."""
        policies = [each.policy._replace(paths=(each.route,), conditions=()) for each in matching]
        numbers = [number for place in range(len(policies)) for number in (place, 0)]
        everything = Index([None, None, None, None, {"*": {"": numbers}}], {}, policies.__getitem__)
        shards = {asked.target.upstream: EMPTY._replace(lookup=everything)}
        return PolicySet(self._policies.bundle, shards).decide(asked)

    def _asked(self, call: Call, target: Target, caller: Caller) -> Asked:
        return Asked(caller, target, float(call.now), call.client, call.group.record.event.get("country"))


@dataclass(frozen=True)
class _Certain:
    """A condition whose truth has been settled."""

    so: Truth
    name: str = ""

    def truth(self, call: Asked, used: frozenset[str]) -> Truth:
        return self.so

    def seen(self, call: Asked, used: frozenset[str]) -> None:
        return None


def _varies(condition: Condition, path_known: bool) -> bool:
    if isinstance(condition, Equal):
        return path_known and any(name.startswith("resource.") for name in (condition.left, condition.right))
    return isinstance(condition, Window | Dates | Network)


def _truth(policy: Policy, condition: Condition, route: str, asked: Asked) -> Truth:
    """As the policy would see it: a forbid reads other roles than a permit."""
    return policy._replace(conditions=(condition,)).truth(asked, route)


def _unlogged(condition: Condition, asked: Asked, group: Group, somewhere: str | None) -> str:
    """What a condition asks for that the log doesn't hold; empty when it's there."""
    record, query_known = group.record, asked.target.query != UNKNOWN_QUERY
    names = (condition.left, condition.right) if isinstance(condition, Equal) else (condition.name,)
    for name in names:
        if name == "subject.id" and record.unnamed:
            return f"asks for the subject, and {record.unnamed}"
        if name == "workload.triggered_by" and record.unnamed:
            return f"asks for who started the run, and {record.unnamed}"
        space, _, member = name.partition(".")
        member = member.partition(".")[0]
        if space == "workload" and "workload" in record.cut and member in record.event["workload"]:
            return f"asks for the {member}, and {SHORTENED.format(member)}"
    if isinstance(condition, Network) and "client" in record.cut:
        return f"asks for the client's address, and {SHORTENED.format('address')}"
    if isinstance(condition, Claim):
        return f"asks for the claim {'.'.join(condition.path)}, and the log holds no claims"
    if isinstance(condition, Query) and not query_known:
        return f"asks for the parameter {condition.parameter}, and the log doesn't hold the query"
    if isinstance(condition, Among) and condition.name == "when.country" and asked.country is None:
        return "asks for the client's country, which the log doesn't hold here"
    if isinstance(condition, Equal):
        for name in (condition.left, condition.right):
            space, _, member = name.partition(".")
            claim = space == "subject" and member not in ("id", "issuer", "kind")
            if (
                claim
                or (space == "query" and not query_known)
                or (space == "resource" and somewhere is not None)
            ):
                return f"compares {condition.left} with {condition.right}, and the log doesn't hold {name}"
    return ""


def _with(caller: Caller, roles: frozenset[str], hidden: frozenset[str]) -> Caller:
    """A caller that has these roles, too. `hidden`: those of them that it may even have named in its tag."""
    identity = caller.identity._replace(granted=caller.identity.granted | roles)
    effective = caller.effective | (roles if caller.tagged is None else hidden)
    return caller._replace(identity=identity, effective=effective)


def _grants(policies: PolicySet) -> dict[str, frozenset[object]]:
    """How each issuer's tokens are granted each role."""
    found: dict[str, set[object]] = {}
    for issuer in policies.bundle.issuers.values():
        for grant in issuer.mapping.grants:
            found.setdefault(f"{issuer.mapping.id} {grant.role}", set()).add((grant.claim, grant.value))
    return {name: frozenset(grants) for name, grants in found.items()}


def _named(rules: Iterable[Rule], upstream: str) -> tuple[str, frozenset[str]]:
    """A segment that no pattern of these names, and those that one does; empty where a pattern looks inside of some."""
    names = {"", upstream}
    for rule in rules:
        for path in rule.paths:
            for pieces in patterns.path_pattern(path).segments:
                if len(pieces) == 1:
                    names.add(pieces[0])
                elif pieces != patterns.ANYTHING:
                    return "", frozenset()
    return next(other for number in range(len(names) + 1) if (other := f"x{number}") not in names), frozenset(
        names
    )


def _built(rule: Rule, shard: Shard, upstream: str) -> Policy:
    pattern = frozenset({frozenset({patterns.path_pattern(rule.paths[0])})})
    segments = patterns.path(pattern, frozenset(), patterns.ODD) or ()
    method = "GET" if rule.methods[0] == "*" else rule.methods[0]
    target = Target(method, upstream, segments, "", "")
    return next(policy for policy, _ in shard.lookup.reachable(target) if policy.id == rule.id)


def _meet(one: str, other: str) -> bool:
    """Whether some path matches both; true as well when that takes too long to find out."""
    first, second = patterns.path_pattern(one), patterns.path_pattern(other)
    for pieces, others in zip(first.segments, second.segments, strict=False):
        if len(pieces) == len(others) == 1 and pieces != others:
            return False
    try:
        return patterns.meet(one, other, patterns.ODD)
    except patterns.ExhaustedError:
        return True


def _within(inner: str, outer: Iterable[str]) -> bool:
    """Whether every path of one pattern is one of the others; false as well when that takes too long to find out."""
    try:
        return patterns.within([inner], outer, patterns.ODD)
    except patterns.ExhaustedError:
        return False


def _listed(paths: tuple[str, ...]) -> str:
    return ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
