"""Airflow 3.3's own API server with the issuer in it: what a task gets that fetches a connection, and nobody else does.

The app, its database and its tokens are Airflow's; a session is a row in that database.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from airflow.models.connection import Connection
from airflow.models.dag import DagModel, DagTag
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import delete, insert, update
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from airgate_provider import attest, attest_keys, execution, sessions
from airgate_provider.attest import NotAttested

ISSUER, AUDIENCE = "https://airflow.example.com/airgate", "https://gate.example.com"
GATE = "https://gate.example.com"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
AIRFLOW = {
    "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of sixty-four characters or more, as HS512 would have it: it is",
    "AIRFLOW__CORE__FERNET_KEY": "YWlyZ2F0ZS11bml0LXRlc3RzLWZlcm5ldC1rZXktMzI=",
    "AIRFLOW__SECRETS__BACKEND": "airgate_provider.backend.AirgateSecretsBackend",
    "_AIRFLOW_PROCESS_CONTEXT": "server",  # as airflow.api_fastapi.main sets it
}
CONNECTIONS: dict[str, dict[str, Any]] = {
    "ledger": {
        "host": "gate.example.com",
        "schema": "https",
        "port": 8443,
        "description": "Through the gate",
        "extra": {"upstream": "ledger", "identity": "attested", "roles": "finance-reader", "timeout": 7},
    },
    "Shouted": {"host": GATE, "extra": {"upstream": "ledger", "identity": " Attested"}},
    "stock": {
        "host": GATE,
        "login": "left-over",
        "password": "left-over-secret",
        "extra": {"upstream": "ledger", "identity": "attested", "stock_hooks": True, "timeout": 7},
    },
    "unreadable": {"extra": {"upstream": "ledger", "identity": "attested"}},
    "fixed": {"host": GATE, "password": "fixed-token", "extra": {"upstream": "ledger", "identity": "token"}},
    "other": {"conn_type": "http", "host": GATE, "extra": {"identity": "attested"}},
}
# Connections that [airgate] attest_gates is asked about, all with the identity attested: host, port, more of extra.
LEADING: dict[str, tuple[str, int | None, dict[str, Any]]] = {
    "to_gate": ("https://Gate.example.com:443", None, {}),
    "to_port": ("gate.example.com", 8443, {}),
    "to_itself": ("http://127.0.0.1:8787", None, {}),
    "trusting_a_file": (GATE, None, {"verify": "/etc/ssl/ours.pem"}),
    "behind_a_proxy": (GATE, None, {"verify": True, "proxies": {"https": "http://proxy"}}),
    "to_another": ("https://gate.example.org", None, {}),
    "to_another_stock": ("https://gate.example.org", None, {"stock_hooks": True}),
    "to_another_port": (GATE, 9443, {}),
    "to_a_longer_name": ("https://gate.example.com.example.org", None, {}),
    "to_a_name_within": ("https://ledger.gate.example.com", None, {}),
    "to_a_name_with_a_dot": ("https://gate.example.com.", None, {}),
    "to_a_name_with_a_tab": ("https://gate.exam\tple.com", None, {}),
    "to_a_backslash": ("https://gate.example.org\\gate.example.com", None, {}),
    "to_a_lookalike": ("https://g\u0430te.example.com", None, {}),
    "unchecked": (GATE, None, {"verify": False}),
    "unchecked_stock": (GATE, None, {"verify_ssl": False, "stock_hooks": True}),
    "unchecked_behind": (GATE, None, {"verify": True, "verify_ssl": 0}),
    "unchecked_by_a_text": (GATE, None, {"verify": ""}),
    "trusting_a_proxy": (GATE, None, {"verify": "/tmp/ours.pem", "proxies": {"https": "http://proxy"}}),
    "trusting_a_proxy_behind": (GATE, None, {"verify_ssl": "/tmp/ours.pem", "proxy": "http://proxy"}),
    "in_clear_by_a_proxy": ("http://127.0.0.1:8787", None, {"proxies": {"http": "http://gate.example.org"}}),
}


@pytest.fixture(scope="module")
def signing() -> dict[str, Any]:
    from cryptography.hazmat.primitives.asymmetric import ec
    from jwt.algorithms import ECAlgorithm

    return {**ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True), "kid": "one"}


@pytest.fixture(scope="module")
def api(signing: dict[str, Any]) -> Iterator[TestClient]:
    """A running API server."""
    from airflow import plugins_manager, settings
    from airflow.models.crypto import get_fernet
    from airflow.utils.db import initdb

    def forget() -> None:
        attest_keys.forget()
        execution._validator.cache_clear()
        plugins_manager.get_fastapi_plugins.cache_clear()
        get_fernet.cache_clear()

    with pytest.MonkeyPatch.context() as patch:
        told = {"attest": "True", "attest_issuer": ISSUER, "attest_audience": AUDIENCE} | {
            "attest_keys": json.dumps({"keys": [signing]}),
            "attest_environment": "tests",
        }
        for name, value in AIRFLOW.items() | {(f"AIRFLOW__AIRGATE__{n.upper()}", v) for n, v in told.items()}:
            patch.setenv(name, value)
        for name in ("start", "stop", "minted", "changed"):
            patch.setattr(sessions, name, lambda *_: None)
        forget()
        settings.initialize()
        initdb()
        with create_session() as database:
            for name, values in CONNECTIONS.items():
                database.add(Connection(**{"conn_id": name, "conn_type": "airgate", **values}))
            for name, (host, port, extra) in LEADING.items():
                extra = {"upstream": "ledger", "identity": "attested", **extra}
                database.add(
                    Connection(
                        conn_id=name, conn_type="airgate", host=host, port=port, extra=json.dumps(extra)
                    )
                )
            database.add(DagBundleModel(name="finance"))
        from airflow.api_fastapi.app import create_app

        with TestClient(create_app(), base_url="https://airflow.example.com") as client:
            yield client
    forget()


@pytest.fixture
def minted(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """What sessions are told."""
    told: list[tuple[str, str, int]] = []
    monkeypatch.setattr(sessions, "minted", lambda *values: told.append(values))
    return told


@pytest.fixture
def session(api: TestClient) -> Iterator[Callable[..., str]]:
    """session(dag=…, …): a session in the database, running unless said otherwise; its id."""

    def make(
        dag: str = "finance_close",
        task: str = "publish",
        run: str = "scheduled__2026-11-22",
        *,
        tags: tuple[str, ...] = (),
        owners: str = "finance",
        bundle_version: str | None = None,
        user: str | None = None,
        run_type: str = "scheduled",
        cleared: int = 0,
        **values: Any,
    ) -> str:
        made = uuid.uuid4()
        with create_session() as database:
            database.merge(
                DagModel(
                    dag_id=dag,
                    bundle_name="finance",
                    owners=owners,
                    max_active_tasks=16,
                    max_consecutive_failed_dag_runs=0,
                    has_task_concurrency_limits=False,
                    is_stale=False,
                )
            )
            database.flush()
            for tag in tags:
                database.merge(DagTag(name=tag, dag_id=dag))
            if not database.query(DagRun).filter_by(dag_id=dag, run_id=run).count():
                database.execute(
                    insert(DagRun.__table__).values(
                        dag_id=dag,
                        run_id=run,
                        run_type=run_type,
                        state="running",
                        run_after=NOW,
                        triggering_user_name=user,
                        clear_number=cleared,
                        bundle_version=bundle_version,
                        span_status="not_started",
                    )
                )
            database.execute(
                insert(TaskInstance.__table__).values(
                    {
                        "id": made,
                        "dag_id": dag,
                        "task_id": task,
                        "run_id": run,
                        "state": "running",
                        "try_number": 1,
                        "map_index": -1,
                        "pool": "default_pool",
                        "pool_slots": 1,
                        "span_status": "not_started",
                        **values,
                    }
                )
            )
        return str(made)

    yield make
    with create_session() as database:
        for model in (TaskInstance, DagRun, DagTag, DagModel):
            database.execute(delete(model))


def ticket(session: str, **claims: Any) -> str:
    """The token that Airflow gives a task's supervisor."""
    from airflow.api_fastapi.execution_api.app import _jwt_generator

    made: str = _jwt_generator().generate(extras={"sub": session, "scope": "execution", **claims})
    return made


def bearer(session: str, **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {ticket(session, **claims)}"}


def fetch(api: TestClient, session: str, connection: str = "ledger") -> Any:
    return api.get(f"/execution/connections/{connection}", headers=bearer(session))


def checked(api: TestClient, token: str) -> dict[str, Any]:
    """What a token says, checked as the gate would: by the discovery document and the keys that it names."""
    found = api.get("/airgate/.well-known/openid-configuration").json()
    assert found["issuer"] == ISSUER
    keys = api.get(found["jwks_uri"]).json()["keys"]
    header = jwt.get_unverified_header(token)
    assert header["typ"] == "at+jwt"
    [key] = [jwt.PyJWK(each) for each in keys if each["kid"] == header["kid"]]
    claims: dict[str, Any] = jwt.decode(
        token, key.key, algorithms=[header["alg"]], audience=AUDIENCE, issuer=ISSUER
    )
    return claims


FACTS = [
    pytest.param({}, {"owners": ["finance"], "run_type": "scheduled"}, id="scheduled"),
    pytest.param(
        {"run_type": "manual", "run": "manual__x", "user": "ada"},
        {"run": "manual__x", "run_type": "manual", "triggered_by": "ada"},
        id="manual, by a user",
    ),
    pytest.param(
        {"run_type": "manual", "run": "manual__again", "user": "ada", "cleared": 1},
        {"run": "manual__again", "run_type": "manual"},
        id="cleared, by nobody knows whom",
    ),
    pytest.param(
        {"run_type": "backfill", "run": "scheduled__not", "user": "ada"},
        {"run": "scheduled__not", "run_type": "backfill", "triggered_by": "ada"},
        id="a backfill that is named like a scheduled run",
    ),
    pytest.param(
        {"run_type": "operator_triggered"}, {"run_type": "operator_triggered"}, id="by another task"
    ),
    pytest.param({"map_index": 0}, {"map_index": 0}, id="mapped, the first"),
    pytest.param({"map_index": 7}, {"map_index": 7}, id="mapped"),
    pytest.param({"try_number": 3}, {"try": 3}, id="the third try"),
    pytest.param(
        {"tags": ("pii", "finance", "a b")}, {"tags": ["a b", "finance", "pii"]}, id="tags in one order"
    ),
    pytest.param({"owners": "ops, finance,ops"}, {"owners": ["finance", "ops"]}, id="owners"),
    pytest.param({"owners": ""}, {"owners": []}, id="no owner"),
    pytest.param({"bundle_version": "5fc5"}, {"dag_bundle": "finance@5fc5"}, id="a versioned bundle"),
    pytest.param(
        {"dag": "Abschluß/2", "task": "a.b c"}, {"dag": "Abschluß/2", "task": "a.b c"}, id="odd names"
    ),
]


@pytest.mark.parametrize(("given", "differs"), FACTS)
def test_the_token_says_what_the_database_says(
    api: TestClient,
    session: Callable[..., str],
    minted: list[Any],
    given: dict[str, Any],
    differs: dict[str, Any],
) -> None:
    own = session(**given)
    answer = fetch(api, own)
    assert answer.status_code == 200, answer.text
    claims = checked(api, answer.json()["password"])
    assert claims["airflow"] == {
        "dag": "finance_close",
        "task": "publish",
        "run": "scheduled__2026-11-22",
        "try": 1,
        "tags": [],
        "owners": ["finance"],
        "run_type": "scheduled",
        "dag_bundle": "finance",
        "environment": "tests",
        **differs,
    }
    told = claims["airflow"]
    assert claims["sub"] == f"{jwt_quoted(told['dag'])}/{jwt_quoted(told['task'])}"
    assert (claims["sid"], claims["client_id"], claims["aud"]) == (own, "airflow", AUDIENCE)
    assert claims["exp"] - claims["iat"] == 300
    assert len(claims["jti"]) == 32
    assert minted == [(own, "https://gate.example.com:8443", claims["exp"])]


def jwt_quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def test_nothing_else_of_the_connection_changes(api: TestClient, session: Callable[..., str]) -> None:
    found = fetch(api, session()).json()
    claims = checked(api, found.pop("password"))
    extra = json.loads(found.pop("extra"))
    assert extra.pop("attested_until") == claims["exp"]
    assert isinstance(extra.pop("attested_sealed"), str)
    assert extra == CONNECTIONS["ledger"]["extra"]
    assert found == {
        "conn_id": "ledger", "conn_type": "airgate", "host": "gate.example.com", "schema": "https", "login": None,
        "port": 8443,
    }  # fmt: skip


def test_each_fetch_brings_a_token_of_its_own(api: TestClient, session: Callable[..., str]) -> None:
    own = session()
    told = [checked(api, fetch(api, own).json()["password"]) for _ in range(3)]
    assert len({claims["jti"] for claims in told}) == 3
    assert {claims["sid"] for claims in told} == {own}


def test_however_it_is_written_it_is_attested(api: TestClient, session: Callable[..., str]) -> None:
    assert checked(api, fetch(api, session(), "Shouted").json()["password"])


def test_stock_hooks_get_a_plain_connection_with_the_token_and_no_secret(
    api: TestClient, session: Callable[..., str], minted: list[Any]
) -> None:
    own = session()
    found = fetch(api, own, "stock").json()
    assert (found["conn_type"], found["host"]) == ("http", f"{GATE}/ledger")
    assert (found["login"], found["password"]) == (None, None)
    extra = json.loads(found["extra"])
    scheme, _, token = extra.pop("Authorization").partition(" ")
    assert scheme == "Bearer"
    assert checked(api, token)["sid"] == own
    assert extra == {"timeout": 7}
    assert [told[:2] for told in minted] == [(own, GATE)]


@pytest.mark.parametrize("name", ["fixed", "other", "unreadable"])
def test_all_others_pass_through(
    api: TestClient, session: Callable[..., str], minted: list[Any], name: str
) -> None:
    found = fetch(api, session(), name).json()
    assert found["password"] == CONNECTIONS[name].get("password")
    assert json.loads(found["extra"]) == CONNECTIONS[name]["extra"]
    assert minted == []


STATES = [
    "success", "failed", "skipped", "upstream_failed", "removed", "up_for_retry", "up_for_reschedule", "restarting",
    "deferred", "queued", "scheduled", "awaiting_input", None,
]  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=str)
@pytest.mark.parametrize("name", ["ledger", "stock"])
def test_a_task_that_does_not_run_gets_nothing(
    api: TestClient, session: Callable[..., str], minted: list[Any], state: str | None, name: str
) -> None:
    refused(fetch(api, session(state=state), name), "attest.not_running")
    assert minted == []


def refused(answer: Any, reason: str, status: int = 403) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]["reason"] == reason
    assert "eyJ" not in answer.text


def test_a_try_that_another_one_has_replaced_gets_nothing(
    api: TestClient, session: Callable[..., str], minted: list[Any]
) -> None:
    """By Airflow's own function: what a retry and a cleared task go through."""
    own = session()
    assert fetch(api, own).status_code == 200
    minted.clear()
    with create_session() as database:
        found = database.get(TaskInstance, uuid.UUID(own))
        assert found is not None
        found.prepare_db_for_next_try(database)
        database.flush()
        following = str(found.id)
    refused(fetch(api, own), "attest.no_session")
    assert minted == []
    assert checked(api, fetch(api, following).json()["password"])["sid"] == following


def test_a_task_that_ends_between_two_fetches_gets_nothing_the_second_time(
    api: TestClient, session: Callable[..., str]
) -> None:
    own = session()
    assert fetch(api, own).status_code == 200
    with create_session() as database:
        database.execute(update(TaskInstance).where(TaskInstance.id == uuid.UUID(own)).values(state="failed"))
    refused(fetch(api, own), "attest.not_running")


def test_an_id_that_nobody_has_gets_nothing(api: TestClient, minted: list[Any]) -> None:
    refused(fetch(api, str(uuid.uuid4())), "attest.no_session")
    assert minted == []


def forged(session: str, **changed: Any) -> str:
    claims = jwt.decode(ticket(session), options={"verify_signature": False})
    return jwt.encode(claims | changed, "another secret" * 6, algorithm="HS512", headers={"kid": "not-used"})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param(lambda _: [], 401, id="no token"),
        pytest.param(lambda s: [("Authorization", f"Basic {ticket(s)}")], 401, id="another scheme"),
        pytest.param(lambda s: [("Authorization", f"Bearer {forged(s)}")], 403, id="signed by another key"),
        pytest.param(
            lambda s: [("Authorization", "Bearer " + jwt.encode({"sub": s, "aud": "x"}, "", "none"))],
            403,
            id="not signed",
        ),
        pytest.param(
            lambda s: [("Authorization", f"Bearer {ticket(s, scope='workload')}")],
            403,
            id="the one that only starts a task",
        ),
        pytest.param(lambda s: [("Cookie", f"_token={ticket(s)}")], 401, id="in a cookie"),
    ],
)
def test_who_has_no_token_of_a_running_task_gets_nothing(
    api: TestClient, session: Callable[..., str], minted: list[Any], headers: Any, status: int
) -> None:
    answer = api.get("/execution/connections/ledger", headers=headers(session()))
    assert answer.status_code == status
    assert "eyJ" not in answer.text
    assert minted == []


def test_of_two_tokens_in_one_request_the_first_counts_as_it_does_for_airflow(
    api: TestClient, session: Callable[..., str], minted: list[Any]
) -> None:
    """Else Airflow might go by the one, and the issuer by the other. Its simple auth manager adds a second itself."""
    one, two = session(), session(task="other")
    tokens = {"one": ticket(one), "two": ticket(two), "forged": forged(one), "admin's": "x.y.z"}

    def ask(*names: str) -> Any:
        headers = [("Authorization", f"Bearer {tokens[name]}") for name in names]
        return api.get("/execution/connections/ledger", headers=headers)

    assert checked(api, ask("one", "two").json()["password"])["sid"] == one
    assert checked(api, ask("two", "one").json()["password"])["sid"] == two
    assert checked(api, ask("one", "admin's").json()["password"])["sid"] == one
    assert [ask("forged", "one").status_code, ask("admin's", "one").status_code] == [403, 403]
    assert [told[0] for told in minted] == [one, two, one]


def test_airflow_may_sign_its_tokens_with_a_private_key(
    monkeypatch: pytest.MonkeyPatch, api: TestClient, tmp_path: Path
) -> None:
    """Which tasks can't read, as they can a secret in the environment."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    own = str(uuid.uuid4())
    by_secret = ticket(own)
    file = tmp_path / "key.pem"
    file.write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    monkeypatch.delenv("AIRFLOW__API_AUTH__JWT_SECRET")
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_PRIVATE_KEY_PATH", str(file))
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_ISSUER", "https://airflow.example.com")

    def of(token: str) -> Any:
        headers = [(b"authorization", f"bearer {token}".encode())]
        return asyncio.run(execution._session({"headers": headers}))

    execution._validator.cache_clear()
    try:
        assert str(of(ticket(own))) == own
        assert of(by_secret) is None
        assert of(ticket(own, scope="workload")) is None
        assert of(ticket("not-a-uuid")) is None
    finally:
        execution._validator.cache_clear()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    [
        "/execution/connections/ledger/",
        "/execution/connections//ledger",
        "/execution/connections/%6Cedger",
        "/execution/connections/ledger%00",
        "/execution/connections/ledger?team_name=x",
        "/execution/connections/../connections/ledger",
        "/execution/connections/%2e%2e/connections/ledger",
        "/execution/connections/x/../ledger",
        "/execution//connections/ledger",
        "//execution/connections/ledger",
        "/EXECUTION/connections/ledger",
        "/execution;x/connections/ledger",
        "/execution/variables/ledger",
        "/execution/variables/AIRFLOW_CONN_LEDGER",
        "/execution/connection-tests/{session}/connection",
        "/api/v2/connections/ledger",
        "/airgate/ledger",
        "/airgate/execution/connections/ledger",
        "/airgate/docs",
        "/airgate/openapi.json",
    ],
)
def test_whatever_a_task_asks_for_it_gets_its_own_token_or_none(
    api: TestClient, session: Callable[..., str], minted: list[Any], method: str, path: str
) -> None:
    own = session()
    # A raw target, which the client does not tidy up.
    answer = api.request(
        method, f"https://airflow.example.com{path.format(session=own)}", headers=bearer(own), json=None
    )
    if answer.status_code == 200 and answer.text.startswith("{") and "password" in answer.json():
        assert checked(api, answer.json()["password"])["sid"] == own
        assert method == "GET"
        assert [told[0] for told in minted] == [own]
    else:
        assert "eyJ" not in answer.text
        assert minted == []


@pytest.fixture
def admin(api: TestClient) -> dict[str, str]:
    """The headers of a person who may do everything."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    made = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="ada", role="ADMIN"))
    return {"Authorization": f"Bearer {made}"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/v2/connections/ledger", None, 200),
        ("GET", "/api/v2/connections", None, 200),
        ("GET", "/api/v2/connections/stock", None, 200),
        ("POST", "/api/v2/connections/test", {"connection_id": "ledger", "conn_type": "airgate"}, 200),
        ("GET", "/execution/connections/ledger", None, 403),
        ("GET", "/api/v2/config", None, 200),
        ("GET", "/api/v2/plugins", None, 200),
    ],
)
def test_a_person_gets_no_token_and_no_key(
    api: TestClient,
    admin: dict[str, str],
    minted: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    signing: dict[str, Any],
    method: str,
    path: str,
    body: Any,
    status: int,
) -> None:
    monkeypatch.setenv("AIRFLOW__API__EXPOSE_CONFIG", "True")
    answer = api.request(method, path, headers=admin, json=body)
    assert answer.status_code == status, answer.text
    assert "eyJ" not in answer.text
    assert signing["d"] not in answer.text
    assert minted == []


def test_connections_that_are_read_or_exported_elsewhere_carry_no_token(
    api: TestClient, minted: list[Any]
) -> None:
    found = Connection.get_connection_from_secrets("ledger")
    assert found.password is None
    assert "attested_until" not in found.extra_dejson
    assert minted == []


def test_many_at_once_each_get_their_own(
    api: TestClient, session: Callable[..., str], minted: list[Any]
) -> None:
    own = [session(task="each", map_index=number) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: fetch(api, each), own))
    told = [checked(api, answer.json()["password"]) for answer in answers]
    assert [claims["sid"] for claims in told] == own
    assert [claims["airflow"]["map_index"] for claims in told] == list(range(40))
    assert len({claims["jti"] for claims in told}) == 40
    assert sorted(each for each, *_ in minted) == sorted(own)


def test_airflows_cache_of_secrets_never_holds_a_token(
    api: TestClient, session: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import SecretCache

    kept: dict[str, str] = {}
    monkeypatch.setattr(
        SecretCache, "save_connection_uri", lambda name, uri, team_name=None: kept.update({name: uri})
    )
    assert fetch(api, session()).status_code == 200
    assert fetch(api, session(task="other"), "stock").status_code == 200
    assert kept.keys() == {"ledger", "stock"}
    assert "eyJ" not in str(kept)


def test_tokens_are_in_no_log_and_pile_up_nowhere(
    api: TestClient,
    session: Callable[..., str],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Airflow's masker keeps what it masks for ever, and looks for each in every line: it must not learn of tokens."""
    from airflow._shared.secrets_masker import _secrets_masker
    from airflow.sdk._shared.secrets_masker import _secrets_masker as _other_masker

    own = session()
    fetch(api, own)
    fetch(api, own, "stock")
    caplog.set_level(logging.DEBUG)
    before = len(_secrets_masker().patterns) + len(_other_masker().patterns)
    for _ in range(5):
        assert fetch(api, own).status_code == 200
        assert fetch(api, own, "stock").status_code == 200
    assert len(_secrets_masker().patterns) + len(_other_masker().patterns) == before
    refused(fetch(api, session(state="failed", task="x")), "attest.not_running")
    logged = caplog.text + "".join(capfd.readouterr())
    assert "attest.not_running" in logged
    assert "eyJ" not in logged


def test_a_connection_with_a_token_does_not_show_it() -> None:
    made = attest.HandedOut(conn_id="x", conn_type="airgate", password="tok-en", extra='{"a": "tok-en"}')
    assert "tok-en" not in f"{made!r} {made} {made.get_uri()}"


def test_a_token_that_the_gate_would_not_take_is_not_made(
    api: TestClient, session: Callable[..., str], minted: list[Any]
) -> None:
    own = session(tags=tuple(f"{number:03d}" + "x" * 90 for number in range(50)))
    refused(fetch(api, own), "attest.too_long")
    assert minted == []


def test_when_the_database_is_away_the_worker_is_to_ask_again(
    api: TestClient, session: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = session()

    def away(_: Any) -> None:
        raise OperationalError("select", {}, Exception("database is locked"))

    monkeypatch.setattr(attest, "_rows", away)
    refused(fetch(api, own), "attest.unavailable", 503)


def test_keys_that_are_gone_are_said_to_be_airflows_fault(
    api: TestClient, session: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> None:
        raise attest_keys.AttestInvalid("[airgate] attest_keys is missing.")

    monkeypatch.setattr(attest_keys, "settings", gone)
    refused(fetch(api, session()), "attest.misconfigured")


@pytest.fixture
def gates(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """gates(said): [airgate] attest_gates, from now on."""

    def make(said: str) -> None:
        monkeypatch.setenv("AIRFLOW__AIRGATE__ATTEST_GATES", said)
        attest_keys.forget()

    yield make
    monkeypatch.undo()
    attest_keys.forget()


LISTED = "https://gate.example.com, https://gate.example.com:8443 http://127.0.0.1:8787"
MAY = ("to_gate", "to_port", "to_itself", "trusting_a_file", "behind_a_proxy")


@pytest.mark.parametrize("name", LEADING)
def test_where_gates_are_listed_tasks_are_attested_for_those_alone(
    api: TestClient,
    session: Callable[..., str],
    minted: list[Any],
    gates: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    own = session()
    gates(LISTED)
    with caplog.at_level(logging.WARNING):
        answer = fetch(api, own, name)
    if name in MAY:
        assert checked(api, answer.json()["password"])["sid"] == own
        assert [told[0] for told in minted] == [own]
        return
    refused(answer, "attest.gate_not_listed" if name.startswith("to_") else "attest.gate_unverified")
    assert minted == []  # and so nothing is ever sent there either
    assert "attest_gates" in caplog.text
    assert name in caplog.text


@pytest.mark.parametrize("name", LEADING)
def test_where_none_is_listed_tasks_are_attested_for_all(
    api: TestClient, session: Callable[..., str], gates: Callable[[str], None], name: str
) -> None:
    gates("")
    assert fetch(api, session(), name).status_code == 200


def test_without_an_audience_in_the_settings_a_token_is_for_the_gate_that_it_is_sent_to(
    api: TestClient,
    session: Callable[..., str],
    gates: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AIRFLOW__AIRGATE__ATTEST_AUDIENCE")
    gates("")
    own = session()
    wanted = {
        "to_gate": GATE,
        "to_port": "https://gate.example.com:8443",
        "to_another": "https://gate.example.org",
    }
    found = {name: fetch(api, own, name).json()["password"] for name in wanted}
    assert {
        name: jwt.decode(token, options={"verify_signature": False})["aud"] for name, token in found.items()
    } == wanted


def test_a_connection_that_cannot_be_read_is_handed_out_to_tasks_alone(
    api: TestClient, session: Callable[..., str]
) -> None:
    from airflow.sdk.definitions.connection import Connection as Read

    made = Read(
        conn_id="x", conn_type="airgate", host=GATE, password="left", extra='{"identity": "attested"}'
    )
    with pytest.raises(attest.NotAttested) as raised:
        attest.hand_out(made, execution.Caller(None), plain=False)
    assert raised.value.reason == "attest.no_session"
    assert attest.hand_out(made, execution.Caller(uuid.UUID(session())), plain=False) is made


def test_a_connection_that_asks_for_no_attestation_is_handed_out_wherever_it_leads(
    api: TestClient, session: Callable[..., str], gates: Callable[[str], None]
) -> None:
    own = session()
    gates("https://gate.example.org")
    assert fetch(api, own, "fixed").json()["password"] == "fixed-token"
    refused(fetch(api, own, "ledger"), "attest.gate_not_listed")


def test_a_refusal_is_final_for_every_secrets_backend() -> None:
    from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied
    from fastapi import HTTPException

    refusal = NotAttested("no_session", "why")
    assert isinstance(refusal, AirflowSecretsBackendAccessDenied)
    assert isinstance(refusal, PermissionError)
    assert isinstance(refusal, HTTPException)
    assert (refusal.status_code, refusal.reason) == (403, "attest.no_session")


def test_a_new_key_signs_without_a_restart_and_the_old_one_stays_published(
    api: TestClient,
    session: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    signing: dict[str, Any],
    tmp_path: Path,
) -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from jwt.algorithms import OKPAlgorithm

    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [signing]}))
    monkeypatch.delenv("AIRFLOW__AIRGATE__ATTEST_KEYS")
    monkeypatch.setenv("AIRFLOW__AIRGATE__ATTEST_KEYS_FILE", str(file))
    attest_keys.forget()
    own = session()
    before = fetch(api, own).json()["password"]
    new = {**OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate(), as_dict=True), "kid": "two"}
    old = {name: signing[name] for name in ("kid", "kty", "crv", "x", "y")}
    file.write_text(json.dumps({"keys": [new, old]}))
    after = fetch(api, own).json()["password"]
    assert [jwt.get_unverified_header(each)["kid"] for each in (before, after)] == ["one", "two"]
    assert checked(api, before)["sid"] == checked(api, after)["sid"] == own
    monkeypatch.undo()
    attest_keys.forget()


def test_sessions_hear_of_a_task_that_reports_its_end_and_of_no_other(
    api: TestClient, session: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(sessions, "changed", told.append)
    own, other = session(), session(task="other")
    ended = {"state": "failed", "end_date": "2026-11-22T10:00:00Z"}

    def report(of: str, by: str) -> int:
        return int(
            api.patch(f"/execution/task-instances/{of}/state", headers=bearer(by), json=ended).status_code
        )

    assert report(own, other) == 403
    assert report(str(uuid.uuid4()), own) == 403
    assert told == []
    assert report(own, own) == 204
    assert told == [own]
    assert fetch(api, own).status_code == 403


def test_who_asks_is_known_while_a_connection_is_asked_for_and_not_a_moment_longer(api: TestClient) -> None:
    own = str(uuid.uuid4())
    seen: list[tuple[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], execution.caller()))

    async def ask() -> None:
        middleware = execution.ExecutionMiddleware(app)
        headers = [(b"authorization", f"Bearer {ticket(own)}".encode())]
        for path in ("/execution/connections/x", "/execution/variables/x", "/api/v2/connections/x"):
            scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
            await middleware(scope, None, None)  # type: ignore[arg-type]
            seen.append(("after", execution.caller()))

    asyncio.run(ask())
    assert seen == [
        ("/execution/connections/x", execution.Caller(uuid.UUID(own))),
        ("after", None),
        ("/execution/variables/x", None),
        ("after", None),
        ("/api/v2/connections/x", None),
        ("after", None),
    ]


@pytest.mark.parametrize(
    ("path", "root", "found"),
    [
        ("/execution/connections/x", "", "/execution/connections/x"),
        ("/airflow/execution/connections/x", "/airflow", "/execution/connections/x"),
        ("/airflow/execution/connections/x", "/airflow/", "/execution/connections/x"),
        ("/execution/connections/x", "/airflow", "/execution/connections/x"),
        ("/airflowexecution/connections/x", "/airflow", "/airflowexecution/connections/x"),
    ],
)
def test_the_path_is_the_one_below_airflows_own(path: str, root: str, found: str) -> None:
    assert execution._path({"path": path, "root_path": root}) == found


@pytest.mark.parametrize(
    ("variable", "named"),
    [
        ("AIRFLOW__AIRGATE__ATTEST_KEYS", "attest_keys"),
        ("AIRFLOW__AIRGATE__ATTEST_ISSUER", "attest_issuer"),
        ("AIRFLOW__SECRETS__BACKEND", "AIRFLOW__SECRETS__BACKEND"),
    ],
)
def test_an_api_server_that_lacks_something_does_not_start(
    api: TestClient, monkeypatch: pytest.MonkeyPatch, variable: str, named: str
) -> None:
    from airflow.api_fastapi.app import create_app

    monkeypatch.delenv(variable)
    attest_keys.forget()
    with pytest.raises(attest_keys.AttestInvalid, match=named), TestClient(create_app()):
        pass
    monkeypatch.undo()
    attest_keys.forget()


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("AIRFLOW__AIRGATE__ATTEST_GATES", "https://gate.example.com/ledger", "attest_gates .* gate 1"),
        ("AIRFLOW__AIRGATE__ATTEST_KEYS_CMD", "sleep 600", "attest_keys_cmd .* within 0.3 seconds"),
    ],
)
def test_an_api_server_with_a_setting_that_it_cannot_use_does_not_start(
    api: TestClient, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    from airflow.api_fastapi.app import create_app

    if variable.endswith("_CMD"):
        monkeypatch.delenv("AIRFLOW__AIRGATE__ATTEST_KEYS")
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(attest_keys, "COMMAND_SECONDS", 0.3)
    attest_keys.forget()
    with pytest.raises(attest_keys.AttestInvalid, match=named), TestClient(create_app()):
        pass
    monkeypatch.undo()
    attest_keys.forget()
