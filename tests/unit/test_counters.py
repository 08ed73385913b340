"""What an isolate has counted: every call once, under labels of which there are never too many."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counters import BOUNDS, MOST, OTHER, REST, Counters, Times, failed, outcome


def counted(**upstreams: dict[str, Any]) -> dict[str, Any]:
    nothing = {
        "permit": 0,
        "deny": 0,
        "outcomes": {},
        "errors": 0,
        "gate_seconds": 0.0,
        "upstream_seconds": 0.0,
    }
    return {name: nothing | told for name, told in upstreams.items()}


def test_nothing_yet() -> None:
    assert Counters().report({}) == {
        "decisions": {"permit": 0, "deny": 0},
        "reasons": {},
        "upstreams": {},
        "caches": {
            "tokens": {"hits": 0, "misses": 0},
            "credentials": {"hits": 0, "misses": 0},
            "shards": {"hits": 0, "misses": 0},
        },
        "sinks": {},
    }


def test_a_few_calls() -> None:
    counters = Counters()
    for _ in range(3):
        counters.decided("ledger", "permit", "")
    counters.called("ledger", "GET", 200, "answered", True, 0.030, 0.020)
    counters.called("ledger", "POST", 503, "answered", True, 0.5, 0.4)
    counters.called("ledger", "GET", 504, "timeout", True, 2.6, 2.5)
    counters.decided("ledger", "deny", "policy.no_match")
    counters.answered("ledger", "GET", 403, 0.002)
    counters.decided(OTHER, "deny", "token.missing")
    counters.answered(OTHER, "GET", 401, 0.001)
    counters.token_hits, counters.token_misses = 4, 1
    counters.credential_hits, counters.shard_misses = 2, 1
    assert counters.report({"logs": (12, 0), "r2": (10, 2)}) == {
        "decisions": {"permit": 3, "deny": 2},
        "reasons": {"policy.no_match": 1, "token.missing": 1},
        "upstreams": counted(
            _other={"deny": 1, "gate_seconds": 0.001},
            ledger={
                "permit": 3,
                "deny": 1,
                "outcomes": {"2xx": 1, "5xx": 1, "timeout": 1},
                "errors": 2,
                "gate_seconds": 0.212,
                "upstream_seconds": 2.92,
            },
        ),
        "caches": {
            "tokens": {"hits": 4, "misses": 1},
            "credentials": {"hits": 2, "misses": 0},
            "shards": {"hits": 0, "misses": 1},
        },
        "sinks": {"logs": {"lines": 12, "lost": 0}, "r2": {"lines": 10, "lost": 2}},
    }


@pytest.mark.parametrize(
    ("result", "status", "name", "error"),
    [
        ("answered", 200, "2xx", False),
        ("answered", 302, "3xx", False),
        ("answered", 404, "4xx", False),
        ("answered", 500, "5xx", True),
        ("answered", 599, "5xx", True),
        ("timeout", 504, "timeout", True),
        ("unreachable", 502, "unreachable", True),
        ("circuit_open", 503, "circuit_open", False),
        ("overloaded", 503, "overloaded", False),
        ("credential", 503, "credential", False),
        ("revoked", 403, "revoked", False),
        ("internal", 503, "internal", False),
        ("answered", 0, "answered", False),
    ],
)
def test_what_an_upstream_is_to_blame_for(result: str, status: int, name: str, error: bool) -> None:
    assert (outcome(result, status), failed(result, status)) == (name, error)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (0.0, 0),
        (0.005, 0),
        (0.0051, 1),
        (0.1, BOUNDS.index(0.1)),
        (10.0, len(BOUNDS) - 1),
        (10.1, len(BOUNDS)),
        (1e9, len(BOUNDS)),
    ],
)
def test_a_bucket_ends_with_its_bound(seconds: float, bucket: int) -> None:
    counters = Counters()
    counters.answered("ledger", "GET", 200, seconds)
    counters.called("ledger", "GET", 200, "answered", True, seconds, seconds)
    own = counters.answers["ledger", "GET", 200]
    called = counters.calls["ledger", "GET", 200, "answered", True]
    for buckets in (own.buckets, called.buckets, called.upstream_buckets):
        assert [index for index, count in enumerate(buckets) if count] == [bucket]
    assert sum(own.upstream_buckets) == 0


def test_series_are_bounded_and_nothing_is_lost() -> None:
    counters = Counters()
    for number in range(MOST + 500):
        name = f"upstream-{number}"
        counters.decided(name, "permit", "")
        counters.decided(name, "deny", "token.expired")
        counters.answered(name, "GET", 401, 1.0)
        counters.called(name, "GET", 200, "answered", True, 1.0, 0.5)
        counters.called(name, "GET", 504, "timeout", True, 1.0, 1.0)
    for series in (counters.decisions, counters.answers, counters.calls):
        assert MOST <= len(series) <= MOST + 2
    assert counters.decisions[REST, "permit", ""] == MOST + 500 - MOST // 2
    report = counters.report({})
    assert report["decisions"] == {"permit": MOST + 500, "deny": MOST + 500}
    rest = report["upstreams"][REST]
    assert rest["errors"] == rest["outcomes"]["timeout"] == MOST + 500 - MOST // 2
    assert sum(each["errors"] for each in report["upstreams"].values()) == MOST + 500
    assert round(sum(each["gate_seconds"] for each in report["upstreams"].values())) == (MOST + 500) * 1.5
    # One that is known goes on being counted under its own name.
    counters.answered("upstream-0", "GET", 401, 1.0)
    assert counters.answers["upstream-0", "GET", 401].count == 2


_NAMES = st.sampled_from(["ledger", "stock", OTHER])
_SECONDS = st.floats(0, 20)


@given(
    st.lists(st.tuples(_NAMES, st.sampled_from(["permit", "deny"]), st.sampled_from(["", "token.expired"]))),
    st.lists(
        st.tuples(
            _NAMES, st.sampled_from([200, 404, 504]), st.sampled_from(["answered", "timeout"]), _SECONDS
        )
    ),
    st.lists(st.tuples(_NAMES, st.sampled_from([200, 401]), _SECONDS)),
)
def test_counts_add_up(
    decisions: list[tuple[str, str, str]],
    calls: list[tuple[str, int, str, float]],
    answers: list[tuple[str, int, float]],
) -> None:
    counters = Counters()
    for decision in decisions:
        counters.decided(*decision)
    for name, status, result, seconds in calls:
        counters.called(name, "GET", status, result, True, seconds, seconds / 2)
    for name, status, seconds in answers:
        counters.answered(name, "GET", status, seconds)
    report = counters.report({})
    assert sum(report["decisions"].values()) == len(decisions)
    assert sum(report["reasons"].values()) == len([one for one in decisions if one[2]])
    outcomes = [each["outcomes"] for each in report["upstreams"].values()]
    assert sum(sum(each.values()) for each in outcomes) == len(calls)
    everything: list[Times] = [each[-1] for each in counters.all_answers()]
    assert sum(times.count for times in everything) == len(calls) + len(answers)
    assert all(sum(times.buckets) == times.count for times in everything)
    total = sum(seconds for *_, seconds in [*calls, *answers])
    assert sum(times.sum for times in everything) == pytest.approx(total)
