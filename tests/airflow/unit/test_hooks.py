"""Both hooks against a server in the gate's place: what they send, and what they make of its answers."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from airflow.providers.common.compat.sdk import AirflowException
from airflow.providers.http.exceptions import HttpErrorException

from airgate_provider import compat, hooks
from airgate_provider.errors import GateBusy, GateDenied, GateUnreachable, TokenUnavailable
from airgate_provider.workload import Workload
from conftest import REQUEST_ID, Answer, Request, Server, copied, granted, passed_on, refused

TASK = Workload("finance_close", "post", "manual__1", 2, 7, ("close", "fin,ance", "Mär"))
OK = passed_on(body='{"ok": true}')
DENIED = refused(403, "policy.no_match")


# Calls a hook of one kind: run(method="POST", **options of the connection, call=arguments of run()).
@dataclass
class Run:
    call: Callable[..., Any]
    kind: str  # sync | async
    pushed: dict[str, str]  # to XCom

    def __call__(self, *arguments: Any, **values: Any) -> Any:
        return self.call(*arguments, **values)


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest, connection: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls one of the hooks as an operator would, for the task TASK, with the connection of `values`."""
    context = {
        "ti": SimpleNamespace(
            dag_id=TASK.dag,
            task_id=TASK.task,
            run_id=TASK.run,
            try_number=TASK.try_number,
            map_index=TASK.map_index,
            max_tries=0,
            xcom_push=lambda key, value: pushed.__setitem__(key, value),
        ),
        "dag": SimpleNamespace(tags=set(TASK.tags)),
        "task": SimpleNamespace(retry_args=None),
    }
    pushed: dict[str, str] = {}
    monkeypatch.setattr(compat, "current_context", lambda: context)

    def call(method: str = "POST", *, hook: Any = None, run: Any = None, **values: Any) -> Any:
        made = connection(**{"identity": "token", "password": "tok-en", **values})
        if request.param == "sync":
            monkeypatch.setattr(hooks.AirgateHook, "get_connection", classmethod(lambda *_: made))
            return hooks.AirgateHook(method, "ledger", **(hook or {})).run(**(run or {}))

        async def get(*_: Any, **__: Any) -> Any:
            return made

        monkeypatch.setattr("airflow.providers.common.compat.connection.get_async_connection", get)

        async def ask() -> Any:
            own = hooks.AirgateAsyncHook(method, "ledger", retry_delay=0.01, workload=TASK, **(hook or {}))
            async with aiohttp.ClientSession() as session:
                return await own.run(session, **(run or {}))

        return asyncio.run(ask())

    return Run(call, request.param, pushed)


def test_a_call_carries_the_task_and_the_token(server: Server, run: Run) -> None:
    server.says(OK)
    run(
        "POST",
        roles="finance-publisher, finance-reader",
        environment="production",
        **{"X-Leak": "from-extra", "Authorization": "Basic of-extra"},
        run={"endpoint": "v1/entries?a=1", "data": '{"x": 1}', "headers": {"X-Team": "finance"}},
    )
    [request] = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/ledger/v1/entries?a=1", b'{"x": 1}')
    sent = request.headers
    assert sent["authorization"] == "Bearer tok-en"
    assert {name: value for name, value in sent.items() if name.startswith("airgate-")} == {
        "airgate-dag-id": "finance_close",
        "airgate-task-id": "post",
        "airgate-run-id": "manual__1",
        "airgate-try-number": "2",
        "airgate-map-index": "7",
        "airgate-dag-tags": "M%C3%A4r, close, fin%2Cance"
        if run.kind == "sync"
        else "close, fin%2Cance, M%C3%A4r",
        "airgate-role": "finance-publisher, finance-reader",
        "airgate-environment": "production",
    }
    assert sent["x-team"] == "finance"
    assert sent["traceparent"].startswith("00-")
    assert sent["idempotency-key"] == TASK.idempotency_key()
    assert "x-leak" not in sent


def test_the_dags_own_headers_stay(server: Server, run: Run) -> None:
    server.says(OK)
    own = {
        "Authorization": "Bearer of-the-upstream",
        "Idempotency-Key": "mine",
        "traceparent": "00-1-2-01",
        "Airgate-Role": "finance-reader",
        "Airgate-Justification": "Because the month ends",
    }
    run(roles="finance-publisher", run={"endpoint": "x", "headers": own})
    sent = server.requests[0].headers
    assert {name: sent[name.lower()] for name in own} == own
    assert sent["airgate-token"] == "tok-en"


def test_upstream_roles_and_reason_may_be_the_tasks(server: Server, run: Run) -> None:
    server.says(OK)
    run(
        "GET",
        roles="finance-publisher",
        hook={"upstream": "crm", "roles": ["sales-reader"], "justification": "Prüfung"},
        run={"endpoint": "/v1/accounts", "data": {"page": "2"}},
    )
    [request] = server.requests
    assert request.path == "/crm/v1/accounts?page=2"
    assert request.headers["airgate-role"] == "sales-reader"
    assert request.headers["airgate-justification"] == "Pr%C3%BCfung"


@pytest.mark.parametrize("checked", [True, False], ids=["statuses checked", "statuses left to the DAG"])
def test_a_denial_is_one_call_and_one_error(server: Server, run: Run, checked: bool) -> None:
    server.says(DENIED)
    with pytest.raises(GateDenied, match=r"finance-data@example\.com") as raised:
        run(run={"endpoint": "v1/entries", "extra_options": {} if checked else {"check_response": False}})
    assert raised.value.request_id == REQUEST_ID
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(passed_on(404, "gone"), "404:Not Found", id="not found"),
        pytest.param(passed_on(429, **{"Retry-After": "60"}), "429:Too Many Requests", id="its own limit"),
        pytest.param(copied(refused(403, "policy.no_match")), "403:Forbidden", id="a copied denial"),
        pytest.param(copied(refused(401, "token.expired")), "401:Unauthorized", id="a copied stale token"),
        pytest.param(copied(refused(429, "limit.rate", 20)), "429:Too Many Requests", id="a copied limit"),
    ],
)
def test_an_upstreams_own_error_is_as_with_the_stock_hook(
    server: Server, other: Server, run: Run, answer: Answer, said: str
) -> None:
    other.says(granted("first"), granted("second"))
    server.says(answer)
    with pytest.raises((AirflowException, HttpErrorException)) as raised:
        run(identity="client_credentials", token_url=other.url, run={"endpoint": "v1/entries"})
    assert str(raised.value) == said
    assert not isinstance(raised.value, GateDenied | GateBusy)
    assert (len(server.requests), len(other.requests)) == (1, 1)


@pytest.mark.parametrize("code", ["upstream.circuit_open", "policy.unavailable"])
def test_an_upstream_that_copies_a_busy_gate_is_not_waited_for(server: Server, run: Run, code: str) -> None:
    server.says(copied(refused(503, code, 20)))
    started = time.monotonic()
    with pytest.raises((AirflowException, HttpErrorException), match="503:Service Unavailable") as raised:
        run(run={"endpoint": "v1/entries"})
    assert not isinstance(raised.value, GateBusy)
    assert time.monotonic() - started < 5
    assert len(server.requests) == (1 if run.kind == "sync" else 3)  # as the stock hooks do


@pytest.mark.parametrize("code", ["request.upgrade", "request.grpc"])
def test_what_the_gate_does_not_pass_on_is_one_call_and_one_error(
    server: Server, run: Run, code: str
) -> None:
    server.says(refused(501, code))
    with pytest.raises(GateDenied, match=code):
        run(run={"endpoint": "v1/entries"})
    assert len(server.requests) == 1


def test_an_upstreams_own_error_is_left_to_the_dag_when_it_asks_for_it(server: Server, run: Run) -> None:
    server.says(passed_on(404, "gone"))
    answer = run(run={"endpoint": "v1/entries", "extra_options": {"check_response": False}})
    assert (answer.status_code if run.kind == "sync" else answer.status) == 404


@pytest.mark.parametrize("code", ["token.expired", "token.key", "token.revoked"])
def test_a_token_that_the_gate_does_not_take_is_renewed_once(
    server: Server, other: Server, run: Run, code: str
) -> None:
    other.says(granted("first"), granted("second"))
    server.says(refused(401, code), OK)
    run(identity="client_credentials", token_url=other.url, run={"endpoint": "x", "data": "body"})
    assert [request.headers["authorization"] for request in server.requests] == [
        "Bearer first",
        "Bearer second",
    ]
    assert [request.body for request in server.requests] == [b"body", b"body"]
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1


def test_a_second_token_that_is_not_taken_is_a_denial(server: Server, other: Server, run: Run) -> None:
    other.says(granted("first"), granted("second"))
    server.says(refused(401, "token.expired"))
    with pytest.raises(GateDenied):
        run(identity="client_credentials", token_url=other.url, run={"endpoint": "x"})
    assert len(server.requests) == 2


def test_a_bound_token_has_a_new_proof_for_each_request(server: Server, other: Server, run: Run) -> None:
    other.says(granted(token_type="DPoP"))
    late = formatdate(time.time() - 600, usegmt=True)
    server.says(refused(401, "token.proof_invalid", Date=late), OK)
    run(identity="client_credentials", token_url=other.url, dpop=True, run={"endpoint": "x"})
    first, second = (request.headers for request in server.requests)
    assert first["authorization"].startswith("DPoP ")
    assert first["dpop"] != second["dpop"]
    assert claims(second["dpop"])["iat"] == pytest.approx(time.time() - 600, abs=3)
    assert len(other.requests) == 1


def claims(proof: str) -> dict[str, Any]:
    part = proof.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def moved(place: str, status: int = 302) -> Answer:
    return passed_on(status, "", Location=place)


OURS = ("authorization", "dpop", "traceparent", "idempotency-key")


def of_ours(request: Request) -> list[str]:
    """The headers of a request that are for the gate alone."""
    return [name for name in request.headers if name.startswith("airgate-") or name in OURS]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "place",
    [
        pytest.param("http://{other}/landing", id="another port"),
        pytest.param("//{other}/landing", id="no scheme"),
        pytest.param("http://{gate}@{other}/landing", id="the gate as a user name"),
        pytest.param("HTTP://{other}/landing?{gate}#{gate}", id="the gate behind it"),
        pytest.param("http://{localhost}/landing", id="another name of the same machine"),
    ],
)
def test_a_redirect_takes_nothing_of_ours_elsewhere(
    server: Server, other: Server, run: Run, place: str, status: int
) -> None:
    localhost = other.host.replace("127.0.0.1", "localhost")
    server.says(moved(place.format(gate=server.host, other=other.host, localhost=localhost), status))
    other.says(Answer(200, "{}", {"Airgate-Request-Id": "../of-somebody-else"}))
    own = {
        "X-Team": "finance",
        "Authorization": "Basic of-the-api",
        "Cookie": "session=of-the-api",
        "Airgate-Justification": "Month-end",
    }
    run("POST", roles="finance-reader", run={"endpoint": "x", "data": "body", "headers": own})
    [there] = other.requests
    assert of_ours(there) == []
    assert "cookie" not in there.headers
    assert "tok-en" not in str(there)
    assert there.headers["x-team"] == "finance"
    assert "airgate_request_id" not in run.pushed


def test_a_refusal_elsewhere_is_not_the_gates(server: Server, other: Server, run: Run) -> None:
    server.says(moved(f"{other.url}/landing"))
    other.says(refused(403, "policy.no_match"))
    with pytest.raises((AirflowException, HttpErrorException), match="403:Forbidden") as raised:
        run("GET", run={"endpoint": "x"})
    assert not isinstance(raised.value, GateDenied)


@pytest.mark.parametrize("status", [302, 307])
def test_whoever_answers_elsewhere_does_not_call_the_gate_with_the_tasks_token(
    server: Server, other: Server, run: Run, status: int
) -> None:
    server.says(moved(f"{other.url}/landing", status), refused(401, "token.missing"))
    other.says(moved(f"{server.url}/crm/v1/accounts", status))
    with pytest.raises((AirflowException, HttpErrorException)):
        run("POST", run={"endpoint": "x", "data": "body"})
    first, second = server.requests
    assert first.headers["authorization"] == "Bearer tok-en"
    assert of_ours(second) == []


@pytest.mark.parametrize(
    ("place", "path"),
    [
        pytest.param(
            "/ledger/v1/entries/7?full=1", "/ledger/v1/entries/7?full=1", id="as the gate writes it"
        ),
        pytest.param("7", "/ledger/v1/7", id="relative"),
        pytest.param("../v2/entries", "/ledger/v2/entries", id="relative, upwards"),
        pytest.param("?page=2", "/ledger/v1/entries?page=2", id="another query"),
        pytest.param("http://{gate}/ledger/a%2Fb", "/ledger/a%2Fb", id="the gate's address in full"),
    ],
)
def test_a_redirect_within_the_gate_keeps_the_token(server: Server, run: Run, place: str, path: str) -> None:
    server.says(moved(place.format(gate=server.host)), OK)
    run("GET", roles="finance-reader", run={"endpoint": "v1/entries"})
    first, second = server.requests
    assert second.path == path
    for name in ("authorization", "airgate-role", "airgate-dag-id"):
        assert second.headers[name] == first.headers[name]


@pytest.mark.parametrize(
    ("status", "method", "body"), [(303, "GET", b""), (307, "POST", b"body"), (308, "POST", b"body")]
)
def test_a_redirected_write_has_a_proof_for_where_it_goes(
    server: Server, other: Server, run: Run, status: int, method: str, body: bytes
) -> None:
    other.says(granted(token_type="DPoP"))
    server.says(moved("/ledger/v2/entries", status), OK)
    run(
        "POST",
        identity="client_credentials",
        token_url=other.url,
        dpop=True,
        run={"endpoint": "v1/entries", "data": "body"},
    )
    second = server.requests[1]
    assert (second.method, second.body) == (method, body)
    proof = claims(second.headers["dpop"])
    assert (proof["htm"], proof["htu"]) == (method, f"{server.url}/ledger/v2/entries")


def test_a_gate_that_is_away_is_named(run: Run) -> None:
    with pytest.raises(GateUnreachable, match=r"The gate at http://127\.0\.0\.1:9 cannot be reached"):
        run(host="http://127.0.0.1:9", run={"endpoint": "x"})


def test_a_gate_that_breaks_off_may_have_acted(server: Server, run: Run) -> None:
    server.says(Answer(hang_up=True))
    with pytest.raises(GateUnreachable, match="broke the connection off; the call may have been made"):
        run(run={"endpoint": "x"})


def test_a_token_that_is_not_to_be_had_is_said(server: Server, run: Run) -> None:
    with pytest.raises(TokenUnavailable, match=r"The token endpoint at 127\.0\.0\.1:9"):
        run(identity="client_credentials", token_url="http://127.0.0.1:9/token", run={"endpoint": "x"})
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (429, "limit.rate"),
        (502, "upstream.unreachable"),
        (503, "upstream.circuit_open"),
        (503, "upstream.overloaded"),
        (503, "upstream.credential"),
        (504, "upstream.timeout"),
    ],
)
def test_a_busy_gate_is_waited_for_in_the_triggerer(server: Server, run: Run, status: int, code: str) -> None:
    # The permit is the decision; what failed came after it.
    busy = refused(status, code, 1, **{"Airgate-Decision": "permit"})
    if run.kind == "sync":
        server.says(busy)
        with pytest.raises(GateBusy, match=code) as raised:
            run(run={"endpoint": "x"})
        assert raised.value.retry_after == 1
        assert len(server.requests) == 1
    else:
        server.says(busy, OK)
        started = time.monotonic()
        run(run={"endpoint": "x"})
        assert time.monotonic() - started >= 1
        assert len(server.requests) == 2
        assert len({request.headers["idempotency-key"] for request in server.requests}) == 1


@pytest.mark.parametrize("code", ["upstream.timeout", "upstream.unreachable"])
def test_a_call_that_the_gate_will_not_repeat_is_an_error_at_once(
    server: Server, run: Run, code: str
) -> None:
    """A POST without an Idempotency-Key may have been made, and trying again is not the gate's to advise."""
    server.says(refused(504, code, **{"Airgate-Decision": "permit"}))
    with pytest.raises(GateDenied, match=code):
        run(run={"endpoint": "x"})
    assert len(server.requests) == 1


def test_a_gate_that_stays_busy_ends_the_wait(server: Server, run: Run) -> None:
    server.says(refused(503, "policy.unavailable", 0))
    with pytest.raises(GateBusy):
        run(run={"endpoint": "x"})
    assert len(server.requests) == (1 if run.kind == "sync" else 3)


def test_the_request_id_is_left_in_xcom(server: Server, run: Run) -> None:
    if run.kind == "async":
        pytest.skip("a trigger hands it to the task")
    server.says(DENIED)
    with pytest.raises(GateDenied):
        run(request_page="https://logs.example.com/?q={request_id}", run={"endpoint": "x"})
    request_id = REQUEST_ID
    assert run.pushed == {
        "airgate_request_id": request_id,
        "airgate_request_url": f"https://logs.example.com/?q={request_id}",
    }


def test_an_xcom_that_cannot_be_written_hides_nothing(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if run.kind == "async":
        pytest.skip("a trigger hands it to the task")

    def fail(*_: Any) -> None:
        raise RuntimeError("Airflow is away")

    monkeypatch.setattr(compat, "set_xcom", fail)
    server.says(DENIED)
    with pytest.raises(GateDenied):
        run(run={"endpoint": "x"})


@pytest.fixture
def hook(connection: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., hooks.AirgateHook]:
    """hook(**connection): a hook outside of a task."""

    def make(**values: Any) -> hooks.AirgateHook:
        made = connection(**{"identity": "token", "password": "tok-en", **values})
        monkeypatch.setattr(hooks.AirgateHook, "get_connection", classmethod(lambda *_: made))
        return hooks.AirgateHook("POST", "ledger")

    return make


def test_tenacity_leaves_a_denial_alone(server: Server, hook: Any) -> None:
    from tenacity import retry_if_exception_type, stop_after_attempt

    server.says(DENIED)
    with pytest.raises(GateDenied):
        hook().run_with_advanced_retry(
            {"stop": stop_after_attempt(5), "retry": retry_if_exception_type(Exception)}, endpoint="x"
        )
    assert len(server.requests) == 1


def test_tenacity_waits_as_long_as_the_gate_asks_for(server: Server, hook: Any) -> None:
    from tenacity import stop_after_attempt, wait_fixed

    server.says(refused(429, "limit.rate", 1), OK)
    started = time.monotonic()
    hook().run_with_advanced_retry({"stop": stop_after_attempt(3), "wait": wait_fixed(0)}, endpoint="x")
    assert time.monotonic() - started >= 1
    assert len(server.requests) == 2


def test_repeated_calls_of_a_task_have_one_key_and_different_ones_another(
    server: Server, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workload, "from_context", classmethod(lambda *_: Workload("d", "t", "r")))
    made = connection(identity="token")
    monkeypatch.setattr(hooks.AirgateHook, "get_connection", classmethod(lambda *_: made))
    server.says(OK)
    for body in ("one", "one", "two", "one"):
        hooks.AirgateHook("POST", "ledger").run("x", data=body)
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert keys[0] == keys[1] == keys[3] == Workload("d", "t", "r", try_number=9).idempotency_key()
    assert keys[2] == Workload("d", "t", "r").idempotency_key(2) != keys[0]


def unknown(request: Request) -> Answer:
    return refused(404, "route.unknown_upstream")


@pytest.mark.parametrize(
    ("answer", "works", "said"),
    [
        pytest.param(OK, True, "takes the token and knows the upstream ledger", id="permitted"),
        pytest.param(
            DENIED, True, "takes the token and knows the upstream ledger", id="nothing to see there"
        ),
        pytest.param(
            unknown, False, "knows no upstream 'ledger' (field \"Upstream\")", id="no such upstream"
        ),
        pytest.param(refused(401, "token.audience"), False, "token.audience", id="a token for another"),
        pytest.param(Answer(200, "hello"), False, "it is no gate", id="somebody else"),
        pytest.param(refused(503, "internal", 5), False, "internal", id="a gate in trouble"),
    ],
)
def test_the_test_button(server: Server, hook: Any, answer: Any, works: bool, said: str) -> None:
    server.says(answer)
    found, text = hook().test_connection()
    assert (found, said in text) == (works, True), text
    assert [(request.method, request.path) for request in server.requests] == [("GET", "/ledger/")]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"upstream": ""}, 'the field "Upstream" is empty'),
        ({"identity": "client_credentials", "token_url": "http://127.0.0.1:9/t"}, "cannot be reached"),
        ({"host": "http://127.0.0.1:9"}, "The gate at http://127.0.0.1:9 cannot be reached."),
    ],
)
def test_the_test_button_says_what_is_missing(hook: Any, values: dict[str, Any], said: str) -> None:
    works, text = hook(**values).test_connection()
    assert not works
    assert said in text


def test_a_denial_of_head_is_one_call_and_one_error(server: Server, run: Run) -> None:
    server.says(DENIED)
    with pytest.raises(GateDenied, match=REQUEST_ID):
        run("HEAD", run={"endpoint": "x"})
    assert len(server.requests) == 1


def test_a_token_that_cannot_be_renewed_is_not_sent_again(server: Server, run: Run) -> None:
    server.says(refused(401, "token.expired"))
    with pytest.raises(GateDenied):
        run(run={"endpoint": "x"})
    assert len(server.requests) == 1


def test_the_wait_for_a_busy_gate_is_no_part_of_a_requests_timeout(server: Server, run: Run) -> None:
    if run.kind == "sync":
        pytest.skip("it does not wait there")
    server.says(refused(429, "limit.rate", 2), OK)
    run(timeout=1, run={"endpoint": "x"})
    assert server.requests[0].headers["idempotency-key"] == server.requests[1].headers["idempotency-key"]


@pytest.mark.parametrize("form", ["by scheme", "one address"])
def test_a_proxy_of_the_connection_is_used(
    server: Server, other: Server, run: Run, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if run.kind == "sync" and form == "one address":
        pytest.skip("requests wants them by scheme")
    monkeypatch.delenv("no_proxy")
    other.says(OK)
    run("GET", proxies={"http": other.url} if form == "by scheme" else other.url, run={"endpoint": "x"})
    assert [request.path for request in other.requests] == [f"{server.url}/ledger/x"]
    assert server.requests == []


def test_a_body_that_was_streamed_is_sent_whole_again_or_not_at_all(
    server: Server, other: Server, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    made = connection(token_url=other.url)
    monkeypatch.setattr(hooks.AirgateHook, "get_connection", classmethod(lambda *_: made))
    other.says(lambda _: granted(f"token-{len(other.requests)}"))
    server.says(refused(401, "token.expired"), OK)
    hooks.AirgateHook("POST", "ledger").run("x", data=io.BytesIO(b"whole"))
    assert [request.body for request in server.requests] == [b"whole", b"whole"]

    server.requests.clear()
    server.says(refused(401, "token.expired"), OK)
    pages = _Once(b"whole")
    with pytest.raises(GateBusy):
        hooks.AirgateHook("POST", "ledger").run("x", data=pages, headers={"Content-Length": "5"})
    assert len(server.requests) == 1


class _Once:
    """A body that can be read once."""

    def __init__(self, content: bytes) -> None:
        self._left = [content]

    def __len__(self) -> int:
        return 5

    def read(self, _: int = -1) -> bytes:
        return self._left.pop() if self._left else b""

    def __iter__(self) -> Any:
        while self._left:
            yield self._left.pop()


def test_a_credential_of_the_dags_own_for_the_api_goes_beside_the_token(server: Server, hook: Any) -> None:
    server.says(OK)
    hook().run("x", auth=("of-the-api", "word"))
    sent = server.requests[0].headers
    assert sent["authorization"].startswith("Basic ")
    assert sent["airgate-token"] == "tok-en"


def test_an_auth_type_of_the_dag_is_said_not_to_be_used(
    server: Server, connection: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from requests.auth import HTTPBasicAuth

    made = connection(identity="token", password="tok-en")
    monkeypatch.setattr(hooks.AirgateHook, "get_connection", classmethod(lambda *_: made))
    server.says(OK)
    with caplog.at_level("WARNING"):
        hooks.AirgateHook("GET", "ledger", HTTPBasicAuth).run("x")
    assert server.requests[0].headers["authorization"] == "Bearer tok-en"
    assert "auth_type is not used" in caplog.text


@pytest.mark.parametrize(
    "endpoint", ["https://elsewhere.example.com/x", "//elsewhere.example.com/x", "@elsewhere/x"]
)
def test_an_endpoint_never_leads_elsewhere(server: Server, run: Run, endpoint: str) -> None:
    server.says(OK)
    run("GET", run={"endpoint": endpoint})
    assert server.requests[0].path.startswith("/ledger/")
