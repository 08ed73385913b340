"""Replaying recorded calls: what would change is said by DAG and by policy, and what nobody can tell is said too."""

import json
from pathlib import Path
from typing import Any

import logged
import pytest
import typer
from typer.testing import CliRunner

from airgate.policy import replay

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
    subject: {issuer: company, roles: {any: [publisher]}}
    target: {upstream: ledger, methods: [POST], paths: ["/v1/entries"]}
    obligations: {rate_limit: {limit: 60, per: minute, by: [subject, dag]}}
  - id: read
    description: d
    owner: finance@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [publisher, reader]}}
    target: {upstream: ledger, methods: [GET], paths: ["/v1/entries", "/v1/entries/{id}"]}
  - id: accounts
    description: d
    owner: sales@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [reader]}}
    target: {upstream: crm, methods: [GET], paths: ["/v1/accounts/{account}", "/v1/accounts/{account}/notes"]}
  - id: health
    description: d
    owner: gate@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [publisher]}}
    target: {upstream: "-", methods: [GET], paths: ["/health"]}
"""
MORE = """\
  - id: more
    description: d
    owner: more@example.com
    effect: EFFECT
    SUBJECT
    target: {upstream: UPSTREAM, methods: [METHOD], paths: ["PATH"]QUERY}
    REST
"""
APP = typer.Typer()
APP.command("replay")(replay.replay)


def more(
    upstream: str = "ledger", path: str = "/**", *, effect: str = "permit", subject: str = "subject: {issuer: company}",
    method: str = "GET", query: str = "", rest: str = "mode: enforce",
) -> str:  # fmt: skip
    text = MORE.replace("EFFECT", effect).replace("SUBJECT", subject).replace("UPSTREAM", upstream)
    return text.replace("METHOD", method).replace("PATH", path).replace("QUERY", query).replace("REST", rest)


def call(path: str = "/ledger/v1/entries", **changes: Any) -> dict[str, Any]:
    """A reader's call in the DAG sales_sync, as a request (docs/testing-policy.md)."""
    plain = {
        "issuer": "company",
        "roles": ["reader"],
        "subject": "svc",
        "workload": {"dag": "sales_sync"},
        "method": "GET",
        "path": path,
        "at": "2026-11-16T10:00:00Z",
        "from": "198.51.100.7",
    }
    return {name: value for name, value in {**plain, **changes}.items() if value is not None}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRGATE_DIR", str(tmp_path / "nothing"))
    return tmp_path


def run(*options: object) -> tuple[int, str]:
    result = CliRunner().invoke(APP, [str(option) for option in options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def replayed(
    folder: Path, candidate: str, *calls: dict[str, Any], before: bool = False, old: str = SEED
) -> tuple[int, dict[str, Any]]:
    """The exit status and the report about calls that were decided by `old`."""
    was = logged.seed(folder / "old", old)
    logged.seed(folder / "new", candidate)
    log = logged.write(folder / "audit.ndjson", [logged.event(each, was) for each in calls])
    known = ["--before", folder / "old"] if before else []
    status, text = run("--log", log, "--candidate", folder / "new", *known, "--json")
    return status, json.loads(text)


# Calls that change nothing, so that all roles are known from the log.
BOTH_ROLES = call("/ledger/v2/none", roles=["publisher", "reader"])


def changes(document: dict[str, Any]) -> list[tuple[str, bool, str, str, int]]:
    return [
        (each["change"], each["certain"], each["method"], each["where"], each["calls"])
        for each in document["changes"]
    ]


POST = {"roles": ["publisher"], "method": "POST"}
REPORT = "/ledger/v1/reports/2026"
ORDERS = "/crm/v1/accounts/A-1"
NO_READERS = SEED.replace("any: [publisher, reader]", "any: [publisher]")
IN_HOURS = 'when: {time: {zone: UTC, days: mon-fri, from: "06:00", to: "20:00"}}'

# name, candidate, call, change that comes of it (None: none), certain, where
JUDGED: list[tuple[str, str, dict[str, Any], str | None, bool, str]] = [
    ("the same policy", SEED, call(), None, True, ""),
    ("a role that is left out", NO_READERS, call(), "lose", True, "/ledger/v1/entries"),
    ("a role that still is there", NO_READERS, call(roles=["publisher"]), None, True, ""),
    ("another path of the same policy", SEED.replace('"/v1/entries", "/v1/entries/{id}"', '"/v1/entries/{id}"'),
     call("/ledger/v1/entries/7"), None, True, ""),
    ("a path that is left out", SEED.replace('["/v1/entries", "/v1/entries/{id}"]', '["/v1/entries"]'),
     call("/ledger/v1/entries/7"), "lose", True, "/ledger/v1/entries/{id}"),
    ("a forbid", SEED + more(effect="forbid", subject="subject: {kind: workload}"), call(), "lose", True,
     "/ledger/v1/entries"),
    ("a forbid of others", SEED + more(effect="forbid", subject="subject: {kind: agent}"), call(), None, True, ""),
    ("a forbid in shadow", SEED + more(effect="forbid", rest="mode: shadow"), call(), None, True, ""),
    ("a new permit", SEED + more(path="/v1/reports/{year}"), call("/ledger/v1/reports/2026"), "gain", True,
     "/ledger/v1/reports/{year}"),
    ("a permit in the hours", SEED + more(path="/v1/reports", rest=IN_HOURS), call("/ledger/v1/reports"), "gain", True,
     "/ledger/v1/reports"),
    ("a permit out of its hours", SEED + more(path="/v1/reports", rest=IN_HOURS),
     call("/ledger/v1/reports", at="2026-11-15T10:00:00Z"), None, True, ""),
    ("a permit for a network", SEED + more(path="/v1/reports", rest="when: {ip: [198.51.100.0/24]}"),
     call("/ledger/v1/reports"), "gain", True, "/ledger/v1/reports"),
    ("a permit for another network", SEED + more(path="/v1/reports", rest="when: {ip: [203.0.113.0/24]}"),
     call("/ledger/v1/reports"), None, True, ""),
    ("a permit for a DAG", SEED + more(path="/v1/reports", rest="workload: {dag: [sales_*], attested: false}"),
     call("/ledger/v1/reports"), "gain", True, "/ledger/v1/reports"),
    ("a permit for what a token says of the DAG",
     SEED + more(path="/v1/reports", rest="workload: {dag: [sales_*], attested: true}"), call("/ledger/v1/reports"),
     None, True, ""),
    ("an upstream that is gone", SEED.replace("upstream: crm", "upstream: ledger").replace("  crm:", "  cram:"),
     call(ORDERS), "lose", True, "/crm/v1/accounts/{account}"),
    ("an issuer that is gone", SEED.replace("company", "firm"), call(), "lose", True, "/ledger/v1/entries"),
    ("tokens that must be bound", SEED.replace("{claim: kind},", "{claim: kind}, dpop: required,"), call(), "lose",
     True, "/ledger/v1/entries"),
    ("tokens that are bound", SEED.replace("{claim: kind},", "{claim: kind}, dpop: required,"), call(dpop=True), None,
     True, ""),
    ("tags that must be there", SEED.replace("{claim: kind},", "{claim: kind}, role_tag: required,"), call(), "lose",
     True, "/ledger/v1/entries"),
    ("a role granted to the subject",
     SEED.replace("value: readers}", "value: readers}, {issuer: company, subject: svc}").replace(
         "any: [publisher, reader]", "all: [publisher, reader]"), call(roles=["publisher"]), None, True, ""),
    ("a role that no grant gives any more", SEED.replace("claim: groups, value: readers", "subject: other"), call(),
     "lose", True, "/ledger/v1/entries"),
    ("the gate's own page", SEED.replace('["/health"]}', '["/health"]}\n    workload: {dag: [x], attested: false}'),
     call("/-/health", roles=["publisher"]), "lose", True, "/-/health"),
    # What the log doesn't hold.
    ("a claim", SEED + more(path="/v1/reports", subject="subject: {claims: [{claim: team, any: [sales]}]}"),
     call("/ledger/v1/reports"), "gain", False, "/ledger/v1/reports"),
    ("a forbid that asks for a claim",
     SEED + more(effect="forbid", subject="subject: {claims: [{claim: team, any: [sales]}]}"), call(), "lose", False,
     "/ledger/v1/entries"),
    ("a claim where another permit does without it",
     SEED + more(path="/v1/entries", subject="subject: {claims: [{claim: team, any: [sales]}]}"), call(), None, True,
     ""),
    ("a parameter of the query",
     SEED + more(path="/v1/reports", query=", query: [{parameter: format, any: [csv]}]"),
     call("/ledger/v1/reports?format=csv"), "gain", False, "/ledger/v1/reports"),
    ("a parameter of a query that isn't there",
     SEED + more(path="/v1/reports", query=", query: [{parameter: format, any: [csv]}]"),
     call("/ledger/v1/reports"), None, True, ""),
    ("a query without a parameter that is forbidden",
     SEED + more(effect="forbid", query=", query: [{parameter: format, any: [csv]}]"), call(), None, True, ""),
    ("a country", SEED + more(path="/v1/reports", rest="when: {country: [DE]}"), call("/ledger/v1/reports"), "gain",
     False, "/ledger/v1/reports"),
    ("a role that nobody had yet",
     SEED.replace("policies:", "  new: {base: https://new.example.com, owner: new@example.com}\npolicies:").replace(
         "upstreams:",
         "  writer: {description: d, granted_to: [{issuer: company, claim: groups, value: w}]}\nupstreams:")
     + more(path="/v1/reports", subject="subject: {roles: {any: [writer]}}"), call("/ledger/v1/reports"), "gain", False,
     "/ledger/v1/reports"),
    # Paths that aren't logged: what is known is the route.
    ("a route that stays", SEED, call(ORDERS), None, True, ""),
    ("a wider pattern", SEED.replace('"/v1/accounts/{account}", ', '"/v1/**", '), call(ORDERS), None, True, ""),
    ("a pattern that is left out", SEED.replace('"/v1/accounts/{account}", ', ""), call(ORDERS), "lose", True,
     "/crm/v1/accounts/{account}"),
    ("a narrower pattern", SEED.replace('"/v1/accounts/{account}", ', '"/v1/accounts/A-*", '), call(ORDERS), "lose",
     False, "/crm/v1/accounts/{account}"),
    ("a forbid of some of it", SEED + more("crm", "/v1/accounts/A-9", effect="forbid"), call(ORDERS), "lose",
     False, "/crm/v1/accounts/{account}"),
    ("a forbid of something else", SEED + more("crm", "/v1/accounts/{account}/notes", effect="forbid"), call(ORDERS),
     None, True, ""),
    ("a permit for what may have been called (known before)", SEED + more("crm", "/v1/orders"),
     call("/crm/v1/orders"), "gain", False, "/crm/v1/orders"),
    ("a permit for everything", SEED + more("crm", "/**"), call("/crm/v1/orders"), "gain", True, "/crm/**"),
    ("an old permit for what may have been called, and nobody knows that it was there",
     SEED + more("crm", effect="forbid", method="POST"), call("/crm/v1/orders"),
     "gain", False, "/crm/v1/accounts/{account}"),
    ("a narrower permit of what it refused already (known before)",
     SEED.replace('"/v1/accounts/{account}", ', ""), call("/crm/v1/orders"), None, True, ""),
    ("a narrower permit of what it permitted (known before)",
     SEED.replace('"/v1/accounts/{account}", ', '"/v1/accounts/A-*", '), call(ORDERS), "lose", False,
     "/crm/v1/accounts/{account}"),
    ("a wider permit of what it permitted already (known before)",
     SEED.replace('["/v1/accounts/{account}", ', '["/v1/accounts/**", '), call(ORDERS), None, True, ""),
    ("a permit for another method (known before)", SEED + more("crm", "/v1/orders", method="POST"),
     call("/crm/v1/orders"), None, True, ""),
    ("a name in the path that isn't logged",
     SEED + more("crm", "/v1/accounts/{account}", effect="forbid",
                 rest="when: {equals: [resource.account, subject.id]}"), call(ORDERS),
     "lose", False, "/crm/v1/accounts/{account}"),
    ("a name in the path that is logged",
     SEED + more("ledger", "/v1/entries/{id}", effect="forbid", rest="when: {equals: [resource.id, subject.id]}"),
     call("/ledger/v1/entries/svc"), "lose", True, "/ledger/v1/entries/{id}"),
    ("another name in the path that is logged",
     SEED + more("ledger", "/v1/entries/{id}", effect="forbid", rest="when: {equals: [resource.id, subject.id]}"),
     call("/ledger/v1/entries/7"), None, True, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("candidate", "request_", "change", "certain", "where", "before"),
    [(*each[1:], each[0].endswith("(known before)")) for each in JUDGED],
    ids=[each[0] for each in JUDGED],
)
def test_a_recorded_call_is_judged(
    folder: Path,
    candidate: str,
    request_: dict[str, Any],
    change: str | None,
    certain: bool,
    where: str,
    before: bool,
) -> None:
    status, document = replayed(folder, candidate, request_, BOTH_ROLES, before=before)
    found = [] if change is None else [(change, certain, request_["method"], where, 1)]
    assert changes(document) == found
    assert status == (replay.CHANGE if found else replay.NO_CHANGE)
    assert document["same"] == (1 if found else 2)
    if not certain:
        assert document["changes"][0]["why"]


PSEUDONYM = {"subject": "pseudonym:" + "5" * 32}
BY_NAME = "subject: {issuer: company, id: [svc, ann]}"
GRANTED_BY_NAME = SEED.replace("value: publishers}", "value: publishers}, {issuer: company, subject: svc}")

# name, candidate, what the log has otherwise, change that comes of it, certain, why
PARTLY: list[tuple[str, str, dict[str, Any], str | None, bool, str]] = [
    ("a pseudonym, and a forbid by name", SEED + more(effect="forbid", subject=BY_NAME), PSEUDONYM, "lose", False,
     "more asks for the subject, and the log holds a pseudonym of the subject"),
    ("a pseudonym, and a permit by name that isn't needed",
     SEED + more(path="/v1/entries", subject=BY_NAME), PSEUDONYM, None, True, ""),
    ("a pseudonym, and a permit by name instead of the one by role",
     NO_READERS + more(path="/v1/entries", subject=BY_NAME), PSEUDONYM,
     "lose", False, "more asks for the subject, and the log holds a pseudonym of the subject"),
    ("a pseudonym, and a name compared with another",
     SEED + more(effect="forbid", rest="when: {equals: [subject.id, workload.dag]}"), PSEUDONYM, "lose", False,
     "more asks for the subject, and the log holds a pseudonym of the subject"),
    ("a pseudonym, and a role granted by name",
     GRANTED_BY_NAME + more(effect="forbid", subject="subject: {roles: {any: [publisher]}}"), PSEUDONYM, "lose", False,
     "more asks for the role publisher; whether these callers have it now is not in the log"),
    ("a pseudonym, and nothing about names", NO_READERS, PSEUDONYM, "lose", True, ""),
    ("roles that were cut, and a forbid of one of them",
     SEED + more(effect="forbid", subject="subject: {roles: {any: [publisher]}}"), {"cut": ["roles"]}, "lose", False,
     "more asks for the role publisher; whether these callers have it now is not in the log"),
    ("roles that were cut, and a permit for one that is there", SEED, {"cut": ["roles"]}, None, True, ""),
    ("a workload that was cut", SEED + more(effect="forbid", rest="workload: {dag: [sales_*], attested: false}"),
     {"cut": ["workload"]}, "lose", False,
     "more asks for the dag, and its line was too long for the log, which holds only the beginning of the dag"),
    ("a path that was cut", SEED + more(path="/v1/entries", effect="forbid"),
     {"cut": ["path"], "route": "/v1/{any}", "path": "/v1/ent"}, "lose", False,
     "more is about /v1/entries, and the path is somewhere in /v1/{any}"),
    ("a path and its route that were cut", SEED + more(path="/v1/entries", effect="forbid"),
     {"cut": ["path", "route"], "route": "/v1/en", "path": "/v1/en"}, "lose", False,
     "more is about /v1/entries, and the path was not logged"),
    ("an address that was cut", SEED + more(effect="forbid", rest="when: {ip: [2001:db8::/32]}"),
     {"cut": ["client"], "client": "2001:0db8:0001:0002:0003"}, "lose", False,
     "more asks for the client's address, and its line was too long for the log, which holds only the beginning of the "
     "address"),
    ("an upstream that was cut", SEED, {"cut": ["upstream"], "upstream": "ledg"}, "lose", False,
     "its line was too long for the log, which holds only the beginning of the upstream"),
    ("a reason that was cut", SEED, {"cut": ["detail", "justification"]}, None, True, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("candidate", "known", "change", "certain", "why"),
    [each[1:] for each in PARTLY],
    ids=[each[0] for each in PARTLY],
)
def test_what_the_log_holds_only_in_part_makes_an_answer_perhaps(
    folder: Path, candidate: str, known: dict[str, Any], change: str | None, certain: bool, why: str
) -> None:
    was = logged.seed(folder / "old", SEED)
    logged.seed(folder / "new", candidate)
    event = json.loads(logged.event(call(), was)) | known
    log = logged.write(folder / "audit.ndjson", [json.dumps(event), logged.event(BOTH_ROLES, was)])
    _, text = run("--log", log, "--candidate", folder / "new", "--json")
    found = [each for each in json.loads(text)["changes"] if not each["where"].startswith("/ledger/v2")]
    assert [(each["change"], each["certain"]) for each in found] == (
        [] if change is None else [(change, certain)]
    )
    assert why in [*(each for one in found for each in one["why"]), ""]


def test_with_the_policy_of_that_time_a_pseudonym_leaves_nothing_open(folder: Path) -> None:
    was = logged.seed(folder / "old", GRANTED_BY_NAME + more(effect="forbid", subject=BY_NAME))
    logged.seed(
        folder / "new",
        GRANTED_BY_NAME
        + more(effect="forbid", subject=BY_NAME)
        + more().replace("id: more", "id: others").replace("/**", "/v1/other"),
    )
    event = json.loads(logged.event(call(), was)) | PSEUDONYM
    log = logged.write(folder / "audit.ndjson", [json.dumps(event)])
    options = ["--log", log, "--candidate", folder / "new"]
    assert "perhaps 1 more" in run(*options)[1]
    assert run(*options, "--before", folder / "old")[0] == replay.NO_CHANGE


def test_the_policy_of_that_time_makes_answers_certain(folder: Path) -> None:
    claims = SEED + more(path="/v1/reports", subject="subject: {claims: [{claim: team, any: [sales]}]}")
    unrelated = claims.replace("any: [publisher, reader]", "any: [publisher]")
    asked = call("/ledger/v1/reports", claims={"team": "sales"})
    status, document = replayed(folder, unrelated, asked, old=claims)
    assert (status, document["unsure"]) == (replay.CHANGE, 1)
    status, document = replayed(folder, unrelated, asked, old=claims, before=True)
    assert (status, document["same"]) == (replay.NO_CHANGE, 1)


def test_the_policy_of_that_time_shows_roles_that_are_granted_in_another_way(folder: Path) -> None:
    candidate = SEED.replace("value: readers", "value: all-readers")
    _, document = replayed(folder, candidate, call())
    assert document["same"] == 1  # as the log has it
    _, document = replayed(folder, candidate, call(), before=True)
    assert changes(document) == [("lose", False, "GET", "/ledger/v1/entries", 1)]
    assert document["changes"][0]["why"] == [
        "read asks for the role reader; whether these callers have it now is not in the log"
    ]


def test_a_policy_of_another_time_says_nothing_and_is_told(folder: Path) -> None:
    was = logged.seed(folder / "old", SEED)
    logged.seed(folder / "new", NO_READERS)
    logged.seed(folder / "other", SEED + more())
    log = logged.write(folder / "audit.ndjson", [logged.event(call(), was)])
    _, text = run("--log", log, "--candidate", folder / "new", "--before", folder / "other")
    assert f"Of bundle {was.engine.bundle.version} nothing is known: --before is another one" in text


def test_a_call_that_a_limit_refused_counts_as_policy_decided_it(folder: Path) -> None:
    was = logged.seed(folder / "old", SEED)
    refused = json.loads(logged.event(call(**POST), was)) | {"decision": "deny", "reason": "limit.rate"}
    log = logged.write(folder / "audit.ndjson", [json.dumps(refused), logged.event(BOTH_ROLES, was)])
    assert run("--log", log, "--candidate", folder / "old")[0] == replay.NO_CHANGE
    logged.seed(folder / "new", SEED.replace("any: [publisher]", "any: [reader]"))
    _, text = run("--log", log, "--candidate", folder / "new")
    assert "`sales_sync` would lose POST /ledger/v1/entries: 1 call in 1 minute" in text


def test_permits_that_exclude_each_other_count_as_a_refusal(folder: Path) -> None:
    was = logged.seed(folder / "old", SEED)
    clash = {"decision": "deny", "reason": "policy.obligation", "detail": "credentials a, b"}
    event = json.loads(logged.event(call(**POST), was)) | clash
    log = logged.write(folder / "audit.ndjson", [json.dumps(event)])
    _, text = run("--log", log, "--candidate", folder / "old")
    # This set has no such credentials, so it would let the call pass. That its version is the log's is made up here.
    assert "`sales_sync` would gain POST /ledger/v1/entries" in text


def test_what_a_grant_gave_is_no_part_of_policy(folder: Path) -> None:
    was = logged.seed(folder / "old", SEED)
    event = json.loads(logged.event(call(), was)) | {"grants": ["a" * 32]}
    logged.seed(folder / "new", NO_READERS)
    log = logged.write(folder / "audit.ndjson", [json.dumps(event)])
    _, text = run("--log", log, "--candidate", folder / "new")
    assert "`sales_sync` may lose GET /ledger/v1/entries: 1 call in 1 minute" in text
    assert "a temporary grant had a part in the decision" in text


def test_a_role_that_was_lent_is_not_taken_for_the_token_s(folder: Path) -> None:
    was = logged.seed(folder / "old", SEED)
    event = json.loads(logged.event(call(), was))
    both = {"granted": ["publisher", "reader"], "effective": ["publisher", "reader"], "lent": ["publisher"]}
    event["roles"] |= both  # it was permitted for being a reader's
    logged.seed(folder / "new", SEED.replace("any: [publisher, reader]", "any: [publisher]"))
    log = logged.write(folder / "audit.ndjson", [json.dumps(event), logged.event(BOTH_ROLES, was)])
    _, text = run("--log", log, "--candidate", folder / "new")
    assert "`sales_sync` may lose GET /ledger/v1/entries: 1 call in 1 minute" in text
    event["roles"] |= {"tagged": ["publisher"], "effective": ["publisher"]}
    log = logged.write(folder / "audit.ndjson", [json.dumps(event), logged.event(BOTH_ROLES, was)])
    _, text = run("--log", log, "--candidate", folder / "old")
    assert "`sales_sync` may lose GET /ledger/v1/entries: 1 call in 1 minute" in text
    assert "a temporary grant had a part in the decision" in text


EXCHANGED = {"exchanged": {"upstream": "ledger", "parents": ["1"], "delegated": False}}


def test_a_call_that_an_agent_made_for_somebody_is_decided_again_by_nobody(folder: Path) -> None:
    """But for the policy that decided it."""
    was = logged.seed(folder / "old", SEED)
    event = json.loads(logged.event(call(), was)) | {
        "exchanged": {**EXCHANGED["exchanged"], "delegated": True}
    }
    log = logged.write(folder / "audit.ndjson", [json.dumps(event)])
    logged.seed(folder / "new", SEED + more(path="/v1/reports/{year}"))
    status, text = run("--log", log, "--candidate", folder / "new")
    assert status == replay.CHANGE
    assert "`sales_sync` may lose GET /ledger/v1/entries: 1 call in 1 minute" in text
    assert "an agent made them for somebody, and the log doesn't hold which roles are whose" in text
    assert run("--log", log, "--candidate", folder / "old", "--before", folder / "old")[0] == replay.NO_CHANGE


def test_a_gate_token_loses_a_role_where_a_tag_would_be_refused(folder: Path) -> None:
    was = logged.seed(folder / "old", SEED)
    event = json.loads(logged.event(call(tag=["reader"]), was))
    logged.seed(folder / "new", SEED.replace("claim: groups, value: readers", "subject: other"))
    for more_of_it, verb in (({}, "would"), (EXCHANGED, "may")):
        log = logged.write(folder / "audit.ndjson", [json.dumps(event | more_of_it)])
        _, text = run("--log", log, "--candidate", folder / "new", "--before", folder / "old")
        assert f"`sales_sync` {verb} lose GET /ledger/v1/entries: 1 call in 1 minute" in text


def test_what_would_change_is_said_by_dag_and_by_policy(folder: Path) -> None:
    was = logged.seed(folder / "old", SEED)
    logged.seed(folder / "new", NO_READERS + more(path="/v1/reports/{year}"))
    days = [f"2026-11-{14 + day}T10:00:00Z" for day in range(8)]
    events = [
        *(logged.event(call(at=day), was) for day in days for _ in range(3)),
        *(logged.event(call(REPORT, at=day, workload={"dag": "finance_close"}), was) for day in days),
        logged.event(call("/ledger/v1/entries", workload=None, kind="human", subject="ann"), was),
        logged.event(call("/ledger/v1/entries", workload=None, kind="human", subject="bob"), was),
        "not an event",
        '{"event":"decision","schema"',
        json.dumps(json.loads(logged.event(call(roles=["publisher"]), was))),
        logged.event(call("/nowhere/v1"), was),
    ]  # fmt: skip
    log = logged.write(folder / "audit.ndjson", events)
    status, text = run("--log", log, "--candidate", folder / "new")
    assert status == replay.CHANGE
    assert text.splitlines() == [
        "35 recorded calls from 2026-11-14 10:00 UTC to 2026-11-21 10:00 UTC (7 days)",
        "Left out: 1 request of which policy wasn't asked: route.unknown_upstream 1",
        "Left out: 1 line of something else than the gate",
        f"Left out: 1 broken line: {log}:36: not JSON; it may have been cut off",
        "Who holds which role is as the log has it. With the policy of that time (--before OLD) more is certain, and "
        "roles that are granted in another way are seen",
        "",
        "For certain:",
        "  ann, bob would lose GET /ledger/v1/entries: 2 calls in 7 days",
        "      no policy permits it; was permitted by read",
        "  `finance_close` would gain GET /ledger/v1/reports/{year}: 8 calls in 7 days",
        "      permitted by more; was permitted by none",
        "  `sales_sync` would lose GET /ledger/v1/entries: 24 calls in 7 days",
        "      no policy permits it; was permitted by read",
        "",
        "By policy:",
        "  more: 8 calls would be gained",
        "  read: 26 calls would be lost",
        "",
        "The candidate would change 34 answers for certain, and perhaps 0 more; 1 stay as they are.",
    ]


def test_policies_in_shadow_report_the_same_from_live_traffic(folder: Path) -> None:
    shadow = "mode: shadow"
    was = logged.seed(
        folder / "old",
        SEED + more(effect="forbid", subject="subject: {kind: agent}", rest=shadow)
        + more(path="/v1/reports", rest=shadow).replace("id: more", "id: reports"),
    )  # fmt: skip
    log = logged.write(
        folder / "audit.ndjson",
        [
            logged.event(each, was)
            for each in (call(), call(kind="agent"), call(kind="agent"), call("/ledger/v1/reports"))
        ],
    )
    status, text = run("--log", log, "--shadow")
    assert status == replay.CHANGE
    assert [line for line in text.splitlines() if line.startswith("  ")] == [
        "  `sales_sync` would lose GET /ledger/v1/entries: 2 calls in 1 minute",
        "      with more enforced",
        "  `sales_sync` would gain GET /ledger/...: 1 call in 1 minute",
        "      with reports enforced; such as /ledger/v1/reports",
        "  more: 2 calls would be lost",
        "  reports: 1 call would be gained",
    ]
    assert text.splitlines()[-1] == (
        "Enforced, the policies in shadow would change 3 answers for certain, and perhaps 0 more; 1 stay as they are."
    )


def test_without_shadow_policies_nothing_would_change(folder: Path) -> None:
    log = logged.write(folder / "audit.ndjson", [logged.event(call(), logged.seed(folder / "old", SEED))])
    status, text = run("--log", log, "--shadow")
    assert status == replay.NO_CHANGE
    assert text.endswith("would change nothing: all 1 calls get the answer that they got.\n")


def test_without_calls_nothing_is_told(folder: Path) -> None:
    logged.seed(folder / "old", SEED)
    log = logged.write(folder / "audit.ndjson", ["gate: ready", '{"event":"decision","'])
    status, text = run("--log", log, "--candidate", folder / "old")
    assert status == replay.INVALID
    assert text.startswith("No call that policy decided is in the logs: ")
    assert "1 lines are broken, and 1 are none of the gate's" in text


def test_several_logs_are_one(folder: Path) -> None:
    was = logged.seed(folder / "old", SEED)
    logs = [logged.write(folder / f"{number}.ndjson", [logged.event(call(), was)]) for number in range(2)]
    _, text = run("--log", logs[0], "--log", logs[1], "--candidate", folder / "old", "--json")
    assert json.loads(text)["calls"] == 2


REFUSED = [
    ("nothing that answers", []),
    ("two that answer", ["--candidate", "old", "--shadow"]),
    ("a policy of then, but none of now", ["--shadow", "--before", "old"]),
    ("a since that is none", ["--candidate", "old", "--since", "yesterday"]),
    ("a candidate that isn't there", ["--candidate", "nowhere"]),
    ("a candidate that is invalid", ["--candidate", "broken"]),
    ("a policy of then that isn't there", ["--candidate", "old", "--before", "nowhere"]),
    ("a log that isn't there", ["--candidate", "old", "--log", "nowhere"]),
]


@pytest.mark.parametrize("options", [options for _, options in REFUSED], ids=[name for name, _ in REFUSED])
def test_what_cannot_be_replayed_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.chdir(folder)
    was = logged.seed(folder / "old", SEED)
    (folder / "broken").mkdir()
    (folder / "broken" / "seed.yaml").write_text("policies: [{id: x}]", "utf-8")
    log = logged.write(folder / "audit.ndjson", [logged.event(call(), was)])
    status, text = run("--log", log, *options)
    assert status == replay.INVALID
    assert text.strip()
