"""One run: every engine at every size in turn, then what only the gate's engine is asked."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.decisions.policies import (
    SIZES,
    Question,
    crowded_shard,
    policies,
    questions,
    shard_of,
    strict_shard,
)
from bench.decisions.rivals import Missing
from bench.decisions.runtime import NEW, Runtime
from bench.rig import BenchError

LONGEST_LOAD = 60.0  # seconds; an engine that takes longer is not asked about more policies
LONGEST_DECISION = 1e6  # microseconds

Step = Callable[[str], None]  # told what is being done; once for each thing that is


class Engine(Protocol):
    """What is compared: see Gate and Rival."""

    name: str
    title: str
    how: str

    def load(self, size: int) -> float:
        """Take that many policies in. Returns the seconds that it took."""

    def answers(self, asked: Sequence[Question]) -> list[bool]: ...

    def time(self, question: Question) -> float:
        """Microseconds a decision."""

    def forget(self) -> None: ...


def steps(engines: int, runtimes: int, rounds: int) -> int:
    """How often `step` is called, all in all."""
    return len(SIZES) * engines + rounds * runtimes * (len(ASKED) + len(READ))


def compare(engines: Sequence[Engine], rounds: int, step: Step) -> list[dict[str, Any]]:
    """One row for each engine and size: its median of interleaved rounds, or why there is none.

    Raises BenchError when an engine answers a question wrongly.
    """
    rows = []
    given_up: dict[str, str] = {}
    for size in SIZES:
        asked = questions(size)
        taken: dict[str, list[float]] = {}
        for engine in engines:
            row: dict[str, Any] = {"engine": engine.name, "title": engine.title, "policies": size}
            rows.append(row)
            step(f"{size:,} policies: {engine.title}")
            reason = given_up.get(engine.name) or _start(engine, asked, row)
            if reason:
                given_up[engine.name] = row["not_measured"] = reason
                engine.forget()
            else:
                taken[engine.name] = []
        for _ in range(rounds):
            for engine in engines:
                if engine.name in taken:
                    taken[engine.name].append(engine.time(asked[0]))
        for engine, row in zip(engines, rows[-len(engines) :], strict=True):
            if engine.name in taken:
                row["us"] = round(statistics.median(taken[engine.name]), 2)
                row["us_rounds"] = [round(value, 2) for value in taken[engine.name]]
                engine.forget()
    return rows


def _start(engine: Engine, asked: Sequence[Question], row: dict[str, Any]) -> str:
    """Load, check the answers and warm up. Returns why the engine can't be measured, or nothing."""
    try:
        seconds = row["load_seconds"] = round(engine.load(row["policies"]), 4)
    except Missing as error:
        return str(error)
    if seconds > LONGEST_LOAD:
        return f"loading {row['policies']:,} policies took {seconds:.0f} s"
    longest = engine.time(asked[0])
    if longest > LONGEST_DECISION:
        return f"one decision among {row['policies']:,} policies took {longest / 1e6:.1f} s"
    said = engine.answers(asked)
    if said != [question.permit for question in asked]:
        raise BenchError(f"{engine.title} answers {said} among {row['policies']:,} policies to {asked}")
    return ""


FEW, SOME, MANY = SIZES[0], 1_000, SIZES[-1]
CROWD = 100

# What is asked: name, title, shard, which of the questions, over how many addresses.
ASKED = (
    *(
        (f"{name}-{size}", f"{title}, {size:,} policies", f"plain-{size}", number, paths)
        for name, title, number, paths in (
            ("new", "a new address", 0, NEW),
            ("seen", "an address seen before", 0, 1),
            ("miss", "no policy for the path, new address", 6, NEW),
            ("miss-seen", "no policy for the path, seen before", 6, 1),
            ("role", "no policy for the roles, new address", 2, NEW),
        )
        for size in (FEW, SOME, MANY)
    ),
    ("strict", "ten conditions, new address, 1,000 policies", "strict", 0, NEW),
    ("crowd", f"{CROWD} policies match, new address", "crowd", 0, NEW),
)

# What is read: name, title, shard.
READ = (
    ("plain-1000", "1,000 plain policies", "all-1000"),
    ("shared-1000", "1,000 policies with ten conditions, all shared", "shared-1000"),
    ("own-1000", "1,000 policies with ten conditions, four their own", "strict"),
    ("plain-10000", "10,000 plain policies", "all-10000"),
)


def gate_alone(runtimes: Sequence[Runtime], rounds: int, step: Step) -> dict[str, list[dict[str, Any]]]:
    """What a decision costs in this and that case, and reading a shard, on each runtime."""
    scratch = runtimes[0].scratch
    shards: dict[str, tuple[Path, str, list[Question]]] = {}

    def add(name: str, text: str, size: int) -> None:
        file = scratch / f"{name}.json"
        file.write_text(text, encoding="utf-8")
        shards[name] = file, questions(size)[0].upstream, questions(size)

    for size in (FEW, SOME, MANY):
        upstream = questions(size)[0].upstream
        add(
            f"plain-{size}",
            shard_of([one for one in policies(size) if one.upstream == upstream], upstream),
            size,
        )
    upstream = questions(SOME)[0].upstream
    add("strict", strict_shard(policies(SOME), upstream, shared=False), SOME)
    add("shared-1000", strict_shard(policies(SOME), upstream, shared=True), SOME)
    add("crowd", crowded_shard(CROWD, upstream), SOME)
    for size in (SOME, 10_000):
        add(f"all-{size}", shard_of(policies(size), questions(size)[0].upstream), size)

    used = sorted({shard for _, _, shard, _, _ in ASKED})
    for runtime in runtimes:
        for name in used:
            file, upstream, _ = shards[name]
            runtime.order("load", name=name, upstream=upstream, file=str(file))
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name, title, shard, number, paths in ASKED:
            for runtime in runtimes:
                step(f"{runtime.title}: {title}")
                answer = runtime.order("time", name=shard, question=shards[shard][2][number], paths=paths)
                times.setdefault((runtime.kind.name, name), []).append(answer["us"])
    for runtime in runtimes:
        for name in used:
            runtime.order("forget", name=name)
    reads: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for name, title, shard in READ:
            for runtime in runtimes:
                step(f"{runtime.title}: reading {title}")
                file, upstream, _ = shards[shard]
                answer = runtime.order("read", upstream=upstream, file=str(file))
                reads.setdefault((runtime.kind.name, name), []).append(answer)
    return {
        "decisions": [
            {
                "runtime": runtime.kind.name,
                "case": name,
                "title": title,
                "us": round(statistics.median(times[runtime.kind.name, name]), 2),
            }
            for name, title, *_ in ASKED
            for runtime in runtimes
        ],
        "reading": [
            {
                "runtime": runtime.kind.name,
                "case": name,
                "title": title,
                "kib": round(shards[shard][0].stat().st_size / 1024),
                **_parts(reads[runtime.kind.name, name]),
            }
            for name, title, shard in READ
            for runtime in runtimes
        ],
    }


def _parts(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The medians of the parts, and of their sum, in milliseconds."""
    parts = {f"{part}_ms": statistics.median(one[part] for one in rounds) for part in rounds[0]}
    parts["ms"] = statistics.median(sum(one.values()) for one in rounds)
    return {name: round(value, 2) for name, value in parts.items()}
