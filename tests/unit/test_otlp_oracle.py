"""What is encoded as OTLP is read back by Protocol Buffers' own reader of JSON, with the published messages."""

import base64
import re
from typing import Any

from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from observed import LOGGED, SAMPLED, Scene
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status

import otlp
from model import Denied, Reason
from otlp import CLIENT, LONGEST, SERVER

NOW = 1_800_000_000.125
TRACE, PARENT, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "0af7651916cd43dd"
_IDS = re.compile(r'("(?:traceId|spanId|parentSpanId)":)"([0-9a-f]+)"')


def parsed(body: bytes, message: Any) -> Any:
    """The message that a body says. Its ids are in hex, where Protocol Buffers has base64: OTLP's one exception."""
    text = _IDS.sub(
        lambda id_: f'{id_[1]}"{base64.b64encode(bytes.fromhex(id_[2])).decode()}"', body.decode("ascii")
    )
    return json_format.Parse(text, message)


def span(kind: int = SERVER, parent: str | None = PARENT, **changes: Any) -> str:
    told = {"a": "text", "b": True, "c": 7, "d": ["x", "y"], "e": None, "f": "", "g": (), "h": False, "i": 0}
    more: dict[str, Any] = {"flags": 1, "state": "a=1", "failed": True, **changes}
    return otlp.span(TRACE, SPAN, parent, "GET /ledger", kind, NOW, NOW + 0.25, otlp.attributes(told), **more)


def test_spans_are_read_as_they_were_meant() -> None:
    body = otlp.traces(
        {"service.name": "airgate", "nothing": None}, "7", [span(), span(CLIENT, None, state="")]
    )
    message = parsed(body, ExportTraceServiceRequest())
    (resource,) = message.resource_spans
    assert [(one.key, one.value.string_value) for one in resource.resource.attributes] == [
        ("service.name", "airgate")
    ]
    (scope,) = resource.scope_spans
    assert (scope.scope.name, scope.scope.version) == ("airgate", "7")
    server, client = scope.spans
    assert (server.trace_id.hex(), server.span_id.hex(), server.parent_span_id.hex()) == (TRACE, SPAN, PARENT)
    assert (server.name, server.kind, server.trace_state) == ("GET /ledger", Span.SPAN_KIND_SERVER, "a=1")
    assert server.start_time_unix_nano == 1_800_000_000_125_000_000
    assert server.end_time_unix_nano == 1_800_000_000_375_000_000
    assert server.status.code == Status.STATUS_CODE_ERROR
    remote = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    assert server.flags == 1 | remote
    assert (client.kind, client.parent_span_id, client.trace_state) == (Span.SPAN_KIND_CLIENT, b"", "")
    assert client.flags == 1 | SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
    values = {one.key: one.value for one in server.attributes}
    assert set(values) == {"a", "b", "c", "d", "h", "i"}
    assert (values["a"].string_value, values["b"].bool_value, values["c"].int_value) == ("text", True, 7)
    assert [one.string_value for one in values["d"].array_value.values] == ["x", "y"]
    assert values["h"].WhichOneof("value") == "bool_value"
    assert values["i"].WhichOneof("value") == "int_value"


def test_what_went_well_has_no_status() -> None:
    (made,) = (
        parsed(otlp.traces({}, "", [span(failed=False)]), ExportTraceServiceRequest())
        .resource_spans[0]
        .scope_spans[0]
        .spans
    )
    assert made.status == Status()


def test_metrics_are_read_as_they_were_meant() -> None:
    told = [
        otlp.total("calls", "{call}", "Calls.", [({"a": "x"}, 2**53 + 1), ({"a": "y"}, 0)], NOW, NOW + 10),
        otlp.total("time", "s", "Time.", [({}, 1.5)], NOW, NOW + 10),
        otlp.histogram("duration", "Waits.", [0.1, 1.0], [({"a": "x"}, 3.25, [1, 0, 2])], NOW, NOW + 10),
    ]
    message = parsed(otlp.metrics({"service.name": "airgate"}, "", told), ExportMetricsServiceRequest())
    calls, time, duration = message.resource_metrics[0].scope_metrics[0].metrics
    assert (calls.name, calls.unit, calls.description) == ("calls", "{call}", "Calls.")
    assert [point.as_int for point in calls.sum.data_points] == [2**53 + 1, 0]
    assert [point.attributes[0].value.string_value for point in calls.sum.data_points] == ["x", "y"]
    assert calls.sum.is_monotonic
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    assert calls.sum.aggregation_temporality == duration.histogram.aggregation_temporality == cumulative
    assert time.sum.data_points[0].as_double == 1.5
    (point,) = duration.histogram.data_points
    assert (point.count, point.sum, list(point.bucket_counts)) == (3, 3.25, [1, 0, 2])
    assert list(point.explicit_bounds) == [0.1, 1.0]
    assert duration.unit == "s"
    assert point.time_unix_nano - point.start_time_unix_nano == 10_000_000_000


@given(
    st.text(st.characters(), max_size=LONGEST + 50)
    | st.sampled_from(["\ud800", "a\udfffb", "\U0001f600", '"\\\n'])
)
def test_any_text_is_one_that_a_collector_can_read(text: str) -> None:
    told = otlp.attributes({"a": text, "b": [text, "x"]})
    made = otlp.span(TRACE, SPAN, None, "GET", SERVER, NOW, NOW, told, flags=1)
    message = parsed(otlp.traces({"r": text}, "", [made]), ExportTraceServiceRequest())
    values = {one.key: one.value for one in message.resource_spans[0].scope_spans[0].spans[0].attributes}
    kept = text[:LONGEST].encode("utf-8", "replace").decode("utf-8")
    assert ("a" in values) == (text != "")
    assert not text or values["a"].string_value == kept
    assert values["b"].array_value.values[0].string_value == kept


def test_all_that_an_isolate_tells_is_read() -> None:
    scene = Scene()
    scene.forwarded(scene.known(headers={**SAMPLED, "tracestate": "a=1"}, log_path=True), upstream=LOGGED)
    scene.forwarded(scene.known(tries=3), 504, "timeout", Denied(Reason.UPSTREAM_TIMEOUT))
    scene.answered(
        scene.record(upstream=None, url="http://[::1]:8787/\u00fc"), 400, Denied(Reason.ROUTE_MALFORMED)
    )
    scene.telemetry.counters.decided("_rest", "permit", "")
    spans, metrics = scene.export().bodies
    read = parsed(spans, ExportTraceServiceRequest()).resource_spans[0].scope_spans[0].spans
    assert [one.kind for one in read] == [SERVER, CLIENT, SERVER, CLIENT, SERVER]
    assert read[1].parent_span_id == read[0].span_id
    assert [one.status.code for one in read] == [0, 0, Status.STATUS_CODE_ERROR, Status.STATUS_CODE_ERROR, 0]
    told = {
        one.name: one
        for one in parsed(metrics, ExportMetricsServiceRequest()).resource_metrics[0].scope_metrics[0].metrics
    }
    assert sum(point.as_int for point in told["airgate.decisions"].sum.data_points) == 4
    assert sum(point.count for point in told["http.server.request.duration"].histogram.data_points) == 3
    for metric in told.values():
        points = metric.sum.data_points or metric.histogram.data_points
        assert points, metric.name
        assert all(point.start_time_unix_nano <= point.time_unix_nano for point in points)
