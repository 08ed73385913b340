"""When a task tries again after what the gate said: in its slot before Airflow 3.3, by a retry policy from there on."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airgate_provider import compat, gated, hooks, retries
from airgate_provider.errors import GateBusy
from airgate_provider.triggers import failure
from conftest import Answer, Server, copied, refused

BUSY = [
    (429, "limit.rate"),
    (502, "upstream.unreachable"),
    (503, "upstream.circuit_open"),
    (503, "upstream.overloaded"),
    (503, "upstream.credential"),
    (504, "upstream.timeout"),
]


class Task:
    """A running task: what it raises, and how long it stayed in its slot."""

    def __init__(self, connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slept: list[float] = []
        self.context: dict[str, Any] = {
            "ti": SimpleNamespace(
                dag_id="d", task_id="t", run_id="r", try_number=1, map_index=-1, max_tries=3, xcom_push=print
            ),
            "task": SimpleNamespace(
                retry_args=None, retry_delay=timedelta(seconds=2), http_conn_id="ledger", retry_policy=None
            ),
        }
        made = connection(identity="token", password="tok-en")
        monkeypatch.setattr(hooks.AirgateHook, "get_connection", classmethod(lambda *_: made))
        monkeypatch.setattr(compat, "current_context", lambda: self.context)
        monkeypatch.setattr(retries, "time", SimpleNamespace(sleep=self.slept.append))

    def call(self) -> BaseException:
        with pytest.raises(AirflowException) as raised:
            hooks.AirgateHook("POST", "ledger").run("x")
        return raised.value


@pytest.fixture
def task(connection: Any, monkeypatch: pytest.MonkeyPatch) -> Task:
    return Task(connection, monkeypatch)


@pytest.mark.parametrize(("status", "code"), BUSY)
def test_without_a_retry_policy_a_task_waits_in_its_slot(
    server: Server, task: Task, status: int, code: str
) -> None:
    server.says(refused(status, code, 20))
    error = task.call()
    assert isinstance(error, GateBusy)
    assert code in str(error)
    assert task.slept == [18]
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [code for _, code in BUSY])
def test_without_a_retry_policy_a_deferred_task_waits_when_it_is_back(task: Task, code: str) -> None:
    event = failure(GateBusy(code, 20))
    with pytest.raises(GateBusy, match=code):
        gated.check_event(task.context["task"], task.context, event)
    assert task.slept == [18]


@pytest.mark.skipif(compat.VERSION < (3, 3), reason="Airflow 3.3 and later")
@pytest.mark.parametrize(("status", "code"), BUSY)
def test_with_a_retry_policy_the_slot_is_free_at_once(
    server: Server, task: Task, status: int, code: str
) -> None:
    policy = task.context["task"].retry_policy = retries.make_policy(None)
    server.says(refused(status, code, 20))
    decision = policy.evaluate(task.call(), 1, 3, task.context)
    assert (decision.action.value, decision.retry_delay) == ("retry", timedelta(seconds=20))
    assert task.slept == []


@pytest.mark.parametrize(
    "answer",
    [pytest.param(copied(refused(status, code, 20)), id=f"a copied {code}") for status, code in BUSY],
)
def test_an_upstream_has_no_say_in_when_a_task_tries_again(
    server: Server, task: Task, answer: Answer
) -> None:
    server.says(answer)
    error = task.call()
    assert not isinstance(error, GateBusy | AirflowFailException)
    assert task.slept == []
    if retries.POLICIES:
        policy = retries.make_policy(None)
        assert policy.evaluate(error, 1, 3, task.context).action.value == "default"


def test_a_copied_denial_does_not_take_a_tasks_tries_away(server: Server, task: Task) -> None:
    server.says(copied(refused(403, "policy.no_match")))
    assert not isinstance(task.call(), AirflowFailException)
