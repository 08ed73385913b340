"""The gate's engine under the clock: one process that loads shards and decides, on CPython or in Pyodide.

Times are CPU time of the process: what another process takes in between does not count.

It needs src/ and the standard library. An order is one line of JSON, and so is its answer:

    {"do": "load", "name": "a", "upstream": "up5", "file": "up5.json"}  -> {"seconds": 0.001}
    {"do": "ask", "name": "a", "questions": [question]}                 -> {"permits": [true]}
    {"do": "time", "name": "a", "question": question, "paths": 2048}    -> {"us": 3.1}
    {"do": "read", "upstream": "up5", "file": "up5.json"}               -> {"hash": ms, "parse": ms, "check": ms}
    {"do": "forget", "name": "a"}                                       -> {}

A question is [roles, method, upstream, path, whether it is permitted]. `paths`: over how many addresses the calls are
spread, one after the other; the index remembers 256 at most.
"""

import hashlib
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

try:
    from js import process  # Pyodide in Node: there the interpreter's own clocks know of wall time only
except ImportError:
    clock = process_time
else:

    def clock() -> float:
        """Seconds of CPU time, of which only what passes between two calls means anything."""
        usage = process.cpuUsage()
        return float(usage.user + usage.system) / 1e6


sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "src"))

import shard
from conditions import Call
from document import read_compiled
from model import Caller, Fact, Identity, Target
from shard import EMPTY, Shard, load_shard

NOW = 1_800_000_000.0  # a Friday morning
CLIENT = "198.51.100.7"
WORKLOAD = {"dag": Fact("finance_close", False), "tags": Fact(("finance", "monthly"), False)}
CLAIMS: dict[tuple[str, ...], tuple[str, ...]] = {("department",): ("finance",)}

CALLS = 4096
WARM = 512  # calls before the clock starts: other processes have used the caches

_shards: dict[str, dict[str, Shard]] = {}  # by name, by upstream
_texts: dict[str, str] = {}
_parsed = 0.0, 0.0  # when the last parsing began and ended


def _call(question: list[Any], end: str = "") -> Call:
    roles, method, upstream, path, _ = question
    held = frozenset(roles)
    identity = Identity("company", "etl", "workload", held, {}, frozenset(), CLAIMS)
    segments = tuple((path + end).split("/")[1:])
    target = Target(method, upstream, segments, path + end, "?format=csv&page=1")
    return Call(Caller(identity, None, held, WORKLOAD), target, NOW, CLIENT, "DE")


def load(name: str, upstream: str, file: str) -> dict[str, Any]:
    text = Path(file).read_text("utf-8")
    start = clock()
    loaded = load_shard(text, upstream)
    seconds = clock() - start
    _shards.setdefault(name, {})[upstream] = loaded
    return {"seconds": seconds}


def ask(name: str, questions: list[list[Any]]) -> dict[str, Any]:
    shards = _shards[name]
    return {"permits": [shards.get(asked[2], EMPTY).decide(_call(asked)).permit for asked in questions]}


def time(name: str, question: list[Any], paths: int) -> dict[str, Any]:
    """Microseconds a decision. The values that a call is made of are there, the call itself is made each time."""
    decide = _shards[name][question[2]].decide
    kept = [_call(question, f"-{number}" if number else "") for number in range(paths)]
    each = [kept[number % paths] for number in range(CALLS)]
    for call in each[:WARM]:
        decide(call)
    start = clock()
    for call in each:
        decision = decide(Call(call.caller, call.target, NOW, CLIENT, "DE"))
    seconds = clock() - start
    if decision.permit is not question[4]:
        raise ValueError(f"decided {decision}, which is wrong for {question}")
    return {"us": seconds / CALLS * 1e6}


def read(upstream: str, file: str) -> dict[str, Any]:
    """Milliseconds for the parts of reading a shard that has come from KV as text."""
    text = _texts.setdefault(file, Path(file).read_text("utf-8"))
    start = clock()
    hashlib.sha256(text.encode("utf-8")).hexdigest()
    hashed = clock()
    load_shard(text, upstream)
    loaded = clock()
    began, parsed = _parsed
    check = loaded - parsed + began - hashed
    return {"hash": (hashed - start) * 1e3, "parse": (parsed - began) * 1e3, "check": check * 1e3}


def _parse(text: str, *, limit: int, depth: int) -> dict[str, Any]:
    global _parsed
    began = clock()
    value = read_compiled(text, limit=limit, depth=depth)
    _parsed = began, clock()
    return value


# load_shard parses and checks in one go.
shard.read_compiled = _parse  # type: ignore[attr-defined]


def forget(name: str) -> dict[str, Any]:
    del _shards[name]
    return {}


ORDERS: dict[str, Callable[..., dict[str, Any]]] = {
    "load": load,
    "ask": ask,
    "time": time,
    "read": read,
    "forget": forget,
}


def obey(line: str) -> str:
    """Carry out one order. What goes wrong is the answer's `error`."""
    order = json.loads(line)
    try:
        return json.dumps(ORDERS[order.pop("do")](**order))
    except Exception as error:
        return json.dumps({"error": f"{type(error).__name__}: {error}"[:2000]})


def hello() -> str:
    """What answers the orders, as its first line says."""
    return json.dumps({"python": platform.python_version()})


if __name__ == "__main__":
    print(hello(), flush=True)
    for line in sys.stdin:
        print(obey(line), flush=True)
