"""What the gate does when what it leans on is gone, slow or broken: it refuses, says little, comes back."""

import asyncio
import hashlib
import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from airgate.dev.process import Process
from airgate.dev.stack import HERE, Stack
from airgate.engine import BUNDLE, Signed
from airgate.environment import LocalEnvironment
from airgate.node import PROJECT, environment, node
from airgate.policy.ledger import append, draft, read_ledger
from airgate.signing_key import SigningKey

Token = Callable[..., str]
ENTRIES = "/ledger/v1/entries"

# Nothing of these may be in a refusal: addresses, ports, files, languages, what went wrong inside.
TELLTALE = (
    "127.0.0.1", "localhost", "http://", "secret-base", "Traceback", "Error", "Exception", "line ", ".py", "src/",
    "pyodide", "workerd",
)  # fmt: skip


def says_little(answer: Any, status: int, code: str) -> None:
    assert (answer.status, answer.code) == (status, code)
    text = str(answer.headers) + answer.body.decode()
    assert not [word for word in TELLTALE if word in text]
    assert set(answer.json()) <= {
        "type",
        "title",
        "status",
        "code",
        "request_id",
        "retryable",
        "retry_after",
        "contact",
    }
    if status >= 500:
        assert (answer.json()["retryable"], answer.headers["Retry-After"]) == (True, "5")


def within(seconds: float, true: Callable[[], object]) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


def test_an_upstream_that_is_down(lab: Any, reader: str) -> None:
    answer = lab.call("/gone/x", token=reader)
    says_little(answer, 502, "upstream.unreachable")
    assert lab.events(answer, 2)[1]["result"] == "unreachable"


def test_an_upstream_that_is_slow(lab: Any, reader: str) -> None:
    begun = time.monotonic()
    answer = lab.call("/impatient/slow?ms=5000", token=reader)
    says_little(answer, 504, "upstream.timeout")
    assert 0.9 < time.monotonic() - begun < 3
    assert lab.events(answer, 2)[1]["result"] == "timeout"


@pytest.mark.parametrize(
    "path", ["/lab/%00", "/nowhere/x", "/", "/lab/é", "/-/x", "/lab/\x7f", "/lab/" + "a" * 9000]
)
def test_a_refusal_says_little(lab: Any, reader: str, path: str) -> None:
    answer = lab.call(path, token=reader)
    says_little(answer, answer.status, answer.code)
    assert 400 <= answer.status < 500


def test_a_gate_without_policy_refuses_all_and_starts_to_work_when_there_is_one(
    stack: Stack,
    start_gate: Callable[..., Any],
    publish: Callable[..., Any],
    lab_seed: Path,
    token: Token,
    reader: str,
) -> None:
    gate = start_gate(bare=True)
    gate.wait()
    says_little(gate.call(ENTRIES, token=reader), 503, "state.stale")  # D1 has no tables
    env = LocalEnvironment(replace(stack, state=gate.state))
    assert read_ledger(env).entries == []  # which makes them
    within(3, lambda: gate.call(ENTRIES, token=reader).code == "policy.unavailable")
    says_little(gate.call(ENTRIES), 503, "policy.unavailable")
    health = gate.call("/-/health", token=token("oncall"))
    assert (health.status, health.json()) == (503, {"status": "failing"})

    publish(lab_seed, gate)
    within(3, lambda: gate.call(ENTRIES, token=reader).status == 200)
    assert gate.call("/-/health").json() == {"status": "ok"}

    # A bundle damaged in the store, under a pointer that is whole: what was in force stays, and health says so.
    in_force = read_ledger(env).entries[0]
    bundle = env.kv_get(BUNDLE + in_force.bundle) or ""
    other = bundle.replace("finance-publishers", "everybody-at-all")
    digest = hashlib.sha256(other.encode()).hexdigest()
    env.kv_put({BUNDLE + digest: other + " "})
    number, members = in_force.number, {**in_force.document, "bundle": digest}
    for name in ("format", "gate", "sequence", "published_by"):
        del members[name]
    wrong = draft(env, number + 1, SigningKey.read(stack.signing_key), members)
    assert append(env, number, number + 1, wrong)

    def health_error() -> str:
        return str(gate.call("/-/health", token=token("oncall")).json()["bundle"]["error"])

    within(6, lambda: "not the one that was named" in health_error())
    details = gate.call("/-/health", token=token("oncall"))
    assert (details.status, details.json()["bundle"]["sequence"]) == (200, number)
    assert gate.call(ENTRIES, token=reader).status == 200
    assert gate.call("/lab/x", token=token("sales-sync")).code == "policy.no_match"

    # A gate that never had another has nothing to fall back on.
    fresh = start_gate(gate.state)
    fresh.wait()
    says_little(fresh.call(ENTRIES, token=reader), 503, "policy.unavailable")

    # A row that is no pointer changes nothing.
    assert append(env, number + 1, number + 2, Signed('{"format":1', "", ""))
    time.sleep(2.5)  # longer than the view is taken as it is
    assert gate.call(ENTRIES, token=reader).status == 200
    assert health_error() != "None"

    publish(lab_seed, gate)
    within(6, lambda: health_error() == "None")
    within(6, lambda: fresh.call(ENTRIES, token=reader).status == 200)


class OwnProvider:
    """The stack's provider again, with the same keys and clients, at an address of its own: to be stopped at will."""

    def __init__(self, stack: Stack, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.config = folder / "provider.json"
        self.log = folder / "provider.log"
        config = json.loads((stack.directory / "provider.json").read_text())
        self.config.write_text(json.dumps({**config, "port": port, "issuer": self.url}))
        self.process: Process | None = None

    def start(self) -> None:
        command = [str(node()), str(HERE / "provider.mjs"), str(self.config)]
        self.process = Process(
            "provider", command, log=self.log, cwd=PROJECT, env=environment(self.log.parent / "home")
        )
        within(30, lambda: self.log.exists() and "listening on" in self.log.read_text())

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None


@pytest.fixture
def provider(stack: Stack, tmp_path: Path) -> Iterator[OwnProvider]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    own = OwnProvider(stack, tmp_path, port)
    yield own
    own.stop()


def test_an_issuer_that_is_away_is_not_the_callers_fault(
    start_gate: Callable[..., Any],
    publish: Callable[..., Any],
    lab_seed: Path,
    provider: OwnProvider,
    mint: Token,
) -> None:
    gate = start_gate()
    publish(lab_seed, gate, provider.url)
    gate.wait()
    seen = mint(iss=provider.url)
    says_little(gate.call(ENTRIES, token=seen), 503, "issuer.unavailable")
    assert gate.call("/-/health").json() == {"status": "ok"}
    assert gate.call(ENTRIES, token=mint(iss="https://other.example")).code == "token.issuer"

    provider.start()
    within(8, lambda: gate.call(ENTRIES, token=seen).status == 200)

    provider.stop()
    assert gate.call(ENTRIES, token=seen).status == 200
    assert gate.call(ENTRIES, token=mint(iss=provider.url)).status == 200  # not seen before: the key is
    assert gate.call(ENTRIES, token=mint(iss=provider.url, alg="EdDSA")).status == 200
    assert (
        gate.call(ENTRIES, token=mint(iss=provider.url, headers={"kid": "new"})).code == "issuer.unavailable"
    )
    assert gate.call(ENTRIES, token=seen[:-8] + "AAAAAAAA").status == 401


@pytest.mark.parametrize("distinct", [False, True], ids=["one token", "a token each"])
def test_fifty_first_requests_at_once_are_all_answered(
    stack: Stack, start_gate: Callable[..., Any], mint: Token, distinct: bool
) -> None:
    """Each finds no policy and no keys, and none may wait for what another began to fetch."""
    gate = start_gate(stack.state)
    tokens = [mint() for _ in range(50)] if distinct else [mint()] * 50
    gate.wait()

    async def at_once() -> list[int]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=gate.url, timeout=60, limits=limits, trust_env=False) as client:
            calls = [client.get(ENTRIES, headers={"Authorization": f"Bearer {token}"}) for token in tokens]
            return [answer.status_code for answer in await asyncio.gather(*calls)]

    assert asyncio.run(at_once()) == [200] * 50


def test_an_edited_policy_is_in_force_within_six_seconds_and_so_is_the_way_back(
    lab: Any, publish: Callable[..., Any], lab_seed: Path, tmp_path: Path, reader: str
) -> None:
    edited = tmp_path / "kv-seed"
    shutil.copytree(lab_seed, edited)
    finance = edited / "policies" / "finance.yaml"
    text = finance.read_text()
    closed = text.replace(
        'paths: ["/v1/entries", "/v1/entries/{id}", "/v1/reports/**"]', 'paths: ["/v1/reports/**"]'
    )
    assert closed != text
    finance.write_text(closed)
    before = lab.call(ENTRIES, token=reader)
    assert before.status == 200

    changed = publish(edited, lab)
    within(6, lambda: lab.call(ENTRIES, token=reader).code == "policy.no_match")  # by the very token it knows
    assert lab.call("/ledger/v1/reports/x", token=reader).status == 200
    answer = lab.call("/ledger/v1/reports/x", token=reader)
    assert answer.headers["Airgate-Policy"] == f"finance-data-read@{changed.bundle[:12]}"

    back = publish(lab_seed, lab)
    assert back.sequence == changed.sequence + 1
    within(6, lambda: lab.call(ENTRIES, token=reader).status == 200)
    assert lab.call(ENTRIES, token=reader).headers["Airgate-Policy"] == before.headers["Airgate-Policy"]
