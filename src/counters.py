"""What one isolate has counted since its first request: decisions, answers, calls to upstreams, caches.

Plain numbers that only rise. Labels are bounded: an upstream's name is one of the policy in force, or `_other`, and
beyond MOST series of a kind the rest are counted together.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any

OTHER, REST = "_other", "_rest"  # no names that an upstream can have
MOST = 2000  # series of a kind; what comes after these is counted under REST
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)  # seconds
ANSWERED = "answered"

_ERRORS = frozenset({"timeout", "unreachable"})  # beside its own 5xx, what an upstream is to blame for

Sinks = Mapping[str, tuple[int, int]]  # of audit lines, by name: how many it took, and how many it lost


class Times:
    """How many answers there were, and how long callers waited for their headers. Times are in seconds."""

    __slots__ = ("buckets", "count", "sum", "upstream", "upstream_buckets")

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)  # each counts up to its bound, the last one above all
        self.upstream = 0.0  # of these, spent waiting for an upstream
        self.upstream_buckets = [0] * (len(BOUNDS) + 1)


class Counters:
    """Counts by label. A status is an HTTP status code, 0 for REST."""

    __slots__ = (
        "answers",
        "calls",
        "credential_hits",
        "credential_misses",
        "decisions",
        "shard_hits",
        "shard_misses",
        "token_hits",
        "token_misses",
    )

    def __init__(self) -> None:
        self.decisions: dict[tuple[str, str, str], int] = {}  # by upstream, permit or deny, reason
        # By upstream, method and status: what the gate answered itself, having called nobody.
        self.answers: dict[tuple[str, str, int], Times] = {}
        # By upstream, method, status of the answer, result, and whether the upstream was called at all.
        self.calls: dict[tuple[str, str, int, str, bool], Times] = {}
        self.token_hits = self.token_misses = 0
        self.credential_hits = self.credential_misses = 0
        self.shard_hits = self.shard_misses = 0

    def decided(self, upstream: str, decision: str, reason: str) -> None:
        """Count a decision. `reason`: empty for a permit."""
        key, decisions = (upstream, decision, reason), self.decisions
        if key in decisions:
            decisions[key] += 1
        else:
            if len(decisions) >= MOST:
                key = (REST, decision, "")
            decisions[key] = decisions.get(key, 0) + 1

    def answered(self, upstream: str, method: str, status: int, seconds: float) -> None:
        """Count an answer of the gate's own, and the seconds until it went out."""
        times = self.answers.get((upstream, method, status))
        if times is None:
            key = (upstream, method, status) if len(self.answers) < MOST else (REST, "", 0)
            times = self.answers.setdefault(key, Times())
        times.count += 1
        times.sum += seconds
        times.buckets[bisect_left(BOUNDS, seconds)] += 1

    def called(
        self, upstream: str, method: str, status: int, result: str, sent: bool, seconds: float, waited: float
    ) -> None:
        """Count the answer to a call that was permitted. `result`: answered by the upstream, or why not.

        `sent`: False where the gate held the call back. `waited`: of the seconds, for the upstream.
        """
        key = (upstream, method, status, result, sent)
        times = self.calls.get(key)
        if times is None:
            if len(self.calls) >= MOST:
                key = (REST, "", 0, result, sent)
            times = self.calls.setdefault(key, Times())
        times.count += 1
        times.sum += seconds
        times.buckets[bisect_left(BOUNDS, seconds)] += 1
        times.upstream += waited
        times.upstream_buckets[bisect_left(BOUNDS, waited)] += 1

    def all_answers(self) -> Iterator[tuple[str, str, int, Times]]:
        """Upstream, method and status of all answers; some of them more than once, where calls ended differently."""
        for (upstream, method, status), times in self.answers.items():
            yield upstream, method, status, times
        for (upstream, method, status, _, _), times in self.calls.items():
            yield upstream, method, status, times

    def caches(self) -> Iterator[tuple[str, int, int]]:
        """Each cache, how often it had what was asked for, and how often it had not."""
        yield "tokens", self.token_hits, self.token_misses
        yield "credentials", self.credential_hits, self.credential_misses
        yield "shards", self.shard_hits, self.shard_misses

    def report(self, sinks: Sinks) -> dict[str, Any]:
        """All counts, for health. Seconds are to the millisecond."""
        totals = {"permit": 0, "deny": 0}
        reasons: dict[str, int] = {}
        upstreams: dict[str, dict[str, Any]] = {}
        for (upstream, decision, reason), count in self.decisions.items():
            totals[decision] += count
            _of(upstreams, upstream)[decision] += count
            if reason:
                reasons[reason] = reasons.get(reason, 0) + count
        for upstream, _, _, times in self.all_answers():
            _of(upstreams, upstream)["gate_seconds"] += times.sum - times.upstream
        for (upstream, _, status, result, _), times in self.calls.items():
            of, name = _of(upstreams, upstream), outcome(result, status)
            of["outcomes"][name] = of["outcomes"].get(name, 0) + times.count
            of["upstream_seconds"] += times.upstream
            of["errors"] += times.count if failed(result, status) else 0
        for of in upstreams.values():
            of |= {name: round(of[name], 3) for name in ("gate_seconds", "upstream_seconds")}
        return {
            "decisions": totals,
            "reasons": dict(sorted(reasons.items())),
            "upstreams": dict(sorted(upstreams.items())),
            "caches": {name: {"hits": hits, "misses": misses} for name, hits, misses in self.caches()},
            "sinks": {name: {"lines": lines, "lost": lost} for name, (lines, lost) in sinks.items()},
        }


def outcome(result: str, status: int) -> str:
    """How a call ended: 2xx, or why there is no answer."""
    return f"{status // 100}xx" if result == ANSWERED and status else result


def failed(result: str, status: int) -> bool:
    """Whether a call counts as an error of the upstream's."""
    return status >= 500 if result == ANSWERED else result in _ERRORS


def _of(upstreams: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    return upstreams.setdefault(
        name,
        {"permit": 0, "deny": 0, "outcomes": {}, "errors": 0, "gate_seconds": 0.0, "upstream_seconds": 0.0},
    )
