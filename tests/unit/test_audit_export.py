"""Exports: valid OCSF and CloudEvents for every shape of event, also for those that nobody should write."""

import functools
import json
from pathlib import Path
from typing import Any

import odd_events
import pytest
import week
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from typer.testing import CliRunner, Result

from airgate.audit import app, cloudevents, export, ocsf
from airgate.audit.cloudevents import enveloped
from airgate.audit.export import Exported, as_ocsf
from airgate.audit.fields import uid
from airgate.audit.schema import published

LINES = {name: json.loads(line) for name, line in odd_events.lines().items()}


@functools.cache
def published_schema() -> OcsfJsonSchemaEmbedded:
    return OcsfJsonSchemaEmbedded(get_ocsf_schema(ocsf.VERSION))


@functools.cache
def classes() -> dict[str, Any]:
    whole: dict[str, Any] = get_ocsf_schema(ocsf.VERSION)["classes"]
    return whole


@functools.cache
def validator(class_uid: int, profiles: tuple[str, ...]) -> Draft202012Validator:
    schema = published_schema()
    rules = schema.get_class_schema(schema.lookup_class_name_from_uid(class_uid), list(profiles))
    Draft202012Validator.check_schema(rules)
    return Draft202012Validator(rules)


def flaws(event: dict[str, Any]) -> list[str]:
    """What the published schema has against an OCSF event, and what its numbers and names don't agree in."""
    rules = validator(event["class_uid"], tuple(event["metadata"]["profiles"]))
    found = [f"{error.json_path}: {error.message}" for error in rules.iter_errors(event)]
    whole = classes()[published_schema().lookup_class_name_from_uid(event["class_uid"])]
    for number, name in (
        ("activity_id", "activity_name"),
        ("severity_id", "severity"),
        ("status_id", "status"),
        ("category_uid", "category_name"),
        ("class_uid", "class_name"),
        ("type_uid", "type_name"),
        ("action_id", "action"),
        ("disposition_id", "disposition"),
    ):
        if event.get(number) not in (None, 99):
            row = whole["attributes"][number]["enum"].get(str(event[number]), {})
            if event[name] != row.get("caption"):
                found.append(f"{name}: {event[name]}, where {number} says {row.get('caption')}")
    unknown = set(event["metadata"]["profiles"]) - set(whole["profiles"])
    return found + [f"profile {name} is none of this class" for name in unknown]


def test_the_check_finds_what_is_wrong() -> None:
    event = ocsf.mapped(LINES["a plain permit"])
    assert event is not None
    assert not flaws(event)
    assert flaws(event | {"more": 1})
    assert flaws({name: value for name, value in event.items() if name != "actor"})
    assert flaws(event | {"status_id": 7})
    assert flaws(event | {"status": "Failure"})
    assert flaws(event | {"src_endpoint": {"ip": "somewhere"}})


@pytest.mark.parametrize("name", LINES)
def test_every_shape_is_valid_ocsf(name: str) -> None:
    event = ocsf.mapped(LINES[name])
    assert event is not None
    assert not flaws(event)
    assert event["metadata"]["uid"] == uid(LINES[name])


@pytest.mark.parametrize("decision", ["a permit with everything", "a plain permit"])
@pytest.mark.parametrize("outcome", ["an answer", "an answer that is an error", "no answer"])
def test_a_decision_with_its_outcome_is_valid_ocsf(decision: str, outcome: str) -> None:
    event = ocsf.mapped(LINES[decision], LINES[outcome])
    assert event is not None
    assert not flaws(event)
    assert event["status"] == ("Success" if outcome == "an answer" else "Failure")
    assert event["http_response"]["latency"] if "http_response" in event else outcome == "no answer"


@given(odd_events.twisted(), odd_events.twisted() | st.none())
def test_whatever_stands_in_a_log_is_valid_ocsf_or_left_out(
    event: dict[str, Any], outcome: dict[str, Any] | None
) -> None:
    found = ocsf.mapped(event, outcome if event.get("event") == "decision" else None)
    if found is not None:
        text = json.dumps(found, allow_nan=False)
        assert not flaws(json.loads(text))
        json.dumps(found, ensure_ascii=False).encode("utf-8")  # no half of a character pair


# What an analyst looks for, and where it must be.
EXPECTED: list[tuple[str, str, Any]] = [
    ("a permit with everything", "class_uid", 6003),
    ("a permit with everything", "activity_name", "Create"),
    ("a permit with everything", "action", "Allowed"),
    ("a permit with everything", "status", "Unknown"),
    ("a permit with everything", "actor.user.uid", "etl"),
    ("a permit with everything", "actor.user.type", "Service"),
    ("a permit with everything", "actor.user.domain", "company"),
    ("a permit with everything", "actor.user.groups.0.name", "reader"),
    ("a permit with everything", "actor.user.credential_uid", "jti-1"),
    ("a permit with everything", "actor.invoked_by", "scheduler"),
    ("a permit with everything", "actor.idp.name", "company"),
    ("a permit with everything", "api.operation", "POST /v1/entries"),
    ("a permit with everything", "api.service.name", "ledger"),
    ("a permit with everything", "api.request.uid", "ab" * 16),
    ("a permit with everything", "metadata.correlation_uid", "ab" * 16),
    ("a permit with everything", "trace.uid", "ab" * 16),
    ("a permit with everything", "src_endpoint.ip", "2001:db8::7"),
    ("a permit with everything", "src_endpoint.location.country", "DE"),
    ("a permit with everything", "http_request.url.path", "/v1/entries"),
    ("a permit with everything", "http_request.body_length", 120),
    ("a permit with everything", "policy.uid", "abc"),
    ("a permit with everything", "policy.version", "8"),
    ("a permit with everything", "authorizations.0.policy.uid", "publish"),
    ("a permit with everything", "authorizations.2.policy.is_applied", False),
    ("a permit with everything", "enrichments.0.provider", "token"),
    ("a permit with everything", "enrichments.1.provider", "header"),
    ("a permit with everything", "cloud.region", "FRA"),
    ("a permit with everything", "unmapped.roles.lent", ["reader"]),
    ("a permit with everything", "unmapped.justification", "month end"),
    ("a permit with everything", "unmapped.query", {"page": ["2"], "token": None, "limit": None}),
    ("a permit with everything", "time", 1_795_245_261_250),
    ("a decision that had to be cut", "metadata.is_truncated", True),
    ("a denial by policy of a pseudonym", "disposition", "Blocked"),
    ("a denial by policy of a pseudonym", "status", "Failure"),
    ("a denial by policy of a pseudonym", "status_code", "policy.forbidden"),
    ("a denial by policy of a pseudonym", "severity", "Low"),
    ("a denial by policy of a pseudonym", "api.response.code", 403),
    ("a denial by policy of a pseudonym", "authorizations.1.decision", "deny"),
    ("a denial before policy", "disposition", "Rejected"),
    ("a denial before policy", "activity_name", "Other"),
    ("a denial before policy", "actor.user.name", "unknown"),
    ("a denial before policy", "src_endpoint.name", "not recorded"),
    ("a request that can't be read", "disposition", "Error"),
    ("a request that can't be read", "severity", "Medium"),
    ("a page", "status", "Success"),
    ("a page", "api.operation", "GET"),
    ("a question", "api.operation", "evaluate POST /v1/entries"),
    ("a question that was denied", "action", "Denied"),
    ("an answer", "metadata.correlation_uid", "ab" * 16),
    ("an answer", "http_response.code", 201),
    ("an answer", "http_response.body_length", 99),
    ("a lost answer", "status", "Failure"),
    ("an opening", "class_uid", 6002),
    ("an opening", "app.uid", "production"),
    ("a checkpoint", "activity_name", "Checkpoint"),
    ("a publish", "class_uid", 3004),
    ("a publish", "entity.policy.uid", "abc"),
    ("a publish", "actor.user.name", "release pipeline"),
    ("a rollback", "comment", "rollback"),
    ("policy that was refused", "status", "Failure"),
    ("an act: revoke", "type_uid", 300502),
    ("an act: revoke", "user.uid", "etl"),
    ("an act: grant", "type_uid", 300501),
    ("an act: grant", "privileges", ["role reader"]),
    ("an act: lift", "type_uid", 300404),
    ("a revocation of a DAG", "type_uid", 300401),
    ("a revocation of a DAG", "entity.data.match.dag", "close"),
    ("an issuer's new keys", "entity.name", "keys of company"),
    ("a missing row", "class_uid", 2004),
    ("a missing row", "severity", "High"),
    ("a missing row", "is_alert", True),
]


@pytest.mark.parametrize(("name", "place", "value"), EXPECTED)
def test_an_analyst_finds_what_the_gate_knew(name: str, place: str, value: Any) -> None:
    found: Any = ocsf.mapped(LINES[name])
    for step in place.split("."):
        found = found[int(step)] if isinstance(found, list) else found[step]
    assert found == value


def test_no_member_of_an_event_is_dropped() -> None:
    """Each value of the richest decision stands somewhere in what is exported."""
    event = LINES["a permit with everything"]
    text = json.dumps(ocsf.mapped(event))
    for name, value in event.items():
        for one in value if isinstance(value, list) else [value]:
            # The kind is Service, the decision Allowed; what is in the workload and the worker comes below.
            if name not in ("event", "worker", "workload", "reason", "detail", "decision", "schema", "kind"):
                assert json.dumps(one) in text or json.dumps(str(one)) in text, name
    assert '"close"' in text
    assert '"3f2a, reads 3 to 4"' in text


# CloudEvents


@pytest.mark.parametrize("name", LINES)
def test_every_shape_goes_through_the_cloudevents_library_and_back(name: str) -> None:
    line = enveloped(LINES[name], "https://gate.example.com")
    assert line is not None
    event = JSONFormat().read(None, line)
    attributes = event.get_attributes()
    assert event.get_data() == LINES[name]
    assert attributes["type"] == f"airgate.audit.{LINES[name]['event']}"
    assert attributes["id"] == f"{LINES[name]['chain']}:{LINES[name]['position']}"
    assert attributes["source"] == "https://gate.example.com"
    assert attributes["dataschema"] == json.loads(published())["$id"]
    assert attributes["time"].isoformat(timespec="milliseconds").replace("+00:00", "Z") == LINES[name]["time"]
    assert attributes["datacontenttype"] == "application/json"


def test_ids_are_given_once() -> None:
    lines = [json.loads(line) for line in week.lines(300)]
    envelopes = [json.loads(enveloped(event) or "null") for event in lines]
    assert len({one["id"] for one in envelopes}) == len(lines)


def test_an_older_gates_event_has_an_id_of_its_own_content() -> None:
    old = {"event": "decision", "schema": 1, "time": "2026-11-21T07:14:21.250Z", "request_id": "a" * 32}
    one, other = (json.loads(enveloped(event) or "") for event in (old, old | {"request_id": "b" * 32}))
    assert one["id"] != other["id"]
    assert one["id"] == json.loads(enveloped(dict(reversed(old.items()))) or "")["id"]
    assert one["dataschema"] == "urn:airgate:audit:event:1"


@given(odd_events.twisted())
def test_whatever_stands_in_a_log_is_a_cloudevent_or_left_out(event: dict[str, Any]) -> None:
    line = enveloped(event)
    if line is not None:
        read = JSONFormat().read(None, line)
        assert read.get_attributes()["id"]
        told = json.loads(line, parse_constant=pytest.fail)  # NaN and Infinity are none of JSON's
        json.dumps(told, ensure_ascii=False).encode("utf-8")  # no half of a character pair
        assert b"\n" not in line


# The command


def run(*options: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, options)])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "audit.ndjson"
    file.write_text("".join(f"{line}\n" for line in week.lines(200)), "utf-8")
    return file


def test_decisions_are_joined_with_their_outcomes(log: Path) -> None:
    result = run("--format", "ocsf", "--log", log)
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    outcomes = [line for line in lines if line["event"] == "outcome"]
    assert len(events) == len(lines) - len(outcomes)
    calls = {event["metadata"]["correlation_uid"]: event for event in events if event["class_uid"] == 6003}
    for outcome in outcomes:
        code = outcome["status"]
        assert calls[outcome["request_id"]]["status"] == ("Success" if code and code < 400 else "Failure")
    assert f"{len(outcomes):,} permitted calls have their outcome in them" in result.stderr
    assert not [flaw for event in events for flaw in flaws(event)]


def test_more_calls_than_can_wait_go_without_their_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "MOST_WAITING", 2)
    permit, answer = LINES["a plain permit"], LINES["an answer"]
    read = [permit | {"request_id": name * 32, "position": number} for number, name in enumerate("abcd")]
    read += [answer | {"request_id": name * 32} for name in "dcb"]
    done = Exported()
    events = [json.loads(line) for line in as_ocsf(read, None, done)]
    assert [(one["api"]["request"]["uid"][0], one["status"]) for one in events] == [
        ("a", "Unknown"),
        ("b", "Unknown"),
        ("d", "Success"),
        ("c", "Success"),
        ("b", "Success"),  # its outcome, by itself
    ]
    assert (done.joined, done.open) == (2, 2)


def test_a_lost_answer_stands_beside_the_one_that_came() -> None:
    done = Exported()
    read = [LINES[name] for name in ("a plain permit", "an answer", "a lost answer")]
    first, second = (json.loads(line) for line in as_ocsf(read, None, done))
    assert (first["status"], second["status"]) == ("Success", "Failure")
    assert first["metadata"]["correlation_uid"] == second["metadata"]["correlation_uid"]


def test_a_file_is_there_only_when_it_is_whole(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.ndjson"
    result = run("--format", "cloudevents", "--log", log, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    lines = out.read_text("ascii").splitlines()
    assert len(lines) == len(log.read_text("utf-8").splitlines())
    assert {json.loads(line)["source"] for line in lines} == {cloudevents.SOURCE}
    bad = run("--format", "cloudevents", "--log", tmp_path / "nothing", "--out", tmp_path / "other.ndjson")
    assert bad.exit_code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.ndjson", "out.ndjson"]


def test_a_time_leaves_out_what_is_before_and_after(log: Path) -> None:
    result = run("--format", "cloudevents", "--log", log, "--since", "2026-11-17", "--until", "2026-11-18")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    inside = [
        line
        for line in map(json.loads, log.read_text("utf-8").splitlines())
        if line["time"][:10] == "2026-11-17"
    ]
    assert len(found) == len(inside) > 10
    assert "events are before or after the time" in result.stderr


def test_an_outcome_after_the_time_belongs_to_its_decision(tmp_path: Path) -> None:
    late = {"time": "2026-11-21T08:00:00.000Z"}
    read = [
        LINES["a plain permit"],
        LINES["an answer"] | late,
        LINES["a plain permit"] | late | {"request_id": "1" * 32},
        LINES["an answer"] | late | {"request_id": "1" * 32},
    ]
    done = Exported()
    (line,) = as_ocsf(read, odd_events.NOW + 60, done)
    assert json.loads(line)["status"] == "Success"
    assert (done.joined, done.open, done.outside) == (1, 0, 2)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--format", "csv"], "'csv'"),
        (["--format", "ocsf", "--since", "yesterday"], "write how long ago"),
        (["--format", "cloudevents", "--source", "my gate"], "--source: that is no URI reference"),
        (["--format", "cloudevents", "--source", ""], "--source: that is no URI reference"),
        (["--format", "ocsf", "--out", "/nowhere/at/all.ndjson"], "can't be written"),
    ],
)
def test_what_can_t_be_done_is_said(log: Path, options: list[str], told: str) -> None:
    result = run("--log", log, *options)
    assert result.exit_code == 2
    assert told in result.stderr.replace("\n", " ")
    assert result.stdout == ""


def test_logs_of_something_else_are_no_export(tmp_path: Path) -> None:
    (tmp_path / "app.log").write_text("hello\nworld\n", "utf-8")
    result = run("--format", "ocsf", "--log", tmp_path / "app.log")
    assert result.exit_code == 2
    assert "No event of the gate is in the logs" in result.stderr
