"""Every line of the running gate is as the published schema says, can be exported, and is in the report."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from airgate.audit import app
from airgate.audit.schema import published
from airgate.audit.source import Tally, events
from airgate.dev.stack import Stack

Audit = Callable[..., list[dict[str, Any]]]


def test_what_the_running_gate_writes_is_as_the_schema_says(
    stack: Stack, gate: httpx.Client, token: Callable[..., str], audit: Audit
) -> None:
    bearer = {"Authorization": f"Bearer {token('finance-etl')}", "Airgate-Dag-Id": "finance_close"}
    body = {"amount": 1}
    for sent in (
        gate.get("/ledger/v1/entries/7?page=2&token=x", headers=bearer),
        gate.post("/ledger/v1/entries", headers={**bearer, "Airgate-Dag-Tags": "finance, close"}, json=body),
        gate.delete("/ledger/v1/entries/7", headers=bearer),
        gate.get("/nowhere/v1", headers={**bearer, "Airgate-Role": "finance-reader"}),
        gate.get("/ledger/v1/entries"),
        gate.get("/-/health", headers=bearer),
    ):
        assert audit(sent)
    schema = json.loads(published())
    validators = {
        kind: Draft202012Validator({"$defs": schema["$defs"], "$ref": f"#/$defs/{kind}"})
        for kind in schema["$defs"]
    }
    tally = Tally()
    found = list(events([stack.audit], tally))
    wrong = [
        f"{event['event']} {error.json_path}: {error.message[:200]}"
        for event in found
        for error in validators[event["event"]].iter_errors(event)
    ]
    assert not wrong
    assert {"opening", "decision", "outcome", "bundle"} <= {event["event"] for event in found}


def test_the_running_gates_log_can_be_exported(stack: Stack, gate: httpx.Client, audit: Audit) -> None:
    request = audit(gate.get("/-/health"))[0]["request_id"]
    for form, place in (("ocsf", ("metadata", "correlation_uid")), ("cloudevents", ("data", "request_id"))):
        result = CliRunner().invoke(app, ["export", "--format", form, "--log", str(stack.audit)])
        assert result.exit_code == 0, result.output
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        assert request in {line[place[0]].get(place[1]) for line in lines}


def test_a_report_compares_with_the_policy_in_force(
    stack: Stack,
    gate: httpx.Client,
    token: Callable[..., str],
    audit: Audit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bearer = {"Authorization": f"Bearer {token('sales-sync')}", "Airgate-Dag-Id": "sales_sync"}
    audit(gate.get("/crm/v1/accounts/7", headers=bearer), count=2)
    monkeypatch.setenv("AIRGATE_DIR", str(stack.directory))
    result = CliRunner().invoke(app, ["report", "--env", "local", "--json"])  # the running stack's log
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    (row,) = [
        row
        for row in told["calls"]
        if row["dag"] == "sales_sync" and row["route"] == "/v1/accounts/{account}"
    ]
    assert (row["subject"], row["method"], row["attested"]) == ("sales-sync", "GET", False)
    assert row["answers"]
    unused = told["unused"]
    assert unused["of"] == "the policy in force in local"
    assert unused["permits"] >= 10
    names = {one["id"] for one in unused["unused"]}
    assert "sales-accounts-read" not in names
    assert "oncall-stop-queries" in names
    assert unused["strangers"] == []
