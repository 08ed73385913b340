"""Attested connections where nobody attests: in a task's own process, a triggerer, a DAG processor, on Airflow 2.11."""

import logging
from typing import Any

import pytest

from airgate_provider import compat
from airgate_provider.backend import AirgateSecretsBackend
from conftest import Server


class Store:
    """A secrets backend that knows of teams."""

    def __init__(self, **found: Any) -> None:
        self.found = found
        self.asked: list[tuple[str, str | None]] = []

    def get_connection(self, conn_id: str, team_name: str | None = None) -> Any:
        self.asked.append((conn_id, team_name))
        if isinstance(found := self.found.get(conn_id), Exception):
            raise found
        return found


class Old(Store):
    """One of before there were teams."""

    def get_connection(self, conn_id: str) -> Any:  # type: ignore[override]
        return super().get_connection(conn_id)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """backend(own, *behind): ours around one store, with others behind it."""

    def make(own: Store | None, *behind: Store) -> AirgateSecretsBackend:
        made = AirgateSecretsBackend()
        made._wrapped = own
        monkeypatch.setattr(compat, "other_backends", lambda _: iter(behind))
        return made

    return make


@pytest.mark.parametrize("identity", ["attested", " Attested", "ATTESTED"])
def test_a_task_takes_what_the_api_server_hands_out_and_not_what_its_own_store_has(
    backend: Any, connection: Any, identity: str
) -> None:
    own = connection(identity=identity, login=None, password=None)
    handed = connection(identity="attested", login=None, password="tok-en", attested_until=1)
    api = Store(ledger=handed)
    assert backend(Store(ledger=own), Store(), api).get_connection("ledger") is handed
    assert backend(None, api).get_connection("ledger") is handed


def test_what_nobody_behind_has_stays_as_it_is_without_a_token(backend: Any, connection: Any) -> None:
    own = connection(identity="attested", login=None, password=None)
    found = backend(Store(ledger=own), Store(), Store(ledger=RuntimeError("away"))).get_connection("ledger")
    assert found is own
    assert found.password is None


def test_what_the_api_server_denies_no_store_hands_out(backend: Any, connection: Any) -> None:
    own = connection(identity="attested")
    with pytest.raises(PermissionError):
        backend(Store(ledger=own), Store(ledger=PermissionError("no")), Store(ledger=own)).get_connection(
            "ledger"
        )


def test_a_plain_connection_of_the_api_servers_passes_through(backend: Any, connection: Any) -> None:
    own = connection(identity="attested", stock_hooks=True)
    plain = connection(conn_type="http", Authorization="Bearer tok-en")
    assert backend(Store(ledger=own), Store(ledger=plain)).get_connection("ledger") is plain


def test_a_stock_hook_gets_no_secret_where_nobody_attests(
    backend: Any, connection: Any, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    own = connection(identity="attested", stock_hooks=True, login="left-over", password="left-over-secret")
    with caplog.at_level(logging.ERROR):
        found = backend(Store(ledger=own), Store(ledger=own)).get_connection("ledger")
    assert (found.conn_type, found.login, found.password, found.extra_dejson) == ("http", None, None, {})
    assert found.host.endswith(".invalid")
    assert "attested" in caplog.text
    assert "left-over-secret" not in caplog.text
    assert server.requests == []


def test_a_store_is_asked_for_the_team_where_it_knows_of_teams(backend: Any) -> None:
    own, old, new = Old(), Old(), Store()
    backend(own, old, new).get_connection("ledger", team_name="finance")
    assert (own.asked, old.asked, new.asked) == (
        [("ledger", None)],
        [("ledger", None)],
        [("ledger", "finance")],
    )
