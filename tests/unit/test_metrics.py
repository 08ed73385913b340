"""The isolate's counts as metrics: each told once, under its own attributes."""

import json

from observed import Scene

from model import Denied, Reason


def test_metrics_are_the_counts() -> None:
    scene = Scene()
    scene.forwarded(scene.known())
    scene.forwarded(scene.known())
    scene.forwarded(scene.known(), 504, "timeout", Denied(Reason.UPSTREAM_TIMEOUT))
    scene.forwarded(scene.known(tries=0), 503, "circuit_open", Denied(Reason.UPSTREAM_CIRCUIT_OPEN))
    scene.answered(scene.record(), 401, Denied(Reason.TOKEN_MISSING))
    scene.answered(scene.record(method="POST"), 503, Denied(Reason.STATE_STALE))
    scene.telemetry.counters.token_hits = 4
    metrics = scene.export().metrics
    of = {"airgate.upstream": "ledger"}
    get, post = ({"http.request.method": method, "url.scheme": "https"} for method in ("GET", "POST"))
    assert metrics["airgate.decisions"] == [
        ({**of, "airgate.decision": "permit"}, 4),
        ({**of, "airgate.decision": "deny", "airgate.reason": "token.missing"}, 1),
        ({**of, "airgate.decision": "deny", "airgate.reason": "state.stale"}, 1),
    ]
    assert metrics["airgate.upstream.calls"] == [
        ({**of, "airgate.result": "answered", "airgate.outcome": "2xx"}, 2),
        ({**of, "airgate.result": "timeout", "airgate.outcome": "timeout"}, 1),
        ({**of, "airgate.result": "circuit_open", "airgate.outcome": "circuit_open"}, 1),
    ]
    assert metrics["airgate.upstream.errors"] == [(of, 1)]
    assert metrics["airgate.gate.time"] == [(of, 4 * 0.0625 + 2 * 0.25)]
    assert sorted(metrics["http.server.request.duration"], key=str) == sorted(
        [
            ({**get, **of, "http.response.status_code": 200}, 2),
            ({**get, **of, "http.response.status_code": 401}, 1),
            ({**get, **of, "http.response.status_code": 503}, 1),
            ({**get, **of, "http.response.status_code": 504}, 1),
            ({**post, **of, "http.response.status_code": 503}, 1),
        ],
        key=str,
    )
    called = {"http.request.method": "GET", **of}
    assert metrics["http.client.request.duration"] == [
        ({**called, "http.response.status_code": 200}, 2),
        ({**called, "error.type": "timeout"}, 1),
    ]
    assert ({"airgate.cache": "tokens", "airgate.result": "hit"}, 4) in metrics["airgate.cache.lookups"]
    assert metrics["airgate.audit.lines"] == [
        ({"airgate.sink": "logs", "airgate.result": "written"}, 12),
        ({"airgate.sink": "logs", "airgate.result": "lost"}, 0),
        ({"airgate.sink": "r2", "airgate.result": "written"}, 10),
        ({"airgate.sink": "r2", "airgate.result": "lost"}, 2),
    ]
    assert metrics["airgate.telemetry.spans"][0] == ({"airgate.result": "sent"}, 9)
    # Cumulative: the next message says all of it again.
    assert scene.export().metrics["airgate.decisions"] == metrics["airgate.decisions"]


def test_no_two_points_of_a_metric_have_the_same_attributes() -> None:
    scene = Scene()
    scene.answered(scene.record(), 503, Denied(Reason.STATE_STALE))
    for result, failure in (
        ("credential", Reason.UPSTREAM_CREDENTIAL),
        ("overloaded", Reason.UPSTREAM_OVERLOADED),
    ):
        for tries in (0, 1, 2):
            scene.forwarded(scene.known(tries=tries), 503, result, Denied(failure))
    scene.forwarded(scene.known(), 503)
    for name, points in scene.export().metrics.items():
        told = [json.dumps(attributes, sort_keys=True) for attributes, _ in points]
        assert len(set(told)) == len(told), name
