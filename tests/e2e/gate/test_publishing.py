"""Publishing as it goes wrong, broken off anywhere or by two at once, and as it goes on, under traffic all the time."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from airgate.node import PROJECT
from airgate.policy.compile import Compiled, StandIns, compile_folder
from airgate.policy.ledger import read_ledger
from airgate.policy.release import PublishError, Release, plan, put_in_force
from airgate.policy.rollback import release
from airgate.policy.seed import STARTER

Token = Callable[..., str]
SOON = 8.0  # seconds; how soon it is in force is measured elsewhere
NAMES = ("spring", "summer", "autumn", "winter")

MARKED = """
policies:
  - id: marked-{name}
    description: A call that this policy set alone permits
    owner: ledger@example.com
    effect: permit
    subject: {{roles: {{any: [finance-reader]}}}}
    target: {{upstream: ledger, methods: [GET], paths: ["/v2/{name}"]}}
"""

# The command, killed before the n-th time that it writes anything.
KILLED = """
import os, signal, sys
from airgate.cli import app
from airgate.environment import LocalEnvironment

left = int(sys.argv.pop(1))

def counted(write, matters):
    def writes(self, what):
        global left
        if matters(what):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return write(self, what)
    return writes

LocalEnvironment.kv_put = counted(LocalEnvironment.kv_put, lambda values: True)
LocalEnvironment.d1 = counted(LocalEnvironment.d1, lambda sql: not sql.startswith("SELECT"))
app()
"""


@pytest.fixture(scope="module")
def reader(token: Token) -> str:
    return token("finance-etl")


@pytest.fixture(scope="module")
def sets(site: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Compiled]]:
    """Policy sets by name, as folder and compiled: each permits GET /ledger/v2/NAME, which the others deny."""
    made = {}
    for name in NAMES:
        seed = tmp_path_factory.mktemp("seeds") / name
        shutil.copytree(STARTER, seed)
        (seed / "marked.yaml").write_text(MARKED.format(name=name))
        made[name] = seed, compile_folder(seed, StandIns(site.stack.provider, site.stack.sample))
    return made


def version(compiled: Compiled) -> str:
    return compiled.sha256[:12]


@pytest.mark.parametrize(("write", "changed"), [(1, False), (2, False), (3, True), (4, True)])
def test_a_publish_that_is_killed_leaves_the_old_or_the_new_in_force(
    site: Any, sets: Any, reader: str, tmp_path: Path, write: int, changed: bool
) -> None:
    """The writes: shards and bundle, the row of the ledger, its copy. The fourth never comes: that one ends well."""
    seed, compiled = sets[NAMES[write - 1]]
    before = site.version(reader)
    folder = site.as_stack(tmp_path)
    arguments = ["policy", "publish", str(seed), "--yes", "--note", "a test"]
    environment = {"AIRGATE_DIR": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    killed = run("-c", KILLED, str(write), *arguments)
    assert killed.returncode == (0 if write == 4 else -signal.SIGKILL), killed.stderr
    expected = version(compiled) if changed else before
    site.until(lambda: site.version(reader) == expected, SOON)
    fresh = site.another()
    assert site.version(reader, fresh) == expected
    assert before != version(compiled)

    again = run("-m", "airgate", *arguments)
    assert again.returncode == 0, again.stderr
    site.until(lambda: site.version(reader) == version(compiled), SOON)
    site.until(lambda: site.version(reader, fresh) == version(compiled), SOON)
    ledger = read_ledger(site.env)
    assert (ledger.copied, ledger.lost, [entry.doubt for entry in ledger.entries]) == (
        True,
        False,
        [""] * len(ledger.entries),
    )


def test_of_two_publishers_one_wins_and_the_other_is_told(site: Any, sets: Any, reader: str) -> None:
    plans = [plan(site.env, Release(sets[name][1], f"by {name}")) for name in NAMES[:2]]
    number = plans[0].ledger.next

    with ThreadPoolExecutor(2) as pool:
        puts = [pool.submit(put_in_force, site.env, planned, site.key) for planned in plans]
        errors = [put.exception() for put in puts]
    [loser] = [error for error in errors if isinstance(error, PublishError)]
    winner = NAMES[errors.index(None)]
    assert loser.status == 3
    assert str(loser).startswith(f"Somebody else was first: local developer published number {number}")
    assert f"by {winner}" in str(loser)
    site.until(lambda: site.version(reader) == version(sets[winner][1]), SOON)
    assert read_ledger(site.env).newest == number


class Change(NamedTuple):
    """A policy set that came into force: at the earliest from `begun` on, at the latest from `ended` on."""

    name: str
    begun: float
    ended: float


class Answer(NamedTuple):
    request_id: str
    asked: str  # which set's own call it was
    status: int
    begun: float
    ended: float


def test_ten_thousand_calls_during_twenty_publishes_and_five_rollbacks(
    site: Any, sets: Any, reader: str
) -> None:
    """Each is answered by a policy set that was in force then, whole: by its version, and by what it permits."""
    by_version = {version(compiled): name for name, (_, compiled) in sets.items()}
    view = 1.5 + 1.0  # seconds: VIEW_WAIT here, and time to load it on a machine that does other things
    first = sets[NAMES[0]][1]
    put_in_force(site.env, plan(site.env, Release(first)), site.key)
    site.until(lambda: site.version(reader) == version(first), SOON)
    changes = [Change(NAMES[0], 0.0, 0.0)]
    done = threading.Event()

    def change() -> None:
        try:
            for number in range(25):
                begun = time.monotonic()
                if number % 5 == 4:
                    newest, *entries = read_ledger(site.env).entries
                    back = next(entry for entry in entries[number % 3 :] if entry.bundle != newest.bundle)
                    put_in_force(site.env, plan(site.env, release(site.env, back, "a test")), site.key)
                    name = by_version[back.bundle[:12]]
                else:
                    now = changes[-1].name
                    name = NAMES[(NAMES.index(now) + 1 + number % 2) % len(NAMES)]
                    put_in_force(site.env, plan(site.env, Release(sets[name][1])), site.key)
                changes.append(Change(name, begun, time.monotonic()))
        finally:
            done.set()

    def calls(number: int) -> list[Answer]:
        answers = []
        with httpx.Client(base_url=site.gate.url, trust_env=False, timeout=30) as client:
            while not done.is_set() or len(answers) < 1250:
                asked = NAMES[len(answers) % len(NAMES)]
                begun = time.monotonic()
                answer = client.get(f"/ledger/v2/{asked}", headers={"Authorization": f"Bearer {reader}"})
                answers.append(
                    Answer(
                        answer.headers["Airgate-Request-Id"],
                        asked,
                        answer.status_code,
                        begun,
                        time.monotonic(),
                    )
                )
                time.sleep(0.05)
        return answers

    publisher = threading.Thread(target=change)
    publisher.start()
    with ThreadPoolExecutor(8) as pool:
        answers = [answer for several in pool.map(calls, range(8)) for answer in several]
    publisher.join()
    assert len(changes) == 26
    assert len(answers) >= 10_000

    decided: dict[str, list[dict[str, Any]]] = {}
    for line in site.gate.audit.read_text("utf-8").split("\n")[:-1]:
        event = json.loads(line)
        if event["event"] == "decision":
            decided.setdefault(event["request_id"], []).append(event)
    for answer in answers:
        [decision] = decided[answer.request_id]
        name = by_version[decision["bundle"]]
        assert (answer.status == 200) == (answer.asked == name), (answer, decision)
        assert decision["reason"] == (None if answer.asked == name else "policy.no_match")
        in_force = {
            one.name
            for one, after in zip(changes, [*changes[1:], None], strict=True)
            if one.begun <= answer.ended and (after is None or answer.begun <= after.ended + view)
        }
        assert name in in_force, (answer, changes)
    assert len({decision["bundle"] for [decision] in decided.values()} & by_version.keys()) == len(NAMES)
