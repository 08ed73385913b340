"""Reading the running stack's log: a denied call is told with the policy that decided, a run is a timeline."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx

from airgate.dev.stack import Stack
from airgate.node import PROJECT

RUN = "manual__2026-11-22T02:40:00+00:00"


def audit_command(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "AIRGATE_DIR": str(stack.directory)}
    return subprocess.run(
        [sys.executable, "-m", "airgate", "audit", *arguments],
        cwd=PROJECT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )


def headers(token: str, **context: str) -> dict[str, str]:
    said = {f"Airgate-{name.replace('_', '-')}": value for name, value in context.items()}
    return {"Authorization": f"Bearer {token}", **said}


def test_a_denied_call_is_told_with_what_it_would_take(
    stack: Stack, gate: httpx.Client, token: Callable[..., str], audit: Callable[..., Any]
) -> None:
    sent = headers(token("sales-sync"), Dag_Id="finance_close", Task_Id="post", Run_Id=RUN)
    answer = gate.post("/ledger/v1/entries", headers=sent)
    assert answer.status_code == 403
    audit(answer)
    done = audit_command(stack, "why", answer.headers["Airgate-Request-Id"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("DENIED POST on ledger, ")
    assert "No policy permits this call (policy.no_match)" in done.stdout
    assert "Ask finance-data@example.com." in done.stdout
    assert "for finance-data-publish to match: hold the role finance-publisher" in done.stdout
    assert "of that time, from KV of local" in done.stdout


def test_a_run_is_told_by_task_and_try(
    stack: Stack, gate: httpx.Client, token: Callable[..., str], audit: Callable[..., Any]
) -> None:
    finance = token("finance-etl")
    run = f"{RUN}-told"
    for number, path in (("1", "/ledger/v1/reports/status/503"), ("2", "/ledger/v1/reports/2026?year=1")):
        sent = headers(finance, Dag_Id="finance_close", Task_Id="report", Run_Id=run, Try_Number=number)
        answer = gate.get(path, headers=sent)
        audit(answer, count=2)
    done = audit_command(stack, "trace", "--dag", "finance_close", "--run", run, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [(each["task"], each["try"], len(each["calls"])) for each in told["attempts"]] == [
        ("report", "1", 1),
        ("report", "2", 1),
    ]
    calls = [call for attempt in told["attempts"] for call in attempt["calls"]]
    assert [call["outcomes"][0]["status"] for call in calls] == [503, 200]
    assert calls[1]["decision"]["query"] == {"year": None}
    assert audit_command(stack, "trace", "--dag", "finance_close", "--run", "none").returncode == 1
