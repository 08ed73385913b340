"""What the gate is told of a task, and what makes a repeated call recognizable."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from airgate_provider import compat
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


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
OTHER_TRACE, OTHER_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def header(trace_id: str = TRACE, span_id: str = SPAN, flags: str = "01") -> str:
    return f"00-{trace_id}-{span_id}-{flags}"


@contextmanager
def current(said: str) -> Iterator[None]:
    """Code that runs within a span."""
    _, trace_id, span_id, flags = said.split("-")
    context = SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(int(flags, 16))
    )
    with trace.use_span(NonRecordingSpan(context)):
        yield


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in which spans are recorded."""
    monkeypatch.setattr(trace, "get_tracer_provider", TracerProvider)


def traced(span: str) -> Workload:
    return Workload(TASK.dag, TASK.task, TASK.run, span=span)


def test_a_calls_trace_is_that_of_the_span_which_the_task_runs_in() -> None:
    with current(header()):
        assert traceparent(TASK) == traceparent(None) == header()
        assert traceparent(traced(header(span_id=OTHER_SPAN))) == header()


def test_in_another_thread_it_is_that_of_the_span_which_airflow_has_for_the_task() -> None:
    with current(header(span_id=OTHER_SPAN)), ThreadPoolExecutor(1) as threads:
        assert threads.submit(traceparent, traced(header())).result() == header()


def test_a_span_that_is_none_of_this_tasks_is_no_parent() -> None:
    with current(header(OTHER_TRACE, OTHER_SPAN)):
        assert traceparent(traced(header())) == header()


@pytest.mark.usefixtures("recording")
def test_a_span_that_a_sampler_left_out_stays_out() -> None:
    unsampled = header(flags="00")
    with current(unsampled):
        assert traceparent(TASK) == unsampled
    assert traceparent(traced(unsampled)) == unsampled


def test_where_airflow_does_not_trace_its_ids_do_not_say_that_nobody_may() -> None:
    unsampled = header(flags="00")
    with current(unsampled):
        found = traceparent(traced(unsampled))
    assert found.startswith(f"00-{TASK.trace_id()}-")
    assert found.endswith("-01")


@pytest.mark.parametrize(
    "said", ["", "rubbish", header("0" * 32), header(span_id="0" * 16), header() + "\r\nX: y"]
)
@pytest.mark.usefixtures("recording")
def test_what_is_no_span_is_not_passed_on(said: str) -> None:
    assert traceparent(traced(said)).startswith(f"00-{TASK.trace_id()}-")


def test_a_trigger_goes_on_with_the_tasks_trace() -> None:
    kept = json.loads(json.dumps(traced(header()).to_dict()))
    found = Workload.from_dict(kept)
    assert found is not None
    assert traceparent(found) == header()
    del kept["span"]  # as an older version of this package kept it
    assert Workload.from_dict(kept) == TASK


def test_which_span_it_is_makes_no_other_task_or_call() -> None:
    assert traced(header()) == TASK
    assert hash(traced(header())) == hash(TASK)
    assert traced(header()).idempotency_key() == TASK.idempotency_key()
    assert traced(header()).headers() == TASK.headers()


@pytest.mark.skipif(not compat.MAJOR_3, reason="Airflow 2 carries no context")
@pytest.mark.parametrize(
    ("carrier", "said"),
    [
        ({"traceparent": header(), "tracestate": "airflow/task_span_detail_level=2"}, header()),
        ({}, ""),
        ({"traceparent": None}, ""),
        (None, ""),
    ],
)
def test_airflow_3_carries_a_tasks_span(carrier: Any, said: str) -> None:
    ti = SimpleNamespace(
        dag_id="d", task_id="t", run_id="r", try_number=1, map_index=None, context_carrier=carrier
    )
    found = Workload.from_context({"ti": ti})
    assert found is not None
    assert found.span == said


@pytest.mark.skipif(not compat.MAJOR_3, reason="Airflow 2 makes a task's span elsewhere")
def test_airflow_3_runs_a_task_within_its_span() -> None:
    """By Airflow's own code: a task that is traced, and one that is not."""
    from airflow.sdk.execution_time import task_runner

    ti = SimpleNamespace(dag_id="d", task_id="t", run_id="r", try_number=1, map_index=-1)
    provider = TracerProvider()
    for flags, sampled in (("01", True), ("00", False)):
        ti.context_carrier = {"traceparent": header(flags=flags)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(task_runner, "tracer", provider.get_tracer("test"))
            patch.setattr(trace, "get_tracer_provider", lambda: provider)
            with task_runner._make_task_span(SimpleNamespace(ti=ti)) as span:  # type: ignore[arg-type]
                workload = Workload.from_context({"ti": ti})
                own = span.get_span_context()
                assert traceparent(workload) == header(span_id=f"{own.span_id:016x}", flags=flags)
                assert own.is_valid
                assert bool(own.trace_flags & 1) is sampled
    with task_runner._make_task_span(SimpleNamespace(ti=ti)):  # type: ignore[arg-type]
        assert traceparent(workload)[3:35] == workload.trace_id()


@pytest.mark.skipif(compat.MAJOR_3, reason="Airflow 3 carries the span")
@pytest.mark.parametrize("on", [True, False])
def test_airflow_2_makes_a_tasks_span_when_it_is_over_under_ids_that_are_known_before(
    on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.traces.utils import gen_span_id, gen_trace_id

    monkeypatch.setenv("AIRFLOW__TRACES__OTEL_ON", str(on))
    run = SimpleNamespace(dag_id="d", run_id="r", start_date=datetime(2026, 11, 1, 9, 30, 0, 125, UTC))
    key = SimpleNamespace(dag_id="d", run_id="r", task_id="t", try_number=2)
    ti = SimpleNamespace(**vars(key), map_index=-1, key=key, dag_run=run)
    found = Workload.from_context({"ti": ti, "dag_run": run})
    assert found is not None
    assert found.span == (f"00-{gen_trace_id(run)}-{gen_span_id(ti)}-01" if on else "")  # type: ignore[arg-type]
    with current(header()):  # the executor's
        assert traceparent(found) == (found.span or header())
    run.start_date = None
    later = Workload.from_context({"ti": ti, "dag_run": run})
    assert later is not None
    assert later.span == ""
