"""Fixtures for tests against a running gate: real workerd, real provider, real sample upstream, on ports of their own.

    def test_finance_reads_entries(gate, token, audit):
        answer = gate.get("/ledger/v1/entries", headers={"Authorization": f"Bearer {token('finance-etl')}"})
        [decision, outcome] = audit(answer, count=2)

One stack serves the whole session. Its policy is the starter set of kv-seed; a test that publishes another one must
publish the starter set again when it is done.
"""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from airgate.dev.audit import events
from airgate.dev.signing import sign
from airgate.dev.stack import AUDIENCE, SECRETS, LocalStack, Ports, Stack
from airgate.dev.token import fetch_token
from airgate.engine import AUDIT_KEY
from airgate.policy.publish import publish_local
from airgate.policy.seed import STARTER

Token = Callable[..., str]
Audit = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The running stack: URLs, files, clients (airgate.dev.stack.Stack)."""
    folder = tmp_path_factory.mktemp("stack")
    with LocalStack(
        folder, ports=Ports(0, 0, 0), publish=lambda started: publish_local(STARTER, started, "tests")
    ) as started:
        yield started


# A compact JWS or an OAuth client's secret, wherever it comes from.
TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}")


@pytest.fixture(scope="session", autouse=True)
def no_secret_was_kept(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """When all tests are over: no gate of theirs has written a token, or a secret of the stack's, into what is kept."""
    yield
    private = json.loads(stack.secrets[AUDIT_KEY])["d"]
    secrets_ = [private, *(stack.secrets[name] for name in SECRETS)]
    secrets_ += [client["client_secret"] for client in stack.clients.values()]
    looked = []
    for file in tmp_path_factory.getbasetemp().rglob("*"):
        # What gates print, their audit logs, and the objects of their KV and R2.
        if file.is_file() and (file.name in ("gate.log", "audit.ndjson") or "blobs" in file.parts):
            text = file.read_bytes()
            looked.append(file)
            assert TOKEN.search(text) is None, f"a token is in {file}"
            assert not [secret for secret in secrets_ if secret.encode() in text], f"a secret is in {file}"
    assert looked


@pytest.fixture(scope="session")
def gate(stack: Stack) -> Iterator[httpx.Client]:
    """A client of the gate that doesn't follow redirects."""
    with httpx.Client(base_url=stack.gate, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def token(stack: Stack) -> Token:
    """token(client="finance-etl", algorithm="RS256"): a token from the provider's token endpoint."""

    def ask(client: str = "finance-etl", algorithm: str = "RS256") -> str:
        return fetch_token(stack, client, algorithm)

    return ask


@pytest.fixture(scope="session")
def mint(stack: Stack) -> Token:
    """mint(claims, alg="RS256", headers={}, **claims): a token of our own, truly signed by the provider's key.

    It starts from finance-etl's valid claims; what is given replaces them, and None leaves a claim or header out.
    Numbers for iat, exp and nbf are seconds since the epoch. `headers={"kid": "other"}` replaces the key's id.
    """

    def make(
        claims: Mapping[str, Any] | None = None,
        *,
        alg: str = "RS256",
        headers: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> str:
        now = int(time.time())
        usual = {
            "iss": stack.provider,
            "sub": "finance-etl",
            "aud": AUDIENCE,
            "client_id": "finance-etl",
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": now + 300,
            "groups": ["finance-publishers", "finance-readers"],
            "airgate_kind": "workload",
        }
        merged = {**usual, **(claims or {}), **more}
        kept = {name: value for name, value in merged.items() if value is not None}
        return sign(stack.provider_keys, kept, algorithm=alg, headers=headers)

    return make


@pytest.fixture(scope="session")
def audit(stack: Stack) -> Audit:
    """audit(answer_or_request_id, count=1): that request's events, waiting up to 5 s until there are `count`."""

    def read(request: httpx.Response | str, count: int = 1) -> list[dict[str, Any]]:
        request_id = request if isinstance(request, str) else request.headers["Airgate-Request-Id"]
        return events(Path(stack.audit), request_id, count=count)

    return read
