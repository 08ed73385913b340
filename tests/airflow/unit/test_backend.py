"""The secrets backend: plain connections with a fresh token, and never a secret where there should be a token."""

import logging
from typing import Any, ClassVar

import pytest
from airflow.providers.http.hooks.http import HttpHook

from airgate_provider import compat
from airgate_provider.backend import AirgateSecretsBackend
from airgate_provider.workload import Workload
from conftest import Answer, Server, granted, passed_on


class Vault:
    """A user's own backend."""

    connections: ClassVar[dict[str, Any]] = {}

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    def get_connection(self, conn_id: str) -> Any:
        return self.connections.get(self.prefix + conn_id)

    def get_variable(self, key: str) -> str:
        return f"variable {self.prefix}{key}"

    def get_config(self, key: str) -> str:
        return f"config {self.prefix}{key}"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> AirgateSecretsBackend:
    Vault.connections.clear()
    monkeypatch.setattr(compat, "other_backends", lambda _: iter(()))
    return AirgateSecretsBackend(backend=f"{__name__}.Vault", backend_kwargs={"prefix": "a-"})


def test_a_connection_for_stock_hooks_is_handed_out_with_a_fresh_token(
    backend: Any, connection: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workload, "from_context", classmethod(lambda *_: Workload("d", "t", "r")))
    server.says(granted("fresh"))
    Vault.connections["a-ledger"] = connection(
        stock_hooks=True, roles="finance-reader", timeout=7, **{"X-Api-Key": "left-over"}
    )
    found = backend.get_connection("ledger")
    assert (found.conn_id, found.conn_type, found.host) == ("ledger", "http", f"{server.url}/ledger")
    assert (found.login, found.password) == (None, None)
    assert found.extra_dejson == {
        "timeout": 7,
        "Authorization": "Bearer fresh",
        "Airgate-Dag-Id": "d",
        "Airgate-Task-Id": "t",
        "Airgate-Run-Id": "r",
        "Airgate-Try-Number": "1",
        "Airgate-Role": "finance-reader",
    }


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param({}, "failed with status 500", id="no token to be had"),
        pytest.param({"dpop": True}, "cannot make proofs", id="a token that needs proofs"),
    ],
)
def test_without_a_token_there_is_no_secret_either(
    backend: Any,
    connection: Any,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    values: dict[str, Any],
    said: str,
) -> None:
    server.says(Answer(500))
    Vault.connections["a-ledger"] = connection(stock_hooks=True, **values)
    with caplog.at_level(logging.ERROR):
        found = backend.get_connection("ledger")
    assert (found.conn_type, found.login, found.password) == ("http", None, None)
    assert "Authorization" not in found.extra_dejson
    assert said in caplog.text
    assert "s3cret-of-finance" not in caplog.text + found.get_uri()


@pytest.mark.parametrize(
    "values",
    [{"upstream": ""}, {"host": "http://gate.example.com"}, {"dpop": "perhaps"}, {"stock_hooks": "yes"}],
    ids=str,
)
def test_one_that_cannot_be_read_leads_nowhere(
    backend: Any, connection: Any, server: Server, caplog: pytest.LogCaptureFixture, values: dict[str, Any]
) -> None:
    Vault.connections["a-ledger"] = connection(**{"stock_hooks": True, **values})
    with caplog.at_level(logging.ERROR):
        found = backend.get_connection("ledger")
    assert (found.conn_type, found.login, found.password, found.extra_dejson) == ("http", None, None, {})
    assert found.host.endswith(".invalid")
    assert 'the field "' in caplog.text
    assert server.requests == []


@pytest.mark.parametrize(
    "values", [{}, {"stock_hooks": False}, {"conn_type": "http", "stock_hooks": True}], ids=str
)
def test_other_connections_pass_through(backend: Any, connection: Any, values: dict[str, Any]) -> None:
    made = Vault.connections["a-ledger"] = connection(**values)
    assert backend.get_connection("ledger") is made
    assert backend.get_connection("other") is None


def test_variables_and_settings_are_the_wrapped_backends(backend: Any) -> None:
    assert backend.get_variable("x") == "variable a-x"
    assert backend.get_config("x") == "config a-x"
    assert AirgateSecretsBackend().get_variable("x") is None


def test_backends_behind_it_are_asked_too(connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def get_connection(self, conn_id: str) -> Any:
            raise RuntimeError("away")

    made = connection()
    Vault.connections.clear()
    Vault.connections["ledger"] = made
    monkeypatch.setattr(compat, "other_backends", lambda _: iter((Broken(), Vault())))
    assert AirgateSecretsBackend().get_connection("ledger") is made


def test_a_denial_by_airflow_is_not_softened(monkeypatch: pytest.MonkeyPatch, connection: Any) -> None:
    class Denying:
        def get_connection(self, conn_id: str) -> Any:
            raise PermissionError("not for this team")

    Vault.connections.clear()
    Vault.connections["ledger"] = connection()
    monkeypatch.setattr(compat, "other_backends", lambda _: iter((Denying(), Vault())))
    with pytest.raises(PermissionError):
        AirgateSecretsBackend().get_connection("ledger")


@pytest.mark.parametrize(
    "place", ["http://{other}/landing", "//{other}/landing"], ids=["in full", "no scheme"]
)
def test_the_token_of_a_stock_hook_does_not_follow_a_redirect_elsewhere(
    backend: Any, connection: Any, server: Server, other: Server, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    Vault.connections["a-ledger"] = connection(stock_hooks=True, identity="token", password="tok-en")
    handed_out = backend.get_connection("ledger")
    monkeypatch.setattr(HttpHook, "get_connection", classmethod(lambda *_: handed_out))
    server.says(
        passed_on(302, "", Location="/ledger/y"),
        passed_on(302, "", Location=place.format(other=other.host.replace("127.0.0.1", "localhost"))),
    )
    HttpHook("GET", "ledger").run("x")
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer tok-en"] * 2
    [there] = other.requests
    assert "authorization" not in there.headers
