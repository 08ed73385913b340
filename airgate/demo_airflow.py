"""`make demo-airflow`: an unchanged Airflow DAG goes through the gate, and one of its tasks is denied.

A real Airflow beside the local stack, both on free ports and in a temporary folder. Exit codes: 0 everything went as it
should, 1 something didn't (the reason is printed).
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from airgate.dev.airflow import Airflow, AirflowError
from airgate.dev.audit import events
from airgate.dev.command import end_on_signals
from airgate.dev.stack import LocalStack, Ports, Stack, StackError
from airgate.node import NodeMissing, WranglerFailed
from airgate.policy.publish import PublishError, publish_local
from airgate.policy.seed import STARTER, SeedError

VERSION = "3.3"
DAG_ID, POST, READ = "finance_close", "post_entry", "read_accounts"

# What a team has had for years. Nothing in it knows of a gate.
DAG = """
from datetime import datetime, timedelta
from airflow.sdk import DAG
from airflow.providers.http.operators.http import HttpOperator

with DAG("finance_close", schedule="@once", start_date=datetime(2026, 1, 1), tags=["finance"]):
    post = HttpOperator(
        task_id="post_entry",
        http_conn_id="ledger",
        endpoint="v1/entries",
        method="POST",
        data='{"account": "4711", "amount": "250.00"}',
    )
    read = HttpOperator(
        task_id="read_accounts",
        http_conn_id="crm",
        endpoint="v1/accounts",
        method="GET",
        retries=3,
        retry_delay=timedelta(minutes=5),
    )
"""

console = Console(highlight=False, soft_wrap=True)


class DemoFailed(Exception):
    """Something did not go as it should. The message says what was expected, and what came."""


def main() -> int:
    """The whole demonstration."""
    end_on_signals()
    console.print(
        f"[bold]Airgate and Airflow.[/] A gate, an OpenID provider, a sample API and Airflow {VERSION}, all on this "
        "machine.\n"
    )
    try:
        with tempfile.TemporaryDirectory(prefix="airgate-demo-") as folder:
            _run(Path(folder))
    except KeyboardInterrupt:
        console.print("\nThe demonstration was ended; so is everything it started.")
        return 1
    except (
        AirflowError,
        DemoFailed,
        NodeMissing,
        PublishError,
        SeedError,
        StackError,
        WranglerFailed,
    ) as error:
        console.print(f"\n[bold red]✗ The demonstration failed.[/] {escape(str(error))}")
        return 1
    console.print(
        "\n[bold green]Every step went as it should.[/] Next: airflow_plugin/README.md has the three-minute path."
    )
    return 0


def _run(folder: Path) -> None:
    dags = folder / "dags"
    dags.mkdir()
    (dags / "finance_close.py").write_text(DAG, encoding="utf-8")
    local = LocalStack(
        folder / "stack",
        ports=Ports(0, 0, 0),
        publish=lambda stack: publish_local(STARTER, stack, "the demonstration begins"),
        say=_progress,
    )
    with local as stack:
        connections = {name: _connection(stack, name) for name in ("ledger", "crm")}
        variables = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections.items()}
        with Airflow(VERSION, folder / "airflow", dags=dags, variables=variables, say=_progress) as airflow:
            _title(1, "The DAG, as it always was")
            console.print(
                "\n".join(f"     {escape(line)}" for line in DAG.strip().splitlines()[4:]), style="dim"
            )
            _title(2, "What has changed: the type of its connections")
            shown = {**connections["ledger"], "password": "…"}
            console.print(f"     ledger = {escape(json.dumps(shown, ensure_ascii=False))}", style="bold")
            _progress("\nAirflow runs the DAG")
            airflow.wait(DAG_ID)
            _permitted(airflow, stack)
            _denied(airflow, stack)
            _progress("\nEnding Airflow, the gate, the provider and the sample API")


def _connection(stack: Stack, upstream: str) -> dict[str, Any]:
    client = stack.clients["finance-etl"]
    return {
        "conn_type": "airgate",
        "host": stack.gate,
        "login": client["client_id"],
        "password": client["client_secret"],
        "extra": {"upstream": upstream, "token_url": f"{stack.provider}/token"},
    }


def _permitted(airflow: Airflow, stack: Stack) -> None:
    _title(3, f"{POST} went through the gate")
    state, _ = airflow.tries(DAG_ID)[POST]
    _require(
        state == "success", f"{POST} should succeed, but is {state}:\n{airflow.log(DAG_ID, POST)[-2000:]}"
    )
    seen = json.loads(airflow.xcom(DAG_ID, POST))
    leaked = [name for name in seen["headers"] if name.startswith("airgate-")]
    _require(not leaked, f"the upstream should see no header of the gate, but saw {', '.join(leaked)}")
    key = stack.secrets["UPSTREAM_LEDGER_TOKEN"]
    _require(
        seen["headers"]["authorization"] == f"Bearer {key}",
        "the upstream should see the gate's own key in Authorization, but saw something else",
    )
    _show("upstream saw", f"{seen['method']} {seen['path']}  {seen['body']}")
    _show("", f"headers: {', '.join(sorted(seen['headers']))}")
    _show("", f"authorization: Bearer {key[:11]}…, which only the gate knows")
    request_id = airflow.xcom(DAG_ID, POST, "airgate_request_id")
    [decision, *_] = events(stack.audit, str(request_id))
    said = {name: fact["value"] for name, fact in decision["workload"].items()}
    _show("on record", f"{decision['subject']} for {said['dag']}.{said['task']}, try {said['try']}")
    _tick(f"permitted by {decision['permits'][0]}; request id {request_id}")


def _denied(airflow: Airflow, stack: Stack) -> None:
    _title(4, f"{READ} was denied: no policy lets finance read customers")
    state, tries = airflow.tries(DAG_ID)[READ]
    _require(
        (state, tries) == ("failed", 1), f"{READ} should fail at its first try, but: {state}, try {tries}"
    )
    for line in _sentence(airflow.log(DAG_ID, READ)).splitlines():
        console.print(f"     {escape(line)}")
    request_id = airflow.xcom(DAG_ID, READ, "airgate_request_id")
    calls = [
        event
        for line in stack.audit.read_text(encoding="utf-8").splitlines()
        for event in [json.loads(line)]
        if event["event"] == "decision" and event.get("workload", {}).get("task", {}).get("value") == READ
    ]
    _require(len(calls) == 1, f"there should be one call on record, but there are {len(calls)}")
    _require(calls[0]["request_id"] == request_id, "XCom should hold the request id that is on record")
    _tick("one call, failed at once though retries=3; nobody is woken at night")


def _sentence(log: str) -> str:
    """The message of the error that failed a task, out of Airflow's log of JSON lines."""
    for line in log.splitlines():
        if line.startswith("{") and (details := json.loads(line).get("error_detail")):
            return str(details[0]["exc_value"])
    raise DemoFailed(f"The log should say why the task failed, but holds:\n{log[-2000:]}")


def _require(truth: bool, otherwise: str) -> None:
    if not truth:
        raise DemoFailed(f"Here {otherwise}.")


def _title(number: int, text: str) -> None:
    console.print(f"\n[bold cyan]{number}[/]  [bold]{escape(text)}[/]")


def _show(label: str, text: str) -> None:
    console.print(f"     [dim]{escape(label):<13}[/]{escape(text)}")


def _tick(text: str) -> None:
    console.print(f"     [green]✓ {escape(text)}[/]")


def _progress(text: str) -> None:
    console.print(f"[dim]{escape(text)} …[/]")


if __name__ == "__main__":
    sys.exit(main())
