"""What is valid and still deserves a second look: findings; and notes, about what is right and easily overlooked.

What is said of two policies together is proved by `regions`; where that can't tell, nothing is said.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import reduce
from itertools import islice
from operator import or_

from airgate.engine import KINDS, RESOURCE, Glob, Zone
from airgate.policy import patterns, regions
from airgate.policy.callers import Callers, odd
from airgate.policy.compile import Compiled
from airgate.policy.enforced import may_meet, zones
from airgate.policy.exposure import exposure
from airgate.policy.finding import Finding
from airgate.policy.gate import Gate
from airgate.policy.index import Row, Rule, segments
from airgate.policy.output import watched
from airgate.policy.phrases import joined, moment
from airgate.policy.regions import Region, Witness
from airgate.policy.rules import upstreams
from airgate.policy.seed import Entry, Keys
from airgate.policy.words import either, listed, nearest, quoted

READS = frozenset({"GET", "HEAD", "OPTIONS"})
HONOURED = frozenset(
    {"rate_limit", "credential", "max_body", "require", "asking", "exchange"}
)  # what the gate can do
# The words of Airflow 3.3 (DagRunType).
RUN_TYPES = (
    "scheduled",
    "manual",
    "backfill",
    "asset_triggered",
    "asset_materialization",
    "operator_triggered",
)
MOST_PATHS = 50  # of one policy that are compared with each other
MOST_CONFLICTS = 3  # of one permit; more of them say nothing new

_BOUNDLESS = re.compile(r"[A-Za-z0-9]\*")  # a name, or the beginning of one, and whatever follows
_NEGATIVE = {
    "subject.roles": "whoever loses a role, or gets it by another name, is let through",
    "subject.claims": "every value that nobody has thought of is let through",
    "subject.dpop": "whoever binds its tokens to a key is shut out, and whoever steals one that isn't is let through",
    "workload.tags": "a DAG is let through until somebody tags it",
    "target.query": "every value that nobody has thought of is let through",
    "target.properties": "every value that nobody has thought of is let through",
}

_FACTS = {
    "dag": "DAG",
    "tags": "DAG tags",
    "run": "DAG run",
    "run_type": "run type",
    "triggered_by": "triggering user, as of runs that nobody started",
}

_FLAGGED = {
    ("dpop", True): "is bound to a key",
    ("dpop", False): "is bound to no key",
    ("delegated", True): "is delegated",
    ("delegated", False): "isn't delegated",
}


def findings(compiled: Compiled) -> list[Finding]:
    """Findings and notes, in the order of their places."""
    found = [*_unused(compiled), *exposure(compiled.seed)]
    survey = _Survey(compiled)
    for entry in watched(compiled.seed.policies.values(), "Policies"):
        found += _of_policy(entry, compiled)
        found += survey.of_policy(entry)
    return sorted(set(found))


def _finding(entry: Entry, keys: Keys, code: str, text: str, *, note: bool = False) -> Finding:
    """At the value, or at what holds it when the policy doesn't write it out."""
    while keys and entry.at(*keys) is None:
        keys = keys[:-1]
    policy = str(entry.data["id"])
    problem = entry.problem(keys or ("id",), text)
    if keys in ((), ("id",)):
        problem = replace(problem, path=policy)
    return Finding(problem, code, policy, note)


def _unused(compiled: Compiled) -> Iterator[Finding]:
    seed = compiled.seed
    roles: set[str] = set()
    named: set[str] = set()
    for policy in (entry.data for entry in seed.policies.values()):
        for names in policy.get("subject", {}).get("roles", {}).values():
            roles.update(names)
        named.update(upstreams(policy))
    for name, entry in seed.roles.items():
        if name not in roles:
            text = "no policy uses this role; remove it, or write the policy"
            yield Finding(entry.source.problem(entry.keys, text, at_key=True), "unused-role", "")
    for name, entry in seed.upstreams.items():
        if name not in named:
            text = "no policy names this upstream, so nobody can reach it; remove it, or write the policy"
            yield Finding(entry.source.problem(entry.keys, text, at_key=True), "unused-upstream", "")


def _of_policy(entry: Entry, compiled: Compiled) -> Iterator[Finding]:
    """What can be seen in one policy alone."""
    if entry.data["effect"] == "permit":
        yield from _broad(entry)
        yield from _negative(entry)
        yield from _obligations(entry)
        yield from _everyone(entry)
        yield from _uncounted(entry)
    else:
        yield from _evaded(entry)
    yield from _run_types(entry)
    yield from _boundless(entry)
    yield from _twice(entry, _odd(entry, compiled))


def _odd(entry: Entry, compiled: Compiled) -> int:
    """What segments of the policy's paths may hold, at any of its upstreams."""
    known = compiled.engine.bundle.upstreams
    return reduce(or_, [odd(known[name]) for name in upstreams(entry.data) if name in known], 0)


def _broad(entry: Entry) -> Iterator[Finding]:
    """A permit that lets writes through should say which, and where."""
    target = entry.data["target"]
    if "resource" in target or READS.issuperset(listed(target["methods"])):
        return
    for keys, method in entry.names("target", "methods"):
        if method == "*":
            text = '"*": permits every way of writing; name the methods'
            yield _finding(entry, keys, "broad-write", text)
    for keys, path in entry.names("target", "paths"):
        parts = segments(path)
        if parts and all(part in ("*", "**") or part.startswith("{") for part in parts):
            text = f"{quoted(path)}: permits writing to every path of the upstream; name the paths"
            yield _finding(entry, keys, "broad-write", text)
        elif "*" in parts:
            text = (
                f'{quoted(path)}: "*" permits writing whatever stands there; write {{name}} to say what may'
            )
            yield _finding(entry, keys, "broad-write", text)


def _negative(entry: Entry) -> Iterator[Finding]:
    """A permit should say what must be there. What must not be there is a forbid's matter."""
    for space, member in (("subject", "roles"), ("workload", "tags")):
        if entry.at(space, member, "none") is not None:
            yield _negative_at(entry, (space, member, "none"), f"{space}.{member}")
    if entry.at("subject", "dpop") is False:
        yield _negative_at(entry, ("subject", "dpop"), "subject.dpop")
    for space, member in (("subject", "claims"), ("target", "query"), ("target", "properties")):
        for number, item in enumerate(entry.at(space, member) or ()):
            if "none" in item:
                yield _negative_at(entry, (space, member, number, "none"), f"{space}.{member}")


def _negative_at(entry: Entry, keys: Keys, what: str) -> Finding:
    text = f"a permit for who or what is not something: {_NEGATIVE[what]}; say what must be there, or write a forbid"
    return _finding(entry, keys, "negative-permit", text)


def _obligations(entry: Entry) -> Iterator[Finding]:
    if "resource" in entry.data["target"]:  # whoever asks gets them, and has to do them
        return
    for name in entry.data.get("obligations", {}):
        if name not in HONOURED:
            text = (
                "the gate can't do this, so it denies every call that this permit matches, "
                "even where another permit matches too"
            )
            yield _finding(entry, ("obligations", name), "obligation", text)


def _everyone(entry: Entry) -> Iterator[Finding]:
    narrowed = {"id", "kind", "roles", "claims"} & entry.data["subject"].keys()
    if not narrowed and "workload" not in entry.data:
        subject = entry.data["subject"]
        of = f" of {either(listed(subject['issuer']))}" if "issuer" in subject else ""
        which = [words for (name, value), words in _FLAGGED.items() if subject.get(name) is value]
        that = f" that {' and '.join(which)}" if which else ""
        text = f"permits every caller with a token{of}{that}"
        yield _finding(entry, ("subject", "issuer"), "everyone", text, note=True)


def _uncounted(entry: Entry) -> Iterator[Finding]:
    """A limit that a caller gets around by saying another DAG with every call."""
    limits = entry.at("obligations", "rate_limit") or []
    limits = limits if isinstance(limits, list) else [limits]
    chosen = {"role"} if entry.data.get("workload", {}).get("attested", False) else {"dag", "task", "role"}
    if limits and all(chosen & set(listed(limit["by"])) for limit in limits):
        text = (
            "callers choose what these limits count by, so none of them bounds a caller that lies; "
            "add one by [subject]"
        )
        yield _finding(entry, ("obligations", "rate_limit"), "evadable-limit", text, note=True)


def _evaded(entry: Entry) -> Iterator[Finding]:
    """How callers may get around a forbid."""
    for number, item in enumerate(entry.at("target", "query") or ()):
        for quantifier in ("any", "all"):
            if quantifier in item:
                text = (
                    f"{quoted(item['parameter'])}: a server that takes the value in other letter case, or the "
                    "parameter by another name or from the body, can be asked past this"
                )
                keys: Keys = ("target", "query", number, quantifier)
                yield _finding(entry, keys, "query-forbid", text, note=True)
    workload = entry.data.get("workload", {})
    if workload and not workload.get("attested", False):
        said = [name for name in ("dag", "task", "environment", "tags") if name in workload]
        if said:
            text = (
                f"{either(said)} may be asserted: a caller that says another gets past this; "
                '"attested: true" counts only what the token says'
            )
            yield _finding(entry, ("workload", said[0]), "asserted-forbid", text, note=True)


def _run_types(entry: Entry) -> Iterator[Finding]:
    """A type that no run has: such a forbid stops nothing, and such a permit lets nothing through."""
    for keys, pattern in entry.names("workload", "run_type"):
        if not any(Glob(pattern).matches(known) for known in RUN_TYPES):
            hint = nearest(pattern, RUN_TYPES) or f"; they are {', '.join(RUN_TYPES)}"
            text = f"{quoted(pattern)}: Airflow has no runs of this type{hint}"
            yield _finding(entry, keys, "run-type", text)


def _boundless(entry: Entry) -> Iterator[Finding]:
    """`team1*` matches team10, too."""
    permits = entry.data["effect"] == "permit"
    for keys, path in entry.names("target", "paths"):
        for part in segments(path):
            if _BOUNDLESS.search(part):
                advice = "; list the names, or end the prefix with a mark such as - or _" if permits else ""
                text = f"{quoted(path)}: {_also(part)}{advice}"
                yield _finding(entry, keys, "prefix", text, note=not permits)
    named = ("dag", "task", "triggered_by", "environment")
    for place in (*(("workload", name) for name in named), ("target", "ids")):
        for keys, pattern in entry.names(*place):
            if _BOUNDLESS.search(pattern):
                text = f"{quoted(pattern)}: {_also(pattern)}"
                yield _finding(entry, keys, "prefix", text, note=True)


def _twice(entry: Entry, odd: int) -> Iterator[Finding]:
    """A path that another one of the same policy matches anyway. `odd`: see `patterns.path`."""
    paths = list(entry.names("target", "paths"))[:MOST_PATHS]
    for keys, path in paths:
        for _, other in paths:
            if other != path and _within(path, other, odd):
                text = f"{quoted(path)}: {quoted(other)} matches all of this, too"
                yield _finding(entry, keys, "path", text, note=True)
                break


def _within(path: str, other: str, odd: int) -> bool:
    try:
        return patterns.within([path], [other], odd)
    except patterns.ExhaustedError:
        return False


def _also(pattern: str) -> str:
    found = _BOUNDLESS.search(pattern)
    assert found is not None  # or nobody would ask
    prefix = pattern[: found.start() + 1]
    more = f"{prefix}0" if prefix[-1:].isdigit() else f"{prefix}s"
    return f"matches {quoted(more + pattern[found.end() :].replace('*', ''))}, too"


class _Survey:
    """What can be seen of policies only beside each other, and beside the issuers' tokens."""

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self._gate = Gate(compiled.engine)
        self._callers = Callers.of(compiled.engine.bundle)
        self._zones: dict[str, Zone] = {}
        for upstream in compiled.rules:
            self._zones |= zones(compiled, upstream)
        self._rules = {
            upstream: {rule.id: rule for rule in rules} for upstream, rules in compiled.rules.items()
        }

        self._asking = {
            upstream: [
                rule for rule in rules if rule.effect == "permit" and not rule.shadow and rule.obligations
            ]
            for upstream, rules in compiled.rules.items()
        }

    def of_policy(self, entry: Entry) -> Iterator[Finding]:
        name = entry.data["id"]
        for upstream in upstreams(entry.data):
            rule = self._rules[upstream][name]
            where = f" (upstream {upstream})" if len(upstreams(entry.data)) > 1 else ""
            region = self._region(rule, upstream)
            example = regions.witness(region)
            # A forbid matches by what is unknown, too: then there is an example though its conditions never hold.
            doubtful = example is None or rule.effect == "forbid"
            if doubtful and (reason := regions.empty(rule, upstream, self._zones, self._callers)):
                known = "" if example is None else " by anything that is known of a call"
                yield _finding(entry, _keys_of(reason), "never", f"can never match{known}: {reason}{where}")
                continue
            if isinstance(example, Witness):
                yield from self._needless(entry, region, example, where)
            if rule.effect == "permit" and not rule.shadow and rule.obligations:
                yield from self._conflicts(rule, upstream)
        if entry.data["effect"] == "forbid":
            yield from self._unknown(entry)

    def _region(self, rule: Rule, upstream: str) -> Region:
        return Region.of(rule, upstream, self._zones, self._callers)

    def _needless(self, entry: Entry, region: Region, example: Witness, where: str) -> Iterator[Finding]:
        """Another policy that takes the effect from this one; one is enough to say so."""
        upstream = region.upstream
        rule = self._rules[upstream][entry.data["id"]]
        others = self._matching(example, rule, upstream)
        if rule.effect == "permit":
            forbids = [other for other in others if other.effect == "forbid" and not other.shadow]
            for other in forbids:
                if regions.covers(self._region(other, upstream), region):
                    text = f"permits nothing: the forbid {self._shown(other)} covers all of it{where}"
                    yield _finding(entry, ("id",), "forbidden", text)
                    return
        for other in others:
            same = (rule.effect, rule.shadow) == (other.effect, other.shadow)
            if not same or not _adds_nothing(rule, other):
                continue
            wider = self._region(other, upstream)
            # Of two that say the same, one has to stay.
            stays = rule.id < other.id and _adds_nothing(other, rule)
            if regions.covers(wider, region) and not (stays and regions.covers(region, wider)):
                text = f"is redundant: {self._shown(other)} {other.effect}s all of it{where}"
                yield _finding(entry, ("id",), "redundant", text)
                return

    def _shown(self, rule: Rule) -> str:
        return f"{rule.id} ({self._compiled.seed.policies[rule.id].place})"

    def _matching(self, example: Witness, rule: Rule, upstream: str) -> list[Rule]:
        """Other policies that match a call of the rule's: whoever covers it is among them."""
        call = example.call(self._callers)
        if call is None:
            return []
        reachable = self._gate.shard(upstream).lookup.reachable(call.target)
        names = dict.fromkeys(policy.id for policy, route in reachable if policy.matches(call, route))
        return [self._rules[upstream][name] for name in names if name != rule.id]

    def _conflicts(self, rule: Rule, upstream: str) -> Iterator[Finding]:
        """Permits that can match one call with this one, and ask for what can't be had together."""
        about = upstream.startswith(RESOURCE)
        others = (
            (other, name)
            for other in self._asking[upstream]
            if other.id > rule.id
            for name in _contradicting(rule, other, about)
            if self._meet(rule, other, upstream)
        )
        for other, name in islice(others, MOST_CONFLICTS):
            yield self._conflict(rule, other, name)

    def _meet(self, one: Rule, other: Rule, upstream: str) -> bool:
        """Whether there is a call that both match."""
        first, second = self._region(one, upstream), self._region(other, upstream)
        if not may_meet(first.parts[0], second.parts[0]):
            return False
        both = regions.intersect(first, second)
        return both is not None and isinstance(regions.witness(both), Witness)

    def _conflict(self, one: Rule, other: Rule, name: str) -> Finding:
        entry = self._compiled.seed.policies[one.id]
        values = [quoted((rule.obligations or {})[name]) for rule in (one, other)]
        outcome = "such a call is denied" if name == "credential" else "whoever asks is told both"
        text = (
            f"{values[0]}: {self._shown(other)} can match the same call and asks for {values[1]}; {outcome}"
        )
        return _finding(entry, ("obligations", name), "conflict", text)

    def _unknown(self, entry: Entry) -> Iterator[Finding]:
        """Whom a forbid hits for what isn't known of them."""
        ways: list[str] = []
        for upstream in upstreams(entry.data)[:1]:
            rule = self._rules[upstream][entry.data["id"]]
            for row in rule.conditions:
                ways += self._ways(row, rule, upstream)
        if ways:
            text = f"also hits, where its other conditions hold: {'; '.join(dict.fromkeys(ways))}"
            yield _finding(entry, ("id",), "unknown", text, note=True)

    def _ways(self, row: Row, rule: Rule, upstream: str) -> list[str]:
        """How a condition can be unknown, and for whom."""
        name = row[0]
        calls = "questions" if upstream.startswith(RESOURCE) else "calls"
        if name.startswith("subject.roles."):
            return self._roles_unknown(row[1], rule)
        if name.startswith("subject.claims."):
            return [f"tokens without the claim {'.'.join(row[1])}, or with one that can't be compared"]
        if name.startswith("workload."):
            field = name.split(".")[1]
            return self._context_unknown(field, row[-1], rule)
        if name.startswith("target.query."):
            return [f"calls that send {row[1]} twice, in other letter case, or beside a ; in the query"]
        if name.startswith("target.properties."):
            return [f"questions without the property {row[1]}"]
        if name == "when.time":
            return [f"{calls} from {moment(self._zones[row[1]].until)} on, unless policy is published again"]
        if name == "when.ip":
            return [f"{calls} whose client's address isn't known"]
        if name == "when.country":
            return [f"{calls} whose country isn't known"]
        if name == "when.equals":
            return [way for attribute in row[1:3] for way in self._attribute_unknown(attribute, row[3], rule)]
        return []

    def _issuers(self, rule: Rule) -> list[str]:
        named = [row[1] for row in rule.conditions if row[0] == "subject.issuer"]
        return named[0] if named else sorted(self._gate.issuers)

    def _roles_unknown(self, roles: list[str], rule: Rule) -> list[str]:
        ways = []
        for issuer in self._issuers(rule):
            mapping = self._gate.issuers[issuer].mapping
            claims: dict[tuple[str, ...], list[str]] = {}
            for grant in mapping.grants:
                if grant.role in roles and grant.claim:
                    claims.setdefault(grant.claim, []).append(grant.role)
            for claim, granted in claims.items():
                named = joined(sorted(set(granted)))
                noun = "role" if len(set(granted)) == 1 else "roles"
                ways.append(f"tokens of issuer {issuer} without the claim {'.'.join(claim)} ({noun} {named})")
        return ways

    def _context_unknown(self, field: str, attested: bool, rule: Rule) -> list[str]:
        named = [row[1] for row in rule.conditions if row[0] == "subject.kind"]
        kinds = [kind for kind in KINDS if kind != "human" and (not named or kind in named[0])]
        if not kinds:
            return []
        what = _FACTS.get(field, field)
        lack = f"whose token attests no {what}" if attested else f"that carry no {what}"
        return [f"calls by {either(kinds)} {lack}"]

    def _attribute_unknown(self, attribute: str, attested: bool, rule: Rule) -> list[str]:
        space, _, name = attribute.partition(".")
        if space == "workload":
            return self._context_unknown(name, attested, rule)
        if space == "subject" and name not in ("id", "issuer", "kind"):
            return [f"tokens without the claim {name}, or with several values in it"]
        if space == "query":
            return [f"calls that send {name} twice, in other letter case, or beside a ; in the query"]
        if space == "resource" and rule.paths == ["/*"] and name != "id":
            return [f"questions without the property {name}, or with several values in it"]
        return []


def _adds_nothing(rule: Rule, other: Rule) -> bool:
    """Whether a rule asks for nothing that the other doesn't ask for."""
    return rule.obligations is None or rule.obligations == other.obligations


def _contradicting(one: Rule, other: Rule, about_resource: bool) -> list[str]:
    """Obligations of both that can't both be kept."""
    first, second = one.obligations or {}, other.obligations or {}
    names = first.keys() & second.keys()
    # At an upstream the gate denies what it doesn't know anyway, which is said of each policy.
    names &= {"credential"} | (names - HONOURED if about_resource else set())
    return sorted(name for name in names if first[name] != second[name])


def _keys_of(reason: str) -> Keys:
    """The place of the first condition that a reason names: `subject.roles.any [x]: …`"""
    name = re.match(r"[a-z_]+(\.[a-z_]+)+", reason)
    return tuple(name.group().split(".")) if name is not None else ("id",)
