"""From a seed to what the gate decides by: a bundle, and a shard for each upstream (shapes: docs/kv-schema.md).

What a seed means is checked in `airgate.policy.meaning`. The last word is the gate's own reader.
"""

import gc
import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from airgate.engine import SHARD_LIMIT
from airgate.policy import rules, upstreams, zones
from airgate.policy.durations import seconds
from airgate.policy.index import FORMAT, Rule, canonical, shard
from airgate.policy.meaning import meaning
from airgate.policy.policyset import PolicySet
from airgate.policy.seed import MORE, MOST_PROBLEMS, Problem, Seed, SeedError, label, listed, quoted, read


@dataclass(frozen=True)
class StandIns:
    """The local stack's servers, which take the place of everything that a seed marks with `local`."""

    provider: str  # issuer URL
    sample: str  # base URL; an upstream's name is added as a path


@dataclass(frozen=True)
class Compiled:
    """A bundle and its shards, as they are written to KV."""

    bundle: dict[str, Any]
    text: str
    sha256: str
    shards: dict[str, str]  # the text of each, by upstream
    rules: dict[str, list[Rule]]  # by upstream, in the order of their ids
    seed: Seed
    engine: PolicySet  # the same, loaded by the gate's own code

    @property
    def stored(self) -> dict[str, str]:
        """The shards' texts by their SHA-256."""
        return {self.bundle["shards"][upstream]: text for upstream, text in self.shards.items()}


def compile_folder(root: Path, stand_ins: StandIns | None = None, *, now: float | None = None) -> Compiled:
    """Read the seed below `root` and compile it. Raises `SeedError` with every problem there is."""
    with _uncollected():
        return compile_seed(read(root), stand_ins, now=now)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Garbage is not looked for meanwhile: nearly all that is made here is kept, and there is a lot of it."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def compile_seed(seed: Seed, stand_ins: StandIns | None = None, *, now: float | None = None) -> Compiled:
    """Compile a seed that has been read. Raises `SeedError` with every problem there is.

    `now`: seconds since the epoch. Only its year counts: around that, time zones are worked out.
    """
    # What is wrong in structure at some place needs no second problem about its meaning.
    places = {(problem.file, problem.line, problem.column) for problem in seed.problems}
    meant = list(islice(meaning(seed), MOST_PROBLEMS))
    found = [problem for problem in meant if (problem.file, problem.line, problem.column) not in places]
    if len(meant) == MOST_PROBLEMS:
        found.append(Problem(label(seed.root), 0, 0, "", MORE))
    if seed.problems or found:
        raise SeedError([*seed.problems, *found])
    year = datetime.fromtimestamp(time.time() if now is None else now, UTC).year
    by_upstream = _rules(seed)
    named = {
        row[1]
        for each in by_upstream.values()
        for rule in each
        for row in rule.conditions
        if row[0] == "when.time"
    }
    tables = {name: zones.document(name, year) for name in sorted(named)}
    texts = {upstream: canonical(shard(upstream, each, tables)) for upstream, each in by_upstream.items()}
    digests = {upstream: _sha256(text) for upstream, text in texts.items()}
    bundle: dict[str, Any] = {
        "format": FORMAT,
        "issuers": {name: _issuer(entry.data, stand_ins) for name, entry in seed.issuers.items()},
        "roles": {
            name: [_grant(item) for item in entry.data["granted_to"]] for name, entry in seed.roles.items()
        },
        "upstreams": {name: _upstream(name, entry.data, stand_ins) for name, entry in seed.upstreams.items()},
        "claims": rules.claims([rule for each in by_upstream.values() for rule in each]),
        "shards": digests,
        "zones_until": min([table["until"] for table in tables.values()], default=None),
    }
    text = canonical(bundle)
    too_long = [
        f"the policies of {quoted(upstream)} come to {len(text.encode('utf-8')):,} bytes, and a gate reads at most "
        f"{SHARD_LIMIT:,}; move some of its paths to another upstream"
        for upstream, text in texts.items()
        if len(text.encode("utf-8")) > SHARD_LIMIT
    ]
    if too_long:
        raise SeedError([Problem(label(seed.root), 0, 0, "", text) for text in too_long])
    try:
        engine = PolicySet.load(text, {digests[upstream]: each for upstream, each in texts.items()})
    except ValueError as error:
        raise SeedError(
            [Problem(label(seed.root), 0, 0, "", f"the gate would refuse this policy: {error}")]
        ) from error
    return Compiled(bundle, text, _sha256(text), texts, by_upstream, seed, engine)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _rules(seed: Seed) -> dict[str, list[Rule]]:
    by_upstream: dict[str, list[Rule]] = {}
    for _, entry in sorted(seed.policies.items()):
        rule = rules.rule(entry.data)
        for upstream in rules.upstreams(entry.data):
            by_upstream.setdefault(upstream, []).append(rule)
    return dict(sorted(by_upstream.items()))


def _issuer(data: dict[str, Any], stand_ins: StandIns | None) -> dict[str, Any]:
    local = stand_ins is not None and data.get("local") == "provider"
    kind = data.get("kind", {})
    return {
        "issuer": stand_ins.provider if stand_ins is not None and local else data["issuer"],
        "jwks_uri": None if local else data.get("jwks_uri"),
        "audiences": data["audiences"],
        "authorized_parties": data.get("authorized_parties", []),
        "algorithms": data["algorithms"],
        "type": data.get("type", "at+jwt"),
        "max_lifetime": seconds(data.get("max_lifetime", "1h")),
        "clock_skew": seconds(data.get("clock_skew", "60s")),
        "dpop": data.get("dpop", "optional"),
        "dpop_replay": data.get("dpop_replay", "isolate"),
        "require": [
            {"claim": listed(item["claim"]), "any": sorted(set(map(rules.text, item["any"])))}
            for item in data.get("require", [])
        ],
        "truncates": [
            {"claim": listed(item["claim"]), "at": item["at"]} for item in data.get("truncates", [])
        ],
        "role_tag": data.get("role_tag", "optional"),
        "kind": {
            "claim": listed(kind["claim"]) if "claim" in kind else None,
            "default": kind.get("default", "workload"),
            "values": kind.get("values", {}),
        },
        "attested": {name: listed(claim) for name, claim in data.get("attested", {}).items()},
    }


def _grant(item: dict[str, Any]) -> dict[str, Any]:
    for member in ("subject", "kind", "scope"):
        if member in item:
            return {"issuer": item["issuer"], member: item[member]}
    return {"issuer": item["issuer"], "claim": listed(item["claim"]), "value": item["value"]}


def _upstream(name: str, data: dict[str, Any], stand_ins: StandIns | None) -> dict[str, Any]:
    local = stand_ins is not None and data.get("local") == "sample"
    return upstreams.upstream(data, f"{stand_ins.sample}/{name}" if stand_ins is not None and local else None)
