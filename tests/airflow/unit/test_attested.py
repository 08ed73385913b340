"""Identity attested on a worker and in the triggerer. The API server is a function here that hands out connections."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, BaseHook, TaskDeferred
from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.http.sensors.http import HttpSensor
from airflow.providers.http.triggers.http import HttpTrigger
from cryptography.fernet import Fernet, MultiFernet

from airgate_provider import compat, gated, hooks, identity, policy, sealed, tokens
from airgate_provider import settings as module
from airgate_provider.errors import ConnectionInvalid, GateDenied, TokenRefused, TokenUnavailable
from airgate_provider.operators import AirgateOperator
from airgate_provider.sensors import AirgateSensor
from airgate_provider.triggers import MOST_RENEWALS, AirgateSensorTrigger, AirgateTrigger
from airgate_provider.workload import Workload
from conftest import Answer, Server, jwt, passed_on, refused

attests = pytest.mark.skipif(not compat.ATTESTS, reason="Airflow 3.3 and later")
SESSION = "01993c1d-7a10-7b4b-9a55-6f0d3b566d0e"
OK = passed_on(body='{"ok": true}')
ABSENT = passed_on(404, "not yet")
TASK = Workload("finance_close", "publish", "manual__1", 2, tags=("close",))
START = datetime(2026, 1, 1)  # noqa: DTZ001
STALE = refused(401, "token.expired")


@dataclass
class ApiServer:
    """Hands out the connection `ledger` with a new token for a session, as the API server's plugin does."""

    connection: Callable[..., Any]
    session: str = SESSION
    seconds: float = 300
    extra: dict[str, Any] = field(default_factory=dict)
    denies: Exception | None = None
    handed: list[str] = field(default_factory=list)  # the tokens

    def get(self, *_: Any, **__: Any) -> Any:
        if self.denies is not None:
            raise self.denies
        token = jwt(self.seconds, sid=self.session, jti=str(len(self.handed)))
        self.handed.append(token)
        made = self.connection(
            **{
                "identity": "attested", "token_url": None, "login": None, "password": token,
                "attested_until": int(time.time() + self.seconds), **self.extra,
            }
        )  # fmt: skip
        sealed.attach(made)
        return made

    def settings(self) -> Any:
        made = self.get()
        return module.read(made, made.extra_dejson)


@pytest.fixture
def fernet(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The Fernet key of API server and triggerer."""
    from airflow.models import crypto

    made = SimpleNamespace(is_encrypted=True, _key=MultiFernet([Fernet(Fernet.generate_key())]))
    made.encrypt, made.decrypt = made._key.encrypt, made._key.decrypt
    monkeypatch.setattr(crypto, "get_fernet", lambda: made)
    return made


@pytest.fixture
def api(connection: Any, fernet: Any, monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    made = ApiServer(connection)
    monkeypatch.setattr(BaseHook, "get_connection", classmethod(lambda *_: made.get()))
    monkeypatch.setattr(compat, "settle_seconds", lambda: 0.0)
    monkeypatch.setattr(compat, "current_context", lambda: None)
    monkeypatch.setattr(Workload, "from_context", classmethod(lambda *_: TASK))
    return made


@pytest.mark.parametrize(
    ("values", "says"),
    [
        pytest.param({}, "[airgate] attest on", id="a token that nobody put in"),
        pytest.param({"password": "tok-en"}, "[airgate] attest on", id="a password that somebody typed"),
        pytest.param(
            {"password": "to ken", "attested_until": 1}, "[airgate] attest on", id="what is no token"
        ),
        pytest.param(
            {"password": "tok-en", "attested_until": 1, "cache_file": "/tmp/x"},
            '"Token cache file" is set',
            id="a file to share tokens in",
        ),
        pytest.param(
            {"password": "tok-en", "attested_until": 1, "dpop": True}, '"DPoP" is on', id="a bound token"
        ),
        pytest.param(
            {"host": "https://gate.example.com/admin?id=7"},
            '"Gate" has a path or a query',
            id="an address below a host",
        ),
    ],
)
def test_a_connection_that_lacks_its_token_says_what_to_do(
    settings: Any, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], says: str
) -> None:
    monkeypatch.setattr(compat, "ATTESTS", True)
    with pytest.raises(ConnectionInvalid) as raised:
        settings(**{"identity": "attested", "password": None, **values})
    assert says in str(raised.value)
    assert "tok-en" not in str(raised.value)


def test_a_connection_of_the_workers_own_environment_is_named(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "ATTESTS", True)
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", "{}")
    with pytest.raises(ConnectionInvalid, match="Remove AIRFLOW_CONN_LEDGER here"):
        settings(identity="attested", password=None)


@pytest.mark.skipif(compat.ATTESTS, reason="Airflow 2.11")
def test_an_airflow_that_cannot_attest_says_so(settings: Any) -> None:
    with pytest.raises(ConnectionInvalid, match=r"Only Airflow 3\.3 and newer can attest.*this is 2\."):
        settings(identity="attested", password=None)


def test_the_token_that_came_along_is_used(api: ApiServer) -> None:
    said = api.settings()
    assert {tokens.get(said).value for _ in range(3)} == set(api.handed)
    assert len(api.handed) == 1


def test_a_long_task_gets_another_token_before_its_own_ends(api: ApiServer) -> None:
    api.seconds = 1
    said = api.settings()
    tokens.get(said)
    api.seconds = 300
    time.sleep(0.85)
    assert tokens.get(said).value == api.handed[1]
    assert tokens.get(said).value == api.handed[1]
    assert len(api.handed) == 2


def test_a_clock_that_is_off_does_not_matter(api: ApiServer, connection: Any) -> None:
    ahead = time.time() + 3600
    for issued in (ahead, ahead - 7200):
        token = jwt(300, sid=SESSION, issued=issued)
        made = connection(identity="attested", password=token, attested_until=int(issued + 300))
        tokens.clear()
        assert tokens.get(module.read(made, made.extra_dejson)).value == token
    assert api.handed == []


def test_two_tasks_in_one_process_never_share_a_token(api: ApiServer) -> None:
    first = api.settings()
    api.session = "another"
    second = api.settings()
    assert first.cache_key != second.cache_key
    assert [tokens.get(said).value for said in (first, second, first)] == [
        api.handed[0], api.handed[1], api.handed[0],
    ]  # fmt: skip


def test_a_token_that_names_no_session_is_shared_with_nobody(settings: Any) -> None:
    own = [
        settings(identity="attested", password=jwt(300, jti=jti), attested_until=int(time.time() + 300))
        for jti in "ab"
    ]
    assert own[0].cache_key != own[1].cache_key


def test_a_refused_token_is_not_taken_up_again(api: ApiServer) -> None:
    said = api.settings()
    first = tokens.get(said)
    api.seconds = 301  # made a moment later
    tokens.forget(said, first)
    assert tokens.get(said).value == api.handed[1]
    assert tokens.get(said).value == api.handed[1]


def test_a_task_that_gets_no_new_token_uses_its_own_to_the_end(api: ApiServer) -> None:
    api.seconds = 2
    said = api.settings()
    first = tokens.get(said)
    api.denies = PermissionError("Access denied for connection 'ledger'")
    time.sleep(1.65)
    assert tokens.get(said).value == first.value
    time.sleep(0.4)
    with pytest.raises(TokenUnavailable, match=r"attest\.not_running.*attest\.misconfigured"):
        tokens.get(said)


@pytest.mark.parametrize("change", [{"session": "another"}, {"extra": {"identity": "token"}}])
def test_another_tasks_token_is_not_taken(api: ApiServer, change: dict[str, Any]) -> None:
    said = api.settings()
    tokens.forget(said, tokens.get(said))
    vars(api).update(change)
    with pytest.raises(TokenRefused, match="has changed as the task ran"):
        tokens.get(said)


# --- the hook


def test_a_call_asserts_nothing_that_the_token_says(api: ApiServer, server: Server) -> None:
    server.says(OK)
    api.extra = {"roles": "finance-publisher", "environment": "production"}
    hooks.AirgateHook("POST", "ledger", justification="Because it is due").run("v1/entries", data="{}")
    [request] = server.requests
    assert request.headers["authorization"] == f"Bearer {api.handed[-1]}"
    assert {name for name in request.headers if name.startswith("airgate-")} == {
        "airgate-role", "airgate-environment", "airgate-justification",
    }  # fmt: skip
    assert request.headers["idempotency-key"] == TASK.idempotency_key()
    assert request.headers["traceparent"].startswith("00-")


def test_an_expired_token_is_renewed_and_the_call_repeated_once(api: ApiServer, server: Server) -> None:
    server.says(STALE, OK)
    hook = hooks.AirgateHook("POST", "ledger")
    api.get()
    hook.get_conn()
    api.seconds = 301
    assert hook.run("v1/entries").json() == {"ok": True}
    sent = [request.headers["authorization"] for request in server.requests]
    assert len(set(sent)) == 2


@pytest.mark.parametrize("code", ["token.session_ended", "token.session_superseded"])
def test_the_end_of_the_session_is_final(api: ApiServer, server: Server, code: str) -> None:
    server.says(refused(401, code))
    with pytest.raises(GateDenied, match=code):
        hooks.AirgateHook("POST", "ledger").run("v1/entries")
    assert len(server.requests) == 1


def test_a_connection_that_is_not_handed_out_says_where_the_reason_is(api: ApiServer) -> None:
    api.denies = PermissionError("Access denied for connection 'ledger' by Execution API")
    stock = HttpOperator(task_id="x", http_conn_id="ledger", endpoint="x")
    deferring = HttpOperator(task_id="y", http_conn_id="ledger", endpoint="x", deferrable=True)
    for task in (stock, deferring):
        policy.task_policy(task)
    for task in (AirgateOperator(task_id="z", http_conn_id="ledger", endpoint="x"), stock, deferring):
        with pytest.raises(TokenUnavailable, match=r"attest\.not_running"):
            task.execute({})


def test_the_test_button_says_that_only_a_task_has_a_token(
    api: ApiServer, server: Server, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.says(refused(401, "token.missing"))
    made = connection(identity="attested", password=None)
    monkeypatch.setattr(BaseHook, "get_connection", classmethod(lambda *_: made))
    passed, message = hooks.AirgateHook(http_conn_id="ledger").test_connection()
    assert passed
    assert "only a running task gets a token" in message
    assert "authorization" not in server.requests[0].headers


# --- sealed


@attests
def test_what_is_sealed_is_opened_for_its_own_task_alone(api: ApiServer, fernet: Any) -> None:
    api.extra = {"timeout": 7}
    said = api.settings()
    assert api.handed[0] not in said.sealed
    opened = sealed.opened(said.sealed, SESSION, "crm")
    assert (opened.secret, opened.upstream, opened.gate) == (api.handed[0], "crm", said.gate)
    assert opened.options == {"timeout": 7}
    for session in ("another", ""):
        with pytest.raises(ConnectionInvalid, match="another task's"):
            sealed.opened(said.sealed, session)
    fernet.decrypt = MultiFernet([Fernet(Fernet.generate_key())]).decrypt
    with pytest.raises(ConnectionInvalid, match=r"\[core\] fernet_key"):
        sealed.opened(said.sealed, SESSION)


@attests
def test_without_a_fernet_key_nothing_is_sealed_and_no_task_defers(api: ApiServer, fernet: Any) -> None:
    fernet.is_encrypted = False
    assert api.settings().sealed == ""
    task = AirgateOperator(task_id="x", http_conn_id="ledger", endpoint="x", deferrable=True)
    with pytest.raises(ConnectionInvalid, match=r"fernet_key of its API server is empty"):
        task.execute({})


# --- deferred


def stock_and_ours(kind: str) -> list[Any]:
    values: dict[str, Any] = {"http_conn_id": "ledger", "endpoint": "v1/reports", "deferrable": True}
    with DAG("d", start_date=START, schedule=None):
        if kind == "call":
            made = [
                HttpOperator(task_id="stock", method="GET", **values),
                AirgateOperator(task_id="ours", method="GET", **values),
            ]
        else:
            made = [
                HttpSensor(task_id="stock", poke_interval=0.05, timeout=60, **values),
                AirgateSensor(task_id="ours", poke_interval=0.05, timeout=60, **values),
            ]
    policy.task_policy(made[0])
    for task in made:
        if kind == "sensor":
            task.poke = lambda _: False
    return made


def deferral(do: Callable[[], Any]) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as raised:
        do()
    return raised.value


def fired(deferred: TaskDeferred, session: str = SESSION) -> dict[str, Any]:
    """The event of a deferral's trigger, which went through Airflow's database as JSON."""
    path, arguments = deferred.trigger.serialize()
    kept = json.loads(json.dumps(arguments))
    again = type(deferred.trigger)(**kept)
    assert again.serialize() == (path, arguments)
    again.task_instance = SimpleNamespace(id=session, task_id="t")

    async def first() -> Any:
        async for event in again.run():
            return event.payload
        raise AssertionError("no event")

    payload: dict[str, Any] = asyncio.run(first())
    return payload


def resumed(task: Any, deferred: TaskDeferred, event: dict[str, Any]) -> Any:
    """Airflow calls the method again with the event."""
    kwargs = json.loads(json.dumps(deferred.kwargs or {}))
    return getattr(task, deferred.method_name)({}, **kwargs, event=event)


@attests
@pytest.mark.parametrize("number", [0, 1], ids=["stock", "ours"])
@pytest.mark.parametrize("kind", ["call", "sensor"])
def test_a_deferred_task_calls_with_its_own_token(
    api: ApiServer, server: Server, kind: str, number: int
) -> None:
    server.says(OK)
    task = stock_and_ours(kind)[number]
    deferred = deferral(lambda: task.execute({}))
    assert type(deferred.trigger) is (AirgateTrigger if kind == "call" else AirgateSensorTrigger)
    text = json.dumps(deferred.trigger.serialize()) + json.dumps(deferred.kwargs) + repr(deferred)
    assert not [token for token in api.handed if token in text]
    event = fired(deferred)
    assert event["status"] == "success"
    assert server.requests[-1].headers["authorization"] == f"Bearer {api.handed[-1]}"
    assert "airgate-dag-id" not in server.requests[-1].headers
    assert resumed(task, deferred, event) == ('{"ok": true}' if kind == "call" else None)


@attests
@pytest.mark.parametrize("number", [0, 1], ids=["stock", "ours"])
def test_a_sensor_outlives_its_token(api: ApiServer, server: Server, number: int) -> None:
    server.says(ABSENT)
    task = stock_and_ours("sensor")[number]
    api.seconds = 1
    first = deferral(lambda: task.execute({}))
    started = time.time()
    event = fired(first)
    assert event == {"status": "renew", "renewals": 1, "tries": 0}
    assert 0.6 < time.time() - started < 1
    second = deferral(lambda: resumed(task, first, event))
    assert second.trigger.attested["sealed"] != first.trigger.attested["sealed"]
    assert 58 < second.timeout.total_seconds() < 60  # of the sensor's own sixty
    server.says(ABSENT, OK)
    event = fired(second)
    assert event == {"status": "success"}
    resumed(task, second, event)
    sent = {request.headers["authorization"] for request in server.requests}
    assert len(sent) == 2


@attests
def test_a_token_that_ended_before_it_could_be_used_is_renewed(api: ApiServer, server: Server) -> None:
    server.says(OK)
    task = stock_and_ours("call")[0]
    first = deferral(lambda: task.execute({}))
    first.trigger.attested["received"] -= 600
    event = fired(first)
    assert server.requests == []
    second = deferral(lambda: resumed(task, first, event))
    assert second.timeout is None
    assert fired(second)["status"] == "success"


@attests
@pytest.mark.parametrize("kind", ["call", "sensor"])
def test_a_token_that_the_gate_refuses_is_renewed_a_few_times_only(
    api: ApiServer, server: Server, kind: str
) -> None:
    server.says(STALE)
    task = stock_and_ours(kind)[0]
    deferred = deferral(lambda: task.execute({}))
    for number in range(MOST_RENEWALS):
        event = fired(deferred)
        assert (event["status"], event["renewals"]) == ("renew", number + 1)
        before = deferred
        deferred = deferral(lambda: resumed(task, before, event))  # noqa: B023  # called at once
    event = fired(deferred)
    assert (event["status"], event["final"]) == ("error", True)
    assert "token.expired" in event["message"]
    with pytest.raises(GateDenied):
        resumed(task, deferred, event)
    assert len(server.requests) == MOST_RENEWALS + 1


@attests
def test_a_call_is_tried_no_more_often_for_being_renewed(api: ApiServer, server: Server) -> None:
    server.says(refused(503, "upstream.overloaded", 1.1))
    task = stock_and_ours("call")[0]
    api.seconds = 1
    deferred = deferral(lambda: task.execute({}))
    tries: list[int] = []
    while (event := fired(deferred))["status"] == "renew" and len(tries) < 9:
        tries.append(event["tries"])
        before = deferred
        deferred = deferral(lambda: resumed(task, before, event))  # noqa: B023  # called at once
    assert tries == [1, 2]
    assert (event["status"], event["retry_after"]) == ("error", 1.1)
    assert len(server.requests) == 3


@attests
def test_the_end_of_the_session_is_final_for_a_deferred_task(api: ApiServer, server: Server) -> None:
    server.says(refused(401, "token.session_superseded"))
    deferred = deferral(lambda: stock_and_ours("sensor")[0].execute({}))
    event = fired(deferred)
    assert event["final"]
    assert "token.session_superseded" in event["message"]
    assert len(server.requests) == 1


@attests
def test_the_token_of_another_task_opens_nothing(api: ApiServer, server: Server) -> None:
    deferred = deferral(lambda: stock_and_ours("call")[0].execute({}))
    event = fired(deferred, session="another")
    assert event["final"]
    assert "another task's" in event["message"]
    assert server.requests == []


@attests
def test_triggers_of_two_tasks_in_one_process_keep_to_their_tokens(api: ApiServer, server: Server) -> None:
    server.says(lambda _: Answer(**{**vars(OK), "pause": 0.05}))
    deferred = []
    for session in ("a", "b", "c"):
        api.session = session
        deferred.append((session, deferral(lambda: stock_and_ours("call")[0].execute({})), api.handed[-1]))

    async def run(session: str, trigger: Any) -> None:
        trigger.task_instance = SimpleNamespace(id=session, task_id=session)
        trigger.endpoint = f"v1/{session}"
        async for _ in trigger.run():
            return

    async def all_at_once() -> None:
        await asyncio.gather(*(run(session, each.trigger) for session, each, _ in deferred))

    asyncio.run(all_at_once())
    assert {request.path: request.headers["authorization"] for request in server.requests} == {
        f"/ledger/v1/{session}": f"Bearer {token}" for session, _, token in deferred
    }
    assert tokens._tokens == {}


@attests
def test_pages_and_the_methods_of_a_subclass_survive_a_renewal(api: ApiServer, server: Server) -> None:
    class Pages(HttpOperator):
        def execute_async(self, context: Any) -> None:
            trigger = HttpTrigger(self.http_conn_id, method=self.method, endpoint=self.endpoint)
            self.defer(trigger=trigger, method_name="mine", kwargs={"own": "kept"})

        def mine(self, context: Any, event: Any, own: str) -> Any:
            assert own == "kept"
            return self.execute_complete(context, event)

    def following(response: Any) -> Any:
        return {"data": {"page": "2"}} if response.text == "1" else None

    task = Pages(
        task_id="x", http_conn_id="ledger", endpoint="x", method="GET", deferrable=True,
        pagination_function=following,
    )  # fmt: skip
    policy.task_policy(task)
    server.says(passed_on(body="1"), passed_on(body="2"))
    begun = deferral(lambda: task.execute({}))
    begun.trigger.attested["received"] -= 600
    first = deferral(lambda: resumed(task, begun, fired(begun)))
    second = deferral(lambda: resumed(task, first, fired(first)))
    second.trigger.attested["received"] -= 600
    third = deferral(lambda: resumed(task, second, fired(second)))
    assert resumed(task, third, fired(third)) == ["1", "2"]


@attests
def test_an_identity_that_changed_meanwhile_ends_the_task(api: ApiServer, server: Server) -> None:
    server.says(STALE)
    task = stock_and_ours("call")[1]
    deferred = deferral(lambda: task.execute({}))
    event = fired(deferred)
    api.extra = {"identity": "token"}
    with pytest.raises(AirflowFailException, match="has changed as the task was deferred"):
        resumed(task, deferred, event)


def test_other_identities_defer_as_they_did(api: ApiServer) -> None:
    api.extra = {"identity": "token"}
    for task in stock_and_ours("call"):
        deferred = deferral(lambda task=task: task.execute({}))
        assert (deferred.method_name, deferred.kwargs, deferred.timeout) == ("execute_complete", None, None)
        assert "attested" not in deferred.trigger.serialize()[1]


def test_only_an_attested_connection_brings_a_token_along(settings: Any) -> None:
    assert identity.handed(settings()) is None
    assert gated.settings.is_attested({"identity": " Attested "})
    assert not gated.settings.is_attested({})
