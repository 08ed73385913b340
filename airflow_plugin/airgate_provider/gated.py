"""Where the connection's type alone is not enough: what stock operators and sensors do past their hook.

A deferred call is made by a trigger that knows nothing of the type, and a sensor makes its own hook. Each function here
takes the task as its first argument, and is used for the stock classes (policy.py) and for ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowNotFoundException,
    BaseHook,
    TaskDeferred,
)
from airflow.providers.http.triggers.http import HttpResponseSerializer, HttpSensorTrigger, HttpTrigger

from airgate_provider import compat, hooks, identity, settings
from airgate_provider.errors import ConnectionInvalid, GateBusy, GateDenied
from airgate_provider.retries import Pause
from airgate_provider.settings import CONN_TYPE
from airgate_provider.triggers import RENEW, AirgateSensorTrigger, AirgateTrigger
from airgate_provider.workload import Workload

TRIGGERS = {"call": AirgateTrigger, "sensor": AirgateSensorTrigger}
AGAIN = "airgate_again"  # among the arguments of a deferral: what it takes to defer anew, but for the token


def is_gated(task: Any) -> bool:
    """Whether a task's connection is of our type. A connection that isn't there is for the stock code to report.

    Raises what Airflow does when it can't say: the stock code could get the connection a moment later, and would send
    its secret.
    """
    conn_id: str = task.http_conn_id
    known: dict[str, bool] = task.__dict__.setdefault("_airgate_gated", {})
    if conn_id not in known:
        try:
            known[conn_id] = connection(conn_id).conn_type == CONN_TYPE
        except AirflowNotFoundException:
            return False
    return known[conn_id]


def connection(conn_id: str) -> Any:
    """A connection. Raises TokenUnavailable where Airflow's API server does not hand it out, else as Airflow does."""
    try:
        return BaseHook.get_connection(conn_id)
    except PermissionError:
        raise identity.denied(conn_id) from None


def was_gated(task: Any) -> bool:
    """The same after the call, which must not be made again because Airflow can't say: our code reads both events."""
    try:
        return is_gated(task)
    except Exception:
        return True


def deferral(
    task: Any,
    *,
    trigger: Any,
    method_name: str,
    kwargs: dict[str, Any] | None,
    timeout: timedelta | int | float | None,
) -> dict[str, Any]:
    """The arguments of a deferral to a trigger of ours, in place of those to a stock one."""
    ours = trigger_for(task, trigger, kwargs)
    kwargs = pack(kwargs)
    if getattr(ours, "attested", None) is not None and AGAIN not in (kwargs or {}):
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        again = {
            "trigger": "call" if isinstance(ours, AirgateTrigger) else "sensor",
            "arguments": {name: value for name, value in ours.serialize()[1].items() if name != "attested"},
            "method_name": method_name,
            "deadline": None if seconds is None else time.time() + seconds,
        }
        kwargs, method_name = {**(kwargs or {}), AGAIN: again}, "execute_complete"
    return {"trigger": ours, "method_name": method_name, "kwargs": kwargs, "timeout": timeout}


def trigger_for(task: Any, trigger: Any, kwargs: dict[str, Any] | None) -> Any:
    """Our trigger in place of a stock one. `kwargs` are those of the deferral: earlier pages are among them."""
    if type(trigger) not in (HttpTrigger, HttpSensorTrigger):
        return trigger
    workload = Workload.from_context(compat.current_context())
    more: dict[str, Any] = {
        "upstream": getattr(task, "upstream", None),
        "roles": roles(getattr(task, "roles", None)),
        "justification": getattr(task, "justification", None),
        "workload": None if workload is None else workload.to_dict(),
        "attested": _attested(task),
    }
    names: tuple[str, ...]
    if type(trigger) is HttpTrigger:
        names = ("http_conn_id", "method", "endpoint", "headers", "data", "extra_options")
        pages = len((kwargs or {}).get("paginated_responses") or ())
        return AirgateTrigger(**{name: getattr(trigger, name) for name in names}, **more, number=pages + 1)
    names = ("endpoint", "http_conn_id", "method", "data", "headers", "extra_options", "poke_interval")
    return AirgateSensorTrigger(**{name: getattr(trigger, name) for name in names}, **more)


def _attested(task: Any) -> dict[str, Any] | None:
    """What a trigger needs of an attested connection, which is read now for a fresh token. None for any other."""
    if not compat.ATTESTS:
        return None
    conn_id = task.http_conn_id
    found = connection(conn_id)
    if found.conn_type != CONN_TYPE:
        return None
    extra = found.extra_dejson
    if not settings.is_attested(extra):
        return None
    said = settings.read(found, extra, getattr(task, "upstream", None))
    if not said.sealed:
        raise ConnectionInvalid(
            f'A task that uses the connection "{conn_id}" cannot be deferred: Airflow keeps in its database what a '
            "deferred task needs, and can't seal the token there, because [core] fernet_key of its API server is "
            "empty. Set one, or don't defer the task."
        )
    return {"sealed": said.sealed, "received": said.received}


def pack(kwargs: dict[str, Any] | None) -> dict[str, Any] | None:
    """The arguments of a deferral with earlier pages as plain values: Airflow 3 cannot keep the stock operator's."""
    pages = (kwargs or {}).get("paginated_responses")
    if not kwargs or not pages:
        return kwargs
    packed = [page if isinstance(page, dict) else HttpResponseSerializer.serialize(page) for page in pages]
    return {**kwargs, "paginated_responses": packed}


def unpack(pages: list[Any] | None) -> list[Any] | None:
    """What pack() made of earlier pages."""
    return pages and [
        HttpResponseSerializer.deserialize(page) if isinstance(page, dict) else page for page in pages
    ]


def complete(task: Any, stock: Callable[..., Any], context: Any, event: Any, kwargs: dict[str, Any]) -> Any:
    """A task's execute_complete around the stock one. `kwargs` are those of the deferral.

    Defers again when the trigger asks for a new token; raises what the event asks for, or as the stock one does.
    """
    again = kwargs.get(AGAIN)
    if again is not None and isinstance(event, dict) and event.get("status") == RENEW:
        raise _deferred_again(task, again, event, kwargs)
    check_event(task, context, event)
    rest = {name: value for name, value in kwargs.items() if name != AGAIN}
    if "paginated_responses" in rest:
        rest["paginated_responses"] = unpack(rest["paginated_responses"])
    if again is not None and again["method_name"] != "execute_complete":
        return getattr(task, again["method_name"])(context, event=event, **rest)
    return stock(context, event, **rest)


def _deferred_again(
    task: Any, again: dict[str, Any], event: dict[str, Any], kwargs: dict[str, Any]
) -> TaskDeferred:
    task.log.info("Back for a new token; the task is deferred again.")
    attested = _attested(task)
    if attested is None:
        raise ConnectionInvalid(
            f'The identity of the connection "{task.http_conn_id}" has changed as the task was deferred. The next try '
            "takes it as it is then."
        )
    attested |= {"renewals": event["renewals"], "tries": event["tries"]}
    deadline = again["deadline"]
    return TaskDeferred(
        trigger=TRIGGERS[again["trigger"]](**again["arguments"], attested=attested),
        method_name="execute_complete",
        kwargs=kwargs,
        timeout=None if deadline is None else timedelta(seconds=max(0.0, deadline - time.time())),
    )


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
