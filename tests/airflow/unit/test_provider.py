"""What Airflow finds of the provider: its type of connection and form, its entry points, its link, its policy."""

import importlib.metadata
import json
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, TaskDeferred
from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.providers.http.triggers.http import HttpSensorTrigger, HttpTrigger

from airgate_provider import compat, gated, hooks, policy
from airgate_provider.errors import GateBusy, GateDenied
from airgate_provider.fields import FIELDS, STANDARD
from airgate_provider.info import get_provider_info
from airgate_provider.operators import AirgateOperator
from airgate_provider.sensors import AirgateSensor
from airgate_provider.triggers import AirgateSensorTrigger, AirgateTrigger
from airgate_provider.workload import Workload
from conftest import Answer, Server, passed_on, refused

MAJOR = int(airflow.__version__.split(".")[0])
START = datetime(2026, 1, 1)  # noqa: DTZ001


def test_the_providers_own_description_is_valid() -> None:
    schema = Path(airflow.__file__).with_name("provider_info.schema.json")
    info = get_provider_info()
    jsonschema.validate(info, json.loads(schema.read_text(encoding="utf-8")))
    for group in ("hooks", "operators", "sensors", "triggers"):
        for module in info[group][0]["python-modules"]:
            __import__(module)


def test_airflow_finds_the_provider() -> None:
    from airflow.providers_manager import ProvidersManager

    found = ProvidersManager().providers["airflow-provider-airgate"]
    assert found.version == importlib.metadata.version("airflow-provider-airgate")
    assert ProvidersManager().hooks["airgate"].hook_name == "Airgate"
    groups = {
        entry.group for entry in importlib.metadata.distribution("airflow-provider-airgate").entry_points
    }
    assert groups == {"apache_airflow_provider", "airflow.plugins", "airflow.policy"}


@pytest.mark.skipif(MAJOR < 3, reason="Airflow 3 serves the form as JSON")
def test_the_form_is_served_by_the_api() -> None:
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    [form] = [entry for entry in HookMetaService.hook_meta_data() if entry.connection_type == "airgate"]
    fields = form.extra_fields or {}
    assert list(fields) == [field.name for field in FIELDS]
    assert fields["identity"]["schema"]["enum"][0] == "client_credentials"
    assert fields["dpop"]["schema"]["type"] == ["boolean", "null"]
    standard = form.standard_fields
    assert standard is not None
    assert standard.host is not None
    assert standard.password is not None
    assert standard.url_schema is not None
    assert (standard.host.title, standard.password.title) == (STANDARD["host"], STANDARD["password"])
    assert standard.url_schema.hidden


@pytest.mark.skipif(MAJOR > 2, reason="Airflow 2 makes the form of widgets")
def test_the_form_is_made_of_widgets() -> None:
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    names = [
        name.removeprefix("extra__airgate__")
        for name in manager.connection_form_widgets
        if name.startswith("extra__airgate__")
    ]
    assert sorted(names) == sorted(field.name for field in FIELDS)
    identity = manager.connection_form_widgets["extra__airgate__identity"].field
    assert identity.kwargs["default"] == "client_credentials"
    said = manager.field_behaviours["airgate"]
    assert said["relabeling"]["host"] == STANDARD["host"]
    assert "schema" in said["hidden_fields"]


def test_the_test_button_calls_the_gate(
    server: Server, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.says(Answer(200, "{}", {"Airgate-Request-Id": "a" * 32}))
    made = connection(identity="token")
    monkeypatch.setattr(hooks.AirgateHook, "get_connection", classmethod(lambda *_: made))
    works, said = made.test_connection()
    assert works, said
    assert len(server.requests) == 1


def test_a_connection_of_the_type_makes_our_hook_for_a_stock_operator(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = connection(identity="token")
    monkeypatch.setattr(gated.BaseHook, "get_connection", classmethod(lambda *_: made))
    operator = HttpOperator(task_id="x", http_conn_id="ledger", method="GET")
    assert type(operator.hook) is hooks.AirgateHook
    assert operator.hook.method == "GET"


def tasks(**values: Any) -> list[Any]:
    """The same three kinds of task, after the policy has seen them: plain, mapped, and a sensor."""
    with DAG("d", start_date=START, schedule=None):
        made = [
            HttpOperator(task_id="plain", http_conn_id="ledger", endpoint="x", deferrable=True, **values),
            HttpOperator.partial(task_id="mapped", http_conn_id="ledger", deferrable=True, **values).expand(
                endpoint=["x"]
            ),
            HttpSensor(task_id="sensor", http_conn_id="ledger", endpoint="x", deferrable=True, **values),
        ]
    for task in made:
        policy.task_policy(task)
    return made


def deferred(task: Any) -> Any:
    """The trigger that a task defers to."""
    if isinstance(task, HttpSensor):
        task.poke = lambda _: False
    elif not isinstance(task, HttpOperator):
        mapped = task.operator_class
        assert (mapped.__name__, mapped.__module__) == ("HttpOperator", HttpOperator.__module__)
        task = mapped(task_id="mapped", http_conn_id="ledger", endpoint="x", deferrable=True)
    with pytest.raises(TaskDeferred) as raised:
        task.execute({})
    return raised.value.trigger


@pytest.mark.parametrize("conn_type", ["airgate", "http"])
def test_the_policy_sends_deferred_tasks_through_the_gate_and_leaves_all_others_alone(
    conn_type: str, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = connection(identity="token", conn_type=conn_type)
    monkeypatch.setattr(gated.BaseHook, "get_connection", classmethod(lambda *_: made))
    monkeypatch.setattr(Workload, "from_context", classmethod(lambda *_: Workload("d", "t", "r")))
    ours = [AirgateTrigger, AirgateTrigger, AirgateSensorTrigger]
    stock = [HttpTrigger, HttpTrigger, HttpSensorTrigger]
    found = [deferred(task) for task in tasks()]
    assert [type(trigger) for trigger in found] == (ours if conn_type == "airgate" else stock)
    if conn_type == "airgate":
        for trigger in found:
            path, arguments = trigger.serialize()
            module, _, name = path.rpartition(".")
            again = getattr(sys.modules[module], name)(**json.loads(json.dumps(arguments)))
            assert again.serialize() == (path, arguments)
            assert arguments["workload"]["dag"] == "d"
            assert "tok-en" not in json.dumps(arguments)


def test_what_a_subclass_does_itself_stays(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Operator(HttpOperator):
        def execute_complete(self, context: Any, event: Any, paginated_responses: Any = None) -> str:
            return "of the subclass"

    class Sensor(HttpSensor):
        def poke(self, context: Any) -> str:
            return "of the subclass"

    made = connection(identity="token", conn_type="http")
    monkeypatch.setattr(gated.BaseHook, "get_connection", classmethod(lambda *_: made))
    with DAG("d", start_date=START, schedule=None):
        operator = Operator(task_id="x", http_conn_id="ledger", endpoint="x")
        sensor = Sensor(task_id="y", http_conn_id="ledger", endpoint="x")
    for task in (operator, sensor):
        policy.task_policy(task)
    assert operator.execute_complete({}, {"status": "success"}) == "of the subclass"
    assert sensor.poke({}) == "of the subclass"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(refused(429, "limit.rate", 1), id="a limit"),
        pytest.param(refused(503, "upstream.circuit_open", 1), id="an open circuit"),
    ],
)
def test_a_busy_gate_is_not_yet_for_a_sensor(
    server: Server, connection: Any, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    server.says(answer, passed_on())
    made = connection(identity="token")
    monkeypatch.setattr(hooks.AirgateHook, "get_connection", classmethod(lambda *_: made))
    sensor = AirgateSensor(task_id="x", http_conn_id="ledger", endpoint="x", poke_interval=0.1)
    started = time.monotonic()
    assert sensor.poke({}) is False
    assert time.monotonic() - started >= 0.9
    assert sensor.poke({}) is True


def test_the_policy_leaves_other_tasks_alone() -> None:
    class Other:
        retry_policy = None

    task = Other()
    policy.task_policy(task)
    assert vars(task) == {}


@pytest.mark.skipif(not hasattr(compat, "MAJOR_3") or compat.VERSION < (3, 3), reason="Airflow 3.3 and later")
@pytest.mark.parametrize(
    ("error", "own", "action", "delay"),
    [
        pytest.param(GateBusy("x", 60), 1, "retry", 60, id="the gate asks for more than the task's delay"),
        pytest.param(GateBusy("x", 60), 300, "default", None, id="the task waits longer anyway"),
        pytest.param(ValueError("x"), 1, "default", None, id="not the gate's"),
    ],
)
def test_the_retry_policy_waits_as_long_as_the_gate_asks_for(
    error: Exception, own: int, action: str, delay: int | None
) -> None:
    [task, mapped, _] = tasks(retry_delay=timedelta(seconds=own))
    for each in (task, mapped):
        context = {"task": SimpleNamespace(retry_delay=timedelta(seconds=own))}
        decision = each.retry_policy.evaluate(error, 1, 3, context)
        assert decision.action.value == action
        assert decision.retry_delay == (None if delay is None else timedelta(seconds=delay))


@pytest.mark.skipif(compat.VERSION < (3, 3), reason="Airflow 3.3 and later")
def test_the_dags_own_retry_policy_is_asked_first() -> None:
    from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule

    own = ExceptionRetryPolicy(rules=[RetryRule(exception=GateBusy, action=RetryAction.FAIL)])
    [task, *_] = tasks(retry_policy=own)
    assert task.retry_policy.evaluate(GateBusy("x", 60), 1, 3, {}).action.value == "fail"


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"status": "error", "message": "no", "final": True}, GateDenied),
        ({"status": "error", "message": "later", "retry_after": 0}, GateBusy),
        ({"status": "error", "message": "broken"}, Exception),
    ],
)
def test_an_event_of_a_trigger_fails_the_task_as_the_call_would_have(
    event: dict[str, Any], error: type
) -> None:
    task = SimpleNamespace(http_conn_id="ledger")
    with pytest.raises(error, match=event["message"]) as raised:
        gated.check_event(task, {}, event)
    assert isinstance(raised.value, AirflowFailException) is bool(event.get("final"))


def test_the_operators_take_defaults_and_templates() -> None:
    with DAG("d", start_date=START, schedule=None, default_args={"http_conn_id": "mine", "roles": "a, b"}):
        operator = AirgateOperator(task_id="x", upstream="ledger", endpoint="v1/entries")
        sensor = AirgateSensor(task_id="y", endpoint="v1/entries", roles=["c"])
    assert (operator.http_conn_id, sensor.http_conn_id) == ("mine", "mine")
    assert (gated.roles(operator.roles), gated.roles(sensor.roles)) == (["a", "b"], ["c"])
    for made in (operator, sensor):
        assert {"endpoint", "upstream", "roles", "justification", "http_conn_id"} <= set(made.template_fields)


def test_the_link_is_on_every_http_task(monkeypatch: pytest.MonkeyPatch) -> None:
    from airgate_provider.plugin import AirgateRequestLink

    link = AirgateRequestLink()
    assert {operator.__name__ for operator in link.operators} == {
        "HttpOperator",
        "HttpSensor",
        "AirgateOperator",
        "AirgateSensor",
    }
    key = SimpleNamespace(dag_id="d", run_id="r+1", task_id="t", map_index=-1, try_number=1)
    xcoms: dict[str, str] = {}
    monkeypatch.setattr(compat, "get_xcom", lambda _, name: xcoms.get(name))
    assert link.get_link(None, ti_key=key) == ""
    xcoms["airgate_request_id"] = "13f1"
    assert "/dags/d/" in link.get_link(None, ti_key=key)
    assert "r%2B1" in link.get_link(None, ti_key=key)
    xcoms["airgate_request_url"] = "https://logs.example.com/?q=13f1"
    assert link.get_link(None, ti_key=key) == "https://logs.example.com/?q=13f1"


IMPORTS = """
import airflow.providers.http.operators.http, airflow.providers.http.sensors.http, airflow.plugins_manager
import socket, time, builtins, sys
def refuse(*_, **__): raise RuntimeError("I/O while importing")
socket.socket.connect = refuse
known = set(sys.modules)
import airgate_provider.operators, airgate_provider.sensors, airgate_provider.plugin, airgate_provider.policy
heavy = {"botocore", "cryptography.hazmat.primitives.asymmetric.ec", "jwt"} & (set(sys.modules) - known)
print("heavy:", sorted(heavy))
"""


def test_importing_the_provider_asks_nobody_and_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORTS],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_a_task_whose_connection_cannot_be_looked_up_never_takes_the_stock_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stock code could get it a moment later, and would send its secret as a password."""

    def away(*_: Any) -> Any:
        raise RuntimeError("Airflow is away")

    monkeypatch.setattr(gated.BaseHook, "get_connection", classmethod(away))
    operator, _, sensor = tasks()
    with pytest.raises(RuntimeError, match="Airflow is away"):
        operator.execute({})
    with pytest.raises(RuntimeError, match="Airflow is away"):
        sensor.poke({})
    with pytest.raises(GateDenied):
        operator.execute_complete({}, {"status": "error", "message": "no", "final": True})


def test_a_connection_that_is_not_there_is_the_stock_codes_to_report(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    def absent(*_: Any) -> Any:
        raise AirflowNotFoundException("not defined")

    monkeypatch.setattr(gated.BaseHook, "get_connection", classmethod(absent))
    assert type(deferred(tasks()[0])) is HttpTrigger
