"""What the gate is told of a task, and what makes a repeated call recognizable."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from airgate_provider.workload import MOST_TASKS, Calls, Workload, traceparent

TASK = Workload("finance_close", "post", "manual__2026-11-01T00:00:00+00:00")


@pytest.mark.parametrize(
    ("workload", "header", "value"),
    [
        (TASK, "Airgate-Run-Id", "manual__2026-11-01T00:00:00+00:00"),
        (TASK, "Airgate-Try-Number", "1"),
        (TASK, "Airgate-Map-Index", None),
        (TASK, "Airgate-Dag-Tags", None),
        (Workload("d", "t", "r", map_index=0), "Airgate-Map-Index", "0"),
        (Workload("jahr_märz", "t", "r"), "Airgate-Dag-Id", "jahr_m%C3%A4rz"),
        (Workload("d", "t", "a\r\nAirgate-Role: x"), "Airgate-Run-Id", "a%0D%0AAirgate-Role: x"),
        (Workload("d", "t", "r", tags=("a,b", "c d")), "Airgate-Dag-Tags", "a%2Cb, c d"),
    ],
)
def test_headers(workload: Workload, header: str, value: str | None) -> None:
    assert workload.headers().get(header) == value


def test_a_task_is_read_from_its_context() -> None:
    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", try_number=3, map_index=5)
    context = {"ti": ti, "dag": SimpleNamespace(tags={"b", "a"})}
    found = Workload.from_context(context)
    assert found == Workload("d", "t", "r", 3, 5, ("a", "b"))
    assert found is not None
    assert Workload.from_dict(found.to_dict()) == found


def test_a_task_is_read_from_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Workload.from_context(None) is None
    for name, value in {"DAG_ID": "d", "TASK_ID": "t", "DAG_RUN_ID": "r", "TRY_NUMBER": "2"}.items():
        monkeypatch.setenv(f"AIRFLOW_CTX_{name}", value)
    assert Workload.from_context(None) == Workload("d", "t", "r", 2)


def test_a_key_is_of_dag_run_task_and_map_index_and_nothing_else() -> None:
    keys = [
        Workload("d", "t", "r"),
        Workload("x", "t", "r"),
        Workload("d", "x", "r"),
        Workload("d", "t", "x"),
        Workload("d", "t", "r", map_index=0),
        Workload("d", "t", "r", map_index=1),
    ]
    assert len({each.idempotency_key() for each in keys}) == len(keys)
    assert Workload("d", "t", "r", 2, tags=("a",)).idempotency_key() == keys[0].idempotency_key()
    assert keys[0].idempotency_key(2) != keys[0].idempotency_key(1)


def test_different_calls_are_counted_and_repeated_ones_are_not() -> None:
    calls = Calls()
    bodies: list[Any] = [b"one", "one", "two", None, object(), b"one"]
    assert [calls.number(TASK, "POST", "https://g/x", body) for body in bodies] == [1, 1, 2, 3, 3, 1]
    assert calls.number(TASK, "PUT", "https://g/x", b"one") == 4
    assert calls.number(Workload("d", "t", "r"), "POST", "https://g/x", b"two") == 1
    for number in range(MOST_TASKS):
        calls.number(Workload("d", "t", str(number)), "GET", "", b"")
    assert len(calls._seen) == MOST_TASKS


def test_one_trace_for_a_dag_run() -> None:
    first, second = traceparent(TASK), traceparent(Workload(TASK.dag, "other", TASK.run))
    for each in (first, second, traceparent(None)):
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", each)
    assert first.split("-")[1] == second.split("-")[1]
    assert first.split("-")[2] != second.split("-")[2]
