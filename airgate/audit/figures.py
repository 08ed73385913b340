"""A summary as plain values: what `--json` prints, and what the tables and the page are made of.

Texts are as the log has them: whoever shows them makes them harmless (`wording.shown`). Times are RFC 3339.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airgate.audit.bounded import Bounded, Number, Times
from airgate.audit.summary import CLASSES, Answers, Caller, Calls, Denials, Noted, Summary
from airgate.engine import ANSWERS
from airgate.policy.traffic import span

FORMAT = 1
MOST_BARS = 60
MOST_TOLD = 5  # callers, policies or upstreams under one line
SILENCE = 3600  # seconds without a decision that are worth a line
MOST_SILENCES = 3

Figures = dict[str, Any]

_MEANS = {str(reason): (answer.title, answer.status) for reason, answer in ANSWERS.items()}


@dataclass(frozen=True)
class Permit:
    """A permit that could have let calls pass."""

    id: str
    owner: str
    upstreams: tuple[str, ...]


@dataclass(frozen=True)
class Permits:
    """The permits of a seed or a bundle."""

    origin: str  # `kv-seed`, or `what is in force in production`
    permits: Sequence[Permit]


@dataclass(frozen=True)
class Origin:
    """What a report was made from, and when."""

    logs: Sequence[str]
    read: Sequence[str]  # sentences about what was read, and what was left out
    made_at: float
    version: str


def figures(found: Summary, origin: Origin, permits: Permits | None) -> Figures:
    """Everything that a report tells."""
    return {
        "format": FORMAT,
        "made_at": _written(origin.made_at),
        "made_by": f"airgate {origin.version}",
        "logs": list(origin.logs),
        "read": list(origin.read),
        "since": _written(found.since),
        "until": _written(found.until),
        "first": _written(found.first),
        "last": _written(found.last),
        "span": None if found.first is None or found.last is None else span(found.last - found.first),
        "totals": _totals(found),
        "over_time": _over_time(found),
        "callers": _callers(found),
        "calls": [_call(call._asdict(), row) for call, row in found.calls.heaviest()],
        "upstreams": [_call({"upstream": name}, row) for name, row in found.upstreams.heaviest()],
        "denials": [_denial(reason, row, found.denied) for reason, row in found.denials.heaviest()],
        "unused": None if permits is None else _unused(found, permits),
        "asserted": _asserted(found),
        "shadow": [
            {
                "policies": list(policies),
                "would_deny": row.denies,
                "would_permit": row.permits,
                "same": row.same,
                **_named("callers", row.callers),
            }
            for policies, row in found.shadows.heaviest()
        ],
        "changes": [_change(noted) for noted in sorted(found.changes.values(), key=lambda one: one.first)],
        "versions": [
            {"version": version, "first": _written(first)}
            for version, first in sorted(found.versions.items(), key=lambda one: one[1])
        ],
        "locations": {name: row.weight for name, row in found.locations.heaviest()},
        "gaps": _gaps(found),
        "folded": _folded(found),
    }


def _written(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return None


def _times(times: Times) -> dict[str, int | None]:
    return {"median": times.quantile(0.5), "p95": times.quantile(0.95)}


def _totals(found: Summary) -> Figures:
    gate, answers = Times(), Answers()
    rows = [row for _, row in found.calls.heaviest()]
    for row in (*rows, found.calls.rest):
        gate.merge(row.gate)
        answers.merge(row.answers)
    return {
        "decisions": found.decisions,
        "permitted": found.permitted,
        "denied": found.denied,
        "pages": found.pages,
        "forwarded": found.permitted - found.pages,
        "questions": {"permitted": found.questions[0], "denied": found.questions[1]},
        "answers": _answers(answers),
        "results": {name: row.weight for name, row in found.results.heaviest()},
        "gate_ms": _times(gate),
        "upstream_ms": _times(answers.upstream),
        "isolates": found.isolates,
        "checkpoints": found.checkpoints,
    }


def _answers(answers: Answers) -> dict[str, int]:
    told = {name: number for name, number in zip(CLASSES, answers.classes, strict=True) if number}
    return told | ({"none": answers.failed} if answers.failed else {})


def _call(told: Figures, row: Calls) -> Figures:
    caller = told.pop("caller", None)
    return {
        **({} if caller is None else caller._asdict()),
        **told,
        "calls": row.weight,
        "permitted": row.permitted,
        "denied": row.denied,
        "first": _written(row.first),
        "last": _written(row.last),
        "answers": _answers(row.answers),
        "open": row.open,
        "gate_ms": _times(row.gate),
        "upstream_ms": _times(row.answers.upstream),
    }


def _over_time(found: Summary) -> Figures:
    width, bars = found.bins.bars(MOST_BARS)
    return {
        "seconds": width,
        "bars": [
            {"at": _written(at), "permitted": permits, "denied": denials} for at, permits, denials in bars
        ],
    }


def _callers(found: Summary) -> list[Figures]:
    """By the token alone, whatever they called."""
    summed: dict[Caller, list[int]] = {}
    for call, row in found.calls.heaviest():
        numbers = summed.setdefault(call.caller, [0, 0])
        numbers[0] += row.permitted
        numbers[1] += row.denied
    ordered = sorted(summed.items(), key=lambda one: (-sum(one[1]), repr(one[0])))
    return [
        {**caller._asdict(), "calls": permitted + denied, "permitted": permitted, "denied": denied}
        for caller, (permitted, denied) in ordered
    ]


def _denial(reason: str, row: Denials, all_denied: int) -> Figures:
    means, status = _MEANS.get(reason, ("A reason that this version doesn't know", None))
    return {
        "reason": reason,
        "means": means,
        "status": status,
        "calls": row.weight,
        "share": round(row.weight / all_denied, 4) if all_denied else 0.0,
        "first": _written(row.first),
        "last": _written(row.last),
        **_named("callers", row.callers),
        **_named("policies", row.policies),
        **_named("upstreams", row.upstreams),
    }


def _named(what: str, rows: Bounded[Any, Number]) -> Figures:
    """The heaviest few by name, and how many others there are."""
    ordered = list(rows.heaviest())
    told = [
        {**(key._asdict() if isinstance(key, Caller) else {"name": key}), "calls": row.weight}
        for key, row in ordered[:MOST_TOLD]
    ]
    return {what: told, f"more_{what}": len(ordered) + rows.folded - len(told)}


def _unused(found: Summary, permits: Permits) -> Figures:
    uses = dict(found.uses.heaviest())
    known = {permit.id for permit in permits.permits}
    idle = [permit for permit in permits.permits if permit.id not in uses or not uses[permit.id].permitted]
    strangers = sorted(name for name, use in uses.items() if use.permitted and name not in known)
    return {
        "of": permits.origin,
        "permits": len(permits.permits),
        "unused": [
            {"id": permit.id, "owner": permit.owner, "upstreams": list(permit.upstreams)}
            for permit in sorted(idle, key=lambda one: one.id)
        ],
        "strangers": strangers[:MOST_TOLD],  # they permitted calls, and are none of these permits
        "more_strangers": max(0, len(strangers) - MOST_TOLD),
        "certain": not found.uses.folded,
    }


def _asserted(found: Summary) -> list[Figures]:
    return [
        {**caller._asdict(), "calls": row.asserted, **_named("dags", row.dags)}
        for caller, row in found.vouched.heaviest()
        if row.asserted and not row.attested
    ]


def _change(noted: Noted) -> Figures:
    found = noted.change
    return {
        "at": _written(noted.first),
        "kind": found.kind,
        "what": found.what,
        "by": found.by,
        "why": found.why,
        "alarm": found.alarm,
        "times": noted.times,
    }


def _gaps(found: Summary) -> Figures:
    lines, chains = found.holes
    return {
        "open": found.open,
        "running": found.running,
        "lost": found.lost,
        "strays": found.strays,
        "missing_lines": lines,
        "chains_with_missing_lines": chains,
        "chains": len(found.chains),
        "chains_begun_before": found.begun_before,
        "unchained": found.unchained,
        "odd": found.odd,
        "outside": found.outside,
        "silences": [
            {"from": _written(begin), "to": _written(end), "span": span(end - begin)}
            for begin, end in found.bins.silences(SILENCE, MOST_SILENCES)
        ],
    }


def _folded(found: Summary) -> list[str]:
    """What didn't fit, in words."""
    tables: Iterable[tuple[Bounded[Any, Any], str, str]] = (
        (found.calls, "rows of calls", "calls"),
        (found.upstreams, "upstreams", "calls"),
        (found.denials, "reasons", "denials"),
        (found.shadows, "sets of policies in shadow", "calls"),
        (found.vouched, "callers", "calls with a DAG"),
        (found.uses, "policies", "uses"),
    )
    said = [
        f"{table.folded:,} rare {rows} were folded together, {table.rest.weight:,} {what} in all; rows that are "
        "told may lack a few of theirs"
        for table, rows, what in tables
        if table.folded
    ]
    if found.more_changes:
        said.append(f"{found.more_changes:,} lines about further changes are not told")
    if found.more_chains:
        said.append(f"{found.more_chains:,} lines of further chains were not looked at for gaps")
    if found.given_up:
        said.append(
            f"{found.given_up:,} permitted calls were counted as without an outcome, for none came within the next "
            "100,000 calls"
        )
    return said
