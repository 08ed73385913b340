"""Invariants: what is proved, what is broken by which call, and what is wrong with the file."""

import functools
import json
import re
import shlex
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from airgate.engine import Call, Denied, act, identify, load_shard, parse_target
from airgate.policy.callers import Callers
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.enforced import Enforced
from airgate.policy.explain import explain
from airgate.policy.index import Rule, canonical, shard
from airgate.policy.invariants import INVARIANTS_SCHEMA, Invariant
from airgate.policy.invariants import read as read_invariants
from airgate.policy.proof import COUNTEREXAMPLE, PROVED, UNKNOWN, Proof, Prover
from airgate.policy.prove import prove
from airgate.policy.seed import SeedError
from airgate.policy.zones import document

NOW = 1_800_000_000  # a Friday in January 2027, 08:00 UTC

PLAIN = """\
issuers:
  company:
    issuer: https://login.example.com
    audiences: [https://gate.example.com]
    algorithms: [RS256]
    kind: {claim: kind}
    attested: {dag: dag}
  partner: {issuer: https://partner.example.com, audiences: [https://gate.example.com], algorithms: [RS256]}
  agency:
    {issuer: https://agency.example.com, audiences: [https://gate.example.com], algorithms: [RS256],
     kind: {default: agent}}
roles:
  clerk: {description: d, granted_to: [{issuer: company, claim: groups, value: clerks}]}
  treasurer:
    description: d
    granted_to: [{issuer: company, claim: groups, value: treasury}, {issuer: company, subject: svc-close}]
  guest: {description: d, granted_to: [{issuer: partner, claim: groups, value: guests}]}
  auditor: {description: d, granted_to: [{issuer: agency, scope: audit}]}
  robot: {description: d, granted_to: [{issuer: agency, kind: agent}]}
upstreams:
  payments:
    {base: https://payments.example.com, owner: o@example.com, credentials: {a: {kind: caller}, b: {kind: caller}}}
  reports:
    {base: https://reports.example.com, owner: o@example.com, credentials: {a: {kind: caller}, b: {kind: caller}}}
policies:
  - id: pay
    description: d
    owner: o@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [treasurer]}}
    target: {upstream: payments, methods: [POST], paths: [/v1/payments]}
  - id: look
    description: d
    owner: o@example.com
    effect: permit
    subject: {roles: {any: [clerk, treasurer, guest]}}
    target: {upstream: [payments, reports], methods: [GET], paths: ["/v1/**"]}
  - id: office-hours
    description: d
    owner: o@example.com
    effect: permit
    subject: {roles: {any: [clerk]}}
    target: {upstream: reports, methods: [POST], paths: ["/v1/{report}"]}
    when: {time: {zone: Europe/Berlin, days: mon-fri, from: "08:00", to: "18:00"}, ip: "198.51.100.0/24"}
  - id: no-secrets
    description: d
    owner: o@example.com
    effect: forbid
    subject: {roles: {none: [treasurer]}}
    target: {upstream: reports, methods: "*", paths: ["/v1/secret*", "/v1/secret*/**"]}
  - id: no-tests
    description: d
    owner: o@example.com
    effect: forbid
    workload: {dag: ["test_*"]}
    target: {upstream: payments, methods: [POST], paths: ["/**"]}
  - id: third
    description: d
    owner: o@example.com
    effect: permit
    subject: {issuer: partner}
    target: {upstream: payments, methods: [GET], paths: [/v3]}
    obligations: {credential: a}
  - id: third-too
    description: d
    owner: o@example.com
    effect: permit
    subject: {issuer: partner, id: svc-3}
    target: {upstream: payments, methods: [GET], paths: [/v3]}
    obligations: {credential: b}
  - id: audit
    description: d
    owner: o@example.com
    effect: permit
    subject: {roles: {any: [auditor]}, delegated: false}
    target: {upstream: reports, methods: [GET], paths: [/v5]}
  - id: no-bearers
    description: d
    owner: o@example.com
    effect: forbid
    subject: {dpop: false}
    target: {upstream: reports, methods: "*", paths: [/v5]}
  - id: nothing-at-all
    description: d
    owner: o@example.com
    effect: forbid
    mode: shadow
    target: {upstream: [payments, reports], methods: "*", paths: ["/**"]}
"""
EXCHANGES = """\
  - id: exchange
    description: d
    owner: o@example.com
    effect: permit
    subject: {roles: {any: [treasurer]}}
    target: {upstream: "-", methods: [POST], paths: [/token]}
    exchange: {upstreams: [payments]}
  - id: no-exchange-at-month-end
    description: d
    owner: o@example.com
    effect: forbid
    target: {upstream: "-", methods: [POST], paths: [/token]}
    when: {time: {zone: UTC, month_days: last}}
"""
SEED = PLAIN + EXCHANGES

INVARIANTS: list[tuple[str, str, str, str]] = [
    # sentence, the invariant, the verdict, the call that breaks it (or why nobody knows)
    ("nobody pays but a treasurer",
     "never: {target: {upstream: payments, methods: [POST]}}, unless: {subject: {roles: {any: [treasurer]}}}",
     PROVED, ""),
    ("the same, said without unless",
     "never: {subject: {roles: {none: [treasurer]}}, target: {upstream: payments, methods: [POST]}}", PROVED, ""),
    ("nobody pays but a clerk",
     "never: {target: {upstream: payments, methods: [POST]}}, unless: {subject: {roles: {any: [clerk]}}}",
     COUNTEREXAMPLE, "POST /payments/v1/payments: permitted by pay"),
    ("nothing is written but payments",
     "never: {target: {methods: [POST, PUT, PATCH, DELETE]}}, unless: {target: {upstream: payments}}",
     COUNTEREXAMPLE, "POST /reports/v1/x: permitted by office-hours"),
    ("nothing is deleted", "never: {target: {methods: [DELETE]}}", PROVED, ""),
    ("partners only read", "never: {subject: {issuer: partner}}, unless: {target: {methods: [GET]}}", PROVED, ""),
    ("partners read nothing", "never: {subject: {issuer: partner}}", COUNTEREXAMPLE,
     "GET /payments/v1: permitted by look"),
    ("partners are no clerks", "never: {subject: {issuer: partner, roles: {all: [clerk]}}}", PROVED, ""),
    ("secrets are a treasurer's",
     'never: {target: {upstream: reports, paths: ["/v1/secret*/**"]}}, unless: {subject: {roles: {any: [treasurer]}}}',
     PROVED, ""),
    ("secrets are a treasurer's, by another path",
     'never: {target: {upstream: reports, paths: ["/v1/*secret*"]}}, unless: {subject: {roles: {any: [treasurer]}}}',
     COUNTEREXAMPLE, "GET /reports/v1/xsecret: permitted by look"),
    ("test DAGs pay nothing: what names no DAG may be one, and is stopped as well",
     'never: {workload: {dag: ["test_*"]}, target: {upstream: payments, methods: [POST]}}', PROVED, ""),
    ("a wider pattern than the forbid's",
     'never: {workload: {dag: ["te*"]}, target: {upstream: payments, methods: [POST]}}', COUNTEREXAMPLE,
     "POST /payments/v1/payments: permitted by pay"),
    ("payments come from attested DAGs",
     'never: {target: {upstream: payments, methods: [POST]}}, unless: {workload: {dag: ["*"], attested: true}}',
     COUNTEREXAMPLE, "POST /payments/v1/payments: permitted by pay"),
    ("reports are posted by day",
     "never: {target: {upstream: reports, methods: [POST]}}, "
     'unless: {when: {time: {zone: Europe/Berlin, from: "07:00", to: "19:00"}}}', PROVED, ""),
    ("reports are posted before noon",
     "never: {target: {upstream: reports, methods: [POST]}}, "
     'unless: {when: {time: {zone: Europe/Berlin, from: "00:00", to: "12:00"}}}',
     COUNTEREXAMPLE, "POST /reports/v1/x: permitted by office-hours"),
    ("reports are posted from inside",
     "never: {target: {upstream: reports, methods: [POST]}}, unless: {when: {ip: 198.51.0.0/16}}", PROVED, ""),
    ("treasurers always look",
     "always: {subject: {roles: {any: [treasurer]}}, target: {methods: [GET], paths: [/v1/x]}}", PROVED, ""),
    ("clerks always look", 'always: {subject: {roles: {any: [clerk]}}, target: {methods: [GET], paths: ["/v1/**"]}}',
     COUNTEREXAMPLE, "GET /reports/v1/secret: forbidden by no-secrets"),
    ("clerks always look, but at secrets",
     'always: {subject: {roles: {any: [clerk]}}, target: {methods: [GET], paths: ["/v1/**"]}}, '
     'unless: {target: {paths: ["/v1/secret*", "/v1/secret*/**"]}}', PROVED, ""),
    ("treasurers always pay",
     "always: {subject: {roles: {any: [treasurer]}}, "
     "target: {upstream: payments, methods: [POST], paths: [/v1/payments]}}",
     COUNTEREXAMPLE, "POST /payments/v1/payments: forbidden by no-tests"),
    ("treasurers always pay from DAGs that aren't tests, and people do",
     "always: {subject: {roles: {any: [treasurer]}}, "
     "target: {upstream: payments, methods: [POST], paths: [/v1/payments]}}, "
     'unless: {workload: {dag: ["test_*"]}}', PROVED, ""),
    ("a policy in shadow forbids nothing",
     "always: {subject: {roles: {any: [guest]}}, target: {methods: [GET], paths: [/v1/y]}}", PROVED, ""),
    ("what no policy permits", "always: {subject: {roles: {any: [guest]}}, target: {methods: [GET], paths: [/v2]}}",
     COUNTEREXAMPLE, "GET /payments/v2: denied, for no policy permits it"),
    ("two permits that ask for different credentials deny what each of them permits",
     "always: {subject: {issuer: partner}, target: {upstream: payments, methods: [GET], paths: [/v3]}}",
     COUNTEREXAMPLE, "GET /payments/v3: denied, for third, third-too ask for what can't be had together"),
    ("so nobody gets through by both",
     "never: {subject: {issuer: partner, id: svc-3}, target: {upstream: payments, paths: [/v3]}}", PROVED, ""),
    ("audits are read with tokens that are bound to a key",
     "never: {subject: {dpop: false}, target: {upstream: reports, paths: [/v5]}}", PROVED, ""),
    ("audits are read by whoever acts for another",
     "never: {subject: {delegated: true}, target: {upstream: reports, paths: [/v5]}}", PROVED, ""),
    ("audits are read with bearer tokens, too", "never: {subject: {dpop: true}, target: {upstream: reports}}, "
     "unless: {target: {paths: [/v1/**]}}", COUNTEREXAMPLE, "GET /reports/v5: permitted by audit"),
    ("audits are read by whoever holds a role by scope",
     "always: {subject: {claims: [{claim: scp, any: [audit]}], issuer: agency, dpop: true, delegated: false, "
     "roles: {none: [robot]}}, target: {upstream: reports, methods: [GET], paths: [/v5]}}", PROVED, ""),
    ("audits are read by whoever has a scope, but it may name another role that it holds",
     "always: {subject: {claims: [{claim: scope, any: [audit]}], issuer: agency, dpop: true, delegated: false}, "
     "target: {upstream: reports, methods: [GET], paths: [/v5]}}",
     COUNTEREXAMPLE, "GET /reports/v5: denied, for no policy permits it"),
    ("audits are read by whoever has another scope",
     "always: {subject: {claims: [{claim: scope, any: [audits]}], issuer: agency, dpop: true, delegated: false}, "
     "target: {upstream: reports, methods: [GET], paths: [/v5]}}",
     COUNTEREXAMPLE, "GET /reports/v5: denied, for no policy permits it"),
    ("auditors always audit, but for others",
     "always: {subject: {roles: {any: [auditor]}, dpop: true}, "
     "target: {upstream: reports, methods: [GET], paths: [/v5]}}, unless: {subject: {delegated: true}}", PROVED, ""),
    ("auditors always audit", "always: {subject: {roles: {any: [auditor]}, delegated: false}, "
     "target: {upstream: reports, methods: [GET], paths: [/v5]}}",
     COUNTEREXAMPLE, "GET /reports/v5: forbidden by no-bearers"),
    ("nobody looks for somebody else", "never: {subject: {delegated: true}, target: {upstream: payments}}",
     COUNTEREXAMPLE, "GET /payments/v1: permitted by look"),
    ("an agency's tokens are of one kind, and that holds a role",
     "never: {subject: {issuer: agency, roles: {none: [robot]}}}", PROVED, ""),
    ("tokens are exchanged by whoever is told", "always: {subject: {roles: {any: [clerk]}}, "
     'target: {upstream: "-", methods: [POST], paths: [/token]}}', COUNTEREXAMPLE,
     "POST /-/token: denied, for no policy permits it"),
    ("tokens are exchanged by treasurers alone", 'never: {target: {upstream: "-", methods: [POST], paths: [/token]}}, '
     'unless: {subject: {roles: {any: [treasurer]}}}', PROVED, ""),
    ("treasurers always exchange, but on the last day of a month",
     'always: {subject: {roles: {any: [treasurer]}}, target: {upstream: "-", methods: [POST], paths: [/token]}}, '
     "unless: {when: {time: {zone: UTC, month_days: last}}}", PROVED, ""),
    ("treasurers exchange on the last day of a month, too",
     'always: {subject: {roles: {any: [treasurer]}}, target: {upstream: "-", methods: [POST], paths: [/token]}}',
     COUNTEREXAMPLE, "POST /-/token: forbidden by no-exchange-at-month-end"),
    ("nobody sees the gate's health but people",
     'never: {target: {upstream: "-", methods: [GET], paths: [/health]}}, unless: {subject: {kind: human}}',
     PROVED, ""),
    ("about a resource of which no policy speaks", "never: {target: {resource: todo}}", PROVED, ""),
]  # fmt: skip


def seed(folder: Path, text: str = SEED) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "seed.yaml").write_text(text)
    return folder


def stated(folder: Path, *items: str) -> Path:
    lines = "".join(f"  - {{{item}}}\n" for item in items)
    path = folder / "invariants.yaml"
    path.write_text(f"invariants:\n{lines}")
    return path


def proofs(folder: Path) -> tuple[Compiled, list[Proof]]:
    compiled = compile_folder(folder, now=NOW)
    found = read_invariants(folder / "invariants.yaml", compiled, now=NOW)
    prover = Prover(Enforced.of(compiled, [rule for each in found for rule in each.all_rules]), NOW)
    return compiled, [prover.prove(each) for each in found]


@pytest.mark.parametrize(
    ("said", "verdict", "call"), [pytest.param(*row, id=f"{name}: {row[1]}") for name, *row in INVARIANTS]
)
def test_an_invariant(said: str, verdict: str, call: str, tmp_path: Path) -> None:
    stated(seed(tmp_path), f"name: it, {said}")
    _, [proof] = proofs(tmp_path)
    assert proof.verdict == verdict, proof.why
    if verdict == PROVED:
        assert proof.example is None
    else:
        assert proof.example is not None
        assert f"{proof.example.title}: {proof.example.decided}" == call


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.command("prove")(prove)
    made.command("explain")(explain)
    return made


def run(app: typer.Typer, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_starter_seed_keeps_its_invariants(app: typer.Typer) -> None:
    code, output = run(app, "prove")
    assert code == 0, output
    assert "0 counterexamples, 0 unknown" in output


def test_every_counterexample_is_repeated_by_explain(app: typer.Typer, tmp_path: Path) -> None:
    broken = [said for _, said, verdict, _ in INVARIANTS if verdict == COUNTEREXAMPLE]
    stated(seed(tmp_path), *(f"name: no. {number}, {said}" for number, said in enumerate(broken)))
    code, output = run(app, "prove", str(tmp_path))
    assert code == 1
    titles = re.findall(r"^    (\S+ \S+): (permitted|forbidden|denied)", output, re.MULTILINE)
    commands = re.findall(r"^ +airgate policy (explain .*)$", output, re.MULTILINE)
    assert len(titles) == len(commands) == len(broken)
    for (title, word), command in zip(titles, commands, strict=True):
        explained, story = run(app, *shlex.split(command))
        assert explained == (0 if word == "permitted" else 1), story
        assert title in story


def test_what_is_printed_says_who_when_and_from_where(app: typer.Typer, tmp_path: Path) -> None:
    stated(
        seed(tmp_path),
        "name: nothing on Fridays, "
        "never: {when: {time: {zone: UTC, days: fri}}, target: {methods: [POST], upstream: reports}}",
        "name: no guests, never: {subject: {roles: {any: [guest]}, id: svc-x, issuer: partner}}",
    )
    code, output = run(app, "prove", str(tmp_path))
    assert code == 1
    lines = [line.strip() for line in output.splitlines()]
    assert lines[0] == "counterexample nothing on Fridays"
    assert lines[1].endswith("invariants.yaml:2:5")
    assert lines[2] == "POST /reports/v1/x: permitted by office-hours"
    assert lines[3] == "by somebody of issuer company, workload; roles: clerk"
    assert re.fullmatch(r"at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ from 198\.51\.100\.\d+", lines[4])
    assert "by svc-x of issuer partner, workload; roles: guest" in lines
    assert lines[-1].endswith("2 invariants over 12 policies: 0 proved, 2 counterexamples, 0 unknown")


def test_an_invariant_about_nothing_is_pointed_out(app: typer.Typer, tmp_path: Path) -> None:
    stated(seed(tmp_path), "name: hollow, never: {subject: {roles: {all: [clerk, guest]}}}")
    code, output = run(app, "prove", str(tmp_path))
    assert code == 0
    assert "no call can be like that: subject.roles.all [clerk, guest]: nobody can hold them all" in output


def test_what_cannot_be_told_is_said_and_fails(app: typer.Typer, tmp_path: Path) -> None:
    """Whether a kind can be the name of an issuer is beyond the analysis."""
    text = SEED.replace(
        "subject: {issuer: company, roles: {any: [treasurer]}}",
        "subject: {issuer: company, roles: {any: [treasurer]}}\n    when: {equals: [subject.kind, subject.issuer]}",
    )
    stated(seed(tmp_path, text), "name: nobody pays, never: {target: {upstream: payments, methods: [POST]}}")
    code, output = run(app, "prove", str(tmp_path))
    assert code == 1
    assert output.splitlines()[0] == f"{UNKNOWN:<15}nobody pays"
    assert "neither proved nor broken: no two values were found" in output


MISTAKES: list[tuple[str, str, list[str]]] = [
    # what, the item, the problems: line:column, path, and the words that matter
    ("a misspelt word", "name: a, nevr: {subject: {kind: agent}}",
     ['2:15: invariants.nevr: "nevr": no such key here; did you mean "never"?',
      "2:5: invariants: says nothing; write never or always"]),
    ("both words", "name: a, never: {subject: {kind: agent}}, always: {subject: {kind: agent}}",
     ["2:56: invariants.always: an invariant has never or always; write two"]),
    ("no name", "never: {subject: {kind: agent}}", ['2:5: invariants: "name" is missing']),
    ("no conditions", "name: a, never: {}", ["2:22: invariants.never: is empty"]),
    ("a role that isn't there", "name: a, never: {subject: {roles: {any: [clark]}}}",
     ['2:47: invariants.never.subject.roles.any: "clark": no such role; did you mean "clerk"?']),
    ("an upstream that isn't there", "name: a, never: {target: {upstream: payment}}",
     ['2:42: invariants.never.target.upstream: "payment": no such upstream; did you mean "payments"?']),
    ("a path without its slash", "name: a, never: {target: {upstream: payments, paths: [v1]}}",
     ['2:60: invariants.never.target.paths: "v1": begins without a slash; write "/v1"']),
    ("something wrong with the exception", "name: a, never: {target: {methods: [GET]}}, unless: {when: {country: de}}",
     ["invariants.unless.when.country"]),
    ("two kinds of target", "name: a, never: {target: {resource: todo, paths: [/x]}}",
     ["2:55: invariants.never.target.paths: a target is of an upstream or of a resource"]),
    ("the gate's own pages, and not which of them", 'name: a, never: {target: {upstream: "-"}}',
     ["invariants.never: of the gate's own pages (\"-\") say which; write methods and paths"]),
    ("a condition that isn't a policy's", "name: a, never: {subject: {age: 3}}",
     ['2:33: invariants.never.subject.age: "age": no such key here']),
]  # fmt: skip


@pytest.mark.parametrize(("item", "problems"), [pytest.param(*row[1:], id=row[0]) for row in MISTAKES])
def test_a_mistake_is_named_with_its_place(
    item: str, problems: list[str], app: typer.Typer, tmp_path: Path
) -> None:
    stated(seed(tmp_path), item)
    code, output = run(app, "prove", str(tmp_path))
    assert code == 2
    for problem in problems:
        assert problem in output
    assert "Nothing was proved." in output


def test_a_name_stands_for_one_sentence(tmp_path: Path) -> None:
    path = stated(seed(tmp_path), *["name: a, never: {subject: {kind: agent}}"] * 2)
    with pytest.raises(SeedError, match=r'3:12: invariants\.name: "a": this name is taken, at 2:12'):
        read_invariants(path, compile_folder(tmp_path))


def test_a_file_that_is_not_there(app: typer.Typer, tmp_path: Path) -> None:
    code, output = run(app, "prove", str(seed(tmp_path)))
    assert code == 2
    assert "invariants.yaml: no such file; write one (docs/prove.md), or name another" in output


def test_an_invalid_seed_proves_nothing(app: typer.Typer, tmp_path: Path) -> None:
    stated(
        seed(tmp_path, SEED.replace("[treasurer]", "[treasure]")), "name: a, never: {subject: {kind: agent}}"
    )
    code, output = run(app, "prove", str(tmp_path))
    assert code == 2
    assert '"treasure": no such role; did you mean "treasurer"?' in output


def test_the_invariants_are_no_part_of_the_seed(tmp_path: Path) -> None:
    stated(seed(tmp_path), "name: a, never: {subject: {kind: agent}}")
    assert compile_folder(tmp_path).sha256 == compile_folder(seed(tmp_path / "other")).sha256


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json.loads(INVARIANTS_SCHEMA.read_text("utf-8")))


# Calls that nobody chose, against everything that is said to be proved.

TOKENS: dict[str, list[Any]] = {
    "groups": [[], "clerks", ["treasury"], ["clerks", "treasury"], ["guests"], ["others"]],
    "kind": ["workload", "human", "agent"],
    "dag": ["test_a", "close", "te"],
    "scope": ["audit", "x audit", ["audit", "read"], ""],
    "scp": ["audit", ["x"]],
    "cnf": [{"jkt": "k" * 43}],
    "act": [{"sub": "x"}, {"sub": "y" * 300}],
}
HEADERS = {"airgate-dag-id": ["test_b", "close", "te"], "airgate-role": ["clerk", "treasurer"]}
URLS = [
    "/payments/v1/payments",
    "/payments/v1/x",
    "/reports/v1/x",
    "/reports/v1/secret",
    "/reports/v1/secrets/1",
    "/reports/v1",
    "/reports/v5",
]


@functools.cache
def proved() -> tuple[Compiled, list[Invariant]]:
    """All that is proved of the seed."""
    with tempfile.TemporaryDirectory() as made:
        folder = seed(Path(made))
        stated(folder, *(f"name: no. {number}, {row[1]}" for number, row in enumerate(INVARIANTS)))
        compiled, found = proofs(folder)
    return compiled, [proof.invariant for proof in found if proof.verdict == PROVED]


@given(st.integers(0, 2**32))
@settings(max_examples=300)
def test_no_call_breaks_what_is_proved(number: int) -> None:
    """By the gate's own answer: a rule that says the invariant matches, the exception doesn't, and yet."""
    compiled, invariants = proved()
    random = Random(number)
    claims = {name: random.choice(values) for name, values in TOKENS.items() if random.random() < 0.7}
    headers = {name: random.choice(values) for name, values in HEADERS.items() if random.random() < 0.4}
    issuer, subject = (
        random.choice(["company", "partner", "agency"]),
        random.choice(["somebody", "svc-close"]),
    )
    mapping = Callers.of(compiled.engine.bundle).tokens[issuer].mapping
    try:
        caller = act(identify(claims, subject, mapping), headers)
    except Denied:
        return
    target = parse_target(random.choice(["GET", "POST", "DELETE"]), "https://gate" + random.choice(URLS))
    client = random.choice([None, "198.51.100.9", "198.51.7.7", "203.0.113.1"])
    call = Call(caller, target, NOW + random.randrange(8 * 86_400), client, None)
    permitted = compiled.engine.decide(call).permit
    for invariant in invariants:
        upstream = target.upstream
        if upstream in invariant.rules:
            holds = applies(invariant, upstream, call)
            assert not (holds and permitted is (invariant.kind == "never")), invariant.name


def applies(invariant: Invariant, upstream: str, call: Call) -> bool:
    """Whether the invariant speaks of the call, by policies that say the same."""
    exception = invariant.exceptions.get(upstream)
    if exception is not None and matches(
        exception, upstream, held(call) if invariant.kind == "never" else call
    ):
        return False
    return matches(invariant.rules[upstream], upstream, call)


def held(call: Call) -> Call:
    """The call, all roles of the caller being in use."""
    caller = call.caller._replace(effective=call.caller.identity.granted)
    return Call(caller, call.target, call.now, call.client, call.country)


def matches(rule: Rule, upstream: str, call: Call) -> bool:
    tables = {row[1]: document(row[1], 2027) for row in rule.conditions if row[0] == "when.time"}
    decision = load_shard(canonical(shard(upstream, [rule], tables)), upstream).decide(call)
    return bool(decision.permits or decision.forbids)
