"""`make demo-airflow`: an unchanged Airflow DAG goes through the gate, a task is denied, and none needs a key.

A real Airflow beside the local stack, both on free ports and in a temporary folder. Exit codes: 0 everything went as it
should, 1 something didn't (the reason is printed).
"""

import json
import secrets
import shutil
import sys
import tempfile
import time
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape

from airgate.dev.airflow import Airflow, AirflowError, free_port
from airgate.dev.audit import events
from airgate.dev.command import end_on_signals
from airgate.dev.signing import new_keys
from airgate.dev.stack import AUDIENCE, LocalStack, Ports, Stack, StackError
from airgate.node import NodeMissing, WranglerFailed
from airgate.policy.publish import PublishError, publish_local
from airgate.policy.seed import STARTER, SeedError

VERSION = "3.3"
DAG_ID, POST, READ = "finance_close", "post_entry", "read_accounts"
OTHER, PUBLISH, PRETEND = "sales_report", "publish", "pretend"
VOUCHED = "ledger_vouched"
DIES_WITHIN = 10.0  # seconds; it takes about two

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
    HttpOperator(
        task_id="publish",
        http_conn_id="ledger_vouched",
        endpoint="v1/entries",
        method="POST",
        data='{"account": "4711", "amount": "250.00"}',
        response_filter=keep,
    )
"""

# What the DAG's author leaves out of the picture: a way to keep the task's token aside, for the last step.
KEEP = """
def keep(response):
    import os
    from airflow.sdk import BaseHook

    with open(os.environ["AIRGATE_DEMO_KEPT"], "w") as file:
        file.write(BaseHook.get_connection("ledger_vouched").password)
    return response.text
"""

# Another team's, on the same Airflow: the same connection, the same call; and one that says it is somebody else.
OTHER_DAG = """
from datetime import datetime
from airflow.sdk import DAG
from airflow.providers.http.operators.http import HttpOperator

with DAG("sales_report", schedule="@once", start_date=datetime(2026, 1, 1)):
    call = {"http_conn_id": "ledger_vouched", "endpoint": "v1/entries", "method": "POST", "data": "{}"}
    HttpOperator(task_id="publish", **call)
    HttpOperator(
        task_id="pretend",
        headers={"Airgate-Dag-Id": "finance_close", "Airgate-Task-Id": "publish"},
        **call,
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
    dags, kept, port = folder / "dags", folder / "kept-token", free_port()
    dags.mkdir()
    (dags / "finance_close.py").write_text(KEEP + DAG, encoding="utf-8")
    (dags / "sales_report.py").write_text(OTHER_DAG, encoding="utf-8")
    issuer = f"http://127.0.0.1:{port}/airgate"
    seed = _seed(folder / "kv-seed", issuer)
    local = LocalStack(
        folder / "stack",
        ports=Ports(0, 0, 0),
        publish=lambda stack: publish_local(seed, stack, "the demonstration begins"),
        say=_progress,
    )
    with local as stack:
        connections = {name: _connection(stack, name) for name in ("ledger", "crm")}
        vouched = {
            "conn_type": "airgate",
            "host": stack.gate,
            "extra": {"upstream": "ledger", "identity": "attested"},
        }
        variables = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections.items()}
        with Airflow(
            VERSION,
            folder / "airflow",
            dags=dags,
            variables={**variables, "AIRGATE_DEMO_KEPT": str(kept)},
            api_variables=_attesting(issuer, vouched),
            port=port,
            say=_progress,
        ) as airflow:
            _title(1, "The DAG, as it always was")
            shown = DAG.partition(f"{' ' * 4}HttpOperator(")[0].strip().splitlines()[4:]
            console.print("\n".join(f"     {escape(line)}" for line in shown), style="dim")
            _title(2, "What has changed: the type of its connections")
            _show_connection("ledger", {**connections["ledger"], "password": "…"})
            _progress("\nAirflow runs the DAG")
            airflow.wait(DAG_ID, OTHER)
            _permitted(airflow, stack)
            _denied(airflow, stack)
            _title(5, "No key at all: Airflow's API server vouches for each task")
            _show_connection(VOUCHED, vouched)
            _show(
                "in Airflow",
                "airflow.cfg, of the API server only: [airgate] attest = True, and a signing key",
            )
            _vouched(airflow, stack)
            _pretended(airflow, stack)
            _died(stack, kept)
            _progress("\nEnding Airflow, the gate, the provider and the sample API")


def _seed(folder: Path, issuer: str) -> Path:
    """The starter policies, with this Airflow in place of the company's."""
    shutil.copytree(STARTER, folder)
    file = folder / "issuers" / "airflow.yaml"
    text = file.read_text(encoding="utf-8")
    named = "issuer: https://airflow.example.com/airgate"
    _require(text.count(named) == 1, f"{file.name} should say {named}")
    file.write_text(text.replace(named, f"issuer: {issuer}"), encoding="utf-8")
    return folder


def _attesting(issuer: str, vouched: dict[str, Any]) -> dict[str, str]:
    """What only Airflow's API server knows: the signing key, and the connection that stands for being vouched for."""
    [key] = [key for key in new_keys()["keys"] if key["alg"] == "ES256"]
    settings = {
        "AIRGATE__ATTEST": "True",
        "AIRGATE__ATTEST_ISSUER": issuer,
        "AIRGATE__ATTEST_AUDIENCE": AUDIENCE,
        "AIRGATE__ATTEST_KEYS": json.dumps({"keys": [{**key, "kid": f"airflow-{secrets.token_hex(4)}"}]}),
        "SECRETS__BACKEND": "airgate_provider.backend.AirgateSecretsBackend",
    }
    named = {f"AIRFLOW__{name}": value for name, value in settings.items()}
    return {**named, f"AIRFLOW_CONN_{VOUCHED.upper()}": json.dumps(vouched)}


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


def _vouched(airflow: Airflow, stack: Stack) -> None:
    _title(6, f"Two DAGs, the same connection, the same call: {DAG_ID} may, {OTHER} may not")
    state, _ = airflow.tries(DAG_ID)[PUBLISH]
    _require(
        state == "success",
        f"{PUBLISH} should succeed, but is {state}:\n{airflow.log(DAG_ID, PUBLISH)[-2000:]}",
    )
    permitted, denied = _decision(stack, DAG_ID, PUBLISH), _decision(stack, OTHER, PUBLISH)
    _require(permitted["decision"] == "permit", f"{DAG_ID} should be permitted, but: {permitted['reason']}")
    _require(
        denied["reason"] == "policy.no_match",
        f"{OTHER} should match no policy, but: {denied['reason'] or 'permitted'}",
    )
    for decision in (permitted, denied):
        facts = decision["workload"]
        _require(
            all(fact["attested"] for fact in facts.values()),
            "everything on record should be attested, but isn't",
        )
        said = f"{facts['dag']['value']}.{facts['task']['value']}, {facts['run_type']['value']} run, attested"
        _show("on record", f"{decision['decision']:<7} {said}")
    _tick(f"permitted by {permitted['permits'][0]}; no worker holds anything that opens the gate")


def _pretended(airflow: Airflow, stack: Stack) -> None:
    _title(7, f"{OTHER}.{PRETEND} says in its headers that it is {DAG_ID}.{PUBLISH}")
    state, _ = airflow.tries(OTHER)[PRETEND]
    decision = _decision(stack, OTHER, PRETEND)
    _require(
        (state, decision["reason"]) == ("failed", "policy.no_match"),
        f"{PRETEND} should be denied, but is {state}: {decision['reason'] or 'permitted'}",
    )
    _show("sent", f"Airgate-Dag-Id: {DAG_ID}, Airgate-Task-Id: {PUBLISH}")
    _show("on record", f"deny    {OTHER}.{PRETEND}, attested")
    _tick("denied: who a task is stands in its token, and Airflow's database has said so")


def _died(stack: Stack, kept: Path) -> None:
    _title(8, f"{DAG_ID}.{PUBLISH} has ended, and somebody kept its token")
    token = kept.read_text(encoding="ascii")
    body = token.split(".")[1]
    claims = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    _show("the token", f"signature intact, good for another {claims['exp'] - time.time():.0f} s")
    deadline = time.monotonic() + DIES_WITHIN
    while True:
        answer = httpx.post(
            f"{stack.gate}/ledger/v1/entries",
            headers={"Authorization": f"Bearer {token}"},
            json={},
            timeout=30,
            trust_env=False,
        )
        code = answer.json().get("code")
        if code == "token.session_ended":
            break
        _require(
            time.monotonic() < deadline,
            f"the token should be refused, but the answer is {answer.status_code}",
        )
        time.sleep(0.2)
    _show("answer", f"{answer.status_code} {code}: {answer.json()['title']}")
    _tick("tokens die with the task: Airflow told the gate when it ended")


def _decision(stack: Stack, dag: str, task: str) -> dict[str, Any]:
    """The last decision on record about a task."""
    for line in reversed(stack.audit.read_text(encoding="utf-8").splitlines()):
        event: dict[str, Any] = json.loads(line)
        said = {name: fact["value"] for name, fact in event.get("workload", {}).items()}
        if event["event"] == "decision" and (said.get("dag"), said.get("task")) == (dag, task):
            return event
    raise DemoFailed(f"{dag}.{task} should be on record, but isn't.")


def _show_connection(name: str, connection: dict[str, Any]) -> None:
    console.print(f"     {name} = {escape(json.dumps(connection, ensure_ascii=False))}", style="bold")


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
