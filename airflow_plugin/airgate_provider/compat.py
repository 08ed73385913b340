"""What differs between the versions of Airflow: nothing else in this package asks which one runs."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from typing import Any

from airflow import __version__
from airflow.providers.common.compat.sdk import get_current_context

AIRFLOW = __version__
VERSION = tuple(int(part) for part in AIRFLOW.split(".")[:2])
MAJOR_3 = VERSION >= (3, 0)
ATTESTS = VERSION >= (3, 3)  # whether an API server can say who a task is, and a deferral carry that

# For a task's process to end and for the scheduler to read of it: one loop of a scheduler that has much to do.
SCHEDULER_SECONDS = 5.0


def settle_seconds() -> float:
    """How long a trigger has to run at least before it fires.

    The executor tells the scheduler that the process which deferred is over. When the task is queued again by then,
    Airflow 3 takes that for the end of the resumed task and fails it as a "state mismatch" (apache/airflow #71580,
    #72716). The process's supervisor sees the end at its next look, which often is a whole heartbeat interval later.
    """
    if not MAJOR_3:
        return 0.0
    from airflow.providers.common.compat.sdk import conf

    interval: float = conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0)
    return interval + SCHEDULER_SECONDS


def current_context() -> dict[str, Any] | None:
    """The context of the running task. None outside of one."""
    try:
        return dict(get_current_context())
    except Exception:  # each version raises another one, and none of them means more than "no task"
        return None


def task_span(context: dict[str, Any]) -> str:
    """Airflow's own span of the running try, as a traceparent; empty where there is none."""
    if MAJOR_3:
        carrier = getattr(context["ti"], "context_carrier", None)
        said = carrier.get("traceparent") if isinstance(carrier, dict) else None
        return said if isinstance(said, str) else ""
    from airflow.configuration import conf

    run, ti = context.get("dag_run"), context["ti"]
    if getattr(run, "start_date", None) is None or not conf.getboolean("traces", "otel_on", fallback=False):
        return ""
    # The scheduler makes it when the task is over, under ids that follow from the run's name and the try's.
    from airflow.traces.utils import gen_span_id_from_ti_key, gen_trace_id  # type: ignore[import-not-found]

    return f"00-{gen_trace_id(run)}-{gen_span_id_from_ti_key(ti.key)}-01"


def set_xcom(context: dict[str, Any], key: str, value: str) -> None:
    """Write an XCom of the running task."""
    context["ti"].xcom_push(key=key, value=value)


def get_xcom(ti_key: Any, key: str) -> str | None:
    """An XCom of any task instance, read where links are made: in the API server, or in the webserver."""
    if MAJOR_3:
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        query = XComModel.get_many(
            key=key,
            run_id=ti_key.run_id,
            dag_ids=ti_key.dag_id,
            task_ids=ti_key.task_id,
            map_indexes=ti_key.map_index,
        ).with_only_columns(XComModel.value)
        with create_session() as session:
            row = session.execute(query).first()
        if row is None:
            return None
        value = row.value
        if isinstance(value, str) and value.startswith('"'):
            import json

            value = json.loads(value)
        return str(value)
    from airflow.models.xcom import XCom

    found = XCom.get_value(ti_key=ti_key, key=key)
    return None if found is None else str(found)


def task_page(ti_key: Any) -> str:
    """Airflow's own page with the XComs of a task instance."""
    from urllib.parse import quote

    dag, run, task = (quote(part, safe="") for part in (ti_key.dag_id, ti_key.run_id, ti_key.task_id))
    if MAJOR_3:
        mapped = f"/mapped/{ti_key.map_index}" if ti_key.map_index >= 0 else ""
        return f"/dags/{dag}/runs/{run}/tasks/{task}{mapped}/xcom"
    mapped = f"&map_index={ti_key.map_index}" if ti_key.map_index >= 0 else ""
    return f"/dags/{dag}/grid?dag_run_id={run}&task_id={task}{mapped}&tab=xcom"


def other_backends(own: type) -> Iterator[Any]:
    """The secrets backends of this process that stand behind one of ours, in their order."""
    if MAJOR_3 and "airflow.sdk.execution_time.supervisor" in sys.modules:
        from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

        backends: list[Any] = list(ensure_secrets_backend_loaded())
    else:
        from airflow.configuration import ensure_secrets_loaded

        backends = list(ensure_secrets_loaded())
    yield from (backend for backend in backends if not isinstance(backend, own))


def ask(backend: Any, conn_id: str, team_name: str | None) -> Any:
    """What a secrets backend has for a team (Airflow 3); one that doesn't know of teams is asked without."""
    parameters = inspect.signature(backend.get_connection).parameters.values()
    if any(each.name == "team_name" or each.kind is each.VAR_KEYWORD for each in parameters):
        return backend.get_connection(conn_id=conn_id, team_name=team_name)
    return backend.get_connection(conn_id=conn_id)


def make_connection(**values: Any) -> Any:
    """A connection of the class that this version hands to tasks."""
    if MAJOR_3:
        from airflow.sdk import Connection

        return Connection(**values)
    from airflow.models import Connection as Model

    return Model(**values)


def environment_context() -> dict[str, str]:
    """The names that Airflow leaves in the environment of a task (AIRFLOW_CTX_…). Empty in a triggerer."""
    return {
        name: value
        for name in ("DAG_ID", "TASK_ID", "DAG_RUN_ID", "TRY_NUMBER")
        if (value := os.environ.get(f"AIRFLOW_CTX_{name}"))
    }
