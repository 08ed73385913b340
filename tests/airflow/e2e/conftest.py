"""Fixtures for tests of a real Airflow beside the real gate: both versions, one after the other, all DAGs at once."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airgate.dev.airflow import PLUGIN, VERSIONS, Airflow
from airgate.dev.stack import AUDIENCE, LocalStack, Ports, Stack
from airgate.policy.publish import publish_local
from airgate.policy.seed import STARTER
from attested import Attested, running
from rig import Rig, TokenEndpoint

TESTS = Path(__file__).resolve().parent.parent

POLICIES = """
policies:
  - id: ledger-limited
    description: A page with a limit
    owner: finance-data@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [finance-reader]}}
    target: {upstream: ledger, methods: [GET], paths: ["/v1/limited"]}
    obligations: {rate_limit: {limit: 10, per: minute, by: [subject, dag]}}
  - id: ledger-pages
    description: Pages
    owner: finance-data@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [finance-reader, finance-publisher]}}
    target: {upstream: ledger, methods: [GET], paths: ["/v1/pages"]}
  - id: warehouse-justified
    description: Read with a reason
    owner: data-platform@example.com
    effect: permit
    subject: {issuer: company, roles: {any: [finance-reader]}}
    workload: {dag: ["finance_*"], tags: {any: [finance]}, attested: false}
    target: {upstream: warehouse, methods: [GET], paths: ["/v1/justified"]}
    obligations: {require: {justification: true}}
"""


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The running stack, with a few policies more than the starter set."""
    folder = tmp_path_factory.mktemp("stack")
    seed = folder / "kv-seed"
    shutil.copytree(STARTER, seed)
    (seed / "policies" / "airflow.yaml").write_text(POLICIES, encoding="utf-8")
    with LocalStack(
        folder / "stack",
        ports=Ports(0, 0, 0),
        publish=lambda started: publish_local(seed, started, "tests"),
    ) as started:
        yield started


@pytest.fixture(scope="session", params=VERSIONS)
def rig(
    request: pytest.FixtureRequest, stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """A running Airflow of each version."""
    version: str = request.param
    folder = tmp_path_factory.mktemp(f"airflow-{version}")
    dags = folder / "dags"
    shutil.copytree(TESTS / "dags", dags)
    shutil.copytree(PLUGIN / "airgate_provider" / "example_dags", dags / "examples")
    tokens = TokenEndpoint(stack)
    try:
        with Airflow(
            version, folder / "home", dags=dags, variables=_variables(stack, tokens, folder)
        ) as airflow:
            yield Rig(version, airflow, tokens, stack)
    finally:
        tokens.close()


@pytest.fixture(scope="session")
def attested(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attested]:
    """Airflow 3.3 that attests its tasks, beside a gate of its own that takes its word for them."""
    with running(tmp_path_factory.mktemp("attested")) as started:
        yield started


def _variables(stack: Stack, tokens: TokenEndpoint, folder: Path) -> dict[str, str]:
    def connection(client: str, label: str, **extra: Any) -> dict[str, Any]:
        who = stack.clients[client]
        return {
            "conn_type": "airgate",
            "host": stack.gate,
            "login": who["client_id"],
            "password": who["client_secret"],
            "extra": {
                "upstream": "ledger",
                "token_url": f"{tokens.url}/{label}/token",
                "resource": AUDIENCE,
                "environment": "tests",
                # What an http connection would have sent as a header.
                "X-Api-Key": "left-over-from-before",
                **extra,
            },
        }

    page = "https://logs.example.com/?query={request_id}"
    cache = folder / "shared"
    cache.mkdir(mode=0o700)
    down = connection("finance-etl", "down") | {"host": "http://127.0.0.1:9"}
    incomplete = connection("finance-etl", "incomplete", token_url="")
    connections = {
        "ledger": connection("finance-etl", "ledger", request_page=page),
        "ledger_as_sales": connection("sales-sync", "sales"),
        "ledger_expiring": connection("finance-etl", "expiring"),
        "ledger_paged": connection("finance-etl", "paged", scope=""),
        "ledger_shared": connection("finance-etl", "shared", cache_file=str(cache / "tokens.json")),
        "ledger_incomplete": incomplete,
        "ledger_down": down,
        "ledger_bound": connection("finance-etl", "bound", dpop=True, token_url=f"{stack.provider}/token"),
        "ledger_plain": connection("finance-etl", "plain", stock_hooks=True, roles="finance-publisher"),
        "airgate_default": connection("finance-etl", "default"),
    }
    file = folder / "connections.json"
    file.write_text(json.dumps(connections), encoding="utf-8")
    file.chmod(0o600)
    wrapped = {
        "backend": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
        "backend_kwargs": {"connections_file_path": str(file)},
    }
    return {
        "AIRFLOW__SECRETS__BACKEND": "airgate_provider.backend.AirgateSecretsBackend",
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps(wrapped),
    }
