"""From a bundle back to a seed: compiling that gives the same bundle, so two of them can be compared by meaning."""

from pathlib import Path
from typing import Any

import pytest
from every_setting import COMPILED, WRITTEN

from airgate.policy import rules, upstreams
from airgate.policy.changes import Comparison
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.decompile import decompile, upstream
from airgate.policy.index import canonical
from airgate.policy.seed import STARTER, Seed
from airgate.policy.stored import alike

ISSUER = """
issuers:
  second:
    issuer: https://second.example.com
    jwks_uri: https://second.example.com/keys
    audiences: [https://gate.example.com]
    authorized_parties: [a, b]
    algorithms: [RS256, ES256]
    type: any
    max_lifetime: 90m
    clock_skew: 5s
    dpop: required
    require: [{claim: [tenant, id], any: [x, y]}]
    truncates: [{claim: groups, at: 200}]
    role_tag: required
    kind: {claim: [kind], default: human, values: {service: workload}}
    attested: {dag: [airflow, dag]}
roles:
  r1:
    description: d
    granted_to: [{issuer: second, subject: s}, {issuer: second, kind: agent}, {issuer: second, scope: w}]
policies:
  - id: several
    description: d
    owner: o@example.com
    effect: forbid
    mode: shadow
    subject: {claims: [{claim: [tenant, id], any: [x], none: [y]}], delegated: false}
    target: {upstream: [crm, ledger], methods: ["*"], paths: ["/v3/**"]}
    when: {dates: {from: 2030-01-01, until: 2030-12-31}}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The starter set, an upstream with every setting, and an issuer with nearly every one."""
    folder = tmp_path_factory.mktemp("seed")
    for file in STARTER.rglob("*.yaml"):
        if not file.name.endswith(".cases.yaml") and file.name != "invariants.yaml":
            place = folder / file.relative_to(STARTER)
            place.parent.mkdir(exist_ok=True)
            place.write_text(file.read_text("utf-8"), "utf-8")
    (folder / "issuer.yaml").write_text(ISSUER, "utf-8")
    indented = "".join(f"    {line}\n" for line in WRITTEN.splitlines())
    (folder / "upstream.yaml").write_text(f"upstreams:\n  everything:\n{indented}", "utf-8")
    return compile_folder(folder)


def written(compiled: Compiled, folder: Path) -> Compiled:
    """The seed that a bundle is decompiled to, written to files and compiled as any other."""
    seed = decompile(compiled.bundle, compiled.rules, descriptions(compiled.seed))
    sections: dict[str, Any] = {
        section: {name: entry.data for name, entry in getattr(seed, section).items()}
        for section in ("issuers", "roles", "upstreams")
    }
    sections["policies"] = [entry.data for entry in seed.policies.values()]
    (folder / "all.yaml").write_text(canonical(sections), "utf-8")
    return compile_folder(folder)


def descriptions(seed: Seed) -> dict[str, str]:
    return {f"policy {name}": "d" for name in seed.policies} | {f"role {name}": "d" for name in seed.roles}


def test_compiling_what_was_decompiled_gives_the_same_bundle(compiled: Compiled, tmp_path: Path) -> None:
    assert "everything" in compiled.bundle["upstreams"]
    again = written(compiled, tmp_path)
    assert (again.bundle, again.sha256) == (compiled.bundle, compiled.sha256)


def test_an_upstream_with_every_setting_is_read_back() -> None:
    assert upstreams.upstream(upstream(COMPILED)) == COMPILED


def test_a_policy_about_several_upstreams_is_one_policy(compiled: Compiled) -> None:
    seed = decompile(compiled.bundle, compiled.rules, {})
    several = {name: rules.upstreams(entry.data) for name, entry in seed.policies.items()}
    assert several["several"] == ["crm", "ledger"]
    assert all(
        name in {rule.id for rule in compiled.rules[where]}
        for name, each in several.items()
        for where in each
    )


def test_a_set_doesnt_differ_from_what_was_read_back_of_it(compiled: Compiled) -> None:
    stored = Compiled(**{**vars(compiled), "seed": Seed(Path())})
    for one, other in ((compiled, stored), (stored, compiled)):
        assert Comparison(*alike(one, other), 1_800_000_000).changes() == []


def test_of_a_member_that_an_older_format_lacks_nothing_is_said(compiled: Compiled) -> None:
    issuers = {
        name: {key: value for key, value in each.items() if key != "dpop_replay"}
        for name, each in compiled.bundle["issuers"].items()
    }
    older = Compiled(**{**vars(compiled), "bundle": {**compiled.bundle, "format": 4, "issuers": issuers}})
    assert older.bundle != compiled.bundle
    assert Comparison(*alike(older, compiled), 1_800_000_000).changes() == []
