"""A gate whose upstreams all misbehave on purpose, on 127.0.0.1 and ::1."""

import importlib.util
import itertools
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from airgate.dev.stack import Stack
from airgate.policy.publish import publish_local
from airgate.policy.seed import STARTER

sys.path.insert(0, str(Path(__file__).parent))  # for hostile.py, however pytest was told to import

from hostile import Hostile


def _shared() -> ModuleType:
    """The other gate tests' fixtures and their way to send bytes."""
    file = Path(__file__).parents[1] / "gate" / "conftest.py"
    spec = importlib.util.spec_from_file_location("gate_conftest", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shared = _shared()
Reply = shared.Reply

# Each test that breaks something has an upstream of its own: what the gate knows of one's health, it keeps by name.
SEED = """
upstreams:
  plain: {{base: "{v4}/plain", {usual}, timeout: 2s, breaker: false, log_path: true}}
  hurried: {{base: "{v4}/hurried", {usual}, timeout: 1s, breaker: false}}
  total: {{base: "{v4}/total", {usual}, timeout: 1s, total_timeout: 2s, breaker: false}}
  patient: {{base: "{v4}/patient", {usual}, timeout: 60s}}
  measured: {{base: "{v4}/measured", {usual}, timeout: 60s, total_timeout: 1m, retries: 1}}
  again: {{base: "{v4}/again", {usual}, timeout: 1s, retries: 2, breaker: false}}
  busy: {{base: "{v4}/busy", {usual}, timeout: 1s, retries: 2, breaker: false}}
  ending: {{base: "{v4}/ending", {usual}, timeout: 1s, retries: 2, breaker: false}}
  budget: {{base: "{v4}/budget", {usual}, retries: 5, breaker: false}}
  fragile: {{base: "{v4}/fragile", {usual}, timeout: 1s, breaker: {{failures: 3, open: 1s}}}}
  ratio: {{base: "{v4}/ratio", {usual}, breaker: {{failures: 1000, ratio: 0.5, open: 2s}}}}
  written: {{base: "{v4}/written", {usual}, timeout: 1s, breaker: {{failures: 3, open: 5s}}}}
  trickled: {{base: "{v4}/trickled", {usual}, timeout: 1s, breaker: {{failures: 1, open: 5s}}}}
  healed: {{base: "{v4}/healed", {usual}, retries: 2, breaker: {{failures: 2, open: 1s}}}}
  narrow: {{base: "{v4}/narrow", {usual}, concurrency: 3}}
  flapping: {{base: "{v4}/flapping", {usual}, timeout: 5s, retries: 2, breaker: {{failures: 5, open: 1s}}}}
  restless: {{base: "{v4}/restless", {usual}, timeout: 5s, retries: 2, breaker: false}}
  small: {{base: "{v4}/small", {usual}, max_body: 1KB}}
  page:
    base: "{v4}/page"
    owner: lab@example.com
    cors: {{origins: [https://app.example.com], headers: [x-call, x-custom], expose: [x-shown], max_age: 10m}}
  six: {{base: "{v6}/six", {usual}}}
  bound: {{base: "http://bound.internal/base", via: VIA_LAB, {usual}}}
  unbound: {{base: "http://bound.internal/base", via: VIA_NOBODY, {usual}}}
  guarded:
    base: "{v4}/guarded"
    owner: lab@example.com
    timeout: 2s
    credentials:
      main: {{kind: client_credentials, token_url: "{v4}/token", client_id: gate, secret: UPSTREAM_LAB}}
  keyless: {{base: "{v4}/keyless", {usual}, credentials: {{main: {{kind: header, secret: UPSTREAM_NOT_THERE}}}}}}
policies:
  - id: lab-open
    description: Finance readers may do anything in the lab
    owner: lab@example.com
    effect: permit
    subject: {{roles: {{any: [finance-reader]}}}}
    target: {{upstream: [{names}], methods: ["*"], paths: ["/**"]}}
"""
USUAL = "owner: lab@example.com"
SECRET = "the lab's own secret"

_numbers = itertools.count(1)


class Lab(shared.Gate):  # type: ignore[misc,name-defined]  # it is loaded from its file
    """A gate with the lab's upstreams, and calls to it that are told apart."""

    token = ""

    def ask(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Any:
        """One call with a name of its own, by which the upstream counts it: `answer, its name`."""
        name = f"call-{next(_numbers)}"
        sent = {"X-Call": name, "Connection": "close", **(headers or {})}
        return self.call(path, method, token=self.token, headers=sent, body=body), name


@pytest.fixture(scope="session")
def hostile() -> Iterator[Hostile]:
    server = Hostile()
    yield server
    server.close()


@pytest.fixture(scope="session")
def hostile_six() -> Iterator[Hostile | None]:
    """The same on ::1, where this machine has it."""
    try:
        server = Hostile("::1")
    except OSError:
        yield None
        return
    yield server
    server.close()


@pytest.fixture(scope="session")
def lab(
    stack: Stack,
    token: Callable[..., str],
    hostile: Hostile,
    hostile_six: Hostile | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    """The gate with the upstreams above."""
    folder = tmp_path_factory.mktemp("lab")
    seed = folder / "kv-seed"
    shutil.copytree(STARTER, seed)
    text = SEED.format(
        v4=f"http://127.0.0.1:{hostile.port}",
        v6=f"http://[::1]:{hostile_six.port if hostile_six else 1}",
        usual=USUAL,
        names=", ".join(re.findall("^  ([a-z]+):", SEED, re.MULTILINE)),
    )
    (seed / "hostile.yaml").write_text(text, encoding="utf-8")
    services = {"VIA_LAB": f"127.0.0.1:{hostile.port}"}
    gate = Lab(folder, folder / "state", {"UPSTREAM_LAB": SECRET}, services)
    try:
        gate.token = token("finance-etl")
        publish_local(seed, replace(stack, state=gate.state), "tests")
        gate.wait()
        yield gate
    finally:
        gate.process.stop()


@pytest.fixture(autouse=True)
def calm(hostile: Hostile) -> Iterator[None]:
    """Whatever a test asked of the upstream is over when the next one begins."""
    yield
    hostile.broken = False
    hostile.let_go.set()
