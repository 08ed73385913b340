"""What a worker does with attested tokens, in a real Airflow: each way to call, long tasks, nothing left behind."""

import json
import re
import time
from datetime import datetime
from typing import Any

import pytest

from attested import Attested

SECONDS = 60  # that a token lives in the fixture
TOKEN = re.compile(r"eyJ[\w-]{10,}\.eyJ[\w-]{20,}")


@pytest.fixture(scope="module")
def runs(attested: Attested) -> dict[str, str]:
    """All DAGs at once, by name: the id of the run, which is over but for worker_long."""
    started = {dag: attested.airflow.trigger(dag) for dag in ("worker_long", "worker", "worker_denied")}
    for dag in ("worker", "worker_denied"):
        attested.airflow.ended(dag, started[dag])
    return started


def decided(attested: Attested, task: str, dag: str = "worker") -> list[dict[str, Any]]:
    return attested.decisions(dag=dag, task=task)


@pytest.mark.parametrize(
    ("task", "calls"),
    [("stock", 1), ("pages", 2), ("ours", 1), ("stock_hook", 1)],
)
def test_a_task_calls_as_itself_however_it_calls(
    attested: Attested, runs: dict[str, str], task: str, calls: int
) -> None:
    assert attested.airflow.tries("worker")[task] == ("success", 1), attested.airflow.log("worker", task)[
        -4000:
    ]
    [ti] = attested.airflow.rows("SELECT id FROM task_instance WHERE dag_id = 'worker' AND task_id = ?", task)
    decisions = decided(attested, task)
    assert [event["decision"] for event in decisions] == ["permit"] * calls
    for event in decisions:
        assert all(fact["attested"] for fact in event["workload"].values()), event["workload"]
        assert event["workload"]["session"]["value"].replace("-", "") == ti[0].replace("-", "")
        assert event["workload"]["run"]["value"] == runs["worker"]


def test_a_trigger_carries_the_token_sealed(attested: Attested, runs: dict[str, str]) -> None:
    query = (
        "SELECT trigger.kwargs, task_instance.next_kwargs FROM trigger "
        "JOIN task_instance ON task_instance.trigger_id = trigger.id "
        "WHERE task_instance.dag_id = 'worker_long' AND task_instance.task_id = 'waits'"
    )
    deadline = time.monotonic() + 60
    while not (rows := attested.airflow.rows(query)):
        assert time.monotonic() < deadline, "the sensor does not defer"
        time.sleep(0.1)
    [(carried, kept)] = rows
    assert carried.startswith("{")  # Airflow has not encrypted it
    assert '"sealed": "gAAAA' in carried
    assert not TOKEN.search(carried + kept)
    page = f"/api/v2/dags/worker_long/dagRuns/{runs['worker_long']}/taskInstances/waits"
    shown = attested.airflow.api("GET", page).text
    assert "waits" in shown
    assert "gAAAA" not in shown
    assert not TOKEN.search(shown)


def test_a_denied_task_fails_at_once(attested: Attested, runs: dict[str, str]) -> None:
    assert attested.airflow.tries("worker")["denied"] == ("failed", 1)
    assert "policy.no_match" in attested.airflow.log("worker", "denied")
    assert len(decided(attested, "denied")) == 1


@pytest.mark.parametrize("task", ["stock", "deferred", "ours"])
def test_a_task_that_gets_no_token_is_told_where_the_reason_is(
    attested: Attested, runs: dict[str, str], task: str
) -> None:
    assert attested.airflow.tries("worker_denied")[task] == ("failed", 1)
    assert "attest.too_long" in attested.airflow.log("worker_denied", task)
    assert decided(attested, task, "worker_denied") == []
    server = (attested.airflow.home / "api-server.log").read_text(encoding="utf-8", errors="replace")
    assert "attest.too_long" in server


def test_a_connection_in_the_workers_own_environment_is_named(
    attested: Attested, runs: dict[str, str]
) -> None:
    assert attested.airflow.tries("worker")["past_the_server"] == ("failed", 1)
    assert "Remove AIRFLOW_CONN_OWN here" in attested.airflow.log("worker", "past_the_server")


def test_the_upstream_sees_no_token(attested: Attested, runs: dict[str, str]) -> None:
    seen = attested.airflow.xcom("worker", "stock_hook")
    assert seen["authorization"] == f"Bearer {attested.stack.secrets['UPSTREAM_LEDGER_TOKEN']}"
    assert not [name for name in seen if name.startswith("airgate-") or "attested" in name]


def test_a_task_outlives_its_token_and_gets_another(attested: Attested, runs: dict[str, str]) -> None:
    attested.airflow.ended("worker_long", runs["worker_long"], seconds=240)
    assert attested.airflow.tries("worker_long")["works"] == ("success", 1)
    first, second = decided(attested, "works", "worker_long")
    assert second["token_id"] != first["token_id"]
    assert second["workload"]["session"] == first["workload"]["session"]


def test_a_deferred_sensor_outlives_its_token_and_still_ends_in_time(
    attested: Attested, runs: dict[str, str]
) -> None:
    attested.airflow.ended("worker_long", runs["worker_long"], seconds=240)
    assert attested.airflow.tries("worker_long")["waits"] == ("failed", 1)
    log = attested.airflow.log("worker_long", "waits")
    assert "Back for a new token" in log
    assert "AirflowSensorTimeout" in log
    decisions = decided(attested, "waits", "worker_long")
    assert {event["decision"] for event in decisions} == {"permit"}
    assert len({event["token_id"] for event in decisions}) >= 3  # its first poke, and two deferrals
    assert len({event["workload"]["session"]["value"] for event in decisions}) == 1
    times = [datetime.fromisoformat(event["time"]).timestamp() for event in decisions]
    assert SECONDS < times[-1] - times[0] < 120


def test_a_deferred_sensor_outlives_its_token_and_finds_what_it_waits_for(
    attested: Attested, runs: dict[str, str]
) -> None:
    attested.airflow.ended("worker_long", runs["worker_long"], seconds=240)
    assert attested.airflow.tries("worker_long")["arrives"] == ("success", 1)
    assert "Back for a new token" in attested.airflow.log("worker_long", "arrives")
    decisions = decided(attested, "arrives", "worker_long")
    assert {event["decision"] for event in decisions} == {"permit"}
    assert len({event["token_id"] for event in decisions}) >= 2


def test_no_token_is_left_in_the_database_in_the_rest_api_or_in_a_log(
    attested: Attested, runs: dict[str, str]
) -> None:
    attested.airflow.ended("worker_long", runs["worker_long"], seconds=240)
    dump = "\n".join(
        json.dumps([str(value) for value in row])
        for (table,) in attested.airflow.rows("SELECT name FROM sqlite_master WHERE type = 'table'")
        for row in attested.airflow.rows(f"SELECT * FROM {table}")
    )
    assert not TOKEN.findall(dump)
    logs = {
        file.name: TOKEN.findall(file.read_text(encoding="utf-8", errors="replace"))
        for file in attested.airflow.home.rglob("*.log")
    }
    assert not {name: found for name, found in logs.items() if found}
