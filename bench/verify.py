"""How fast `airgate audit verify` answers, with every line's JSON parsed, and how much memory that takes: of a log of
some size, and of one five times as long.

The logs are those of many isolates at once, with signed checkpoints, linked by the gate's own code.
"""

import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.progress import track

from airgate.audit.trusted import written
from airgate.engine import pae, read_base64url
from airgate.keys.audit import new_key
from audit import checkpoint_event, opening_event, timestamp
from chain import CHECKPOINT, Chain
from pseudonym import PLAIN

HERE = Path(__file__).resolve().parent
ISOLATES = 24
EVERY = 1000  # lines of a chain between two checkpoints
START = 1_795_000_000.0  # seconds since the epoch
GATE = "airgate"
TARGET = 100_000  # events a second
FLAT = 1.25  # how much more memory a log that is five times as long may take

# A decision as the gate writes it; what changes from call to call is filled in.
DECISION = (
    '{"event":"decision","schema":2,"time":"%s","request_id":"%032x","trace_id":"%032x","decision":"permit"'
    ',"reason":null,"detail":null,"method":"GET","upstream":"ledger","route":"/v1/entries/{entry}"'
    ',"permits":["finance-data-read"],"forbids":[],"shadow":[],"bundle":"5d41402abc4b2a76b9719d911017c592"'
    ',"sequence":7,"client":"198.51.100.%d","issuer":"company","subject":"finance-etl@example.com"'
    ',"kind":"workload","roles":{"granted":["finance-publisher","finance-reader"],"tagged":["finance-reader"]'
    ',"effective":["finance-reader"]},"token_id":"%032x","workload":{"dag":{"value":"finance_daily","attested":false}'
    ',"task":{"value":"load_entries","attested":false},"run":{"value":"scheduled__2026-11-20T00:00:00+00:00"'
    ',"attested":false},"try":{"value":"1","attested":false}},"path":"/v1/entries/%d"'
    ',"gate_ms":1,"worker":{"location":"FRA","version":"0c6e1d84-5f0a-4ab0-a3a5-4f9f6bfa9b52"}}'
)


def lines(size: int, private: Ed25519PrivateKey, kid: str) -> Iterator[str]:
    """A log of about `size` bytes."""
    dice = random.Random(7)
    keys = {"audit": kid, "trusted": [], "assertion": []}
    chains = [Chain(f"{dice.getrandbits(128):032x}") for _ in range(ISOLATES)]
    now, held = START, 0
    for chain in chains:
        yield chain.link(opening_event(now, GATE, "FRA", None, keys, PLAIN)) + "\n"
    while held < size:
        now += 0.0004
        chain = dice.choice(chains)
        if chain.length % EVERY == 0:
            document = chain.checkpoint(GATE, timestamp(now), chains.index(chain) + 1)
            octets = private.sign(pae(CHECKPOINT, document))
            signature = urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")
            event = checkpoint_event(now, document, kid, signature)
        else:
            number = dice.getrandbits(128)
            event = DECISION % (timestamp(now), number, number ^ 255, number % 254, number ^ 65_535, held)
        line = chain.link(event) + "\n"
        held += len(line)
        yield line


def measure(log: Path, keys: Path) -> dict[str, Any]:
    """One run of the command: events, seconds, and the memory of all its processes at their highest, added up."""
    command = [sys.executable, "-m", "airgate", "audit", "verify", str(log), "--keys", str(keys), "--json"]
    began, used = time.perf_counter(), _used()
    peaks: dict[int, int] = {}
    with tempfile.TemporaryFile() as printed, subprocess.Popen(command, stdout=printed) as running:
        while running.poll() is None:
            for pid in [running.pid, *_children(running.pid)]:
                peaks[pid] = max(peaks.get(pid, 0), _peak(pid))
            time.sleep(0.02)
        seconds, used = time.perf_counter() - began, _used() - used
        printed.seek(0)
        said = json.load(printed)
    # Chains end where the log was cut; nothing else may be found.
    if running.returncode or {each["kind"] for each in said["findings"]} - {"open end"}:
        raise SystemExit(f"A log that nobody has touched was not proved: {said['findings'][:3]}")
    return {
        "bytes": log.stat().st_size,
        "events": said["read"]["events"],
        "checkpoints": said["checkpoints"],
        "seconds": round(seconds, 2),
        "cpu_seconds": round(used, 2),
        "events_per_second": round(said["read"]["events"] / seconds),
        "processes": len(peaks),
        "memory": round(sum(peaks.values()) / 1024),  # MiB
    }


def _used() -> float:
    """Seconds of the processor that all children have taken which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _peak(pid: int) -> int:
    """KiB of memory that a process has held at once; 0 when it's gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def main(
    megabytes: Annotated[
        int, typer.Option(min=1, help="Of the shorter log; the other is five times that.")
    ] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each; the fastest counts.")] = 3,
    write: Annotated[bool, typer.Option(help="Write bench/verify.json.")] = True,
) -> None:
    """Measure `airgate audit verify`. Exits with 1 when it is slower than it should be, or its memory grows."""
    screen = Console(stderr=True)
    text, public = new_key(START - 86_400)
    private = Ed25519PrivateKey.from_private_bytes(read_base64url(json.loads(text)["d"]))
    runs = []
    with tempfile.TemporaryDirectory(prefix="airgate-") as scratch:
        keys, log = Path(scratch) / "audit-keys.json", Path(scratch) / "audit.ndjson"
        keys.write_text(written({public.kid: public}), encoding="utf-8")
        for size in (megabytes * 1_000_000, 5 * megabytes * 1_000_000):
            with log.open("w", encoding="utf-8") as file:
                made = lines(size, private, public.kid)
                file.writelines(track(made, "writing a log", transient=True, console=screen))
            best = min((measure(log, keys) for _ in range(rounds)), key=lambda run: run["seconds"])
            runs.append(best)
            print(
                f"{best['bytes'] / 1e6:,.0f} MB, {best['events']:,} events, {best['checkpoints']:,} checkpoints: "
                f"{best['seconds']} s ({best['cpu_seconds']} s of processors), {best['events_per_second']:,} events a "
                "second with the start of the command; "
                f"{best['memory']} MiB in {best['processes']} processes"
            )
    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "runs": runs,
    }
    if write:
        (HERE / "verify.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        print("Written: bench/verify.json")
    # The start of the command takes a second, whatever the log's length.
    slow = runs[1]["events_per_second"] < TARGET
    sys.exit(slow or runs[1]["memory"] > FLAT * runs[0]["memory"])


if __name__ == "__main__":
    typer.run(main)
