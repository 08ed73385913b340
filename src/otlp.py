"""OTLP over HTTP, in its JSON encoding: where telemetry goes, and how it is written there.

The encoding is Protocol Buffers' JSON mapping with the exceptions that OTLP makes: ids in hex, enums as numbers. A
64-bit integer is a text. Nothing here knows what is told, only how. It is written out field by field: a general
encoder, and what it is given, take four times as long, and other requests wait meanwhile.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from json.encoder import encode_basestring_ascii as _quote
from typing import Any, NamedTuple
from urllib.parse import unquote

from document import read_object

ENDPOINT, RATIO, HEADERS = "OTLP_ENDPOINT", "OTLP_RATIO", "OTLP_HEADERS"  # variables, and a secret
LIMIT = 65_536  # bytes of a collector's answer
LONGEST = 512  # characters of a text
MOST_HEADERS = 32
SCOPE = "airgate"

SERVER, CLIENT = 2, 3  # Span.SpanKind
ERROR = 2  # Status.StatusCode
_LOCAL, _REMOTE = 0x100, 0x300  # SpanFlags: it is known whether the parent is another service's, and it is
_CUMULATIVE = 2  # AggregationTemporality

_ENDPOINT = re.compile(
    r"(https?)://([A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?((?:/[!$&-.0-;=@-Z_a-z~%]*)*)"
)
_HERE = frozenset({"127.0.0.1", "localhost", "[::1]"})
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")  # RFC 9110 §5.6.2, in lower case
_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")
# Of the request's own making.
_NOT_SET = frozenset(
    {"host", "content-type", "content-length", "content-encoding", "transfer-encoding", "connection"}
)


class Settings(NamedTuple):
    """Where telemetry goes. Not to be written out: the headers hold secrets."""

    endpoint: str  # without a slash at its end
    host: str  # of it, with its port where it says one: that may be shown
    ratio: float  # of the traces that begin here, how many are recorded
    headers: dict[str, str]


def read_settings(secret: Callable[[str], str]) -> Settings | None:
    """The settings; None: nothing is exported. Raises ValueError, which quotes no secret.

    `secret`: a variable or secret of the Worker's; raises LookupError.
    """
    endpoint = _told(secret, ENDPOINT).strip()
    if not endpoint:
        return None
    read = _ENDPOINT.fullmatch(endpoint)
    if read is None:
        raise ValueError(
            f"{ENDPOINT}: expected an address such as https://collector.example.com:4318, "
            "without user, query or fragment"
        )
    if read[1] == "http" and read[2].lower() not in _HERE:
        raise ValueError(f"{ENDPOINT}: expected https, or a collector on this machine")
    return Settings(
        endpoint.rstrip("/"),
        read[2] + (read[3] or ""),
        _ratio(_told(secret, RATIO)),
        _headers(_told(secret, HEADERS)),
    )


def _told(secret: Callable[[str], str], name: str) -> str:
    try:
        return secret(name)
    except LookupError:
        return ""
    except ValueError:  # a number of wrangler.toml's
        raise ValueError(f"{name}: write it in quotes") from None


def _ratio(text: str) -> float:
    if not text.strip():
        return 1.0
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise ValueError(f"{RATIO}: expected a number from 0 to 1")
    return ratio


def _headers(text: str) -> dict[str, str]:
    """Headers as OTEL_EXPORTER_OTLP_HEADERS has them: name=value, with commas between, values percent-encoded."""
    found: dict[str, str] = {}
    for pair in text.split(","):
        if not pair.strip():
            continue
        name, equals, value = [part.strip() for part in pair.partition("=")]
        name, value = unquote(name).lower(), unquote(value).strip()
        if not equals or _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise ValueError(f"{HEADERS}: expected name=value, name2=value2, with other characters as %2C")
        if name in _NOT_SET:
            raise ValueError(f"{HEADERS}: {name} is the gate's to set")
        found[name] = value
    if len(found) > MOST_HEADERS:
        raise ValueError(f"{HEADERS}: more than {MOST_HEADERS}")
    return found


def nanoseconds(seconds: float) -> str:
    """Seconds since the epoch, as OTLP has a time. A float holds microseconds of it."""
    return f"{int(seconds * 1_000_000)}000"


def _text(value: str) -> str:
    if not value.isascii():  # a lone surrogate would have the whole message refused
        value = value[:LONGEST].encode("utf-8", "replace").decode("utf-8")
    return _quote(value[:LONGEST])


def _value(value: Any) -> str:
    """AnyValue."""
    if isinstance(value, str):
        return f'{{"stringValue":{_text(value)}}}'
    if isinstance(value, bool):
        return '{"boolValue":true}' if value else '{"boolValue":false}'
    if isinstance(value, int):
        return f'{{"intValue":"{value}"}}'
    return f'{{"arrayValue":{{"values":[{",".join([_value(one) for one in value])}]}}}}'


def attributes(members: Mapping[str, Any]) -> str:
    """KeyValues with commas between: texts, whole numbers, truths, and lists of them.

    Names are plain. None, an empty text or list: left out.
    """
    return ",".join(
        [
            f'{{"key":"{name}","value":{_value(value)}}}'
            for name, value in members.items()
            if value is not None and value != "" and value != () and value != []
        ]
    )


def joined(*parts: str) -> str:
    """Attributes that were written out one by one, together."""
    return ",".join([part for part in parts if part])


def span(
    trace_id: str,
    span_id: str,
    parent: str | None,
    name: str,
    kind: int,
    start: float,
    end: float,
    told: str,
    *,
    flags: int,
    state: str = "",
    failed: bool = False,
) -> str:
    """Span. `start`, `end`: seconds since the epoch. `told`: its attributes. `flags`: the trace's."""
    flags |= _REMOTE if kind == SERVER and parent is not None else _LOCAL
    return (
        f'{{"traceId":"{trace_id}","spanId":"{span_id}"'
        + ("" if parent is None else f',"parentSpanId":"{parent}"')
        + (f',"traceState":{_quote(state)}' if state else "")
        + f',"flags":{flags},"name":{_text(name)},"kind":{kind}'
        f',"startTimeUnixNano":"{nanoseconds(start)}","endTimeUnixNano":"{nanoseconds(max(start, end))}"'
        f',"attributes":[{told}]' + (f',"status":{{"code":{ERROR}}}}}' if failed else "}")
    )


class Metric(NamedTuple):
    """An encoded metric, and how many data points are in it."""

    text: str
    points: int


def traces(resource: Mapping[str, Any], version: str, spans: Sequence[str]) -> bytes:
    """ExportTraceServiceRequest. `version`: of the scope; may be empty."""
    return _request("Spans", resource, version, f'"spans":[{",".join(spans)}]')


def metrics(resource: Mapping[str, Any], version: str, told: Sequence[Metric]) -> bytes:
    """ExportMetricsServiceRequest."""
    return _request("Metrics", resource, version, f'"metrics":[{",".join([metric.text for metric in told])}]')


def _request(kind: str, resource: Mapping[str, Any], version: str, told: str) -> bytes:
    scope = f'"name":"{SCOPE}"' + (f',"version":{_text(version)}' if version else "")
    return (
        f'{{"resource{kind}":[{{"resource":{{"attributes":[{attributes(resource)}]}}'
        f',"scope{kind}":[{{"scope":{{{scope}}},{told}}}]}}]}}'
    ).encode("ascii")


def total(
    name: str,
    unit: str,
    description: str,
    points: Iterable[tuple[Mapping[str, Any], float]],
    start: float,
    now: float,
) -> Metric:
    """A sum that only rises, counted from `start` on. A whole number is told as one."""
    told = [f"{_moment(members, start, now)},{_number(value)}}}" for members, value in points]
    return _metric(name, unit, description, "sum", told, ',"isMonotonic":true')


def histogram(
    name: str,
    description: str,
    bounds: Sequence[float],
    points: Iterable[tuple[Mapping[str, Any], float, Sequence[int]]],
    start: float,
    now: float,
) -> Metric:
    """The sum of the seconds that things took, and how many took up to each bound, and longer than the last."""
    ends = ",".join([repr(float(bound)) for bound in bounds])
    told = [
        f'{_moment(members, start, now)},"count":"{sum(buckets)}","sum":{float(seconds)!r}'
        f',"bucketCounts":[{_counts(buckets)}],"explicitBounds":[{ends}]}}'
        for members, seconds, buckets in points
    ]
    return _metric(name, "s", description, "histogram", told, "")


def _counts(buckets: Sequence[int]) -> str:
    return ",".join([f'"{bucket}"' for bucket in buckets])


def _metric(name: str, unit: str, description: str, kind: str, points: list[str], more: str) -> Metric:
    text = (
        f'{{"name":"{name}","unit":"{unit}","description":{_text(description)},"{kind}":{{"dataPoints":'
        f'[{",".join(points)}],"aggregationTemporality":{_CUMULATIVE}{more}}}}}'
    )
    return Metric(text, len(points))


def _number(value: float) -> str:
    return f'"asInt":"{value}"' if isinstance(value, int) else f'"asDouble":{value!r}'


def _moment(told: Mapping[str, Any], start: float, now: float) -> str:
    return (
        f'{{"attributes":[{attributes(told)}],"startTimeUnixNano":"{nanoseconds(start)}"'
        f',"timeUnixNano":"{nanoseconds(max(start, now))}"'
    )


def rejected(body: bytes) -> int:
    """How many spans or data points a collector did not take, though it says 200: ExportPartialSuccess."""
    try:
        partial = read_object(body, limit=LIMIT, depth=8).get("partialSuccess")
        if not isinstance(partial, dict):
            return 0
        count = int(partial.get("rejectedSpans") or partial.get("rejectedDataPoints") or 0)
    except (ValueError, TypeError, RecursionError):  # an answer in words, or in no words at all
        return 0
    return max(0, min(count, 2**53))
