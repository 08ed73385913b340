"""The published schema: every line that the gate writes is as it says, and what isn't is refused."""

import json
from typing import Any

import odd_events
import pytest
import week
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from airgate.audit import app
from airgate.audit.schema import published

SCHEMA = json.loads(published())
VALIDATOR = Draft202012Validator(SCHEMA)
KINDS = [each["$ref"].rsplit("/", 1)[1] for each in SCHEMA["oneOf"]]


def wrong(event: dict[str, Any]) -> list[str]:
    """What the schema has against an event, by the rules for its kind."""
    rules = {"$defs": SCHEMA["$defs"], "$ref": f"#/$defs/{event['event']}"}
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(rules).iter_errors(event)]


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert sorted(KINDS) == sorted(odd_events.KINDS)


@pytest.mark.parametrize("name", odd_events.every_shape())
def test_what_the_gate_writes_is_as_the_schema_says(name: str) -> None:
    line = odd_events.lines()[name]
    event = json.loads(line)
    assert not wrong(event)
    VALIDATOR.validate(event)
    assert ("cut" in event) is ("had to be cut" in name)
    assert len(line) <= 8192
    order = list(SCHEMA["$defs"][event["event"]]["properties"])
    assert [*event] == sorted(event, key=order.index)  # documented in the order in which it is written


def test_every_kind_of_event_is_among_these_shapes() -> None:
    assert {json.loads(line)["event"] for line in odd_events.lines().values()} == set(KINDS)


def test_every_member_is_written_by_some_shape() -> None:
    written: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for line in odd_events.lines().values():
        event = json.loads(line)
        written[event["event"]] |= event.keys()
    documented = {kind: set(SCHEMA["$defs"][kind]["properties"]) for kind in KINDS}
    assert documented == written


def test_a_week_of_lines_is_as_the_schema_says() -> None:
    found = [json.loads(line) for line in week.lines(200)]
    assert len(found) > 300
    assert not [flaw for event in found for flaw in wrong(event)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"schema": 1},
        {"time": "2026-11-21 07:14:21"},
        {"time": "2026-11-21T07:14:21.250Z\n"},
        {"chain": "5" * 31},
        {"position": -1},
        {"hash": "G" * 64},
        {"previous": None},
        {"event": "other"},
    ],
    ids=str,
)
def test_anything_else_is_refused(kind: str, change: dict[str, Any]) -> None:
    line = next(line for line in odd_events.lines().values() if json.loads(line)["event"] == kind)
    assert VALIDATOR.is_valid(json.loads(line))
    assert not VALIDATOR.is_valid(json.loads(line) | change)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("a plain permit", {"reason": "policy.no_match"}),
        ("a plain permit", {"kind": "robot"}),
        ("a plain permit", {"workload": {"dag": {"value": "close"}}}),
        ("a plain permit", {"workload": {"claims": {"value": "x", "attested": True}}}),
        ("a plain permit", {"query": {"page": "2"}}),
        ("a plain permit", {"client": "x" * 65}),
        ("a denial by policy of a pseudonym", {"reason": None}),
        (
            "a session that has ended",
            {"ended": {"issuer": "a", "session": "s", "result": "over", "event_id": "1"}},
        ),
        ("a session that has ended", {"ended": {"issuer": "company", "session": "s", "result": "ended"}}),
        ("an answer", {"result": "fine"}),
        ("an answer", {"status": "200"}),
        ("an answer", {"tries": 1}),
        ("a publish", {"action": "push"}),
        ("a checkpoint", {"signature": "s" * 85}),
        ("a missing row", {"result": "there"}),
        ("an opening", {"position": 3}),
    ],
    ids=str,
)
def test_a_member_that_is_something_else_is_refused(name: str, change: dict[str, Any]) -> None:
    event = json.loads(odd_events.lines()[name])
    assert VALIDATOR.is_valid(event)
    assert not VALIDATOR.is_valid(event | change)


def test_every_member_has_a_description() -> None:
    def described(rules: dict[str, Any]) -> bool:
        while "$ref" in rules and "description" not in rules:
            rules = SCHEMA["$defs"][rules["$ref"].rsplit("/", 1)[1]]
        return "description" in rules

    lacking = [
        f"{kind}.{name}"
        for kind in KINDS
        for name, rules in SCHEMA["$defs"][kind]["properties"].items()
        if name not in ("event", "result") and not described(rules)
    ]
    assert not lacking


def test_the_command_prints_it() -> None:
    result = CliRunner().invoke(app, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.output) == SCHEMA
