"""Where the connection's type alone is not enough: what stock operators and sensors do past their hook.

A deferred call is made by a trigger that knows nothing of the type, and a sensor makes its own hook. Each function here
takes the task as its first argument, and is used for the stock classes (policy.py) and for ours.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, BaseHook
from airflow.providers.http.triggers.http import HttpResponseSerializer, HttpSensorTrigger, HttpTrigger

from airgate_provider import compat, hooks
from airgate_provider.errors import GateBusy, GateDenied
from airgate_provider.retries import Pause
from airgate_provider.settings import CONN_TYPE
from airgate_provider.triggers import AirgateSensorTrigger, AirgateTrigger
from airgate_provider.workload import Workload


def is_gated(task: Any) -> bool:
    """Whether a task's connection is of our type. A connection that isn't there is for the stock code to report.

    Raises what Airflow does when it can't say: the stock code could get the connection a moment later, and would send
    its secret.
    """
    conn_id: str = task.http_conn_id
    known: dict[str, bool] = task.__dict__.setdefault("_airgate_gated", {})
    if conn_id not in known:
        try:
            known[conn_id] = BaseHook.get_connection(conn_id).conn_type == CONN_TYPE
        except AirflowNotFoundException:
            return False
    return known[conn_id]


def was_gated(task: Any) -> bool:
    """The same after the call, which must not be made again because Airflow can't say: our code reads both events."""
    try:
        return is_gated(task)
    except Exception:
        return True


def trigger_for(task: Any, trigger: Any, kwargs: dict[str, Any] | None) -> Any:
    """Our trigger in place of a stock one. `kwargs` are those of the deferral: earlier pages are among them."""
    workload = Workload.from_context(compat.current_context())
    more: dict[str, Any] = {
        "upstream": getattr(task, "upstream", None),
        "roles": roles(getattr(task, "roles", None)),
        "justification": getattr(task, "justification", None),
        "workload": None if workload is None else workload.to_dict(),
    }
    names: tuple[str, ...]
    if type(trigger) is HttpTrigger:
        names = ("http_conn_id", "method", "endpoint", "headers", "data", "extra_options")
        pages = len((kwargs or {}).get("paginated_responses") or ())
        return AirgateTrigger(**{name: getattr(trigger, name) for name in names}, **more, number=pages + 1)
    if type(trigger) is HttpSensorTrigger:
        names = ("endpoint", "http_conn_id", "method", "data", "headers", "extra_options", "poke_interval")
        return AirgateSensorTrigger(**{name: getattr(trigger, name) for name in names}, **more)
    return trigger


def pack(kwargs: dict[str, Any] | None) -> dict[str, Any] | None:
    """The arguments of a deferral with earlier pages as plain values: Airflow 3 cannot keep the stock operator's."""
    pages = (kwargs or {}).get("paginated_responses")
    if not kwargs or not pages:
        return kwargs
    return {**kwargs, "paginated_responses": [HttpResponseSerializer.serialize(page) for page in pages]}


def unpack(pages: list[Any] | None) -> list[Any] | None:
    """What pack() made of earlier pages."""
    return pages and [
        HttpResponseSerializer.deserialize(page) if isinstance(page, dict) else page for page in pages
    ]


def check_event(task: Any, context: Any, event: Any) -> None:
    """Leave the request id where people look, and raise what an event of our triggers asks for."""
    if not isinstance(event, dict):
        return
    request_id = event.get("request_id")
    if event.get("status") == "success" and (response := event.get("response")) is not None:
        headers = {name.lower(): value for name, value in response["headers"].items()}
        request_id = headers.get("airgate-request-id")
    if request_id:
        said = hooks.settings_of(task.http_conn_id)
        hooks.remember(context, request_id, said.request_page if said is not None else "")
    if event.get("status") != "error":
        return
    message, retry_after = event.get("message", ""), event.get("retry_after")
    if event.get("final"):
        raise GateDenied(message)
    if retry_after is not None:
        error = GateBusy(message, float(retry_after))
        Pause.before_retry(error, context)
        raise error
    raise AirflowException(message)


def poke(task: Any, context: Any) -> Any:
    """HttpSensor.poke with our hook. A gate that is busy counts as not yet."""
    from airflow.providers.common.compat.sdk import determine_kwargs

    hook = hooks.AirgateHook(
        method=task.method,
        http_conn_id=task.http_conn_id,
        upstream=getattr(task, "upstream", None),
        roles=roles(getattr(task, "roles", None)),
        justification=getattr(task, "justification", None),
        retries_itself=True,
        tcp_keep_alive=task.tcp_keep_alive,
        tcp_keep_alive_idle=task.tcp_keep_alive_idle,
        tcp_keep_alive_count=task.tcp_keep_alive_count,
        tcp_keep_alive_interval=task.tcp_keep_alive_interval,
    )
    task.log.info("Poking: %s", task.endpoint)
    try:
        response = hook.run(
            task.endpoint,
            data=task.request_params,
            headers=task.headers,
            extra_options=task.extra_options,
            **task.request_kwargs,
        )
    except GateBusy as error:
        interval = task.poke_interval
        usual = interval.total_seconds() if isinstance(interval, timedelta) else float(interval)
        task.log.info("%s\nPoking again in %.0f s.", error, max(usual, error.retry_after))
        time.sleep(max(0.0, error.retry_after - usual))
        return False
    except AirflowException as error:
        if str(error).startswith(task.response_error_codes_allowlist):
            return False
        raise
    if task.response_check:
        return task.response_check(response, **determine_kwargs(task.response_check, [response], context))
    return True


def roles(value: Any) -> list[str]:
    """Role tags as a DAG may write them: a list, or one text with commas (a rendered template)."""
    if not value:
        return []
    parts: Sequence[Any] = value.split(",") if isinstance(value, str) else value
    return [role for part in parts if (role := str(part).strip())]
