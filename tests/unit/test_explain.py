"""Explaining a decision: what is said is what the engine says, in words that help."""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from language import SCENES, Scene
from logged import written
from stores import Stores
from typer.testing import CliRunner
from world import inbound, rule, shards

from airgate.engine import (
    BUNDLE,
    EMPTY,
    SHARD,
    Call,
    Caller,
    Decision,
    Denied,
    Identity,
    Record,
    Target,
    act,
    load_shard,
)
from airgate.policy import explain
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.explanation import Branch, explain_answer
from airgate.policy.gate import Answer, Gate
from airgate.policy.live import Live, LiveError
from airgate.policy.phrases import to_fail, to_hold
from airgate.policy.policyset import PolicySet
from airgate.policy.recorded import Recorded
from airgate.policy.release import Release, plan, put_in_force
from airgate.policy.request import Request
from airgate.policy.seed import STARTER
from audit import describe

SEED = """\
issuers:
  company:
    {issuer: https://login.example.com, audiences: [https://gate.example.com], algorithms: [RS256],
     kind: {claim: kind}, attested: {environment: env}}
roles:
  publisher: {description: d, granted_to: [{issuer: company, claim: groups, value: publishers}]}
  reader: {description: d, granted_to: [{issuer: company, claim: groups, value: readers}]}
upstreams:
  ledger: {base: https://ledger.example.com, owner: ledger@example.com, log_path: true}
  crm: {base: https://crm.example.com, owner: crm@example.com}
policies:
  - id: publish
    description: d
    owner: finance@example.com
    effect: permit
    subject: {issuer: company, kind: workload, roles: {any: [publisher]}}
    workload: {dag: ["finance_*"], attested: false}
    target: {upstream: ledger, methods: [POST], paths: ["/v1/entries"]}
    when: {time: {zone: Europe/Berlin, days: mon-fri, from: "06:00", to: "20:00"}}
    obligations:
      rate_limit: {limit: 60, per: minute, by: [subject, dag]}
      max_body: 1MB
      require: {headers: [X-Change-Id], justification: true}
  - id: read
    description: d
    owner: finance@example.com
    effect: permit
    subject: {roles: {any: [publisher, reader]}}
    target: {upstream: ledger, methods: [GET, HEAD], paths: ["/v1/entries", "/v1/reports/**"]}
  - id: no-agents
    description: d
    owner: audit@example.com
    effect: forbid
    subject: {kind: agent}
    target: {upstream: ledger, methods: [POST, PUT], paths: ["/**"]}
  - id: prod-only
    description: d
    owner: audit@example.com
    effect: forbid
    mode: shadow
    workload: {environment: [test], attested: true}
    target: {upstream: ledger, methods: [POST], paths: ["/**"]}
  - id: closed
    description: d
    owner: audit@example.com
    effect: forbid
    target: {upstream: crm, methods: ["*"], paths: ["/v1/old/**"]}
  - id: accounts
    description: d
    owner: sales@example.com
    effect: permit
    subject: {claims: [{claim: department, any: [sales]}]}
    target: {upstream: crm, methods: [GET], paths: ["/v1/**"], query: [{parameter: format, any: [csv]}]}
  - id: keys
    description: d
    owner: sales@example.com
    effect: permit
    subject: {issuer: company, dpop: true, delegated: false}
    target: {upstream: ledger, methods: [GET], paths: ["/v1/keys"]}
  - id: todo-update
    description: d
    owner: todo@example.com
    effect: permit
    subject: {kind: human}
    target: {resource: todo, actions: [can_update]}
    when: {equals: [resource.owner, subject.id]}
"""
CASES = """\
cases:
  - name: Readers read
    request: {roles: [reader], path: /ledger/v1/entries}
    expect: {decision: permit, policies: [read]}
  - name: Readers write
    request: {roles: [reader], method: POST, path: /ledger/v1/entries, at: 2026-03-02T12:00:00Z}
    expect: {decision: permit, policies: [publish]}
"""
MONDAY = ["--at", "2026-03-02T12:00:00Z"]
POST = ["POST", "/ledger/v1/entries", *MONDAY]
CLOSE = ["--dag", "finance_close"]
DUE = ["--header", "X-Change-Id: 7", "--header", "Airgate-Justification: the books are closed"]
READ = ["/ledger/v1/entries"]

APP = typer.Typer()
APP.command("explain")(explain.explain)


@pytest.fixture
def seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AIRGATE_DIR", raising=False)
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / "a.yaml").write_text(SEED, "utf-8")
    (tmp_path / "seed" / "a.cases.yaml").write_text(CASES, "utf-8")
    return tmp_path / "seed"


def run(seed: Path, *options: str, given: str | None = None) -> tuple[int, str]:
    where = [] if "--live" in options else ["--seed", str(seed)]
    result = CliRunner().invoke(APP, [*options, *where], input=given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


# what is asked, the options, exit status, lines that must be there, to the letter but for the blanks before them
ASKED: list[tuple[str, list[str], int, list[str]]] = [
    (
        "a permit",
        ["--role", "reader", *READ, *MONDAY],
        0,
        [
            "PERMIT by read",
            "GET /ledger/v1/entries",
            "by somebody of issuer company, workload",
            "roles: reader",
            "at 2026-03-02T12:00:00Z",
            "Policies about this target: 1",
            "permit read matches (/v1/entries)",
            "true     subject.roles.any asks publisher, reader; saw reader",
        ],
    ),
    (
        "obligations that are met",
        ["--role", "publisher", *CLOSE, *DUE, *POST],
        0,
        [
            "PERMIT by publish",
            "dag: finance_close (asserted: a header says so)",
            "true     workload.dag asks finance_*; saw finance_close (asserted)",
            "true     when.time asks mon-fri, from 06:00 to 20:00, Europe/Berlin; saw mon 13:00 Europe/Berlin",
            "Obligations of the permits that match",
            "at most 60 calls in 60 seconds by subject and dag",
            "a body of at most 1MB",
            "the header x-change-id",
            "a reason, in Airgate-Justification",
            "forbid prod-only matches, since what isn't known counts against the caller "
            "(/**, in shadow: it isn't applied)",
            "unknown  workload.environment asks test; saw nothing: the token doesn't attest it",
            "Were policies in shadow enforced, it would be denied: forbid prod-only",
        ],
    ),
    (
        "obligations that are not met",
        ["--role", "publisher", *CLOSE, *POST],
        1,
        [
            "DENY request.header_required by publish: Policy asks for a header that is not there. In detail: "
            "x-change-id. What to do: send the header x-change-id. Ask finance@example.com.",
            "permit publish matches (/v1/entries)",
        ],
    ),
    (
        "the wrong DAG, after hours",
        ["--role", "publisher", "--dag", "sales", *POST[:2], "--at", "2026-03-01T12:00:00Z"],
        1,
        [
            "DENY policy.no_match: No policy permits this call. Ask ledger@example.com.",
            "false    workload.dag asks finance_*; saw sales (asserted)",
            "for publish to match, all of these",
            "come from the DAG finance_*, and say so (Airgate-Dag-Id)",
            "call mon-fri from 06:00 to 20:00 (Europe/Berlin)",
        ],
    ),
    (
        "a bound token, and somebody who acts",
        ["--role", "reader", "--dpop", "--actor", "helper", *READ],
        0,
        ["by somebody of issuer company, workload", "helper acts for it", "its token is bound to a key (DPoP)"],
    ),
    (
        "a token that has to be bound, and somebody who must not act",
        ["--actor", "helper", "/ledger/v1/keys"],
        1,
        [
            "false    subject.dpop asks true; saw a bearer token",
            "false    subject.delegated asks false; saw helper, who acts for the subject",
            "for keys to match, all of these",
            "come with a token that is bound to a key (DPoP)",
            "come with the subject's own token, for which nobody else acts (no act)",
        ],
    ),
    (
        "a token that is bound, and nobody who acts",
        ["--dpop", "/ledger/v1/keys"],
        0,
        [
            "true     subject.dpop asks true; saw a token that is bound to a key",
            "true     subject.delegated asks false; saw nobody who acts for the subject",
        ],
    ),
    (
        "a role that is missing",
        READ,
        1,
        ["false    subject.roles.any asks publisher, reader; saw none",
         "for read to match: hold the role publisher or reader"],
    ),
    (
        "a role that the tag leaves out",
        ["--role", "publisher", "--role", "reader", "--tag", "reader", *CLOSE, *POST],
        1,
        [
            "roles: publisher, reader; permits read only those in Airgate-Role: reader",
            "for publish to match: name publisher in Airgate-Role too: it's granted, but the tag leaves it out",
        ],
    ),
    (
        "a role that isn't known",
        ["--claim", "department=sales", *READ],
        1,
        [
            "roles not known, for lack of the claims that could grant them: publisher, reader",
            "unknown  subject.roles.any asks publisher, reader; saw none; not known: publisher, reader",
            "for read to match: hold the role publisher or reader (the token lacks the claim that could grant "
            "publisher and reader)",
        ],
    ),
    (
        "a forbid",
        ["--kind", "agent", "--role", "publisher", *CLOSE, *POST],
        1,
        [
            "DENY policy.forbidden by no-agents: A policy forbids this call. Ask audit@example.com.",
            "forbid no-agents matches (/**)",
            "for no-agents not to forbid it: be of another kind than agent",
            "besides, for publish to match: be of kind workload",
        ],
    ),
    (
        "a forbid of everyone",
        ["/crm/v1/old/7?format=csv", "--claim", "department=sales"],
        1,
        ["true     it has no conditions", "nothing helps against closed: it forbids this to everyone"],
    ),
    (
        "a claim and a query",
        ["/crm/v1/accounts?format=csv&format=json", "--claim", "department=audit"],
        1,
        [
            "false    subject.claims.department.any asks sales; saw audit",
            "unknown  target.query.format.any asks csv; saw more than one reading: servers would differ",
            "have sales in the token's claim department",
            "send csv as the query's format, once",
        ],
    ),
    (
        "a method that nobody permits",
        ["--role", "reader", "DELETE", *READ],
        1,
        [
            "No policy is about this target",
            "somebody has to write a permit for this target, or the call has another target than was meant",
            "read permits GET or HEAD here, not DELETE",
            "publish permits POST here, not DELETE",
        ],
    ),
    (
        "a path misspelt",
        ["--role", "reader", "/ledger/v1/report/2026"],
        1,
        ["read is near: GET or HEAD /v1/reports/**"],
    ),
    (
        "a page of the gate's own",
        ["/-/health"],
        1,
        [
            "GET /-/health",
            "everyone is answered; policy says who is told more than ok or failing",
            "somebody has to write a permit: none names the upstream -",
        ],
    ),
    (
        "a refusal before policy",
        ["--role", "reader", "--tag", "publisher", *READ],
        1,
        [
            "DENY role.not_granted: The role tag names a role that the token does not grant. In detail: publisher.",
            "Policy wasn't asked: the request is refused before",
            "roles: reader",
        ],
    ),
    (
        "a resource",
        ["--kind", "human", "--subject", "bob", "--action", "can_update", "--resource", "todo", "--id", "7",
         "--property", "owner=alice"],
        1,
        [
            "can_update on todo 7",
            "owner: alice",
            "false    when.equals asks resource.owner is subject.id; saw resource.owner is alice, subject.id is bob",
            "for todo-update to match: have the resource's owner and the subject be the same",
        ],
    ),
    (
        "a case that passes",
        ["--case", "Readers read"],
        0,
        ["Case seed/a.cases.yaml:2:11: Readers read", "It passes.", "PERMIT by read"],
    ),
    (
        "a case that fails",
        ["--case", "Readers write"],
        1,
        ["It fails. decision: expected permit by publish, came deny policy.no_match"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "status", "lines"), [row[1:] for row in ASKED], ids=[row[0] for row in ASKED]
)
def test_an_explanation(options: list[str], status: int, lines: list[str], seed: Path) -> None:
    code, output = run(seed, *options)
    said = [line.strip() for line in output.splitlines()]
    assert [line for line in lines if line not in said] == [], output
    assert code == status
    assert said[-1].startswith("Policy bundle ")


CLOSE = ["--dag", "finance_close", "--task", "publish", "--attested", "POST", "/ledger/v1/entries", *MONDAY]
# the options beside these, what the starter policies say
ATTESTED: list[tuple[str, list[str], str]] = [
    ("in a scheduled run", ["--run-type", "scheduled"], "PERMIT by finance-close-publish"),
    (
        "by hand, by somebody who may",
        ["--run-type", "manual", "--triggered-by", "ada"],
        "PERMIT by finance-close-publish-by-hand",
    ),
    ("by hand, by somebody else", ["--run-type", "manual", "--triggered-by", "bob"], "DENY policy.no_match"),
    ("in a backfill", ["--run-type", "backfill", "--triggered-by", "ada"], "DENY policy.no_match"),
]


@pytest.mark.parametrize(("options", "said"), [pytest.param(*row[1:], id=row[0]) for row in ATTESTED])
def test_a_task_that_airflow_attests(options: list[str], said: str) -> None:
    _, output = run(STARTER, *CLOSE, *options)
    assert output.startswith(said), output
    for name, value in zip(options[::2], options[1::2], strict=True):
        assert f"{name[2:].replace('-', '_')}: {value} (attested by the token)" in output


def test_what_no_header_says_cannot_be_asserted() -> None:
    code, output = run(STARTER, "--run-type", "manual", "GET", "/ledger/v1/entries")
    assert (code, output) == (
        2, "--run-type: only a token says this, no header can; say that it is attested\n"
    )  # fmt: skip


# a condition as a shard has it, what it takes for it to be true, and to be false
WORDS: list[tuple[list[Any], str, str]] = [
    (["subject.issuer", ["a"]], "come with a token of issuer a", "come with a token of another issuer than a"),
    (["subject.id", ["a", "b"]], "be the subject a or b", "be another subject than a or b"),
    (["subject.kind", ["human"]], "be of kind human", "be of another kind than human"),
    (["subject.dpop", True], "come with a token that is bound to a key (DPoP)", "come with a bearer token"),
    (["subject.dpop", False], "come with a bearer token", "come with a token that is bound to a key (DPoP)"),
    (
        ["subject.delegated", True],
        "come with a token that says who acts for the subject (act)",
        "come with the subject's own token, for which nobody else acts (no act)",
    ),
    (
        ["subject.delegated", False],
        "come with the subject's own token, for which nobody else acts (no act)",
        "come with a token that says who acts for the subject (act)",
    ),
    (["subject.roles.any", ["a", "b"]], "hold the role a or b", "not hold a or b"),
    (["subject.roles.all", ["a", "b"]], "hold the roles a and b", "not hold every one of a and b"),
    (["subject.roles.none", ["held"]], "not hold the role held", "hold the role held"),
    (["subject.roles.none", ["dim"]], "not hold the role dim, and a token that says so", "hold the role dim"),
    (
        ["subject.roles.any", ["dim"]],
        "hold the role dim (the token lacks the claim that could grant dim)",
        "not hold dim, and a token that says so (it lacks the claim that could grant dim)",
    ),
    (
        ["subject.claims.any", ["org", "unit"], ["x", "y"]],
        "have x or y in the token's claim org.unit",
        "have none of x, y in the token's claim org.unit",
    ),
    (
        ["subject.claims.all", ["c"], ["x", "y"]],
        "have x and y in the token's claim c",
        "have not all of x and y in the token's claim c",
    ),
    (["subject.claims.none", ["c"], ["x"]], "have no x in the token's claim c", "have x in the token's claim c"),
    (
        ["workload.dag", ["fin_*"], False],
        "come from the DAG fin_*, and say so (Airgate-Dag-Id)",
        "come from another DAG than fin_*, and say so (Airgate-Dag-Id)",
    ),
    (
        ["workload.task", ["t"], True],
        "come from the task t, attested by the token",
        "come from another task than t, attested by the token",
    ),
    (
        ["workload.tags.any", ["x"], False],
        "come from a DAG with x among its tags, and say so (Airgate-Dag-Tags)",
        "come from a DAG with no x among its tags, and say so (Airgate-Dag-Tags)",
    ),
    (
        ["target.query.any", "f", ["csv", "json"]],
        "send csv or json as the query's f, once",
        "send none of csv, json as the query's f, once and in this letter case",
    ),
    (
        ["target.properties.none", "p", ["x"]],
        "ask about a resource whose p has no x",
        "ask about a resource whose p has x",
    ),
    (["target.ids", ["s-*"]], "ask about the id s-*", "ask about another id than s-*"),
    (
        ["when.time", "Etc/UTC", ["mon", "tue", "thu"], 1320, 120],
        "call mon-tue, thu from 22:00 to 02:00 of the next day (Etc/UTC)",
        "call outside of mon-tue, thu from 22:00 to 02:00 of the next day (Etc/UTC)",
    ),
    (
        ["when.dates", 0, 86_400],
        "call from 1970-01-01T00:00:00Z before 1970-01-02T00:00:00Z",
        "call outside of the time from 1970-01-01T00:00:00Z before 1970-01-02T00:00:00Z",
    ),
    (["when.ip", ["198.51.100.0/24"]], "call from 198.51.100.0/24", "call from another address than 198.51.100.0/24"),
    (
        ["when.country", ["DE"]],
        "call from DE (the country isn't known)",
        "call from another country than DE, known to the gate",
    ),
    (
        ["workload.run_type", ["scheduled", "manual"], True],
        "come from a run of type manual or scheduled, attested by the token",
        "come from a run of another type than manual or scheduled, attested by the token",
    ),
    (
        ["workload.triggered_by", ["ada"], True],
        "come from a run that was started by ada, attested by the token",
        "come from a run that was started by another user than ada, attested by the token",
    ),
    (
        ["when.time", "Etc/UTC", ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], 0, 1440, [-3, -2, -1, 1, 28, 29]],
        "call on days 1, 28-29 and the last 3 days of the month from 00:00 to 24:00 (Etc/UTC)",
        "call at another time than on days 1, 28-29 and the last 3 days of the month from 00:00 to 24:00 (Etc/UTC)",
    ),
    (
        ["when.time", "Etc/UTC", ["mon", "tue", "wed", "thu", "fri"], 1320, 120, [-1]],
        "call mon-fri on the last day of the month from 22:00 to 02:00 of the next day (Etc/UTC)",
        "call at another time than mon-fri on the last day of the month from 22:00 to 02:00 of the next day (Etc/UTC)",
    ),
    (
        ["when.time", "Etc/UTC", ["fri"], 0, 1440, [13]],
        "call fri on day 13 of the month from 00:00 to 24:00 (Etc/UTC)",
        "call at another time than fri on day 13 of the month from 00:00 to 24:00 (Etc/UTC)",
    ),
    (
        ["when.equals", "subject.email", "query.user", False],
        "have the token's claim email and the query's user be the same",
        "have the token's claim email and the query's user, and not be the same",
    ),
    (
        ["when.equals", "resource.owner", "workload.dag", True],
        "have the resource's owner and the DAG be the same",
        "have the resource's owner and the DAG, and not be the same",
    ),
    (
        ["when.equals", "subject.id", "workload.triggered_by", True],
        "have the subject and the user who started the run be the same",
        "have the subject and the user who started the run, and not be the same",
    ),
    (
        ["when.equals", "query.type", "workload.run_type", True],
        "have the query's type and the run's type be the same",
        "have the query's type and the run's type, and not be the same",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("row", "holds", "fails"), WORDS, ids=[" ".join(map(str, row[0])) for row in WORDS])
def test_what_it_takes(row: list[Any], holds: str, fails: str) -> None:
    resource = row[0] in ("target.ids",) or row[0].startswith("target.properties.")
    target = {
        "upstreams": ["resource:todo" if resource else "ledger"],
        "methods": ["*"],
        "paths": ["/*" if resource else "/{owner}"],
    }
    [(upstream, text)] = shards(rule(target=target, conditions=[row])).items()
    where = Target("GET", upstream, ("x",), "/x", "")
    [(policy, _)] = load_shard(text, upstream).lookup.reachable(where)
    identity = Identity("partner", "s", "agent", frozenset({"held"}), {}, frozenset({"dim"}))
    call = Call(Caller(identity, None, identity.granted, {}), where, 0)
    [condition] = policy.conditions
    assert to_hold(condition, call, identity.granted) == holds
    assert to_fail(condition, call, identity.granted) == fails


# what is wrong, the options, what is said
MISTAKES: list[tuple[str, list[str], str]] = [
    ("nothing asked", [], "Say which request: airgate policy explain --role ROLE METHOD /UPSTREAM/PATH"),
    ("a method without a path", ["POST"], "Say which request"),
    ("a method in small letters", ["post", *READ], 'METHOD: "post": not a method of the gate; write "POST"'),
    ("a path without a slash", ["GET", "ledger/v1"], 'URL: "ledger/v1": a path is /UPSTREAM/…'),
    ("an unknown upstream", ["/legder/v1"], 'URL: "legder": no such upstream; did you mean "ledger"?'),
    ("an unknown issuer", ["--issuer", "compny", *READ], '--issuer: "compny": no such issuer; did you mean "company"?'),
    ("an unknown role", ["--role", "reder", *READ], '--role: "reder": no such role; did you mean "reader"?'),
    ("an unknown role in the tag", ["--tag", "reder", *READ], '--tag: "reder": no such role'),
    ("a time without offset", ["--at", "noon", *READ], '--at: "noon": not a date and time with an offset'),
    ("half an address", ["--from", "198.51", *READ], '--from: "198.51": not an IP address'),
    ("a claim without a value", ["--claim", "department", *READ], '--claim: "department": write NAME=VALUE'),
    ("a header without a value", ["--header", "X", *READ], '--header: "X": write NAME:VALUE'),
    ("attested nothing", ["--attested", *READ], "--attested says that the token has what is said of the task"),
    (
        "context that nobody attests",
        ["--dag", "x", "--attested", *READ],
        '--dag: "dag": no claim of issuer company attests it; it attests environment',
    ),
    ("an unknown type", ["--resource", "tood", "--id", "1", "--action", "a"], '--resource: "tood": no such type'),
    ("a resource without an action", ["--resource", "todo", "--id", "1"], "--action: is missing"),
    ("two ways to ask", ["--case", "x", "--token", "-"], "--case and --token: only one of them"),
    ("a case and a role", ["--case", "Readers read", "--role", "reader"], "leave --role out"),
    ("a token and a role", ["--token", "-", "--role", "reader", *READ], "leave --role out"),
    ("a token and a key", ["--token", "-", "--dpop", "--actor", "a", *READ], "leave --dpop, --actor out"),
    ("an unknown case", ["--case", "Readers red"], '--case: "Readers red": no such case; did you mean "Readers read"?'),
    ("a log without a request", ["--log", "x", *READ], "--log and --path belong to --request-id"),
    ("no stack", ["--request-id", "7"], "No local stack runs in .airgate"),
    ("no stack to ask for its policy", ["--live", *READ], "No local stack runs in .airgate"),
    ("no such log", ["--request-id", "7", "--log", "nowhere"], "nowhere: can't be read"),
    ("a property of nothing", ["--property", "a=b", *READ], "--property says something of a resource; name it"),
    ("a case in what is in force", ["--live", "--case", "x"], "leave --seed and --case out"),
    ("no such token", ["--token", "nowhere", *READ], "--token: nowhere: can't be read"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "said"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_question_that_cannot_be_answered(options: list[str], said: str, seed: Path) -> None:
    code, output = run(seed, *options)
    assert said in output
    assert code == 2


def test_an_invalid_seed_explains_nothing(seed: Path) -> None:
    (seed / "b.yaml").write_text("roles: {reader: {}}", "utf-8")
    code, output = run(seed, *READ)
    assert code == 2
    assert "Nothing can be explained by it." in output


def encoded(value: Mapping[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def token(**claims: Any) -> str:
    """One that nobody signed: ten minutes of the Monday."""
    usual = {
        "iss": "https://login.example.com",
        "aud": "https://gate.example.com",
        "sub": "svc-etl",
        "client_id": "svc-etl",
        "jti": "1",
        "iat": 1_772_452_500,
        "exp": 1_772_453_100,
        "groups": ["readers"],
    }
    return f"{encoded({'alg': 'RS256', 'typ': 'at+jwt'})}.{encoded(usual | claims)}.{encoded({})}"


# what the token is, the token, exit status, lines that must be there
TOKENS: list[tuple[str, str, int, list[str]]] = [
    (
        "good",
        token(),
        0,
        ["The token was only decoded: nobody checked its signature.", "PERMIT by read",
         "by svc-etl of issuer company, workload", "roles: reader"],
    ),
    (
        "without groups",
        token(groups=None),
        1,
        ["DENY policy.no_match: No policy permits this call. Ask ledger@example.com."],
    ),
    (
        "expired",
        token(exp=1_772_450_000),
        0,
        ["The gate would refuse it before policy: token.expired: 2600 s ago.", "PERMIT by read"],
    ),
    (
        "bound to a key, and delegated",
        token(cnf={"jkt": "k" * 43}, act={"sub": "helper"}),
        0,
        ["PERMIT by read", "helper acts for it", "its token is bound to a key (DPoP)"],
    ),
    ("behind the word Bearer", f"Bearer {token()}\n", 0, ["PERMIT by read"]),
    (
        "of another algorithm",
        f"{encoded({'alg': 'ES256', 'typ': 'at+jwt'})}{token()[token().index('.') :]}",
        0,
        ["The gate would refuse it before policy: token.algorithm, ES256."],
    ),
    (
        "of another issuer",
        token(iss="https://other.example.com"),
        2,
        ['--token: "https://other.example.com": no issuer of seed has this iss; known: https://login.example.com '
         "(company)"],
    ),
    ("no token", "x.y.z", 2, ["--token: the gate refuses it, token.malformed: not canonical base64url"]),
    ("without a subject", token(sub=None), 2, ["--token: has no sub, so the gate refuses it"]),
    (
        "with groups that can't be read",
        token(groups=7),
        1,
        ["DENY token.claims: The token's claims are not acceptable. In detail: a claim that grants roles is not "
         "strings, or holds too many."],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "status", "lines"), [row[1:] for row in TOKENS], ids=[row[0] for row in TOKENS]
)
def test_a_token(text: str, status: int, lines: list[str], seed: Path) -> None:
    code, output = run(seed, "--token", "-", *READ, "--at", "2026-03-02T11:56:40Z", given=text)
    said = [line.strip() for line in output.splitlines()]
    assert [line for line in lines if line not in said] == [], output
    assert code == status
    assert text.strip().split(".")[-2] not in output  # its claims may be secret


def test_a_bearer_token_of_an_issuer_that_binds_them_all(seed: Path) -> None:
    (seed / "a.yaml").write_text(SEED.replace("algorithms:", "dpop: required, algorithms:"), "utf-8")
    code, output = run(seed, "--token", "-", *READ, *MONDAY, given=token())
    assert code == 1
    assert "DENY token.unbound" in output
    assert run(seed, "--token", "-", *READ, *MONDAY, given=token(cnf={"jkt": "k" * 43}))[0] == 0


def test_a_token_in_a_file(seed: Path) -> None:
    (seed / "token").write_text(token(), "utf-8")
    assert run(seed, "--token", str(seed / "token"), *READ, *MONDAY)[0] == 0


def logged(compiled: Compiled, request: dict[str, Any], **known: Any) -> dict[str, Any]:
    """What the gate writes about a request, by the gate's own code."""
    gate = Gate(compiled.engine)
    asked = Request.read(request)
    answer = gate.answer(asked)
    record = Record(inbound(method=asked.method, at=asked.at or 0, cf_connecting_ip="198.51.100.7"))
    record.target = answer.call.target if answer.call is not None else asked.target
    record.decision = answer.decision
    record.bundle = gate.bundle.version
    record.log_path = record.target.upstream == "ledger"
    if answer.identity is not None:
        record.described = describe(
            answer.call.caller if answer.call is not None else act(answer.identity, {})
        )
    line = written(record, Denied(answer.reason, answer.detail) if answer.reason is not None else None)
    event: dict[str, Any] = json.loads(line)
    return event | {"request_id": "7"} | known


CLOSED = {
    "roles": ["publisher"],
    "workload": {"dag": "finance_close"},
    "method": "POST",
    "path": "/ledger/v1/entries",
    "headers": {"X-Change-Id": "7", "Airgate-Justification": "the books are closed"},
    "at": "2026-03-02T12:00:00Z",
}
ACCOUNTS = {
    "claims": {"department": "sales"},
    "path": "/crm/v1/accounts?format=csv",
    "at": "2026-03-02T12:00:00Z",
}
LEFT_OUT = (
    "The log holds no claims, headers or body: conditions on claims are unknown here, and obligations are listed, not "
    "tried."
)

# what was asked, the request, what the log says otherwise, more options, exit status, lines that must be there
RECORDED: list[tuple[str, dict[str, Any], dict[str, Any], list[str], int, list[str]]] = [
    (
        "a permit with its path",
        CLOSED,
        {},
        [],
        0,
        ["Recorded: permit by publish", LEFT_OUT, "PERMIT by publish", "at 2026-03-02T12:00:00Z from 198.51.100.7",
         "dag: finance_close (asserted: a header says so)"],
    ),
    (
        "a decision by another bundle",
        CLOSED,
        {"bundle": "0123456789ab"},
        [],
        0,
        ["Recorded: permit by publish"],
    ),
    (
        "a limit that was reached",
        CLOSED,
        {"decision": "deny", "reason": "limit.rate"},
        [],
        0,
        ["Recorded: deny limit.rate by publish", "PERMIT by publish"],
    ),
    (
        "a denial without its path",
        {"roles": ["reader"], "method": "POST", "path": "/crm/v1/accounts", "at": "2026-03-02T12:00:00Z"},
        {},
        [],
        1,
        [
            "Recorded: deny policy.no_match",
            "POST on crm, at 2026-03-02T12:00:00.000Z",
            "somebody of issuer company, workload",
            "roles: reader",
            "The log doesn't hold the path, so only the recorded decision can be shown. To explain it, say what was "
            "called: --path /crm/…",
        ],
    ),
    (
        "a permit without its path",
        ACCOUNTS,
        {},
        [],
        0,
        ["Recorded: permit by accounts", "route /v1/**"],
    ),
    (
        "a path that is said; claims and query aren't known",
        ACCOUNTS,
        {},
        ["--path", "/crm/v1/accounts"],
        1,
        [
            "Recorded: permit by accounts",
            "unknown  subject.claims.department.any asks sales; saw nothing: the token has no such claim, or one that "
            "can't be compared",
            "unknown  target.query.format.any asks csv; saw nothing: the query isn't known",
        ],
    ),
    (
        "a path that is said with its query",
        ACCOUNTS,
        {},
        ["--path", "/crm/v1/accounts?format=csv"],
        1,
        ["true     target.query.format.any asks csv; saw csv"],
    ),
    (
        "a role that wasn't granted",
        {"roles": ["reader"], "tag": "publisher", "path": "/ledger/v1/entries", "at": "2026-03-02T12:00:00Z"},
        {},
        [],
        1,
        ["Recorded: deny role.not_granted", "detail: publisher", "Policy wasn't asked: the request was refused before"],
    ),
    (
        "a page of the gate's own",
        {"kind": "human", "path": "/-/health", "at": "2026-03-02T12:00:00Z"},
        {"page": "health", "decision": "permit", "reason": None},
        [],
        1,
        ["Recorded: permit", "GET /-/health",
         "DENY policy.no_match: No policy permits this call."],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "known", "options", "status", "lines"),
    [row[1:] for row in RECORDED],
    ids=[row[0] for row in RECORDED],
)
def test_a_recorded_request(
    request_: dict[str, Any],
    known: dict[str, Any],
    options: list[str],
    status: int,
    lines: list[str],
    seed: Path,
) -> None:
    event = logged(compile_folder(seed), request_, **known)
    (seed / "log").write_text(f'(something else)\n{json.dumps(event)}\n{{"event":"dec', "utf-8")
    code, output = run(seed, "--request-id", "7", "--log", str(seed / "log"), *options)
    said = [line.strip() for line in output.splitlines()]
    assert [line for line in lines if line not in said] == [], output
    assert code == status
    assert any(line.startswith("It was decided by bundle 0123456789ab; this is ") for line in said) is (
        "bundle" in known
    )


def test_a_call_that_an_agent_made_for_somebody_is_shown_as_it_was_recorded(seed: Path) -> None:
    exchanged = {"upstream": "ledger", "parents": ["1"], "delegated": True}
    event = logged(
        compile_folder(seed), CLOSED | {"path": "/ledger/v1/entries"}, exchanged=exchanged, alone="actor"
    )
    (seed / "log").write_text(f"{json.dumps(event)}\n", "utf-8")
    code, output = run(seed, "--request-id", "7", "--log", str(seed / "log"))
    assert code == (0 if event["decision"] == "permit" else 3), output
    said = " ".join(output.split())
    for sentence in ("the actor may not do it alone", "a gate token for ledger", "which roles are whose"):
        assert sentence in said


def test_a_question_is_said_as_it_was_recorded(seed: Path) -> None:
    compiled = compile_folder(seed)
    event = logged(compiled, CLOSED | {"path": "/ledger/v1/entries"})
    question = {
        "event": "evaluation",
        "schema": 2,
        "time": "2026-03-02T12:00:00.000Z",
        "request_id": "7",
        "number": 0,
        "decision": "deny",
        "reason": "policy.no_match",
        "method": "can_update",
        "upstream": "resource:todo",
        "permits": [],
        "forbids": [],
        "issuer": "company",
        "subject": "bob",
    }
    (seed / "log").write_text(f"{json.dumps(event)}\n{json.dumps(question)}\n", "utf-8")
    _, output = run(seed, "--request-id", "7", "--log", str(seed / "log"))
    assert "Question 0: deny policy.no_match; can_update on resource:todo, by bob of issuer company" in output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--request-id", "8"], 'holds no decision about the request "8" (1 events looked at)'),
        (["--request-id", "7", "--path", "/ledger/v1/x"], '--path: "/ledger/v1/x": the request went to crm'),
        (["--request-id", "7", "--path", "v1/x"], 'URL: "v1/x": a path is /UPSTREAM/…'),
        (["--request-id", "7", "--role", "reader"], "--request-id says all of the request; leave --role out"),
    ],
    ids=["another request", "a path elsewhere", "a path without a slash", "a role beside it"],
)
def test_a_record_that_cannot_be_used(options: list[str], said: str, seed: Path) -> None:
    (seed / "log").write_text(json.dumps(logged(compile_folder(seed), ACCOUNTS)) + "\n", "utf-8")
    code, output = run(seed, *options, "--log", str(seed / "log"))
    assert said in output
    assert code == 2


def lines(branch: Branch) -> list[str]:
    return [branch.text, *(line for inner in branch.branches for line in lines(inner))]


def decided(scene: Scene) -> tuple[Answer, dict[str, str]]:
    """A call of all that the language can say, and the text of the shard that decides it."""
    texts = shards(*scene.policies)
    shard = load_shard(texts[scene.upstream], scene.upstream) if texts else EMPTY
    call = scene.call
    decision: Decision = shard.decide(call)
    answer = Answer(decision.permit, decision.reason, "", "", call.caller.identity, call, decision, shard)
    return answer, texts


@given(SCENES)
def test_what_is_explained_is_what_the_engine_decides(scene: Scene) -> None:
    answer, texts = decided(scene)
    decision, call = answer.decision, answer.call
    assert decision is not None
    assert call is not None
    root = explain_answer(answer, texts, "v", everything=True)
    assert root.text.startswith("PERMIT" if decision.permit else "DENY")
    considered = next((each for each in root.branches if each.text.startswith("Policies about")), Branch(""))
    said = {each.text.split()[1]: each for each in considered.branches}
    assert {name for name, each in said.items() if each.text.split()[2].startswith("matches")} == {
        *decision.permits,
        *decision.forbids,
        *decision.shadow,
    }
    by_id = {policy.id: policy for policy, _ in answer.considered}
    assert said.keys() == by_id.keys()
    for name, branch in said.items():
        truths = [{"true": True, "false": False}.get(each.text.split()[0]) for each in branch.branches]
        together = False if False in truths else None if None in truths else True
        matches = by_id[name].forbids if together is None else together
        assert branch.text.split()[2].startswith("matches") is matches
    ways = [each for each in root.branches if each.text == "To be permitted"]
    assert bool(ways) is not decision.permit
    assert bool(decision.shadow) is any(
        each.text.startswith("Were policies in shadow") for each in root.branches
    )


@given(SCENES)
def test_a_caller_is_read_from_the_log_as_it_was(scene: Scene) -> None:
    record = Record(inbound(at=scene.now))
    record.described = describe(scene.caller)
    record.target = scene.target
    came = Recorded(json.loads(written(record, None))).caller()
    caller: Caller = scene.caller
    attested = {name: fact for name, fact in caller.workload.items() if fact.attested}
    assert came == caller._replace(identity=caller.identity._replace(claims={}, attested=attested))


def stored(compiled: Compiled) -> Stores:
    stores = Stores()
    put_in_force(stores, plan(stores, Release(compiled)), None)
    stores.reads.clear()
    return stores


def test_what_is_in_force_decides(seed: Path) -> None:
    compiled = compile_folder(seed)
    stores = stored(compiled)
    policies, texts = Live.read(stores).policies("ledger")
    answer = Gate(policies).answer(Request.read(CLOSED))
    assert answer.permit
    assert texts == {"ledger": compiled.shards["ledger"]}
    assert len(stores.reads) == 4  # each costs a second, but for two that are made at once
    assert Live.read(stores).policies("-") == (PolicySet(compiled.engine.bundle, {}), {})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (BUNDLE, None, "the bundle is missing"),
        (BUNDLE, "{}", "the bundle is not the one that was named"),
        (SHARD, None, "the shard is missing"),
        (SHARD, "{}", "the shard of ledger is not the one that was named"),
    ],
    ids=["no bundle", "another bundle", "no shard", "another shard"],
)
def test_what_is_in_force_may_be_unusable(key: str, value: str | None, said: str, seed: Path) -> None:
    stores = stored(compile_folder(seed))
    kept = {name: text for name, text in stores.kv.items() if not name.startswith(key)}
    stores.kv = kept | ({} if value is None else dict.fromkeys(stores.kv.keys() - kept.keys(), value))
    with pytest.raises(LiveError, match=re.escape(said)):
        Live.read(stores).policies("ledger")


def test_without_a_ledger_nothing_is_in_force(seed: Path) -> None:
    stores = Stores()
    with pytest.raises(LiveError, match=r"The ledger of staging has no entry\. Publish: "):
        Live.read(stores)
    stores.row(1, "{}")
    with pytest.raises(LiveError, match="has no entry that counts: it can't be read: pointer"):
        Live.read(stores)


def test_what_the_local_stack_has_in_force(seed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = stored(compile_folder(seed))
    monkeypatch.setattr(explain, "open_environment", {"local": stores}.__getitem__)
    (seed / "a.yaml").write_text("not a seed", "utf-8")  # nobody looks at it
    code, output = run(seed, "--live", "--role", "reader", *READ)
    assert (code, output.splitlines()[0]) == (0, "PERMIT by read")
    assert output.splitlines()[-1].endswith(" in force on the local stack")


def test_few_of_many_policies_are_shown(seed: Path) -> None:
    rule = SEED[SEED.index("  - id: read") : SEED.index("  - id: no-agents")]
    more = "policies:\n" + "".join(rule.replace("id: read", f"id: read-{number}") for number in range(30))
    (seed / "b.yaml").write_text(more, "utf-8")
    _, output = run(seed, *READ)
    assert "… 21 more that don't match; --all shows them" in output
    assert output.count("doesn't match") == 10
    assert output.count("to match: ") == 3
    _, output = run(seed, *READ, "--all")
    assert output.count("doesn't match") == 31
