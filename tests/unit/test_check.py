"""What `airgate policy check` says of a seed that is valid: findings, and notes that change nothing."""

import json
import re
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from airgate.policy import check, output
from airgate.policy.compile import compile_folder
from airgate.policy.findings import findings

SEED = """\
issuers:
  company:
    {issuer: https://login.example.com, audiences: [https://gate.example.com], algorithms: [RS256],
     kind: {claim: kind}, attested: {dag: dag, run_type: run_type, triggered_by: user}}
  robots: {issuer: https://robots.example.com, audiences: [https://gate.example.com], algorithms: [RS256]}
roles:
  publisher: {description: d, granted_to: [{issuer: company, claim: groups, value: publishers}]}
upstreams:
  ledger: {base: https://ledger.example.com, owner: o@example.com}
policies:
  - id: publish
    description: d
    owner: o@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [publisher]}}
    target: {upstream: ledger, methods: [POST], paths: ["/v1/entries"]}
"""
PUBLISH = SEED[SEED.index("  - id") :]


def policy(**changes: str) -> str:
    """A permit for the publishers to read, with other lines: `workload={...}`."""
    lines = {
        "id": "other",
        "description": "d",
        "owner": "o@example.com",
        "effect": "permit",
        "subject": "{issuer: company, roles: {any: [publisher]}}",
        "target": '{upstream: ledger, methods: [GET], paths: ["/v1/entries"]}',
        **changes,
    }
    text = "".join(f"    {name}: {value}\n" for name, value in lines.items() if value)
    return "  - " + text[4:]


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    monkeypatch.chdir(folder)
    (folder / "seed").mkdir()
    (folder / "seed" / "a.yaml").write_text(text, "utf-8")
    return folder / "seed"


def target(methods: str = "[GET]", paths: str = '["/v1/entries"]', more: str = "") -> str:
    return f"{{upstream: ledger, methods: {methods}, paths: {paths}{more}}}"


FORBID = {"effect": "forbid"}
NEGATIVE = "a permit for who or what is not something"
CLAIM = "{issuer: company, claims: [{claim: department, %s: [audit]}]}"

# name, the policies beside `publish`, the findings: line, path, and how the text begins
FINDINGS: list[tuple[str, str, list[tuple[int, str, str]]]] = [
    ("nothing", policy(), []),
    (
        "every method",
        policy(target=target('"*"', "[/v9]")),
        [(22, "target.methods", '"*": permits every way of writing')],
    ),
    (
        "every path",
        policy(target=target("[PUT]", '["/**"]')),
        [(22, "target.paths", '"/**": permits writing to every path')],
    ),
    (
        "every path, by segments",
        policy(target=target("[PUT]", '["/{a}/*"]')),
        [(22, "target.paths", '"/{a}/*": permits writing to every path')],
    ),
    (
        "a segment that can be anything",
        policy(target=target("[PUT]", '["/v1/*/close"]')),
        [(22, "target.paths", '"/v1/*/close": "*" permits writing whatever stands there; write {name}')],
    ),
    ("reads of every path", policy(target=target("[GET, HEAD]", '["/**"]')), []),
    ("a forbid of every path", policy(**FORBID, target=target('"*"', '["/v9/**"]')), []),
    (
        "a permit without a role",
        policy(subject="{issuer: company, roles: {none: [publisher]}}"),
        [(21, "subject.roles.none", NEGATIVE)],
    ),
    ("a permit without a claim's value", policy(subject=CLAIM % "none"), [(21, "subject.claims.none", NEGATIVE)]),
    ("a permit with a claim's value", policy(subject=CLAIM % "any"), []),
    (
        "a permit without a tag",
        policy(workload="{tags: {none: [x]}, attested: false}"),
        [(23, "workload.tags.none", NEGATIVE)],
    ),
    (
        "a permit without a parameter",
        policy(target=target(more=", query: [{parameter: f, none: [x]}]")),
        [(22, "target.query.none", NEGATIVE)],
    ),
    (
        "a permit without a property",
        policy(
            subject="{issuer: company, kind: human}",
            target="{resource: todo, actions: [read], properties: [{property: p, none: [x]}]}",
        ),
        [(22, "target.properties.none", NEGATIVE)],
    ),
    (
        "a permit for tokens that are bound to no key",
        policy(subject="{issuer: company, dpop: false, roles: {any: [publisher]}}"),
        [(21, "subject.dpop", NEGATIVE + ": whoever binds its tokens to a key is shut out")],
    ),
    ("a forbid of tokens that are bound to no key", policy(**FORBID, subject="{dpop: false}"), []),
    (
        "a permit for callers for whom nobody acts",
        policy(subject="{issuer: company, delegated: false, roles: {any: [publisher]}}"),
        [],
    ),
    ("a forbid without a role", policy(**FORBID, subject="{roles: {none: [publisher]}}"), []),
    (
        "an obligation for a credential",
        policy(obligations="{credential: c}"),
        [],
    ),
    (
        "an obligation that nobody knows",
        policy(obligations="{watermark: yes, max_body: 1KB}"),
        [(23, "obligations.watermark", "the gate can't do this")],
    ),
    (
        "an unknown obligation for whoever asks",
        policy(
            subject="{issuer: company, kind: human}",
            target="{resource: todo, actions: [read]}",
            obligations="{watermark: yes}",
        ),
        [],
    ),
    (
        "a prefix that goes on",
        policy(target=target(paths='["/v1/team1*"]')),
        [(22, "target.paths", '"/v1/team1*": matches "team10", too; list the names')],
    ),
    (
        "a prefix that goes on before an ending",
        policy(target=target(paths='["/v1/report*.csv"]')),
        [(22, "target.paths", '"/v1/report*.csv": matches "reports.csv", too')],
    ),
    (
        "a type that no run has",
        policy(workload="{run_type: [manual, schedule], attested: true}"),
        [(23, "workload.run_type", '"schedule": Airflow has no runs of this type; did you mean "scheduled"?')],
    ),
    (
        "types by a pattern",
        policy(workload="{run_type: asset_*, attested: true}"),
        [],
    ),
    ("a prefix that ends", policy(target=target(paths='["/v1/team_*"]')), []),
    (
        "a role that the issuer doesn't grant",
        policy(subject="{issuer: robots, roles: {any: [publisher]}}"),
        [(21, "subject.issuer", "can never match: subject.issuer [robots] and subject.roles.any [publisher]")],
    ),
    (
        "a kind that the issuer doesn't know",
        policy(subject="{issuer: robots, kind: human}"),
        [(21, "subject.issuer", "can never match: subject.issuer [robots] and subject.kind [human] are never true")],
    ),
    (
        "context that nobody attests",
        policy(workload="{task: x, attested: true}"),
        [(23, "workload.task", "can never match: workload.task [x], attested: no issuer attests it")],
    ),
    (
        "a forbid by context that nobody attests",
        policy(**FORBID, workload="{task: x, attested: true}"),
        [(23, "workload.task", "can never match by anything that is known of a call: workload.task [x], attested")],
    ),
    (
        "a key that no token is bound to",
        policy(subject="{roles: {any: [publisher]}, dpop: true, claims: [{claim: [cnf, jkt], any: [short]}]}"),
        [(21, "subject.claims", "can never match: subject.claims.any (cnf.jkt) [short]: never true")],
    ),
    (
        "roles that exclude each other",
        policy(subject="{roles: {any: [publisher], none: [publisher]}}"),
        [
            (21, "subject.roles.any", "can never match: subject.roles.any [publisher] and subject.roles.none"),
            (21, "subject.roles.none", NEGATIVE),
        ],
    ),
    (
        "a permit that is forbidden altogether",
        policy(id="never", **FORBID, subject="{kind: [workload, human, agent]}", target=target('"*"', '["/v1/**"]')),
        [(11, "publish", "permits nothing: the forbid never (seed/a.yaml:17:5) covers all of it")],
    ),
    (
        "a permit that is forbidden in part",
        policy(id="never", **FORBID, target=target("[POST]"), subject="{kind: human}"),
        [],
    ),
    (
        "a permit forbidden by a rule on trial",
        policy(id="never", **FORBID, mode="shadow", subject="{kind: [workload, human, agent]}", target=target('"*"')),
        [],
    ),
    (
        "a permit that another one holds already",
        policy(id="wider", target=target("[GET, POST]", '["/v1/**"]')),
        [(11, "publish", "is redundant: wider (seed/a.yaml:17:5) permits all of it")],
    ),
    (
        "two permits that say the same",
        policy(id="same", target=target("[POST]")),
        [(17, "same", "is redundant: publish (seed/a.yaml:11:5) permits all of it")],
    ),
    (
        "a permit within another that asks for more",
        policy(id="limited", target=target("[POST]"), obligations="{max_body: 1KB}"),
        [(11, "publish", "is redundant: limited (seed/a.yaml:17:5) permits all of it")],
    ),
    (
        "permits with different obligations",
        policy(id="limited", target=target("[POST]"), obligations="{max_body: 1KB}")
        + policy(id="paced", target=target("[POST]"), obligations="{max_body: 2KB}"),
        [(11, "publish", "is redundant: limited")],
    ),
    (
        "a redundant forbid",
        policy(id="a", **FORBID, subject="{kind: agent}", target=target('"*"', '["/v9/**"]'))
        + policy(id="b", **FORBID, subject="{kind: agent}", target=target("[PUT]", '["/v9/x"]')),
        [(23, "b", "is redundant: a (seed/a.yaml:17:5) forbids all of it")],
    ),
    (
        "one of two upstreams",
        policy(id="a", target='{upstream: [ledger, crm], methods: [GET], paths: ["/v1/**"]}')
        + policy(id="b", target='{upstream: ledger, methods: [GET], paths: ["/v1/x"]}'),
        [(24, "b", "is redundant: a (seed/a.yaml:18:5) permits all of it")],
    ),
    (
        "two credentials for one call",
        policy(id="a", subject="{issuer: company, kind: human}", obligations="{credential: c}")
        + policy(id="b", subject="{issuer: company, roles: {any: [publisher]}}", obligations="{credential: d}"),
        [
            (23, "obligations.credential", '"c": b (seed/a.yaml:24:5) can match the same call and asks for "d"'),
        ],
    ),
    (
        "two credentials for calls of different kinds",
        policy(id="a", subject="{issuer: company, kind: human}", obligations="{credential: c}")
        + policy(id="b", subject="{issuer: company, kind: agent}", obligations="{credential: d}"),
        [],
    ),
    (
        "two answers to one question",
        policy(
            id="a",
            subject="{issuer: company, kind: human}",
            target="{resource: todo, actions: [read]}",
            obligations="{watermark: big}",
        )
        + policy(
            id="b",
            subject="{issuer: company, roles: {any: [publisher]}}",
            target="{resource: todo, actions: ['*']}",
            obligations="{watermark: small}",
        ),
        [(23, "obligations.watermark", '"big": b (seed/a.yaml:24:5) can match the same call and asks for "small"')],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("policies", "expected"), [row[1:] for row in FINDINGS], ids=[row[0] for row in FINDINGS]
)
def test_findings(
    policies: str, expected: list[tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SEED
    if "crm" in policies:
        text = text.replace(
            "policies:", "  crm: {base: https://crm.example.com, owner: o@example.com}\npolicies:"
        )
    if named := sorted(set(re.findall("credential: ([a-z])", policies))):
        credentials = ", ".join(f"{name}: {{kind: basic, secret: UPSTREAM_{name.upper()}}}" for name in named)
        of = "ledger: {base: https://ledger.example.com, "
        text = text.replace(of, of + f"credentials: {{{credentials}}}, ")
    found = [
        finding
        for finding in findings(compile_folder(write(tmp_path, monkeypatch, text + policies)))
        if not finding.note
    ]
    came = [(finding.problem.line, finding.problem.path, finding.problem.text) for finding in found]
    assert len(came) == len(expected), came
    for (line, path, said), (wanted_line, wanted_path, wanted) in zip(came, expected, strict=True):
        assert (line, path) == (wanted_line, wanted_path), said
        assert said.startswith(wanted)


UNKNOWN = "also hits, where its other conditions hold: "

# name, a policy beside `publish`, the notes: path, and what they say
NOTES: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("nothing", policy(), []),
    (
        "a forbid by what is always known",
        policy(**FORBID, subject="{issuer: company, kind: agent, dpop: false, delegated: true}"),
        [],
    ),
    (
        "a forbid by role",
        policy(**FORBID, subject="{roles: {any: [publisher]}}"),
        [("other", UNKNOWN + "tokens of issuer company without the claim groups (role publisher)")],
    ),
    (
        "a forbid by a role that the issuer doesn't grant",
        policy(**FORBID, subject="{issuer: robots, roles: {none: [publisher]}}"),
        [],
    ),
    (
        "a forbid by a claim",
        policy(**FORBID, subject="{claims: [{claim: [org, unit], any: [x]}]}"),
        [("other", UNKNOWN + "tokens without the claim org.unit, or with one that can't be compared")],
    ),
    (
        "a forbid by DAG, asserted",
        policy(**FORBID, subject="", workload='{dag: "x_*"}'),
        [
            ("other", UNKNOWN + "calls by workload or agent that carry no DAG"),
            ("workload.dag", 'dag may be asserted: a caller that says another gets past this; "attested: true"'),
        ],
    ),
    (
        "a forbid by DAG, attested",
        policy(**FORBID, subject="{kind: workload}", workload='{dag: "x_*", attested: true}'),
        [("other", UNKNOWN + "calls by workload whose token attests no DAG")],
    ),
    ("a forbid of a DAG to people", policy(**FORBID, subject="{kind: human}", workload="{dag: x, attested: true}"), []),
    (
        "a limit by what the caller says",
        policy(obligations="{rate_limit: {limit: 60, per: minute, by: [subject, dag]}}"),
        [("obligations.rate_limit", "callers choose what these limits count by")],
    ),
    (
        "a limit by what the token says",
        policy(
            workload="{dag: x, attested: true}",
            obligations="{rate_limit: {limit: 60, per: minute, by: [subject, dag]}}",
        ),
        [],
    ),
    (
        "a limit by the subject beside it",
        policy(
            obligations="{rate_limit: [{limit: 60, per: minute, by: [subject, dag]}, "
            "{limit: 600, per: minute, by: subject}]}"
        ),
        [],
    ),
    (
        "a forbid by query",
        policy(**FORBID, subject="", target=target(more=", query: [{parameter: f, any: [x]}]")),
        [
            ("other", UNKNOWN + "calls that send f twice, in other letter case, or beside a ; in the query"),
            ("target.query.any", '"f": a server that takes the value in other letter case'),
        ],
    ),
    (
        "a forbid by property",
        policy(**FORBID, subject="", target="{resource: todo, actions: [read], properties: [{property: p, any: [x]}]}"),
        [("other", UNKNOWN + "questions without the property p")],
    ),
    (
        "a forbid by address and country",
        policy(**FORBID, subject="", when="{ip: [198.51.100.0/24], country: [DE]}"),
        [("other", UNKNOWN + "calls whose client's address isn't known; calls whose country isn't known")],
    ),
    (
        "a forbid by time",
        policy(**FORBID, subject="", when='{time: {zone: UTC, from: "08:00"}}'),
        [("other", UNKNOWN + "calls from 2035-01-01T00:00:00Z on, unless policy is published again")],
    ),
    (
        "a forbid by comparison",
        policy(
            **FORBID,
            subject="",
            target=target(paths='["/v1/{owner}"]'),
            when="{equals: [subject.email, resource.owner]}",
        ),
        [("other", UNKNOWN + "tokens without the claim email, or with several values in it")],
    ),
    (
        "a forbid by who started the run",
        policy(**FORBID, subject="{issuer: company}", workload="{triggered_by: temp-*, attested: true}"),
        [("other", UNKNOWN + "calls by workload or agent whose token attests no triggering user, as of runs")],
    ),
    (
        "a forbid by the run's type and month",
        policy(
            **FORBID,
            subject="{issuer: company, kind: workload}",
            workload="{run_type: backfill, attested: true}",
            when="{time: {zone: UTC, month_days: last 3}}",
        ),
        [("other", UNKNOWN + "calls by workload whose token attests no run type; calls from 2035-01-01T00:00:00Z on")],
    ),
    (
        "a permit for everyone",
        policy(subject="{issuer: [company, robots]}"),
        [("subject.issuer", "permits every caller with a token of company or robots")],
    ),
    (
        "a permit for everyone whose token is bound",
        policy(subject="{dpop: true}"),
        [("subject", "permits every caller with a token that is bound to a key")],
    ),
    (
        "a permit for everyone who acts itself, by a token that is bound",
        policy(subject="{issuer: company, delegated: false, dpop: true}"),
        [("subject.issuer", "permits every caller with a token of company that is bound to a key and isn't delegated")],
    ),
    (
        "prefixes that go on where that is harmless",
        policy(**FORBID, subject="{kind: human}", target=target(paths='["/v1/pay*"]')),
        [("target.paths", '"/v1/pay*": matches "pays", too')],
    ),
    (
        "a path within another",
        policy(target=target(paths='["/v1/x/**", "/v1/x", "/v1/{name}/y"]')),
        [("target.paths", '"/v1/x": "/v1/x/**" matches all of this, too')],
    ),
    (
        "a DAG's prefix that goes on",
        policy(workload="{dag: finance*, attested: false}"),
        [("workload.dag", '"finance*": matches "finances", too')],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("policy_", "expected"), [row[1:] for row in NOTES], ids=[row[0] for row in NOTES])
def test_notes(
    policy_: str, expected: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, monkeypatch, SEED + policy_)
    compiled = compile_folder(folder, now=1_760_000_000)  # in 2025, and zones are known for ten years
    came = [(finding.problem.path, finding.problem.text) for finding in findings(compiled) if finding.note]
    assert [path for path, _ in came] == [path for path, _ in expected], came
    for (_, said), (_, wanted) in zip(came, expected, strict=True):
        assert said.startswith(wanted)


def test_what_nobody_uses_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SEED.replace(
        "{issuer: company, roles: {any: [publisher]}}", "{issuer: company, kind: human}"
    ).replace(
        'upstream: ledger, methods: [POST], paths: ["/v1/entries"]',
        'upstream: "-", methods: [GET], paths: [/health]',
    )
    found = findings(compile_folder(write(tmp_path, monkeypatch, text)))
    assert [(each.code, str(each.problem)) for each in found] == [
        (
            "unused-role",
            "seed/a.yaml:7:3: roles.publisher: no policy uses this role; remove it, or write the policy",
        ),
        (
            "unused-upstream",
            "seed/a.yaml:9:3: upstreams.ledger: no policy names this upstream, so nobody can reach it; remove it, "
            "or write the policy",
        ),
    ]


APP = typer.Typer()
APP.command("check")(check.check)

NOTED = policy(**FORBID, subject="{roles: {any: [publisher]}}", target=target("[PUT]"))
SUMMARY = "seed: 2 issuers, 1 role, 1 upstream, 2 policies "

# name, seed, options, exit status, the last line
RUNS: list[tuple[str, str, list[str], int, str]] = [
    ("clean", SEED + policy(), [], 0, SUMMARY + "(2 permit, 0 forbid); clean"),
    ("notes", SEED + NOTED, [], 0, SUMMARY + "(1 permit, 1 forbid); clean; 1 note"),
    ("notes that nobody wants", SEED + NOTED, ["--no-notes"], 0, SUMMARY + "(1 permit, 1 forbid); clean"),
    (
        "findings",
        SEED + policy(target=target('"*"')) + NOTED.replace("id: other", "id: noted"),
        [],
        1,
        "seed: 2 issuers, 1 role, 1 upstream, 3 policies (2 permit, 1 forbid); 2 findings; 1 note",
    ),
    (
        "invalid",
        SEED.replace("[publisher]", "[nobody]"),
        [],
        2,
        "Invalid: 1 problem. Nothing is published from a seed like this.",
    ),
]


@pytest.mark.parametrize(
    ("text", "options", "status", "last"), [row[1:] for row in RUNS], ids=[row[0] for row in RUNS]
)
def test_the_command(
    text: str,
    options: list[str],
    status: int,
    last: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = CliRunner().invoke(APP, [str(write(tmp_path, monkeypatch, text)), *options])
    assert result.exit_code == status, result.output
    assert result.output.splitlines()[-1] == last


def test_a_note_says_that_it_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(APP, [str(write(tmp_path, monkeypatch, SEED + NOTED))])
    assert result.output.startswith("seed/a.yaml:17:9: note: other: also hits, where")


# name, seed, what each line is: level, code, line, policy
LINES: list[tuple[str, str, list[tuple[str, str, int, str | None]]]] = [
    ("clean", SEED + policy(), []),
    ("a note", SEED + NOTED, [("note", "unknown", 17, "other")]),
    (
        "a finding",
        SEED + policy(target=target('"*"', '["/v9"]')),
        [("finding", "broad-write", 22, "other")],
    ),
    ("a problem", SEED.replace("[publisher]", "[nobody]"), [("problem", "invalid", 15, None)]),
]


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in LINES], ids=[row[0] for row in LINES])
def test_lines_for_programs(
    text: str,
    expected: list[tuple[str, str, int, str | None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = CliRunner().invoke(APP, [str(write(tmp_path, monkeypatch, text)), "--format", "json"])
    lines = [json.loads(line) for line in result.output.splitlines()]
    assert [(line["level"], line["code"], line["line"], line["policy"]) for line in lines] == expected
    assert all(line["file"] == "seed/a.yaml" and line["column"] and line["text"] for line in lines)


def test_many_policies_about_one_upstream_take_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SEED + "".join(
        policy(
            id=f"p{number}",
            effect="forbid" if number % 5 == 0 else "permit",
            workload=f"{{dag: team{number % 40}_*, attested: false}}" if number % 3 == 0 else "",
            target=target("[GET, POST]", f'["/v2/t{number % 50}/{{id}}", "/v2/t{number * 7 % 50}/x/**"]'),
        )
        for number in range(400)
    )
    compiled = compile_folder(write(tmp_path, monkeypatch, text))
    begin = time.process_time()
    assert findings(compiled)
    assert time.process_time() - begin < 8


@pytest.mark.parametrize("terminal", [True, False], ids=["at a terminal", "elsewhere"])
def test_a_bar_shows_only_a_person_how_far_it_is(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "PATIENCE", -1.0)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1" if terminal else "")
    assert list(output.watched([1, 2, 3], "Policies")) == [1, 2, 3]
    shown = capsys.readouterr()
    assert ("Policies" in shown.err) is terminal
    assert not shown.out


def test_the_starter_seed_is_clean() -> None:
    result = CliRunner().invoke(APP, ["--no-notes"])
    assert result.exit_code == 0, result.output
    assert result.output.strip().endswith("clean")
