"""`airgate policy prove` and `diff` over 1,000 policies: how long whoever writes a policy waits for them."""

import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from airgate.node import PROJECT
from bench.decisions.policies import METHODS, policies
from bench.rig import BenchError

# The command's own function, given its arguments by typer as the command line does it.
PROGRAM = "import typer; from airgate.policy.{0} import {0}; typer.run({0})"

POLICIES = 1_000
ROLES = POLICIES // 10
UPSTREAMS = 8
CHANGED = 10


def measure(scratch: Path) -> list[dict[str, Any]]:
    """CPU seconds of each command, start-up and reading of the YAML included. Raises BenchError for a wrong outcome."""
    old, new = scratch / "old", scratch / "new"
    _write(old, changed=False)
    _write(new, changed=True)
    (old / "invariants.yaml").write_text(yaml.safe_dump({"invariants": INVARIANTS}), encoding="utf-8")
    return [
        _run("prove", [str(old)], 0, f"{len(INVARIANTS)} invariants, all of which hold"),
        _run("diff", [str(old), str(new)], 1, f"{CHANGED} policies differ, all of which permit more"),
    ]


def _run(command: str, arguments: Sequence[str], right: int, about: str) -> dict[str, Any]:
    row: dict[str, Any] = {"command": command, "policies": POLICIES, "about": about}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(command), *arguments],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != right:
        raise BenchError(
            f"airgate policy {command} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
        )
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**row, "seconds": round(seconds, 2)}


INVARIANTS = [
    {
        "name": "No agent calls anything",
        "never": {"subject": {"kind": "agent"}, "target": {"methods": ["*"]}},
    },
    {"name": "Nothing is patched", "never": {"target": {"methods": ["PATCH"]}}},
    {
        "name": "Only roles of up3 delete there",
        "never": {"target": {"upstream": "up3", "methods": ["DELETE"]}},
        "unless": {
            "subject": {"roles": {"any": [f"role{number}" for number in range(ROLES) if number % 4 == 3]}}
        },
    },
    {
        "name": "Whoever has role0 reads what team0 has",
        "always": {
            "subject": {"issuer": "company", "kind": "workload", "roles": {"any": ["role0"]}},
            "target": {"upstream": "up0", "methods": ["GET"], "paths": ["/api/v1/team0/{item}"]},
        },
    },
]


def _write(folder: Path, *, changed: bool) -> None:
    seed = {
        "issuers": {
            "company": {
                "issuer": "https://login.example.com",
                "audiences": ["https://gate.example.com"],
                "algorithms": ["RS256"],
                "type": "at+jwt",
                "max_lifetime": "1h",
                "clock_skew": "60s",
                "kind": {"claim": "kind", "default": "workload"},
            }
        },
        "roles": {
            f"role{number}": {
                "description": f"Of group {number}",
                "granted_to": [{"issuer": "company", "claim": "groups", "value": f"group-{number}"}],
            }
            for number in range(ROLES)
        },
        "upstreams": {
            f"up{number}": {"base": f"https://up{number}.example.com", "owner": "owner@example.com"}
            for number in range(UPSTREAMS)
        },
        "policies": [_policy(number, changed) for number in range(POLICIES)],
    }
    folder.mkdir()
    (folder / "seed.yaml").write_text(yaml.safe_dump(seed), encoding="utf-8")


def _policy(number: int, changed: bool) -> dict[str, Any]:
    """As all engines decide by, with a DAG for each third one and hours for each tenth."""
    one = policies(POLICIES)[number]
    methods = [one.method]
    if changed and number % (POLICIES // CHANGED) == 1:
        methods = sorted({one.method, *METHODS[:2]})
    policy: dict[str, Any] = {
        "id": one.id,
        "description": "A team's own calls",
        "owner": "owner@example.com",
        "effect": "permit",
        "subject": {"issuer": "company", "kind": "workload", "roles": {"any": [one.role]}},
        "target": {"upstream": one.upstream, "methods": methods, "paths": [one.prefix + "**"]},
    }
    if number % 3 == 1:
        policy["workload"] = {"dag": [f"team{number}_*"], "attested": False}
    if number % 10 == 1:
        policy["when"] = {
            "time": {"zone": "Europe/Berlin", "days": "mon-fri", "from": "06:00", "to": "20:00"}
        }
    return policy
