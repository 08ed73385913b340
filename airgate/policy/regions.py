"""Regions: the calls that a policy matches, as a set that can be compared with other sets.

What a comparison says holds for every call there could be; what can't be said is None or `Unknown`, never a guess.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from airgate.engine import Zone
from airgate.policy.callers import ANYBODY, Callers
from airgate.policy.index import Row, Rule
from airgate.policy.search import MOST_STEPS, Net, Part, Search, Unknown
from airgate.policy.when import month_words
from airgate.policy.witness import Witness
from airgate.policy.words import either

__all__ = ["Callers", "Region", "Unknown", "Witness", "covers", "empty", "intersect", "witness"]

Zones = dict[str, Zone]


@dataclass(frozen=True, eq=False)
class Region:
    """The calls to one upstream that all of some rules match: permits where they are true, forbids where not false."""

    upstream: str
    parts: tuple[Part, ...]

    @classmethod
    def of(
        cls, rule: Rule, upstream: str, zones: Zones | None = None, callers: Callers = ANYBODY
    ) -> "Region":
        """`zones`: those that the rule names, at least. `callers`: who there is; left out, anybody."""
        return cls(upstream, (Part(rule, upstream, zones or {}, callers),))


def intersect(one: Region, other: Region) -> Region | None:
    """The calls that are in both. None: there is none."""
    both = Region(one.upstream, (*one.parts, *other.parts))
    return None if one.upstream != other.upstream or witness(both) is None else both


def covers(one: Region, other: Region, since: float = 0) -> bool | None:
    """Whether every call that is in `other` is in `one`. None: can't tell."""
    for part in one.parts:
        found = witness(other, [Region(one.upstream, (part,))], since=since)
        if found is not None:
            return None if isinstance(found, Unknown) else False
    return True


def witness(
    region: Region, avoiding: Iterable[Region] = (), since: float = 0, most: int = MOST_STEPS
) -> Witness | Unknown | None:
    """A request that is in the region and in none of the others. None: there is none, which is proved.

    `since`: seconds since the epoch, before which no call counts. `most`: candidates to try.
    """
    avoiding = [other for other in avoiding if other.upstream == region.upstream]
    region, *avoiding = _with_callers([region, *avoiding])
    return Search(
        list(region.parts), Net(region.upstream, [other.parts for other in avoiding]), since, most
    ).answer()


def _with_callers(regions: list[Region]) -> list[Region]:
    """Parts of which nobody said who there is: anybody whom they all could mean."""
    parts = [part for region in regions for part in region.parts]
    if all(part.callers is not ANYBODY for part in parts):
        return regions
    anybody = Callers.anybody(part.rule for part in parts)
    given = {id(part): replace(part, callers=anybody) if part.callers is ANYBODY else part for part in parts}
    return [replace(region, parts=tuple(given[id(part)] for part in region.parts)) for region in regions]


def empty(rule: Rule, upstream: str = "", zones: Zones | None = None, callers: Callers = ANYBODY) -> str:
    """Why no call can ever make all conditions of a policy true; empty when one can, or when nobody can tell.

    `callers`: who there is; without it only what contradicts itself is found.
    """
    # The conditions of a forbid are read as a permit's: that some are unknown is not what its author meant.
    rule = replace(rule, effect="permit")
    if callers is ANYBODY:
        callers = Callers.anybody([rule])

    def possible(conditions: list[Row]) -> bool:
        of = Region.of(replace(rule, conditions=conditions), upstream, zones, callers)
        return witness(of) is not None

    if possible(rule.conditions):
        return ""
    if not possible([]):
        return f"no path that the gate lets through matches {_listed(rule.paths)}"
    core = list(rule.conditions)
    for row in rule.conditions:
        fewer = [other for other in core if other is not row]
        if not possible(fewer):
            core = fewer
    return _reason(core, callers)


def _reason(core: list[Row], callers: Callers) -> str:
    """Why these conditions, of which none can be spared, are never true together."""
    said = [_said(row) for row in core]
    if len(core) > 1:
        return f"{', '.join(said[:-1])} and {said[-1]} are never true together"
    [row], [what] = core, said
    if row[0] in ("subject.roles.any", "subject.roles.all"):
        granted = {role for tokens in callers.tokens.values() for role in tokens.grants}
        missing = [role for role in row[1] if role not in granted]
        several = ("them all" if row[0].endswith("all") else "any of them") if len(row[1]) > 1 else "it"
        return f"{what}: " + (
            f"no issuer grants {either(missing)}" if missing else f"nobody can hold {several}"
        )
    if row[0] == "subject.kind":
        return f"{what}: no issuer's tokens are of that kind"
    if row[0] == "subject.dpop":
        return f"{what}: every issuer's tokens have to be bound to a key"
    if row[0] == "subject.issuer":
        return f"{what}: no such issuer"
    if row[0].startswith("workload.") and row[-1]:
        return f"{what}, attested: no issuer attests it"
    if row[0] == "when.dates":
        return "when.dates: it ends before it begins"
    return f"{what}: never true"


def _said(row: Row) -> str:
    if row[0].startswith("subject.claims."):
        return f"{row[0]} ({'.'.join(row[1])}) {_listed(row[2])}"
    if row[0].startswith(("target.query.", "target.properties.")):
        return f"{row[0]} ({row[1]}) {_listed(row[2])}"
    if row[0] == "when.time":
        _, zone, days, start, end, *of_month = row
        on = [f" month_days {_listed([*map(str, month_words(each))])}" for each in of_month]
        return f"{row[0]} ({zone} {_listed(days)}{''.join(on)} {_clock(start)}-{_clock(end)})"
    if row[0] == "when.equals":
        return f"{row[0]} [{row[1]}, {row[2]}]"
    if isinstance(row[1], bool):
        return f"{row[0]} {'true' if row[1] else 'false'}"
    return row[0] if row[0] == "when.dates" else f"{row[0]} {_listed(row[1])}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _listed(values: list[str]) -> str:
    return f"[{', '.join(values)}]"
