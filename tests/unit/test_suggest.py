"""Suggested policies permit what was observed, and nothing that was not permitted before."""

import json
from pathlib import Path
from typing import Any

import logged
import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from language import examples
from typer.testing import CliRunner

from airgate.policy import check, suggest
from airgate.policy.changes import Comparison
from airgate.policy.compile import Compiled
from airgate.policy.gate import Gate
from airgate.policy.judgement import Judge
from airgate.policy.narrowing import Names, generalised
from airgate.policy.recorded import Recorded
from airgate.policy.replay import by_candidate
from airgate.policy.request import Request
from airgate.policy.traffic import Traffic

SEED = """\
issuers:
  company:
    {issuer: https://login.example.com, audiences: [https://gate.example.com], algorithms: [RS256],
     kind: {claim: kind}, attested: {environment: env, dag: dag}}
roles:
  publisher: {description: d, granted_to: [{issuer: company, claim: groups, value: publishers}]}
  reader: {description: d, granted_to: [{issuer: company, claim: groups, value: readers}]}
  auditor: {description: d, granted_to: [{issuer: company, claim: groups, value: auditors}]}
upstreams:
  ledger: {base: https://ledger.example.com, owner: ledger@example.com, log_path: true}
  crm: {base: https://crm.example.com, owner: crm@example.com}
policies:
  - id: publish
    description: Publishers post
    owner: finance@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [publisher]}}
    workload: {dag: ["finance_*"], attested: false}
    target: {upstream: ledger, methods: [POST, PUT], paths: ["/v1/entries", "/v1/entries/{id}/reversal"]}
    when: {time: {zone: UTC, days: mon-fri, from: "06:00", to: "20:00"}}
    obligations: {max_body: 1MB}
  - id: read
    description: Everybody reads
    owner: finance@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [publisher, reader, auditor]}}
    target: {upstream: [ledger, crm], methods: [GET, HEAD], paths: ["/v1/**"]}
  - id: own
    description: Callers see what is theirs
    owner: finance@example.com
    effect: permit
    subject: {kind: [workload, human]}
    target: {upstream: ledger, methods: [GET], paths: ["/v2/{owner}/{thing}"]}
    when: {equals: [resource.owner, subject.id]}
  - id: accounts
    description: Accounts
    owner: sales@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [reader]}, claims: [{claim: team, any: [sales]}]}
    target:
      {upstream: crm, methods: [GET, POST], paths: ["/v3/{account}", "/v3/{account}/notes"],
       query: [{parameter: format, any: [csv]}]}
  - id: no-agents
    description: No agents
    owner: audit@example.com
    effect: forbid
    subject: {kind: agent}
    target: {upstream: ledger, methods: [POST, PUT], paths: ["/**"]}
"""
APP = typer.Typer()
APP.command("suggest")(suggest.suggest)
CHECK = typer.Typer()
CHECK.command("check")(check.check)


def call(path: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "issuer": "company",
        "roles": ["reader"],
        "subject": "svc",
        "workload": {"dag": "sales_sync", "task": "load"},
        "method": "GET",
        "path": path,
        "at": "2026-11-16T10:00:00Z",
    }
    return {name: value for name, value in {**plain, **changes}.items() if value is not None}


POST = {"method": "POST", "roles": ["publisher"], "workload": {"dag": "finance_close"}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRGATE_DIR", str(tmp_path / "nothing"))
    return tmp_path


def run(*options: object, given: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(APP, [str(option) for option in options], input=given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def suggested(
    folder: Path, *calls: dict[str, Any], options: tuple[str, ...] = ()
) -> tuple[Compiled, Path, str]:
    """The seed, the log, and what is printed about calls that the seed has decided."""
    was = logged.seed(folder / "seed", SEED)
    log = logged.write(folder / "audit.ndjson", [logged.event(each, was) for each in calls])
    status, text = run("--log", log, folder / "seed", *options)
    assert status == suggest.DONE, text
    return was, log, text


def policies(text: str) -> dict[str, dict[str, Any]]:
    return {policy["id"]: policy for policy in yaml.safe_load(text)["policies"] or ()}


def in_place(folder: Path, was: Compiled, text: str) -> Compiled:
    """The seed with what was printed in place of its permits."""
    (folder / "suggested").mkdir(exist_ok=True)
    return suggest.candidate(policies(text).values(), was, folder / "suggested")


CALLS = [
    call("/ledger/v1/entries"),
    call("/ledger/v1/entries/7"),
    call("/ledger/v1/entries/8"),
    call("/ledger/v1/reports/2026/q1", roles=["reader", "auditor"]),
    call("/crm/v1/accounts/A-1"),
    call("/ledger/v1/entries", workload={"dag": "audit_all"}, roles=["auditor"]),
    call("/ledger/v1/entries", workload={"dag": "audit_all", "attested": ["dag"]}, roles=["auditor"]),
    call(
        "/ledger/v1/entries",
        workload={"dag": "audit_some", "task": "t", "attested": ["dag"]},
        roles=["auditor"],
    ),
    call("/ledger/v1/entries", **POST),
    call("/ledger/v1/entries/7/reversal", **POST),
    call("/ledger/v2/svc/a", roles=None),
    call("/ledger/v2/ann/a", roles=None, subject="ann", kind="human", workload=None),
    call("/crm/v3/A-1?format=csv", claims={"team": "sales"}),
    call("/ledger/v4/nothing"),
    call("/ledger/v1/entries", kind="agent", **POST),
]


def test_what_is_suggested_is_a_seed_that_passes_its_check(folder: Path) -> None:
    was, _, text = suggested(folder, *CALLS)
    in_place(folder, was, text)
    result = CliRunner().invoke(CHECK, [str(folder / "suggested"), "--no-notes"])
    assert result.exit_code == check.CLEAN, result.output


def test_what_is_suggested_permits_the_observed_calls_and_no_others(folder: Path) -> None:
    was, log, text = suggested(folder, *CALLS)
    new = in_place(folder, was, text)
    replayed = by_candidate(Traffic([log]), Judge(new))
    assert [change.sentence("") for change in replayed.changes if change.certain] == []
    # What the log doesn't hold the gate can be asked about.
    answers = [
        (Gate(was.engine).answer(Request.read(each)), Gate(new.engine).answer(Request.read(each)))
        for each in CALLS
    ]
    assert [after.permit for _, after in answers] == [before.permit for before, _ in answers]


def test_nothing_is_suggested_that_was_not_permitted_before(folder: Path) -> None:
    was, _, text = suggested(folder, *CALLS)
    new = in_place(folder, was, text)
    for change in Comparison(was, new, 1_795_000_000).changes():
        assert change.gained is None, change.gained
        assert not change.unknown, change.unknown
        assert not change.opens, change.opens


# What only tokens say of a run, days of the month, and what tokens are exchanged for.
RUNS = (
    SEED.replace("dag: dag}", "dag: dag, run_type: run_type, triggered_by: started_by}")
    + """\
  - id: prod
    description: What production reads
    owner: finance@example.com
    effect: permit
    subject: {issuer: company}
    workload: {environment: prod, attested: true}
    target: {upstream: ledger, methods: [GET], paths: ["/v5/**"]}
  - id: runs
    description: What runs write
    owner: finance@example.com
    effect: permit
    subject: {issuer: company}
    workload: {run_type: [scheduled, "man*"], attested: true}
    target: {upstream: ledger, methods: [PUT], paths: ["/v5/**"]}
    when: {time: {zone: UTC, month_days: [10-20, last 3]}}
  - id: by-hand
    description: What people start
    owner: finance@example.com
    effect: permit
    subject: {issuer: company}
    workload: {triggered_by: "*", attested: true}
    target: {upstream: ledger, methods: [DELETE], paths: ["/v5/{type}"]}
    when: {equals: [resource.type, workload.run_type]}
  - id: exchange
    description: Tokens
    owner: finance@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [reader, publisher]}}
    target: {upstream: "-", methods: [POST], paths: [/token]}
    exchange: {upstreams: [ledger, crm], lifetime: 2m}
"""
)


def of_run(*attested: str, dag: str = "close", **facts: str) -> dict[str, Any]:
    return {"dag": dag, **facts, "attested": list(attested or ("dag", *facts))}


def in_runs(
    folder: Path,
    *calls: dict[str, Any] | tuple[dict[str, Any], dict[str, Any]],
    options: tuple[str, ...] = (),
) -> tuple[Compiled, str]:
    """As `suggested`, of RUNS. A call may come with members that its event has beside."""
    was = logged.seed(folder / "seed", RUNS)
    events = []
    for each in calls:
        said, more = each if isinstance(each, tuple) else (each, {})
        events.append(json.dumps(json.loads(logged.event(said, was)) | more, separators=(",", ":")))
    status, text = run("--log", logged.write(folder / "audit.ndjson", events), folder / "seed", *options)
    assert status == suggest.DONE, text
    return was, text


def test_a_permit_that_goes_by_tokens_still_does_where_only_a_header_names_the_dag(folder: Path) -> None:
    was, text = in_runs(
        folder,
        call("/ledger/v5/a", workload=of_run("environment", environment="prod")),
        call("/ledger/v5/a", method="PUT", workload=of_run("run_type", run_type="manual")),
    )
    found = policies(text)
    assert found["prod-without-a-dag"]["workload"] == {"environment": "prod", "attested": True}
    assert found["runs-without-a-dag"]["workload"] == {"run_type": ["manual"], "attested": True}
    assert "  # Calls without an attested DAG: 1 call permitted by prod, " in text
    changes = Comparison(was, in_place(folder, was, text), 1_795_000_000).changes()
    assert not any(change.gained or change.unknown or change.opens for change in changes)


def test_of_types_of_run_and_users_those_stay_that_were_seen(folder: Path) -> None:
    manual, scheduled = of_run(run_type="manual"), of_run(run_type="scheduled")
    _, text = in_runs(
        folder,
        call("/ledger/v5/a", method="PUT", workload=manual),
        call("/ledger/v5/a", method="PUT", workload=of_run(dag="open", run_type="scheduled")),
        call("/ledger/v5/manual", method="DELETE", workload=of_run(run_type="manual", triggered_by="ada")),
        call("/ledger/v1/entries", workload=scheduled),
    )
    found = policies(text)
    assert found["runs-close"]["workload"] == {"dag": ["close"], "run_type": ["manual"], "attested": True}
    assert found["runs-open"]["workload"] == {"dag": ["open"], "run_type": ["scheduled"], "attested": True}
    assert found["runs-open"]["when"] == {"time": {"zone": "UTC", "month_days": ["10-20", "last 3"]}}
    by_hand = found["by-hand-close"]
    assert by_hand["workload"] == {"dag": ["close"], "triggered_by": ["ada"], "attested": True}
    # What is compared with the type of run can't become a literal.
    assert by_hand["target"]["paths"] == ["/v5/{type}"]
    # What a permit doesn't ask for is not asked for.
    assert "run_type" not in found["read-close"]["workload"]


def test_a_user_who_has_a_pseudonym_in_the_log_is_not_named(folder: Path) -> None:
    pseudonym = "pseudonym:" + "0" * 32
    workload = {
        "dag": {"value": "close", "attested": True},
        "run_type": {"value": "manual", "attested": True},
        "triggered_by": {"value": pseudonym, "attested": True},
    }
    said = call("/ledger/v5/manual", method="DELETE", workload=of_run(run_type="manual", triggered_by="ada"))
    _, text = in_runs(folder, (said, {"workload": workload, "subject": pseudonym}))
    assert policies(text)["by-hand-close"]["workload"]["triggered_by"] == "*"


def exchanged(upstream: str, *roles: str, dag: str | None = None, **changes: Any) -> Any:
    """An exchange, and what its event says of the token."""
    issued = {"token_id": "f" * 32, "upstream": upstream, "roles": list(roles), "expires_in": 120}
    workload = None if dag is None else {"dag": dag}
    return call("/-/token", method="POST", workload=workload, **changes), {"issued": issued}


def test_tokens_may_be_exchanged_for_what_they_were(folder: Path) -> None:
    _, text = in_runs(
        folder, exchanged("ledger", "reader"), exchanged("ledger", "publisher", roles=["publisher"])
    )
    [policy] = policies(text).values()
    assert policy["exchange"] == {"upstreams": ["ledger"], "lifetime": "2m", "roles": ["publisher", "reader"]}


def test_of_exchanges_by_several_dags_each_keeps_the_roles_of_all(folder: Path) -> None:
    """The policy for calls without a DAG matches those of every DAG too, and the fewest roles count."""
    _, text = in_runs(
        folder, exchanged("ledger", "reader"), exchanged("crm", "publisher", roles=["publisher"], dag="close")
    )
    found = policies(text)
    both = ["publisher", "reader"]
    assert found["exchange-without-a-dag"]["exchange"] == {
        "upstreams": ["ledger"],
        "lifetime": "2m",
        "roles": both,
    }
    assert found["exchange-close"]["exchange"] == {"upstreams": ["crm"], "lifetime": "2m", "roles": both}


def test_a_token_without_roles_leaves_them_as_they_are(folder: Path) -> None:
    _, text = in_runs(folder, exchanged("ledger"))
    [policy] = policies(text).values()
    assert policy["exchange"] == {"upstreams": ["ledger"], "lifetime": "2m"}


def test_an_exchange_that_gave_no_token_covers_nothing(folder: Path) -> None:
    said, _ = exchanged("ledger")
    refused = {"decision": "deny", "reason": "exchange.target"}
    _, text = in_runs(folder, (said, refused), exchanged("ledger", "publisher", roles=["publisher"]))
    assert "# Not covered: 1 call: policy let them exchange a token, and none was issued." in text
    assert policies(text)["exchange-without-a-dag"]["subject"]["roles"] == {"any": ["publisher"]}


def test_an_exchange_for_what_no_permit_offers_any_more_is_told(folder: Path) -> None:
    _, text = in_runs(
        folder, exchanged("archive", "reader"), exchanged("crm", "publisher", roles=["publisher"])
    )
    assert "# Not covered: 1 call: permitted by exchange, which " in text
    assert policies(text)["exchange-without-a-dag"]["exchange"]["upstreams"] == ["crm"]


def test_new_access_is_proposed_for_the_types_of_run_that_asked(folder: Path) -> None:
    asked = [
        call("/ledger/v7/a", workload=of_run(run_type="scheduled")),
        call("/ledger/v7/a", workload=of_run("run_type", dag="open", run_type="scheduled")),
    ]
    _, text = in_runs(folder, *asked, options=("--denied",))
    found = policies(text)
    attested = {"dag": ["close"], "attested": True, "run_type": ["scheduled"]}
    assert found["denied-ledger-close"]["workload"] == attested
    assert found["denied-ledger-open"]["workload"] == {"dag": ["open"], "attested": False}


OF_RUNS = st.lists(
    st.builds(
        call,
        st.sampled_from(["/ledger/v5/a", "/ledger/v5/manual", "/ledger/v1/entries", "/-/token"]),
        method=st.sampled_from(["GET", "PUT", "DELETE", "POST"]),
        roles=st.lists(st.sampled_from(["reader", "publisher"]), max_size=2, unique=True),
        kind=st.sampled_from(["workload", "workload", "human"]),
        subject=st.sampled_from(["svc", "ann"]),
        workload=st.fixed_dictionaries(
            {
                "dag": st.sampled_from(["close", "open"]),
                "run_type": st.sampled_from(["manual", "scheduled", "backfill"]),
                "triggered_by": st.sampled_from(["ada", "b*"]),
                "attested": st.sampled_from(
                    [["run_type", "triggered_by"], ["dag", "environment", "run_type", "triggered_by"]]
                ),
            },
            optional={"environment": st.sampled_from(["prod", "test"])},
        ).map(lambda said: {**said, "attested": [name for name in said["attested"] if name in said]}),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=examples(25), deadline=None)
@given(calls=OF_RUNS)
def test_any_suggestion_of_runs_permits_what_it_has_seen_and_opens_nothing(
    tmp_path_factory: Any, calls: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    told = [
        exchanged("ledger", *(each.get("roles") or []))[1] if each["path"] == "/-/token" else {}
        for each in calls
    ]
    was, text = in_runs(folder, *zip(calls, told, strict=True))
    if "policies: []" in text:
        return
    new = in_place(folder, was, text)
    for each in calls:
        before, after = (Gate(side.engine).answer(Request.read(each)) for side in (was, new))
        assert after.permit == before.permit, (each, text)
    changes = Comparison(was, new, 1_795_000_000).changes()
    assert not any(change.gained or change.unknown for change in changes)


CHOICES = st.lists(
    st.builds(
        call,
        st.sampled_from([
            "/ledger/v1/entries", "/ledger/v1/entries/7", "/ledger/v1/entries/8/reversal", "/crm/v1", "/ledger/v1/x*y",
            "/ledger/v2/svc/a", "/ledger/v2/svc/b", "/crm/v3/A-1?format=csv", "/ledger/v1/%7Bid%7D/a%20b",
            "/ledger/v1/entries/", "/-/health",
        ]),
        method=st.sampled_from(["GET", "POST", "HEAD"]),
        roles=st.lists(st.sampled_from(["reader", "auditor", "publisher"]), max_size=3, unique=True),
        kind=st.sampled_from(["workload", "workload", "human", "agent"]),
        subject=st.sampled_from(["svc", "ann"]),
        claims=st.sampled_from([None, {"team": "sales"}, {"team": "x"}]),
        workload=st.sampled_from([
            None, {"dag": "finance_close"}, {"dag": "finance_*"}, {"dag": "finance_x", "task": "a*"},
            {"dag": "finance_x", "attested": True}, {"dag": "finance_close", "task": "load"},
        ]),
    ),
    min_size=1,
    max_size=8,
)  # fmt: skip


@settings(max_examples=examples(40), deadline=None)
@given(calls=CHOICES)
def test_any_suggestion_permits_what_it_has_seen_and_opens_nothing(
    tmp_path_factory: Any, calls: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("suggest")
    was, _, text = suggested(folder, *calls)
    if "policies: []" in text:
        return
    new = in_place(folder, was, text)
    for each in calls:
        before, after = (
            Gate(was.engine).answer(Request.read(each)),
            Gate(new.engine).answer(Request.read(each)),
        )
        assert after.permit == before.permit, (each, text)
    assert all(change.gained is None for change in Comparison(was, new, 1_795_000_000).changes())


def test_a_policy_is_as_narrow_as_its_calls(folder: Path) -> None:
    _, _, text = suggested(folder, *CALLS)
    found = policies(text)
    assert found["read-sales-sync"] == {
        "id": "read-sales-sync",
        "description": "Everybody reads (DAG sales_sync)",
        "owner": "finance@example.com",
        "effect": "permit",
        "subject": {"issuer": "company", "kind": "workload", "roles": {"any": ["reader"]}},
        "workload": {"dag": ["sales_sync"], "task": ["load"], "attested": False},
        "target": {"upstream": "crm", "methods": ["GET"], "paths": ["/v1/**"]},
    }
    assert found["read-sales-sync-2"]["target"] == {
        "upstream": "ledger", "methods": ["GET"], "paths": ["/v1/entries", "/v1/entries/{id}", "/v1/reports/2026/q1"],
    }  # fmt: skip
    assert found["publish-finance-close"]["target"]["paths"] == ["/v1/entries", "/v1/entries/7/reversal"]
    assert found["publish-finance-close"]["target"]["methods"] == ["POST"]
    # What else a permit asks for stays.
    assert found["publish-finance-close"]["when"]["time"]["to"] == "20:00"
    assert found["publish-finance-close"]["obligations"] == {"max_body": "1MB"}
    assert found["accounts-sales-sync"]["subject"]["claims"] == [{"claim": "team", "any": ["sales"]}]
    # A name that is compared can't become a literal.
    assert found["own-without-a-dag"]["target"]["paths"] == ["/v2/{owner}/a"]
    # What a token attests and what a header says are two things.
    assert found["read-audit-all"]["workload"] == {"dag": ["audit_all"], "attested": False}
    assert found["read-audit-some"]["workload"] == {"dag": ["audit_some"], "attested": True}
    assert "  # DAG audit_all, attested by the token or, in 1 call, asserted by a header: 2 calls " in text
    assert "  # DAG audit_some, attested by the token: 1 call " in text


def test_comments_say_what_covers_how_many_calls_and_over_which_time(folder: Path) -> None:
    days = [f"2026-11-{day}T10:00:00Z" for day in (14, 16, 20)]
    _, _, text = suggested(folder, *[call("/crm/v1/accounts", at=day) for day in days])
    assert text.splitlines()[0].startswith(
        "# Suggested from 3 recorded calls, 2026-11-14 10:00 UTC to 2026-11-20 10:00 UTC, and the permits of "
    )
    assert (
        "  # DAG sales_sync, asserted by a header: 3 calls permitted by read, "
        "2026-11-14 10:00 UTC to 2026-11-20 10:00 UTC\n  # by svc\n"
        "  # The log doesn't hold the paths, so these are the patterns of the permit.\n"
    ) in text


def test_a_name_that_would_mean_others_too_is_not_written_into_a_policy(folder: Path) -> None:
    _, _, text = suggested(folder, call("/ledger/v1/entries", workload={"dag": "sales_*", "task": "a*"}))
    [policy] = policies(text).values()
    assert "workload" not in policy


def test_a_name_in_a_comment_stays_on_its_line(folder: Path) -> None:
    was = logged.seed(folder / "seed", SEED)
    event = json.loads(logged.event(call("/ledger/v1/entries", subject="svc"), was))
    event["subject"] = "svc\n  - id: evil"
    log = logged.write(folder / "audit.ndjson", [json.dumps(event)])
    _, text = run("--log", log, folder / "seed")
    assert "  # by svc?  - id: evil\n" in text
    assert len(policies(text)) == 1


def test_denied_calls_are_proposed_in_shadow_and_only_when_asked_for(folder: Path) -> None:
    denied = [call(f"/ledger/v4/things/{number}") for number in range(3)]
    _, _, text = suggested(folder, *denied)
    assert "policies: []" in text
    was, _, text = suggested(folder, *denied, call("/crm/v9"), options=("--denied",))
    [policy] = policies(text).values()
    assert policy["mode"] == "shadow"
    assert policy["owner"] == "ledger@example.com"
    assert policy["subject"] == {"issuer": "company", "kind": "workload", "roles": {"all": ["reader"]}}
    assert policy["target"] == {"upstream": "ledger", "methods": ["GET"], "paths": ["/v4/things/{id}"]}
    assert "# Not covered: 1 call: denied, and the path is not in the log." in text
    policy["mode"] = "enforce"
    (folder / "opened").mkdir()
    new = suggest.candidate([policy], was, folder / "opened")
    assert all(Gate(new.engine).answer(Request.read(each)).permit for each in denied)


def test_what_a_forbid_refused_is_never_proposed(folder: Path) -> None:
    _, _, text = suggested(folder, call("/ledger/v1/entries", kind="agent", **POST), options=("--denied",))
    assert "policies: []" in text


def test_calls_by_permits_that_are_gone_are_told(folder: Path) -> None:
    was = logged.seed(folder / "old", SEED.replace("id: read", "id: peruse"))
    logged.seed(folder / "seed", SEED)
    log = logged.write(folder / "audit.ndjson", [logged.event(call("/ledger/v1/entries"), was)])
    _, text = run("--log", log, folder / "seed")
    assert "# Not covered: 1 call: permitted by peruse, which " in text


def test_calls_by_a_grant_are_not_covered(folder: Path) -> None:
    was = logged.seed(folder / "seed", SEED)
    event = json.loads(logged.event(call("/ledger/v1/entries"), was)) | {"grants": ["a" * 32]}
    log = logged.write(folder / "audit.ndjson", [json.dumps(event)])
    _, text = run("--log", log, folder / "seed")
    assert "policies: []" in text
    assert "# Not covered: 1 call: a temporary grant had a part in it." in text


def test_calls_that_an_agent_made_for_somebody_are_not_covered(folder: Path) -> None:
    was = logged.seed(folder / "seed", SEED)
    exchanged = {"upstream": "ledger", "parents": ["1"], "delegated": True}
    event = json.loads(logged.event(call("/ledger/v1/entries"), was)) | {"exchanged": exchanged}
    log = logged.write(folder / "audit.ndjson", [json.dumps(event)])
    _, text = run("--log", log, folder / "seed")
    assert "policies: []" in text
    assert "# Not covered: 1 call: an agent made them for somebody." in text
    exchanged["delegated"] = False
    log = logged.write(folder / "audit.ndjson", [json.dumps(event)])
    assert "policies: []" not in run("--log", log, folder / "seed")[1]


def test_calls_with_a_lent_role_are_covered_only_as_the_token_alone_would_make_them(folder: Path) -> None:
    was = logged.seed(folder / "seed", SEED)
    event = json.loads(logged.event(call("/ledger/v1/entries"), was))
    event["roles"]["lent"] = ["closer"]
    event["roles"] |= {each: ["closer", *event["roles"][each]] for each in ("granted", "effective")}
    log = logged.write(folder / "audit.ndjson", [json.dumps(event)])
    assert "closer" not in Recorded(event).caller().identity.granted
    text = run("--log", log, folder / "seed")[1]
    assert "closer" not in text
    assert "policies: []" not in text
    event["roles"] |= {"tagged": ["closer"], "effective": ["closer"]}
    log = logged.write(folder / "audit.ndjson", [json.dumps(event)])
    text = run("--log", log, folder / "seed")[1]
    assert "# Not covered: 1 call: a temporary grant had a part in it." in text


def test_permits_that_no_call_has_used_are_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_795_000_000.0)  # 2026-11-18
    days = ["2026-10-01T10:00:00Z", "2026-11-17T10:00:00Z"]
    calls = [
        call("/ledger/v1/entries", at=days[1]),
        call("/ledger/v1/entries", at="2026-10-01T10:00:00Z", **POST),
    ]
    _, _, text = suggested(folder, *calls, options=("--unused-for", "30d"))
    assert text.splitlines()[-4:] == [
        "# Permits that no call has used for 30 days:",
        "#   accounts: not in this log",
        "#   own: not in this log",
        "#   publish: last used 2026-10-01 10:00 UTC",
    ]
    _, _, text = suggested(folder, *calls, options=("--unused-for", "90d"))
    assert text.splitlines()[-3:] == [
        "#   accounts: not in this log",
        "#   own: not in this log",
        "# The log reaches back to 2026-10-01 10:00 UTC only: whether they were used before that, in those 90 days, it "
        "can't say.",
    ]


def test_questions_of_applications_count_as_use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1_795_000_000.0)
    was = logged.seed(folder / "seed", SEED)
    event = json.loads(logged.event(call("/ledger/v1/entries", at="2026-11-17T10:00:00Z"), was))
    question = event | {"event": "evaluation", "permits": ["own", "accounts", "publish"]}
    log = logged.write(folder / "audit.ndjson", [json.dumps(event), json.dumps(question)])
    _, text = run("--log", log, folder / "seed", "--unused-for", "30d")
    assert "# Every permit has been used in the last 30 days." in text


def test_standard_input_is_read_once(folder: Path) -> None:
    was = logged.seed(folder / "seed", SEED)
    status, text = run("--log", "-", folder / "seed", given=logged.event(call("/ledger/v1/entries"), was))
    assert status == suggest.DONE
    assert "read-sales-sync" in policies(text)


REFUSED = [
    ("a time that is none", ["--unused-for", "soon"]),
    ("a since that is none", ["--since", "soon"]),
    ("a log that isn't there", ["--log", "nowhere"]),
]


@pytest.mark.parametrize("options", [options for _, options in REFUSED], ids=[name for name, _ in REFUSED])
def test_what_cannot_be_read_is_refused(folder: Path, options: list[str]) -> None:
    logged.seed(folder / "seed", SEED)
    log = logged.write(folder / "audit.ndjson", [])
    status, text = run("--log", log, folder / "seed", *options)
    assert status == suggest.INVALID
    assert text.strip()


def test_a_suggestion_that_does_not_fit_is_not_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = suggest.narrowed

    def broken(use: Any, names: Names) -> dict[str, Any]:
        policy = narrow(use, names)
        return policy | {"target": policy["target"] | {"paths": ["/v1/other"]}}

    monkeypatch.setattr(suggest, "narrowed", broken)
    was = logged.seed(folder / "seed", SEED)
    log = logged.write(folder / "audit.ndjson", [logged.event(call("/ledger/v1/entries"), was)])
    status, text = run("--log", log, folder / "seed")
    assert status == suggest.FAILED
    assert "The suggestion refuses GET /v1/** of ledger, called by svc, unlike" in text
    assert "policies:" not in text


GENERALISED: list[tuple[str, list[str], list[str]]] = [
    ("one path", ["/v1/a"], ["/v1/a"]),
    ("words", ["/v1/a", "/v1/b"], ["/v1/a", "/v1/b"]),
    ("values", ["/v1/1", "/v1/2"], ["/v1/{id}"]),
    ("one value", ["/v1/1"], ["/v1/1"]),
    ("values in the middle", ["/v1/1/a", "/v1/2/a", "/v1/3/b"], ["/v1/{id}/a", "/v1/{id}/b"]),
    ("values in two places", ["/1/2", "/2/3"], ["/{id}/{id2}"]),
    ("a word among values", ["/v1/1", "/v1/2", "/v1/all"], ["/v1/all", "/v1/{id}"]),
    ("many words", [f"/v1/{letter}" for letter in "abcdefghijkl"], ["/v1/{id}"]),
    ("the place itself", ["", "/a"], ["", "/a"]),
    ("letters that a pattern reads", ["/x*y"], ["/{id}"]),
]


@pytest.mark.parametrize(
    ("paths", "found"), [each[1:] for each in GENERALISED], ids=[each[0] for each in GENERALISED]
)
def test_segments_that_vary_like_values_become_a_name(paths: list[str], found: list[str]) -> None:
    assert generalised(tuple(path.split("/")[1:]) for path in paths) == found


def test_ids_are_given_once_and_are_not_too_long() -> None:
    names = Names({"read-a"})
    assert names.of("read", "A") == "read-a-2"
    assert names.of("read", "a") == "read-a-3"
    long = names.of("read", "x" * 100), names.of("read", "x" * 100)
    assert len(set(long)) == 2
    assert {len(name) for name in long} == {63}
    assert names.of("", "ä") == "policy"
