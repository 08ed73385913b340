"""The gate's counts as metrics: their names, units and attributes. What each of them means: docs/telemetry.md."""

from collections.abc import Callable, Mapping
from typing import Any

import otlp
from counters import ANSWERED, BOUNDS, REST, Counters, Sinks, failed, outcome
from otlp import Metric

Points = list[tuple[Mapping[str, Any], float]]  # attributes, and the value
Total = Callable[[str, str, str, Points], Metric]  # of a name, unit and description


def told(
    counters: Counters, sinks: Sinks, spans: Mapping[str, int], failures: Mapping[str, int], scheme: str,
    start: float, now: float,
) -> list[Metric]:  # fmt: skip
    """Every metric, in OTLP's words. `start`: when counting began; `now`: seconds since the epoch, as that.

    `spans`: how many, by what became of them. `failures`: messages that a collector did not take, by their signal.
    """

    def total(name: str, unit: str, description: str, points: Points) -> Metric:
        return otlp.total(name, unit, description, points, start, now)

    decisions: Points = [
        ({**_of(upstream), "airgate.decision": decision, "airgate.reason": reason}, count)
        for (upstream, decision, reason), count in counters.decisions.items()
    ]
    return [
        total("airgate.decisions", "{decision}", "Decisions on requests.", decisions),
        *_upstreams(counters, total),
        otlp.histogram(
            "http.server.request.duration",
            "Time until an answer's headers went out.",
            BOUNDS,
            [
                ({**_http(method, status), "url.scheme": scheme, **_of(upstream)}, seconds, buckets)
                for (upstream, method, status), (seconds, buckets) in _answers(counters).items()
            ],
            start,
            now,
        ),
        otlp.histogram(
            "http.client.request.duration",
            "Time until the headers of an upstream's answer were there, further tries and their waits included.",
            BOUNDS,
            [
                (
                    {
                        **_http(method, status if result == ANSWERED else 0),
                        "error.type": error(result, status),
                        **_of(upstream),
                    },
                    times.upstream,
                    times.upstream_buckets,
                )
                for (upstream, method, status, result, sent), times in counters.calls.items()
                if sent
            ],
            start,
            now,
        ),
        total(
            "airgate.cache.lookups",
            "{lookup}",
            "What was looked for in the isolate's memory.",
            [
                ({"airgate.cache": name, "airgate.result": result}, count)
                for name, hits, misses in counters.caches()
                for result, count in (("hit", hits), ("miss", misses))
            ],
        ),
        total(
            "airgate.audit.lines",
            "{line}",
            "Audit lines, by where they went.",
            [
                ({"airgate.sink": name, "airgate.result": result}, count)
                for name, (lines, lost) in sinks.items()
                for result, count in (("written", lines), ("lost", lost))
            ],
        ),
        total(
            "airgate.telemetry.spans",
            "{span}",
            "Spans, by what became of them.",
            [({"airgate.result": result}, count) for result, count in spans.items()],
        ),
        total(
            "airgate.telemetry.failures",
            "{message}",
            "Messages that the collector did not take.",
            [({"airgate.signal": signal}, count) for signal, count in failures.items()],
        ),
    ]


def error(result: str, status: int) -> str | None:
    """`error.type` of a call to an upstream; None for one that is none."""
    if result != ANSWERED:
        return result
    return str(status) if status >= 400 else None


def _upstreams(counters: Counters, total: Total) -> list[Metric]:
    calls: dict[tuple[str, str, str], int] = {}
    errors: dict[str, int] = {}
    for (upstream, _, status, result, _), times in counters.calls.items():
        key = (upstream, result, outcome(result, status))
        calls[key] = calls.get(key, 0) + times.count
        if failed(result, status):
            errors[upstream] = errors.get(upstream, 0) + times.count
    gate: dict[str, float] = {}
    for upstream, _, _, times in counters.all_answers():
        gate[upstream] = gate.get(upstream, 0.0) + times.sum - times.upstream
    return [
        total(
            "airgate.upstream.calls",
            "{call}",
            "Calls to upstreams, by how they ended.",
            [
                ({**_of(upstream), "airgate.result": result, "airgate.outcome": ended}, count)
                for (upstream, result, ended), count in calls.items()
            ],
        ),
        total(
            "airgate.upstream.errors",
            "{call}",
            "Calls that an upstream failed: no answer, or one of 5xx.",
            [(_of(upstream), count) for upstream, count in errors.items()],
        ),
        total(
            "airgate.gate.time",
            "s",
            "Time that requests waited for the gate itself.",
            [(_of(upstream), seconds) for upstream, seconds in gate.items()],
        ),
    ]


def _answers(counters: Counters) -> dict[tuple[str, str, int], tuple[float, list[int]]]:
    """Seconds and buckets of all answers, by upstream, method and status."""
    answers: dict[tuple[str, str, int], tuple[float, list[int]]] = {}
    for upstream, method, status, times in counters.all_answers():
        key = (upstream, method, status)
        seconds, buckets = answers.get(key, (0.0, [0] * len(times.buckets)))
        answers[key] = (seconds + times.sum, [a + b for a, b in zip(buckets, times.buckets, strict=True)])
    return answers


def _of(upstream: str) -> dict[str, Any]:
    # As SDKs mark what is beyond their own bound on series.
    return {"otel.metric.overflow": True} if upstream == REST else {"airgate.upstream": upstream}


def _http(method: str, status: int) -> dict[str, Any]:
    return {"http.request.method": method, "http.response.status_code": status or None}
