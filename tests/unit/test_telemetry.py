"""What is sent of all that the gate tells, and what becomes of it when a collector will not have it."""

import json

import pytest
from observed import (
    COLLECTOR,
    EXPORTING,
    INSTANCE,
    LEDGER,
    PARENT,
    REQUEST,
    SAMPLED,
    SINKS,
    TRACE,
    Hanging,
    Scene,
    plain,
)
from world import NOW

import traceparent
from bundle import OWN
from counters import OTHER
from model import Denied, Reason
from telemetry import BATCH, CLAIM, LONGEST_ASKED, LONGEST_PAUSE, PAUSE, WAITING


def test_a_method_that_http_does_not_have_is_not_a_name_of_its_own() -> None:
    scene = Scene()
    scene.answered(scene.record(method="BREW" * 100, upstream=None), 400, Denied(Reason.REQUEST_METHOD))
    (server,) = scene.export().spans
    assert server["name"] == server["attributes"]["http.request.method"] == "_OTHER"
    ((told, count),) = scene.ports.metrics["http.server.request.duration"]
    assert (told["http.request.method"], count) == ("_OTHER", 1)


@pytest.mark.parametrize(
    ("upstream", "page", "label"),
    [
        ("ledger", "", "ledger"),
        ("ledger", "authz", "ledger"),
        ("ledger", "preflight", "ledger"),
        ("nothing-there", "", OTHER),
        ("", "authz", OTHER),
        (None, "", OTHER),
        (OWN, "health", OWN),
        (".well-known", "authzen-configuration", OWN),
        (OWN, "", OTHER),
    ],
)
def test_a_name_that_is_no_upstreams_is_not_counted_as_one(
    upstream: str | None, page: str, label: str
) -> None:
    scene = Scene()
    scene.answered(scene.record(upstream=upstream, page=page), 401, Denied(Reason.TOKEN_MISSING))
    assert list(scene.report()["upstreams"]) == [label]
    (server,) = scene.export().spans
    assert server["attributes"].get("airgate.upstream") == (label if label == "ledger" else None)


def test_before_there_is_a_policy_nothing_is_an_upstream() -> None:
    scene = Scene()
    scene.bundle = None
    scene.answered(scene.record(), 503, Denied(Reason.POLICY_UNAVAILABLE))
    assert list(scene.report()["upstreams"]) == [OTHER]


def test_all_is_counted_whether_it_is_exported_or_not() -> None:
    for variables in ({}, EXPORTING, {**EXPORTING, "OTLP_RATIO": "0"}):
        scene = Scene(variables)
        scene.forwarded(scene.known())
        scene.forwarded(scene.known(), 504, "timeout", Denied(Reason.UPSTREAM_TIMEOUT))
        scene.answered(scene.record(), 401, Denied(Reason.TOKEN_MISSING))
        scene.telemetry.crashed()
        report = scene.report()
        assert report["since"] == "2027-01-15T08:00:00.000Z"
        assert report["decisions"] == {"permit": 2, "deny": 2}
        assert report["reasons"] == {"internal": 1, "token.missing": 1}
        ledger = report["upstreams"]["ledger"]
        assert (ledger["outcomes"], ledger["errors"]) == ({"2xx": 1, "timeout": 1}, 1)
        assert (ledger["gate_seconds"], ledger["upstream_seconds"]) == (0.375, 0.375)
        scene.export()
        assert len(scene.ports.posted) == (0 if not variables else 1 if "OTLP_RATIO" in variables else 2)


def test_the_resource_says_which_gate_and_which_isolate() -> None:
    scene = Scene()
    scene.forwarded(scene.known())
    for body in [body for *_, body in scene.export().posted]:
        (resource,) = body.get("resourceSpans") or body["resourceMetrics"]
        assert plain(resource["resource"]["attributes"]) == {
            "service.name": "airgate",
            "service.version": "7",
            "service.instance.id": INSTANCE,
            "deployment.environment.name": "airgate-test",
            "cloud.provider": "cloudflare",
            "cloud.platform": "cloudflare.workers",
            "cloud.region": "FRA",
        }


def test_a_gate_that_has_no_name_and_no_version_exports_as_well() -> None:
    scene = Scene({"OTLP_ENDPOINT": COLLECTOR})
    scene.answered(scene.record(upstream=None, url="planted"), 400, Denied(Reason.ROUTE_MALFORMED))
    (server,) = scene.export().spans
    assert "server.address" not in server["attributes"]
    (resource,) = scene.ports.to("/v1/traces")[0]["resourceSpans"]
    assert "service.version" not in plain(resource["resource"]["attributes"])
    assert resource["scopeSpans"][0]["scope"] == {"name": "airgate"}


def test_the_secret_goes_to_the_collector_and_nowhere_else() -> None:
    scene = Scene()
    scene.forwarded(scene.known())
    for _, headers, body in scene.export().posted:
        assert headers == {"user-agent": "airgate", "api-key": "planted", "content-type": "application/json"}
        assert "planted" not in json.dumps(body)
    assert "planted" not in json.dumps(scene.report())
    assert scene.report()["export"]["collector"] == "collector.example.com:4318"


@pytest.mark.parametrize(
    ("variables", "warning"),
    [
        (
            {"OTLP_ENDPOINT": "http://c.example"},
            "OTLP_ENDPOINT: expected https, or a collector on this machine",
        ),
        ({**EXPORTING, "OTLP_RATIO": "2"}, "OTLP_RATIO: expected a number from 0 to 1"),
        ({**EXPORTING, "OTLP_HEADERS": "planted"}, "OTLP_HEADERS: expected name=value, name2=value2"),
    ],
)
def test_wrong_settings_export_nothing_and_say_so(variables: dict[str, str], warning: str) -> None:
    scene = Scene(variables)
    record = scene.known(headers=SAMPLED)
    scene.forwarded(record)
    assert scene.telemetry.warning.startswith(warning)
    assert scene.telemetry.warning.endswith(": no telemetry is exported")
    assert traceparent.written(record.trace, REQUEST) == SAMPLED
    assert scene.export().posted == []
    report = scene.report()
    assert (report["export"], report["decisions"]["permit"]) == (None, 1)
    assert "planted" not in json.dumps(report) + scene.telemetry.warning


def test_what_is_not_sampled_is_counted_and_not_told() -> None:
    scene = Scene({**EXPORTING, "OTLP_RATIO": "0"})
    scene.forwarded(scene.known())
    scene.forwarded(scene.known(headers={"traceparent": f"00-{TRACE}-{PARENT}-00"}))
    assert scene.export().to("/v1/traces") == []
    assert scene.ports.metrics["airgate.decisions"][0][1] == 2


def test_spans_go_in_batches_and_beyond_what_can_wait_they_are_dropped_and_counted() -> None:
    scene = Scene()
    for _ in range(WAITING):
        scene.forwarded(scene.known())
    scene.forwarded(scene.known())
    scene.answered(scene.record(), 401, Denied(Reason.TOKEN_MISSING))
    export = scene.report()["export"]
    assert (export["waiting"], export["dropped"]) == (WAITING, 3)
    scene.export()
    sizes = [len(body["resourceSpans"][0]["scopeSpans"][0]["spans"]) for body in scene.ports.to("/v1/traces")]
    assert sizes == [2 * BATCH] * (WAITING // BATCH)
    export = scene.report()["export"]
    assert (export["waiting"], export["traces"]["sent"]) == (0, 2 * WAITING)
    assert ({"airgate.result": "dropped"}, 3) in scene.ports.metrics["airgate.telemetry.spans"]


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 413, 500, 501])
def test_what_a_collector_refuses_is_not_sent_again(status: int) -> None:
    scene = Scene()
    scene.forwarded(scene.known())
    scene.ports.says = [(status, b"", None)]
    scene.export()
    assert len(scene.ports.to("/v1/metrics")) == 1  # which it may well take
    scene.ports.time += 2 * PAUSE
    scene.export()
    assert len(scene.ports.to("/v1/traces")) == 1
    told = scene.report()["export"]["traces"]
    assert told == {"sent": 0, "rejected": 0, "failed": 2, "failures": 1, "error": f"answered {status}"}


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_a_collector_asks_for_again_is_sent_once_more(status: int) -> None:
    scene = Scene()
    scene.forwarded(scene.known())
    scene.ports.says = [(status, b"", None)]
    scene.export()
    assert len(scene.ports.posted) == 1  # and nothing else for now
    scene.export()
    assert len(scene.ports.to("/v1/traces")) == 1  # nor soon after
    scene.forwarded(scene.known())
    scene.ports.time += PAUSE + 1
    scene.export()
    first, second, third = scene.ports.to("/v1/traces")
    assert first == second
    assert len(third["resourceSpans"][0]["scopeSpans"][0]["spans"]) == 2
    told = scene.report()["export"]["traces"]
    assert told == {"sent": 4, "rejected": 0, "failed": 0, "failures": 1, "error": None}


def test_and_not_a_third_time() -> None:
    scene = Scene()
    scene.forwarded(scene.known())
    scene.ports.says = [(503, b"", None), (503, b"", None)]
    scene.export()
    scene.ports.time += PAUSE + 1
    scene.export()
    scene.ports.time += 2 * PAUSE + 1
    scene.export()
    assert len(scene.ports.to("/v1/traces")) == 2
    assert scene.report()["export"]["traces"]["failed"] == 2


@pytest.mark.parametrize(
    ("asked", "wait"),
    [
        (None, PAUSE),
        ("60", 60.0),
        ("1", PAUSE),
        ("86400", LONGEST_ASKED),
        ("9" * 5000, PAUSE),
        ("Wed, 21 Oct 2026 07:28:00 GMT", PAUSE),
        ("-5", PAUSE),
        ("\u0665", PAUSE),
    ],
)
def test_a_collector_is_left_alone_for_as_long_as_it_asks_within_reason(
    asked: str | None, wait: float
) -> None:
    scene = Scene()
    scene.forwarded(scene.known())
    scene.ports.says = [(503, b"", asked)]
    scene.export()
    scene.ports.time += wait - 1
    scene.export()
    assert len(scene.ports.to("/v1/traces")) == 1
    scene.ports.time += 2
    scene.export()
    assert len(scene.ports.to("/v1/traces")) == 2


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError("TimeoutError"), "no answer in time"),
        (ConnectionError("Refused"), "cannot be reached: Refused"),
    ],
)
def test_a_collector_that_cannot_be_reached_is_asked_ever_more_rarely(error: OSError, told: str) -> None:
    scene = Scene()
    waits, last = [], scene.ports.time
    for _ in range(8):
        scene.forwarded(scene.known())
        scene.ports.says = [error]
        before = len(scene.ports.posted)
        while len(scene.ports.posted) == before:
            scene.ports.time += 1
            scene.export()
        assert len(scene.ports.posted) == before + 1  # not the metrics, too
        waits.append(scene.ports.time - last)
        last = scene.ports.time
    assert waits == [1, PAUSE, 2 * PAUSE, 4 * PAUSE, 8 * PAUSE, 16 * PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    export = scene.report()["export"]
    assert export["traces"] == {"sent": 0, "rejected": 0, "failed": 16, "failures": 8, "error": told}


def test_a_collector_that_is_well_again_is_sent_all_that_waits() -> None:
    scene = Scene()
    scene.forwarded(scene.known())
    scene.ports.says = [ConnectionError("Refused")]
    scene.export()
    scene.forwarded(scene.known())
    scene.ports.time += PAUSE + 1
    scene.export()
    told = scene.report()["export"]["traces"]
    assert (told["sent"], told["failed"], told["error"]) == (2, 2, None)


def test_metrics_that_were_refused_are_told_again_since_they_are_cumulative() -> None:
    scene = Scene()
    scene.answered(scene.record(), 401, Denied(Reason.TOKEN_MISSING))
    scene.ports.says = [(200, b"", None), (400, b"", None)]
    scene.export()
    assert scene.report()["export"]["metrics"]["error"] == "answered 400"
    scene.ports.time += PAUSE + 1
    metrics = scene.export().metrics
    assert metrics["airgate.decisions"][0][1] == 1
    assert ({"airgate.signal": "metrics"}, 1) in metrics["airgate.telemetry.failures"]
    assert scene.report()["export"]["metrics"]["error"] is None


def test_what_a_collector_takes_only_in_part_is_counted() -> None:
    scene = Scene()
    scene.forwarded(scene.known())
    scene.ports.says = [(200, b'{"partialSuccess":{"rejectedSpans":"1","errorMessage":"planted"}}', None)]
    scene.export()
    told = scene.report()["export"]["traces"]
    assert (told["sent"], told["rejected"], told["error"]) == (1, 1, None)
    scene.forwarded(scene.known())
    scene.ports.says = [(200, b'{"partialSuccess":{"rejectedSpans":"99"}}', None)]
    scene.export()
    told = scene.report()["export"]["traces"]
    assert (told["sent"], told["rejected"]) == (1, 3)
    assert "planted" not in json.dumps(scene.report())


def test_a_clock_that_was_set_back_neither_stops_exporting_nor_counts_negative_times() -> None:
    scene = Scene()
    scene.forwarded(scene.known())
    scene.ports.says = [(503, b"", None)]
    scene.export()
    scene.ports.time -= 86_400
    scene.export()
    assert len(scene.ports.to("/v1/traces")) == 2
    record = scene.known()
    scene.telemetry.decided(record, None, scene.bundle)
    scene.telemetry.forwarded(record, 200, NOW - 50, LEDGER, NOW + 1, "answered", None)
    scene.answered(scene.record(), 401, Denied(Reason.TOKEN_MISSING), after=-50)
    ledger = scene.report()["upstreams"]["ledger"]
    assert (ledger["gate_seconds"], ledger["upstream_seconds"]) == (0.062, 0.188)  # of the first call


def test_two_do_not_export_at_once_and_one_that_was_cut_off_holds_nobody_up() -> None:
    scene = Scene()
    ports, telemetry = scene.ports, scene.telemetry
    scene.forwarded(scene.known())
    ports.says = [Hanging()]
    first = telemetry.export(ports, INSTANCE, SINKS)
    first.send(None)
    assert len(ports.posted) == 1
    scene.export()
    assert len(ports.posted) == 1
    ports.time += CLAIM + 1
    scene.export()
    assert [url for url, *_ in ports.posted[1:]] == [f"{COLLECTOR}/v1/metrics"]
    assert scene.report()["export"]["traces"]["failed"] == 2
    first.close()  # as the runtime does
    scene.export()
    assert len(ports.posted) == 3
    assert scene.report()["export"]["traces"]["failed"] == 2


def test_a_collector_that_takes_its_time_for_every_message_is_not_sent_all_at_once() -> None:
    scene = Scene()
    scene.ports.takes = 1.5  # seconds
    for _ in range(5 * BATCH):
        scene.forwarded(scene.known())
    assert len(scene.export().to("/v1/traces")) == 3
    assert len(scene.ports.to("/v1/metrics")) == 1
    assert scene.report()["export"]["waiting"] == 2 * BATCH
    assert len(scene.export().to("/v1/traces")) == 5


def test_a_mistake_of_ours_is_told_by_its_place_and_stops_nothing() -> None:
    scene = Scene()
    scene.forwarded(scene.known(described=',"issuer":planted'))
    scene.export()
    error = scene.report()["export"]["traces"]["error"]
    assert error.startswith("JSONDecodeError at ")
    assert "planted" not in error
    scene.forwarded(scene.known())
    assert scene.export().spans
    told = scene.report()["export"]["traces"]
    assert (told["sent"], told["failed"], told["error"]) == (2, 1, None)


@pytest.mark.parametrize(
    ("headers", "known", "recorded"),
    [
        (SAMPLED, False, 0),  # nobody knows who says so
        (SAMPLED, True, 1),
        ({}, False, 0),
        ({}, True, 0),
    ],
)
def test_a_stranger_does_not_choose_what_is_recorded(
    headers: dict[str, str], known: bool, recorded: int
) -> None:
    scene = Scene({**EXPORTING, "OTLP_RATIO": "0"})
    record = scene.known(headers=headers) if known else scene.record(headers)
    scene.answered(record, 403, Denied(Reason.POLICY_NO_MATCH))
    assert len(scene.export().spans) == recorded


def test_a_strangers_share_is_that_of_all_others() -> None:
    scene = Scene({**EXPORTING, "OTLP_RATIO": "1"})
    scene.answered(scene.record(SAMPLED), 401, Denied(Reason.TOKEN_MISSING))
    assert len(scene.export().spans) == 1


def test_spans_that_wait_are_bounded_in_size_as_well() -> None:
    scene = Scene()
    long = scene.known(described="x" * 16_000)
    for _ in range(WAITING):
        scene.answered(long, 200)
    waiting = scene.report()["export"]["waiting"]
    assert 100 < waiting < 130
    assert scene.report()["export"]["dropped"] == WAITING - waiting
    scene.export()
    for _ in range(waiting):
        scene.answered(long, 200)
    assert scene.report()["export"]["waiting"] == waiting  # there is room again
