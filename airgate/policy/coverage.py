"""How much of a policy set its cases have touched.

What is counted of each policy: that it matched once; that each of its path patterns did; that each condition was true
once, and false once. A condition that can't be one of the two isn't counted for it: where every issuer is named, no
caller comes from another. Unknown counts as neither.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from airgate.engine import KINDS, Among, Condition, Flag, Glob, Ids, Named, Policy, Tags, Target, Truth
from airgate.policy.compile import Compiled
from airgate.policy.gate import Answer, Gate
from airgate.policy.index import Rule, segments
from airgate.policy.phrases import asks, title

COUNTED = "each policy matching once, each of its paths reached once, each condition true once and false once"


@dataclass
class Touched:
    """What the cases have seen of one policy."""

    policy: Policy
    possible: list[tuple[bool, bool]]  # for each condition: whether it can be true, and false
    matched: bool = False
    routes: set[str] = field(default_factory=set)
    truths: list[set[Truth]] = field(default_factory=list)

    @property
    def total(self) -> int:
        return 1 + len(self.policy.paths) + sum(sum(possible) for possible in self.possible)

    @property
    def missed(self) -> int:
        """How many points no case has touched."""
        pairs = zip(self.possible, self.truths, strict=True)
        truths = [
            can_be and truth not in seen
            for both, seen in pairs
            for truth, can_be in zip((True, False), both, strict=True)
        ]
        return (not self.matched) + len(set(self.policy.paths) - self.routes) + sum(truths)

    @property
    def gaps(self) -> list[str]:
        """What no case has touched, in words."""
        policy = self.policy
        if not self.routes:
            return ["no case calls it"]
        words = [] if self.matched else ["doesn't match in any case"]
        words += [f"{path}: not called" for path in policy.paths if path not in self.routes]
        for condition, possible, seen in zip(policy.conditions, self.possible, self.truths, strict=True):
            missing = [
                word
                for word, truth, can_be in zip(("true", "false"), (True, False), possible, strict=True)
                if can_be and truth not in seen
            ]
            if missing:
                words.append(f"{title(condition)} ({asks(condition)}): never {' or '.join(missing)}")
        return words


class Coverage:
    """What a set of cases has touched."""

    def __init__(self, compiled: Compiled, gate: Gate) -> None:
        self.policies: dict[str, Touched] = {}
        for upstream, rules in sorted(compiled.rules.items()):
            for rule in rules:
                if rule.id in self.policies:
                    continue
                reachable = gate.shard(upstream).lookup.reachable(example_target(rule, upstream))
                policy = next(policy for policy, _ in reachable if policy.id == rule.id)
                possible = [possible_truths(condition, gate) for condition in policy.conditions]
                truths: list[set[Truth]] = [set() for _ in possible]
                self.policies[rule.id] = Touched(policy, possible, truths=truths)

    def add(self, answer: Answer) -> None:
        """Take in what one case was answered by."""
        for policy, route in answer.considered:
            call = answer.call
            assert call is not None  # or nothing would have been considered
            touched = self.policies[policy.id]
            touched.routes.add(route)
            touched.matched = touched.matched or policy.matches(call, route)
            used = call.caller.identity.granted if policy.forbids else call.caller.effective
            for seen, condition in zip(touched.truths, policy.conditions, strict=True):
                seen.add(condition.truth(call, used))

    @property
    def total(self) -> int:
        return sum(touched.total for touched in self.policies.values())

    @property
    def missed(self) -> int:
        return sum(touched.missed for touched in self.policies.values())

    @property
    def percent(self) -> float:
        return 100.0 * (self.total - self.missed) / self.total if self.total else 100.0

    @property
    def unmatched(self) -> list[str]:
        """Policies that no case has made match."""
        return sorted(name for name, touched in self.policies.items() if not touched.matched)


def possible_truths(condition: Condition, gate: Gate) -> tuple[bool, bool]:
    """Whether callers of these issuers can make a condition true, and false."""
    if isinstance(condition, Among) and condition.name == "subject.issuer":
        return _possible(condition, gate.issuers)
    if isinstance(condition, Among) and condition.name == "subject.kind":
        return _possible(condition, kinds(gate))
    if isinstance(condition, Flag) and condition.name == "subject.dpop":
        bearers = any(issuer.dpop != "required" for issuer in gate.issuers.values())
        return (True, bearers) if condition.expected else (bearers, True)
    if isinstance(condition, Ids):
        return True, not _anything(condition.globs)
    if isinstance(condition, Named | Tags):
        field = "tags" if isinstance(condition, Tags) else condition.field
        attests = any(field in dict(issuer.mapping.attested) for issuer in gate.issuers.values())
        said = attests or not condition.attested
        fails = said and not (isinstance(condition, Named) and _anything(condition.globs))
        return said, fails or "human" in kinds(gate)  # for people it's false
    return True, True


def _anything(globs: Iterable[Glob]) -> bool:
    return any(glob.pattern == "*" for glob in globs)


def kinds(gate: Gate, issuers: Iterable[str] | None = None) -> set[str]:
    """The kinds of caller that these issuers' tokens can name; of all issuers when left out."""
    mappings = [gate.issuers[name].mapping for name in (gate.issuers if issuers is None else issuers)]
    said = (mapping.kind_values.values() or KINDS for mapping in mappings if mapping.kind_claim is not None)
    return {mapping.kind_default for mapping in mappings}.union(*said)


def _possible(condition: Among, known: Iterable[str]) -> tuple[bool, bool]:
    values = set(known)
    return not condition.values.isdisjoint(values), not values <= condition.values


def example_target(rule: Rule, upstream: str) -> Target:
    """A target that a rule's first method and path match."""
    method = "GET" if rule.methods[0] == "*" else rule.methods[0]
    parts = [part for part in segments(rule.paths[0]) if part != "**"]
    names = tuple("x" if part.startswith("{") else part.replace("*", "") or "x" for part in parts)
    return Target(method, upstream, names, "/" + "/".join(names), "")
