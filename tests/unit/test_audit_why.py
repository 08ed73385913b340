"""One request retold: who, what, why and what to do, out of the gate's own lines; and what can't be told is said."""

import gzip
import json
from pathlib import Path
from typing import Any

import logged
import odd_events
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from stores import Stores
from typer.testing import CliRunner

from airgate.audit import lookup, why
from airgate.audit.advice import ADVICE
from airgate.audit.lookup import NotFoundError, Searched, look_up
from airgate.audit.retold import headline, retold
from airgate.policy.compile import Compiled
from airgate.policy.recorded import RecordError
from airgate.policy.release import Release, plan, put_in_force
from audit import act_event, bundle_event
from model import Reason
from pseudonym import Names

SEED = """\
issuers:
  company: {issuer: https://login.example.com, audiences: [https://gate.example.com], algorithms: [RS256],
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
    subject: {issuer: company, roles: {any: [publisher]}}
    target: {upstream: ledger, methods: [POST], paths: ["/v1/entries"]}
  - id: read
    description: d
    owner: finance@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [publisher, reader]}}
    target: {upstream: ledger, methods: [GET], paths: ["/v1/entries", "/v1/entries/{id}"]}
  - id: by-name
    description: d
    owner: finance@example.com
    effect: permit
    subject: {issuer: company, id: [svc]}
    target: {upstream: ledger, methods: [PUT], paths: ["/v1/entries"]}
  - id: accounts
    description: d
    owner: sales@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [reader]}}
    target: {upstream: crm, methods: [GET], paths: ["/v1/accounts/{account}"]}
  - id: no-agents
    description: d
    owner: security@example.com
    effect: forbid
    subject: {issuer: company, kind: agent}
    target: {upstream: ledger, methods: [GET, POST], paths: ["/**"]}
"""
APP = typer.Typer()
APP.command("why")(why.why)
CALL: dict[str, Any] = {
    "issuer": "company",
    "roles": ["reader"],
    "subject": "svc",
    "workload": {"dag": "sales_sync", "task": "pull", "run": "r1", "try": "2", "map_index": "3"},
    "method": "GET",
    "path": "/ledger/v1/entries",
    "at": "2026-11-17T09:30:02Z",
    "from": "198.51.100.7",
}


def call(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**CALL, **changes}.items() if value is not None}


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiled:
    monkeypatch.setenv("AIRGATE_DIR", str(tmp_path / "nothing"))
    return logged.seed(tmp_path / "seed", SEED)


def name_of(line: str) -> str:
    return str(json.loads(line)["request_id"])


def told(log: Path, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for heading, sentence in retold(look_up(name, Searched([log]))):
        found[heading] = f"{found.get(heading, '')} {sentence}".strip()
    return found


def run(*options: object) -> tuple[int, str]:
    result = CliRunner().invoke(APP, [str(option) for option in options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def lines(
    compiled: Compiled, request: dict[str, Any], status: int | None = None, **settings: Any
) -> list[str]:
    return logged.call(request, compiled, status, **settings)


def test_a_call_that_an_agent_made_for_somebody_is_not_decided_again(
    compiled: Compiled, tmp_path: Path
) -> None:
    [line] = lines(compiled, call())
    exchanged = {"upstream": "ledger", "parents": ["1"], "delegated": True}
    log = logged.write(tmp_path / "audit.ndjson", [json.dumps(json.loads(line) | {"exchanged": exchanged})])
    status, text = run(name_of(line), "--log", log, "--seed", tmp_path / "seed")
    assert status == 0
    assert "the log doesn't hold which roles are whose" in " ".join(text.split())


AGENT = {"roles": ["reader"], "kind": "agent"}
# what happened, the request, its outcome, what is said of it
STORIES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, str]]] = [
    ("a permit", call(), {"status": 200, "took": 0.25, "size": 1234}, {
        "Who": "svc, a workload with a token of issuer company. It had the role reader.",
        "Task": "DAG sales_sync, task pull, run r1, try 2, map index 3: only claimed, by headers that the caller wrote "
                "itself.",
        "What": "GET on upstream ledger, path /v1/entries. It came from 198.51.100.7.",
        "Decision": "Permitted by read. The path matched /v1/entries. That took the gate 0 ms.",
        "Upstream": "ledger answered 200 after 250 ms, with 1,234 bytes."}),
    ("an attested fact", call(workload={"environment": "prod", "dag": "d", "attested": ["environment"]}),
     {"status": 200}, {"Task": "environment prod: attested by the token. DAG d: only claimed, by headers that the "
                               "caller wrote itself."}),
    ("no DAG", call(workload=None), {"status": 200},
     {"Task": "Neither the token nor a header named a DAG or task."}),
    ("a denial", call(method="POST"), {}, {
        "Decision": "No policy permits this call (policy.no_match). That took the gate 0 ms.",
        "Upstream": "It was not called.", "To do": "It takes a permit. Have the request id ready."}),
    ("a forbid", call(**AGENT), {}, {
        "Who": "svc, an agent with a token of issuer company. It had the role reader.",
        "Decision": "A policy forbids this call (policy.forbidden): no-agents. A forbid wins over every permit. "
                    "Without it, read would have permitted the call. The path matched /**. That took the gate 0 ms."}),
    ("a role that isn't granted", call(tag="publisher"), {}, {
        "Who": "Nobody could be told: the request was refused or answered before its token was believed.",
        "To do": "Ask the identity team for the role that Airgate-Role names, or leave the header out."}),
    ("a query", call(path="/ledger/v1/entries?limit=5&secret"), {"status": 200},
     {"What": "GET on upstream ledger, path /v1/entries. Its query had limit, ? (names only: values are not logged). "
              "It came from 198.51.100.7."}),
    ("a path that isn't logged", call(path="/crm/v1/accounts/7"), {"status": 200},
     {"What": "GET on upstream crm, a path that is not logged. It came from 198.51.100.7."}),
    ("an answer that says no", call(), {"status": 503}, {
        "Upstream": "ledger answered 503 after 50 ms. That is the upstream's own answer, which the gate passed on."}),
    ("no answer", call(), {"result": "timeout", "took": 30.0},
     {"Upstream": "ledger did not answer in time; the gate had waited 30000 ms."}),
    ("no outcome", call(), {}, {"Upstream": "The log holds no outcome. The client may have left before the upstream "
                                            "answered, or the log ends here; the upstream may have got the call."}),
    ("a page of the gate's", call(path="/-/health", roles=["publisher"]), {}, {
        "What": "GET: the gate's health. It came from 198.51.100.7."}),
    ("a trace", call(), {"status": 200, "trace": "a" * 32},
     {"Trace": "part of trace " + "a" * 32}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "outcome", "expected"), [each[1:] for each in STORIES], ids=[each[0] for each in STORIES]
)
def test_a_request_is_retold(
    tmp_path: Path,
    compiled: Compiled,
    request_: dict[str, Any],
    outcome: dict[str, Any],
    expected: dict[str, str],
) -> None:
    own = lines(compiled, request_, **outcome)
    log = logged.write(tmp_path / "log", [logged.event(CALL, compiled), *own, logged.event(CALL, compiled)])
    found = told(log, name_of(own[0]))
    assert {heading: found.get(heading, "") for heading in expected if heading != "Trace"} == {
        heading: text for heading, text in expected.items() if heading != "Trace"
    }
    assert expected.get("Trace", "") in found["Trace"]


def test_the_headline_says_when_and_why(tmp_path: Path, compiled: Compiled) -> None:
    [line] = lines(compiled, call(method="POST"))
    story = look_up(name_of(line), Searched([logged.write(tmp_path / "log", [line])]))
    assert headline(story) == (
        "DENIED POST on ledger, Tuesday 2026-11-17 09:30:02 UTC: No policy permits this call (policy.no_match)"
    )


def test_a_revocation_and_a_grant_that_had_a_part_are_named(tmp_path: Path, compiled: Compiled) -> None:
    revoke = {"act": "revoke", "at": 1_794_000_000, "until": 1_795_000_000, "by": "ann", "reason": "laptop lost",
              "match": {"subject": "svc"}}  # fmt: skip
    grant = {"act": "grant", "at": 1_794_000_000, "until": 1_795_000_000, "by": "bob", "reason": "month end",
             "to": {"issuer": "company", "subject": "svc"}, "gives": {"role": "publisher"}}  # fmt: skip
    [denied] = lines(compiled, call(method="POST"))
    denied = json.dumps(
        json.loads(denied) | {"reason": "policy.revoked", "detail": f"{'e' * 32}: laptop lost"}
    )
    lent = lines(compiled, call(), 200, grants=("f" * 32, "9" * 32))
    log = logged.write(
        tmp_path / "log",
        [
            logged.link(act_event(1_794_000_001, "known", "e" * 32, "", json.dumps(revoke))),
            logged.link(act_event(1_794_000_001, "known", "f" * 32, "", json.dumps(grant))),
            denied,
            *lent,
        ],
    )
    first = told(log, name_of(denied))["Access"]
    assert first.startswith("A revocation hit the call. Access was revoked: subject svc, until 2026-11-18")
    assert first.endswith("by ann: laptop lost (eeeeeeeeeeee).")
    second = told(log, name_of(lent[0]))["Access"]
    assert "svc of company was lent role publisher" in second
    assert "by bob: month end" in second
    assert "More about it: airgate grant list" in second  # the other grant's line is in another log


def test_a_pseudonym_is_said_and_never_taken_for_a_name(tmp_path: Path, compiled: Compiled) -> None:
    [line] = lines(compiled, call(method="PUT"), names=Names(b"k" * 32))
    log = logged.write(tmp_path / "log", [line])
    code, output = run(name_of(line), "--log", log, "--seed", tmp_path / "seed")
    assert code == why.TOLD
    assert "Who that is can't be told: the log holds a pseudonym of the subject." in output
    assert output.startswith("PERMITTED PUT on ledger")
    assert (
        "For the caller, the log holds a pseudonym of the subject: conditions on that are unknown here."
        in output
    )
    assert "unknown  subject.id asks svc; saw nothing: it isn't known" in output


def test_a_line_that_was_cut_is_said(
    tmp_path: Path, compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit.BOUND", 900)
    [line] = lines(compiled, call(workload={"dag": "d" * 200, "task": "t" * 200}))
    _, output = run(
        name_of(line), "--log", logged.write(tmp_path / "log", [line]), "--seed", tmp_path / "seed"
    )
    assert "The line was too long for the log, which holds only a part of workload" in output


@pytest.mark.parametrize("form", ["gzip", "wrangler tail", "Logpush", "foreign text before it"])
def test_a_request_is_found_in_a_log_of_any_form(tmp_path: Path, compiled: Compiled, form: str) -> None:
    own = lines(compiled, CALL, 200)
    log = tmp_path / "log"
    text = "\n".join(own) + "\n"
    if form == "gzip":
        log.write_bytes(gzip.compress(text.encode()))
    elif form == "wrangler tail":
        log.write_text(json.dumps({"logs": [{"message": [line]} for line in own]}, indent=2) + "\n", "utf-8")
    elif form == "Logpush":
        log.write_text(json.dumps({"Logs": [{"Message": [line]} for line in own]}) + "\n", "utf-8")
    else:
        log.write_text("".join(f"gate | {line}\n" for line in own), "utf-8")
    assert told(log, name_of(own[0]))["Upstream"] == "ledger answered 200 after 50 ms."


def test_what_was_delivered_twice_is_told_once(tmp_path: Path, compiled: Compiled) -> None:
    own = lines(compiled, CALL, 200)
    log = logged.write(tmp_path / "log", [*own, *own])
    assert told(log, name_of(own[0]))["Upstream"] == "ledger answered 200 after 50 ms."


def test_an_outcome_before_its_decision_is_found(tmp_path: Path, compiled: Compiled) -> None:
    own = lines(compiled, CALL, 200)
    log = logged.write(tmp_path / "log", reversed(own))
    assert told(log, name_of(own[0]))["Upstream"] == "ledger answered 200 after 50 ms."


def test_how_policy_came_into_force_is_said(tmp_path: Path, compiled: Compiled) -> None:
    version = compiled.engine.bundle.version
    [line] = lines(compiled, CALL)
    published = logged.link(bundle_event(1_794_000_000, "loaded", "", version, 1, "ann"))
    other = logged.link(bundle_event(1_794_000_000, "loaded", "", version, 2, "bob"))
    log = logged.write(tmp_path / "log", [other, published, line])
    assert told(log, name_of(line))["Policy"] == (
        f"Bundle {version}, number 1 of the ledger, published by ann; in force here since 2026-11-06 21:20 UTC."
    )


def test_the_policy_of_that_time_explains(
    tmp_path: Path, compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = Stores()
    put_in_force(stores, plan(stores, Release(compiled)), None)
    newer = logged.seed(tmp_path / "newer", SEED.replace("any: [publisher]", "any: [reader]"))
    put_in_force(stores, plan(stores, Release(newer)), None)
    monkeypatch.setattr(why, "open_environment", {"staging": stores}.__getitem__)
    [line] = lines(compiled, call(method="POST"))
    log = logged.write(tmp_path / "log", [line])
    code, output = run(name_of(line), "--log", log, "--env", "staging")
    assert code == why.TOLD
    assert "What it would take: for publish to match: hold the role publisher." in output
    assert "It takes a permit. Have the request id ready. Ask ledger@example.com." in output
    assert f"Policy bundle {compiled.engine.bundle.version} of that time, from KV of staging" in output
    assert "It was decided by" not in output
    stores.kv = {}
    code, output = run(name_of(line), "--log", log, "--env", "staging")
    assert code == why.TOLD
    assert f"is not at hand: KV of staging holds no such bundle: {compiled.engine.bundle.version}" in output


def test_the_end_of_a_session_is_retold(tmp_path: Path, compiled: Compiled) -> None:
    line = odd_events.lines()["a session that has ended"]
    assert told(logged.write(tmp_path / "log", [line]), name_of(line))["What"] == (
        "POST: an issuer's word that a session has ended. "
        "Of the issuer company, the session 0197f3c2 is over: superseded."
    )
    odd = json.dumps(json.loads(line) | {"ended": {"session": 7}})
    assert (
        "Of the issuer ?, the session ? is over: ?."
        in told(logged.write(tmp_path / "odd", [odd]), name_of(odd))["What"]
    )


def test_another_policy_than_that_of_the_time_is_said(tmp_path: Path, compiled: Compiled) -> None:
    [line] = lines(compiled, call(method="POST"))
    logged.seed(tmp_path / "newer", SEED.replace("any: [publisher]", "any: [reader]"))
    _, output = run(
        name_of(line), "--log", logged.write(tmp_path / "log", [line]), "--seed", tmp_path / "newer"
    )
    assert f"It was decided by bundle {compiled.engine.bundle.version}; this is " in output
    assert "By the policy that was named:" in output


def test_without_a_stack_it_is_said_how_to_get_more(tmp_path: Path, compiled: Compiled) -> None:
    [line] = lines(compiled, CALL)
    code, output = run(name_of(line), "--log", logged.write(tmp_path / "log", [line]))
    assert code == why.TOLD
    assert "Permitted by read." in output
    assert "is not at hand: No local stack runs in" in output
    assert "--env NAME" in output


def test_a_path_that_is_not_logged_may_be_said(tmp_path: Path, compiled: Compiled) -> None:
    [line] = lines(compiled, call(path="/crm/v1/accounts/7"))
    options = [name_of(line), "--log", logged.write(tmp_path / "log", [line]), "--seed", tmp_path / "seed"]
    assert "Say what was called: --path /crm/…" in run(*options)[1]
    assert (
        "permit accounts matches (/v1/accounts/{account})" in run(*options, "--path", "/crm/v1/accounts/7")[1]
    )
    code, output = run(*options, "--path", "/ledger/v1/entries")
    assert (code, output) == (why.INVALID, '--path: "/ledger/v1/entries": the request went to crm\n')
    assert run(*options, "--path", "v1")[0] == why.INVALID


def test_json_holds_the_sentences_the_explanation_and_the_lines(tmp_path: Path, compiled: Compiled) -> None:
    own = lines(compiled, CALL, 200)
    log = logged.write(tmp_path / "log", own)
    _, output = run(name_of(own[0]), "--log", log, "--seed", tmp_path / "seed", "--json")
    document = json.loads(output)
    assert document["events"] == [json.loads(line) for line in own]
    assert document["sentences"]["upstream"] == ["ledger answered 200 after 50 ms."]
    assert document["explanation"]["text"] == "PERMIT by read"
    assert (document["decision"], document["owner"]) == ("permit", "finance@example.com")


def test_the_beginning_of_an_id_is_enough_where_it_means_one(tmp_path: Path, compiled: Compiled) -> None:
    one, other = (json.loads(logged.event(CALL, compiled)) for _ in range(2))
    one["request_id"], other["request_id"] = "abcdef12" + "0" * 24, "abcdef13" + "0" * 24
    log = logged.write(tmp_path / "log", map(json.dumps, (one, other)))
    story = look_up(" Airgate-Request-Id: ABCDEF12", Searched([log]))
    assert story.event["request_id"] == one["request_id"]
    with pytest.raises(NotFoundError, match="2 requests begin with abcdef1; say more of it:"):
        look_up("abcdef1", Searched([log]))


MISSING = [
    (
        "an id that isn't there",
        "0123456789abcdef0123456789abcdef",
        "No decision about the request 0123456789abcdef",
    ),
    ("the beginning of one", "0123456", "give all 32 digits"),
    (
        "a trace's id",
        "b" * 32,
        f"It is the id of a trace, with 2 events: airgate audit trace --trace-id {'b' * 32}",
    ),
]


@pytest.mark.parametrize(("name", "said"), [each[1:] for each in MISSING], ids=[each[0] for each in MISSING])
def test_what_is_not_there_is_told_with_what_was_searched(
    tmp_path: Path, compiled: Compiled, name: str, said: str
) -> None:
    log = logged.write(tmp_path / "log", lines(compiled, CALL, 200, trace="b" * 32))
    code, output = run(name, "--log", log)
    assert code == why.MISSING
    assert said in output
    assert f"{log}: 2 events from 2026-11-17 09:30 to 2026-11-17 09:30 UTC" in output


def test_an_outcome_alone_says_where_its_decision_is(tmp_path: Path, compiled: Compiled) -> None:
    own = lines(compiled, CALL, 200)
    code, output = run(name_of(own[0]), "--log", logged.write(tmp_path / "log", own[1:]))
    assert code == why.MISSING
    assert "the decision stands in an older log" in output


REFUSED = [
    ("a name", ["finance"], '"finance" is no request\'s id'),
    ("too little", ["abc"], "of which 6 are enough"),
    ("a log that isn't there", ["a" * 32, "--log", "nowhere"], "nowhere: can't be read"),
    (
        "no log of a deployed gate",
        ["a" * 32, "--env", "production"],
        "The logs of production are not on this machine",
    ),
    ("no stack", ["a" * 32], "Or name a log: --log FILE"),
    ("two that explain", ["a" * 32, "--env", "local", "--seed", "x"], "leave one of them out"),
]


@pytest.mark.parametrize(
    ("options", "said"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED]
)
def test_what_cannot_be_used_is_refused(compiled: Compiled, options: list[str], said: str) -> None:
    code, output = run(*options)
    assert code == why.INVALID
    assert said in output


def test_a_line_that_is_broken_is_no_story(tmp_path: Path, compiled: Compiled) -> None:
    event = json.loads(logged.event(CALL, compiled)) | {"roles": "all"}
    text = json.dumps(event, separators=(",", ":"))
    with pytest.raises(RecordError, match=r"is broken: roles or workload: not an object"):
        look_up(event["request_id"], Searched([logged.write(tmp_path / "log", [text])]))


def test_nothing_of_a_log_is_obeyed_by_the_terminal(tmp_path: Path, compiled: Compiled) -> None:
    [line] = lines(compiled, call(subject="s\x1b[2Jv\x07c", method="POST"))
    log = logged.write(tmp_path / "log", [line])
    _, output = run(name_of(line), "--log", log, "--seed", tmp_path / "seed")
    assert "\x1b" not in output
    assert "\x07" not in output
    assert "s\ufffd[2Jv\ufffdc, a workload" in output


def test_there_is_advice_for_every_reason() -> None:
    assert set(ADVICE) == set(Reason)
    assert not [text for text in ADVICE.values() if text.endswith(".") or not text[:1].isupper()]


@given(st.text(max_size=40))
def test_any_text_is_an_id_or_refused(text: str) -> None:
    try:
        name = lookup.normal(text)
    except RecordError:
        return
    assert 6 <= len(name) <= 32
    assert set(name) <= set("0123456789abcdef")
