"""The triggers against a server in the gate's place: the one event that each ends with."""

import asyncio
import json
import time
from typing import Any

import pytest

from airgate_provider import compat
from airgate_provider.compat import settle_seconds
from airgate_provider.triggers import AirgateSensorTrigger, AirgateTrigger
from airgate_provider.workload import Workload
from conftest import REQUEST_ID, Answer, Server, copied, passed_on, refused

OK = passed_on(body='{"ok": true}')
ABSENT = passed_on(404, "not yet")
TASK = Workload("finance_close", "wait", "manual__1", tags=("close",))


@pytest.fixture(autouse=True)
def connected(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = connection(identity="token", password="tok-en")

    async def get(*_: Any, **__: Any) -> Any:
        return made

    monkeypatch.setattr("airflow.providers.common.compat.connection.get_async_connection", get)
    monkeypatch.setattr(compat, "settle_seconds", lambda: 0.0)


def fired(trigger: Any) -> dict[str, Any]:
    """The trigger's event, after it went through Airflow's database as JSON."""
    path, arguments = trigger.serialize()
    again = type(trigger)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == (path, arguments)

    async def first() -> Any:
        async for event in again.run():
            return event.payload
        raise AssertionError("no event")

    payload: dict[str, Any] = asyncio.run(first())
    return payload


def trigger(**values: Any) -> AirgateTrigger:
    return AirgateTrigger("ledger", "POST", "v1/entries", workload=TASK.to_dict(), **values)


def sensor(**values: Any) -> AirgateSensorTrigger:
    return AirgateSensorTrigger("v1/reports", "ledger", poke_interval=0.05, workload=TASK.to_dict(), **values)


def test_a_deferred_call_is_the_tasks_own(server: Server) -> None:
    server.says(OK)
    event = fired(
        trigger(
            upstream="crm",
            roles=["sales-reader"],
            justification="Because it is due",
            data='{"a": 1}',
            headers={"X-Team": "finance"},
            number=3,
        )
    )
    assert event["status"] == "success"
    assert event["response"]["status_code"] == 200
    [request] = server.requests
    assert (request.path, request.body) == ("/crm/v1/entries", b'{"a": 1}')
    sent = request.headers
    assert sent["authorization"] == "Bearer tok-en"
    assert sent["airgate-dag-id"] == "finance_close"
    assert sent["airgate-dag-tags"] == "close"
    assert sent["airgate-role"] == "sales-reader"
    assert sent["airgate-justification"] == "Because it is due"
    assert sent["idempotency-key"] == TASK.idempotency_key(3)
    assert sent["x-team"] == "finance"


@pytest.mark.parametrize(
    ("answers", "event", "calls"),
    [
        pytest.param(
            [refused(403, "policy.no_match")],
            {"status": "error", "final": True, "request_id": REQUEST_ID},
            1,
            id="a denial",
        ),
        pytest.param(
            [refused(429, "limit.rate", 0)],
            {"status": "error", "retry_after": 0, "request_id": REQUEST_ID},
            3,
            id="a gate that stays busy",
        ),
        pytest.param(
            [refused(503, "upstream.circuit_open", 0)],
            {"status": "error", "retry_after": 0, "request_id": REQUEST_ID},
            3,
            id="a circuit that stays open",
        ),
        pytest.param([ABSENT], {"status": "error", "message": "404:Not Found"}, 1, id="the upstream's error"),
        pytest.param(
            [copied(refused(429, "limit.rate", 60))],
            {"status": "error", "message": "429:Too Many Requests", "retry_after": None},
            1,
            id="an upstream that copies a limit",
        ),
        pytest.param(
            [copied(refused(403, "policy.no_match"))],
            {"status": "error", "message": "403:Forbidden"},
            1,
            id="an upstream that copies a denial",
        ),
        pytest.param([Answer(hang_up=True)], {"status": "error"}, 1, id="a gate that breaks off"),
    ],
)
def test_what_goes_wrong_is_an_event(
    server: Server, answers: list[Any], event: dict[str, Any], calls: int
) -> None:
    server.says(*answers)
    found = fired(trigger())
    assert {name: found.get(name) for name in event} == event
    assert ("final" in found) is bool(event.get("final"))
    assert found["message"]
    assert "tok-en" not in json.dumps(found)
    assert len([request for request in server.requests if request.method == "POST"]) == calls


def test_a_connection_that_lacks_something_is_an_event(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = connection(upstream="")

    async def get(*_: Any, **__: Any) -> Any:
        return made

    monkeypatch.setattr("airflow.providers.common.compat.connection.get_async_connection", get)
    found = fired(trigger())
    assert found["final"]
    assert 'the field "Upstream" is empty' in found["message"]


@pytest.mark.parametrize("made", [trigger, sensor])
def test_a_trigger_does_not_fire_before_airflow_is_ready(
    server: Server, monkeypatch: pytest.MonkeyPatch, made: Any
) -> None:
    monkeypatch.setattr(compat, "settle_seconds", lambda: 0.6)
    server.says(OK)
    started = time.monotonic()
    fired(made())
    assert time.monotonic() - started >= 0.6


@pytest.mark.skipif(not compat.MAJOR_3, reason="Airflow 2 knows a task that was queued again")
@pytest.mark.parametrize("interval", [5, 20])
def test_airflow_has_time_to_see_that_a_task_has_deferred(
    monkeypatch: pytest.MonkeyPatch, interval: int
) -> None:
    """A supervisor may see the end of a task's process a heartbeat interval late, and then the scheduler has to."""
    monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", str(interval))
    assert settle_seconds() == interval + 5


@pytest.mark.parametrize(
    ("answers", "event", "calls"),
    [
        pytest.param([ABSENT, ABSENT, OK], {"status": "success"}, 3, id="asks until it is there"),
        pytest.param(
            [
                refused(502, "upstream.unreachable", 0),
                refused(429, "limit.rate", 0),
                refused(503, "upstream.circuit_open", 0),
                refused(503, "upstream.overloaded", 0),
                refused(503, "upstream.credential", 0),
                OK,
            ],
            {"status": "success"},
            6,
            id="a busy gate is not yet",
        ),
        pytest.param([ABSENT, refused(403, "policy.no_match")], {"final": True}, 2, id="a denial ends it"),
        pytest.param(
            [passed_on(418)],
            {"status": "error", "message": "418:I'm a Teapot"},
            1,
            id="another error of the upstream ends it",
        ),
    ],
)
def test_a_sensor_in_the_triggerer(
    server: Server, answers: list[Any], event: dict[str, Any], calls: int
) -> None:
    server.says(*answers)
    found = fired(sensor())
    assert {name: found.get(name) for name in event} == event
    assert len(server.requests) == calls
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
