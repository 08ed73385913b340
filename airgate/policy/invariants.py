"""Invariants: what must be so whatever the policies say, in the policies' own words. docs/prove.md has the language.

`never` is read as a forbid that must not make a difference, `always` as a permit that must not; `unless` has the
opposite effect. So what is not known counts as it does in policies. But an exception from `never` is for whoever holds
a role, whether it is in use or not.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from airgate.engine import OWN, Zone
from airgate.policy.compile import Compiled, compile_seed
from airgate.policy.enforced import zones
from airgate.policy.index import Rule
from airgate.policy.meaning import TOKEN
from airgate.policy.seed import (
    SCHEMA,
    STARTER,
    Entry,
    Keys,
    Problem,
    Seed,
    SeedError,
    Source,
    label,
    listed,
    parse,
    quoted,
    structure,
)

FILE = "invariants.yaml"
INVARIANTS_SCHEMA = STARTER / "schema" / "invariants.schema.json"
NEVER, ALWAYS, UNLESS = "never", "always", "unless"


@dataclass(frozen=True)
class Invariant:
    """One sentence, and what it says of the calls to each upstream."""

    name: str
    kind: str  # never | always
    rules: dict[str, Rule]  # by upstream: a forbid for never, a permit for always
    exceptions: dict[str, Rule]  # of the opposite effect
    zones: dict[str, dict[str, Zone]]  # by upstream
    place: str

    @property
    def all_rules(self) -> list[Rule]:
        return [*self.rules.values(), *self.exceptions.values()]


def read(path: Path, compiled: Compiled, *, now: float | None = None) -> list[Invariant]:
    """The invariants of a file, for a policy set. Raises SeedError with all that is wrong.

    `now`: the one that the set was compiled at. Time zones are worked out around it.
    """
    source = Source(label(path))
    if not path.is_file():
        text = "no such file; write one (docs/prove.md), or name another with --invariants"
        raise SeedError([Problem(source.file, 0, 0, "", text)])
    problems = parse(path, source) or list(structure(source, _validator()))
    if problems:
        raise SeedError(problems)
    items: list[dict[str, Any]] = (source.data or {}).get("invariants", [])
    _refuse_doubles(source, items)
    seed = Seed(compiled.seed.root, compiled.seed.issuers, compiled.seed.roles, compiled.seed.upstreams)
    for number, item in enumerate(items):
        kind = NEVER if NEVER in item else ALWAYS
        for part in (kind, UNLESS):
            if part in item:
                forbids = (part == NEVER) or (part == UNLESS and kind == ALWAYS)
                data = _policy(item[part], item[kind], forbids, compiled)
                _refuse_no_page(source, ("invariants", number, part), data["target"])
                data["id"] = name = f"{part}-{number}"
                seed.policies[name] = Entry(source, ("invariants", number, part), data)
    stated = compile_seed(seed, now=now)
    return [_invariant(source, number, item, stated) for number, item in enumerate(items)]


@functools.cache
def _validator() -> Draft202012Validator:
    policies = Resource.from_contents(json.loads(SCHEMA.read_text("utf-8")))
    return Draft202012Validator(
        json.loads(INVARIANTS_SCHEMA.read_text("utf-8")),
        registry=Registry().with_resource(SCHEMA.name, policies),
    )


def _refuse_doubles(source: Source, items: list[dict[str, Any]]) -> None:
    first: dict[str, Keys] = {}
    problems = []
    for number, item in enumerate(items):
        keys: Keys = ("invariants", number, "name")
        if first.setdefault(item["name"], keys) != keys:
            line, column = source.values[first[item["name"]]]
            text = f"{quoted(item['name'])}: this name is taken, at {line}:{column}; choose another"
            problems.append(source.problem(keys, text))
    if problems:
        raise SeedError(problems)


def _refuse_no_page(source: Source, keys: Keys, target: dict[str, Any]) -> None:
    if OWN in listed(target.get("upstream", [])) and not target.keys() >= {"methods", "paths"}:
        text = f'of the gate\'s own pages ("{OWN}") say which; write methods and paths'
        raise SeedError([source.problem(keys, text)])


def _policy(said: dict[str, Any], whole: dict[str, Any], forbids: bool, compiled: Compiled) -> dict[str, Any]:
    """A policy of these conditions. What the target leaves out is everything; an exception is about the same upstreams.

    `whole`: what an exception is an exception from.
    """
    target = dict(said.get("target", {}))
    if "resource" in target or "resource" in whole.get("target", {}):
        about = whole.get("target", {})
        target.setdefault("resource", about.get("resource"))
        target.setdefault("actions", "*")
    else:
        about = whole.get("target", {})
        target.setdefault("upstream", about.get("upstream", sorted(compiled.seed.upstreams)))
        own = OWN in listed(target["upstream"])
        for member, everything in (("methods", ["*"]), ("paths", ["/**"])):
            if not own:
                target.setdefault(member, everything)
            elif member in about:
                target.setdefault(member, about[member])
    data: dict[str, Any] = {
        "description": "an invariant",
        "owner": "nobody",
        "effect": "forbid" if forbids else "permit",
        **{name: said[name] for name in ("subject", "workload", "when") if name in said},
        "target": target,
    }
    if not forbids and target.get("paths") == [
        TOKEN
    ]:  # what a permit says there that lets tokens be exchanged
        data["exchange"] = {"upstreams": sorted(compiled.seed.upstreams)}
    if "workload" in data:
        data["workload"] = {"attested": False, **data["workload"]}
    return data


def _invariant(source: Source, number: int, item: dict[str, Any], stated: Compiled) -> Invariant:
    kind = NEVER if NEVER in item else ALWAYS
    rules = _rules(stated, f"{kind}-{number}")
    line, column = source.values[("invariants", number)]
    return Invariant(
        item["name"],
        kind,
        rules,
        _rules(stated, f"{UNLESS}-{number}"),
        {upstream: zones(stated, upstream) for upstream in rules},
        f"{source.file}:{line}:{column}",
    )


def _rules(stated: Compiled, name: str) -> dict[str, Rule]:
    return {upstream: rule for upstream, rules in stated.rules.items() for rule in rules if rule.id == name}
