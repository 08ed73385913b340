"""The policies of a set that are in force, as parts of regions. Those in shadow don't count: they decide nothing."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from airgate.engine import RESOURCE, Zone
from airgate.policy import patterns
from airgate.policy.callers import Callers
from airgate.policy.compile import Compiled
from airgate.policy.index import Rule
from airgate.policy.search import Part


@dataclass(frozen=True)
class Enforced:
    """The permits and forbids of each upstream."""

    compiled: Compiled
    callers: Callers
    permits: dict[str, list[Part]]
    forbids: dict[str, list[Part]]

    @classmethod
    def of(
        cls, compiled: Compiled, reading: Iterable[Rule] = (), beside: Compiled | None = None
    ) -> "Enforced":
        """`reading`: rules to compare with those of the set. `beside`: another set to compare with."""
        other = None if beside is None else beside.engine.bundle
        callers = Callers.of(compiled.engine.bundle, reading, other)
        permits: dict[str, list[Part]] = {}
        forbids: dict[str, list[Part]] = {}
        for upstream, rules in compiled.rules.items():
            of = zones(compiled, upstream)
            for rule in rules:
                if not rule.shadow:
                    effect = forbids if rule.effect == "forbid" else permits
                    effect.setdefault(upstream, []).append(Part(rule, upstream, of, callers))
        return cls(compiled, callers, permits, forbids)

    @property
    def upstreams(self) -> list[str]:
        return sorted({*self.permits, *self.forbids})


def zones(compiled: Compiled, upstream: str) -> dict[str, Zone]:
    """The time zones that the upstream's policies name."""
    if '"when.time"' not in compiled.shards[upstream]:
        return {}
    return {
        name: Zone(name, tuple(zone["starts"]), tuple(zone["offsets"]), zone["until"])
        for name, zone in json.loads(compiled.shards[upstream])["zones"].items()
    }


def clashes(permits: Iterable[Part]) -> Iterator[tuple[Part, Part]]:
    """Permits that can match one call, and ask for two credentials: the gate denies it."""
    asking = [part for part in permits if part.credential is not None]
    for number, one in enumerate(asking):
        for other in asking[:number]:
            if one.credential != other.credential and may_meet(one, other):
                yield other, one


def may_meet(one: Part, other: Part) -> bool:
    """False: their methods or paths have nothing in common, as far as one can see at a glance."""
    methods, others = one.rule.methods, other.rule.methods
    if "*" not in methods and "*" not in others and set(methods).isdisjoint(others):
        return False
    return one.upstream.startswith(RESOURCE) or any(
        _may_meet(path, another) for path in one.rule.paths for another in other.rule.paths
    )


@lru_cache(262_144)
def _may_meet(path: str, another: str) -> bool:
    one, other = patterns.path_pattern(path), patterns.path_pattern(another)
    lengths = len(one.segments), len(other.segments)
    if (lengths[0] < lengths[1] and not one.deep) or (lengths[1] < lengths[0] and not other.deep):
        return False
    return not any(
        len(pieces) == len(others) == 1 and pieces != others
        for pieces, others in zip(one.segments, other.segments, strict=False)
    )
