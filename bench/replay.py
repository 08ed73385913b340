"""How fast `airgate policy replay` answers a log, on one core: of calls as they are, and with no two paths alike.

The logs are written by the gate's own code, from calls that its own engine has decided.
"""

import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
import yaml
from rich.console import Console
from rich.progress import track

from airgate.engine import Call, Caller, Denied, Identity, Inbound, Record, Target, act, parse_target
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.judgement import Judge, Known
from airgate.policy.replay import by_candidate
from airgate.policy.traffic import Traffic
from audit import describe, worker
from chain import Chain

DAGS = 48
TEAMS = 12
UPSTREAMS = 12
COLLECTIONS = 25  # of each upstream; each has two paths
OWNER = "platform@example.com"
START = 1_794_000_000  # seconds since the epoch; the log is of the week from then on
WEEK = 7 * 86_400
TARGET = 50_000  # recorded calls a second


class Repeated(NamedTuple):
    """A call that a task makes again and again."""

    caller: Caller
    method: str
    upstream: str
    path: str  # with {} for what changes
    weight: float


def seed(*, changed: bool) -> dict[str, Any]:
    """300 permits, 12 forbids and a permit in office hours for each team; `changed`: as somebody would like them."""
    policies: list[dict[str, Any]] = []
    for upstream in range(UPSTREAMS):
        for number in range(COLLECTIONS):
            team = (upstream + number) % TEAMS
            narrowed = changed and number == 3
            policy: dict[str, Any] = {
                "id": f"team-{team}-upstream-{upstream}-collection-{number}",
                "description": f"Team {team} uses collection {number}",
                "owner": OWNER,
                "effect": "permit",
                "subject": {"issuer": "company", "roles": {"any": [f"team-{team}"]}},
                "target": {
                    "upstream": f"upstream-{upstream}",
                    "methods": ["GET"] if narrowed else ["GET", "POST"],
                    "paths": [f"/v1/collection-{number}", f"/v1/collection-{number}/{{item}}"],
                },
            }
            if number % 10 == 4:
                policy["when"] = {"ip": ["198.51.100.0/24", "2001:db8:51::/48"]}
            if number % 10 == 5:
                policy["when"] = {
                    "time": {"zone": "Europe/Berlin", "days": "mon-fri", "from": "06:00", "to": "20:00"}
                }
            if number % 10 == 6:
                policy["target"]["query"] = [{"parameter": "format", "any": ["csv", "json"]}]
            policies.append(policy)
        policies.append(
            {
                "id": f"agents-stay-out-{upstream}",
                "description": "AI agents write nothing",
                "owner": OWNER,
                "effect": "forbid",
                "subject": {"kind": "agent"},
                "target": {"upstream": f"upstream-{upstream}", "methods": ["POST"], "paths": ["/**"]},
            }
        )
    return {
        "issuers": {
            "company": {
                "issuer": "https://login.example.com",
                "audiences": ["https://gate.example.com"],
                "algorithms": ["RS256"],
            }
        },
        "roles": {
            f"team-{team}": {
                "description": f"Team {team}",
                "granted_to": [{"issuer": "company", "claim": "groups", "value": f"team-{team}"}],
            }
            for team in range(TEAMS)
        },
        "upstreams": {
            f"upstream-{number}": {
                "base": f"https://upstream-{number}.internal.example.com",
                "owner": OWNER,
                "log_path": True,
            }
            for number in range(UPSTREAMS)
        },
        "policies": policies,
    }


def compiled(folder: Path, *, changed: bool) -> Compiled:
    folder.mkdir()
    (folder / "seed.yaml").write_text(yaml.safe_dump(seed(changed=changed)), encoding="utf-8")
    return compile_folder(folder)


def repeated(dice: random.Random) -> list[Repeated]:
    """What the tasks of all DAGs call."""
    calls = []
    for dag in range(DAGS):
        team = dag % TEAMS
        identity = Identity("company", f"svc-team-{team}", "workload", frozenset({f"team-{team}"}), {})
        for task in range(4):
            said = {
                "airgate-dag-id": f"team_{team}_dag_{dag}",
                "airgate-task-id": f"task_{task}",
                "airgate-environment": "prod",
            }
            caller = act(identity, said)
            for _ in range(6):
                upstream = dice.randrange(UPSTREAMS)
                own = [number for number in range(COLLECTIONS) if (upstream + number) % TEAMS == team]
                # One call in twenty goes where the team may not go.
                number = dice.choice(own) if dice.random() < 0.95 else dice.randrange(COLLECTIONS)
                for path in (f"/v1/collection-{number}", f"/v1/collection-{number}/{{}}"):
                    method = "GET" if dice.random() < 0.7 else "POST"
                    calls.append(
                        Repeated(caller, method, f"upstream-{upstream}", path, dice.paretovariate(1.2))
                    )
    return calls


def events(policies: Compiled, count: int, *, distinct: bool, dice: random.Random) -> Iterator[str]:
    """Decision events of a week, in order. `distinct`: no two paths are alike; else there are 200 of each kind."""
    bundle = policies.engine.bundle
    kinds = repeated(dice)
    chosen = dice.choices(kinds, [kind.weight for kind in kinds], k=count)
    clients = [f"198.51.{dice.randrange(98, 102)}.{number}" for number in range(1, 200)]
    chain, place = (
        Chain(f"{dice.getrandbits(128):032x}"),
        worker("FRA", "0c6e1d84-5f0a-4ab0-a3a5-4f9f6bfa9b52"),
    )
    for number, kind in enumerate(chosen):
        now = START + number * WEEK / count
        dag = kind.caller.workload["dag"].value
        item = f"item-{number:07}" if distinct else f"item-{dice.randrange(200)}"
        path = kind.path.format(item)
        if distinct and item not in path:
            path += f"/{item}"
        client = dice.choice(clients)
        request_id = f"{dice.getrandbits(128):032x}"
        headers = {
            "cf-connecting-ip": client,
            "traceparent": f"00-{dice.getrandbits(128):032x}-{'7' * 16}-01",
        }
        url = f"https://gate.example.com/{kind.upstream}{path}"
        inbound = Inbound(request_id, now, kind.method, url, headers, False)
        target: Target = parse_target(kind.method, url)
        day, hour = divmod(number * 7 * 24 // count, 24)
        said = {
            "airgate-dag-id": str(dag),
            "airgate-task-id": str(kind.caller.workload["task"].value),
            "airgate-run-id": f"scheduled__2026-11-{day + 1:02}T{hour:02}:00:00+00:00",
            "airgate-try-number": "1",
            "airgate-map-index": "-1",
            "airgate-environment": "prod",
        }
        caller = act(kind.caller.identity, said)
        decision = policies.engine.decide(Call(caller, target, now, client))
        record = Record(inbound, place)
        record.target, record.decision, record.described = target, decision, describe(caller)
        record.bundle, record.sequence, record.log_path = bundle.version, 7, True
        denied = None if decision.reason is None else Denied(decision.reason)
        yield chain.link(record.decided(denied, now)) + "\n"


def measure(log: Path, candidate: Compiled, before: Compiled) -> tuple[float, float, str]:
    """Seconds of the processor and of the clock, and what came of it."""
    judge = Judge(candidate, [Known(before, {before.engine.bundle.version})])
    traffic = Traffic([log])
    began, used = time.perf_counter(), time.process_time()
    found = by_candidate(traffic, judge)
    seconds = time.process_time() - used, time.perf_counter() - began
    said = (
        f"{traffic.decided:,} calls in {len(traffic.groups):,} groups: {found.calls(True):,} would change, "
        f"{found.calls(False):,} perhaps, {found.same:,} stay"
    )
    return *seconds, said


def main(
    count: Annotated[int, typer.Option("--events", min=1000, help="Recorded calls in each log.")] = 500_000,
) -> None:
    """Measure replay on logs of the gate's own writing. Exits with 1 when it answers fewer calls than it should."""
    slow, screen = False, Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="airgate-") as scratch:
        folder = Path(scratch)
        before, candidate = (
            compiled(folder / "before", changed=False),
            compiled(folder / "after", changed=True),
        )
        for name, distinct in (("paths as tasks call them", False), ("no two paths alike", True)):
            log = folder / "audit.ndjson"
            lines = events(before, count, distinct=distinct, dice=random.Random(7))
            with log.open("w", encoding="utf-8") as file:
                file.writelines(track(lines, "writing a log", total=count, transient=True, console=screen))
            used, passed, said = measure(log, candidate, before)
            print(
                f"{name}: {count / used:,.0f} recorded calls a second of one core ({used:.1f} s; by the clock "
                f"{passed:.1f} s; {log.stat().st_size / 1e6:.0f} MB)\n  {said}"
            )
            slow = slow or count / used < TARGET
    sys.exit(slow)


if __name__ == "__main__":
    typer.run(main)
