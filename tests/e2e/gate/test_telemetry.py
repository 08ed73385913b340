"""Spans and metrics at a real collector on this machine: whole, in their trace, and never at an answer's cost."""

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from airgate.dev.stack import Stack

Token = Callable[..., str]
EVERY = 0.5  # seconds between exports here
SECRET = "planted-" + secrets.token_hex(8)


def ids() -> tuple[str, str]:
    """A caller's trace and span."""
    return secrets.token_hex(16), secrets.token_hex(8)


class Collector:
    """An OTLP receiver that keeps what it gets, and answers as it is told to."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], Any]] = []  # path, headers in lower case, body
        self.status, self.headers = 200, dict[str, str]()
        self.hang = threading.Event()  # set: it takes a message, and says nothing
        self.ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told = {name.lower(): value for name, value in self.headers.items()}
                outer.got.append((self.path, told, body))
                if outer.hang.is_set():
                    outer.ended.wait(30)
                    return
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                """Nothing: tests look at `got`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def bodies(self, path: str) -> list[Any]:
        return [body for to, _, body in list(self.got) if to == path]

    def spans(self, request_id: str) -> list[dict[str, Any]]:
        """Of a request, the server's first. Attributes as plain values."""
        found = []
        for body in self.bodies("/v1/traces"):
            for each in body["resourceSpans"][0]["scopeSpans"][0]["spans"]:
                told = plain(each["attributes"])
                if told["airgate.request_id"] == request_id:
                    found.append({**each, "attributes": told})
        return sorted(found, key=lambda span: int(span["kind"]))

    def metric(self, name: str) -> list[tuple[dict[str, Any], int]]:
        """The points of a metric as it was told last: attributes, and the value or a histogram's count."""
        for body in reversed(self.bodies("/v1/metrics")):
            for metric in body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]:
                if metric["name"] == name:
                    points = metric.get("sum", metric.get("histogram"))["dataPoints"]
                    return [
                        (plain(one["attributes"]), int(one.get("asInt", one.get("count")))) for one in points
                    ]
        return []


def plain(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    def of(value: dict[str, Any]) -> Any:
        [(kind, said)] = value.items()
        return (
            [of(one) for one in said["values"]]
            if kind == "arrayValue"
            else int(said)
            if kind == "intValue"
            else said
        )

    return {one["key"]: of(one["value"]) for one in attributes}


@contextmanager
def listening() -> Iterator[Collector]:
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with listening() as collector:
        yield collector


@pytest.fixture(scope="module")
def start(stack: Stack, start_gate: Any, publish: Any, lab_seed: Any) -> Callable[..., Any]:
    """start(collector, **variables): a gate with the lab's policy that exports to a collector."""
    stores = []

    def begin(collector: Collector | None, **variables: str) -> Any:
        to = (
            {} if collector is None else {"OTLP_ENDPOINT": collector.url, "OTLP_HEADERS": f"api-key={SECRET}"}
        )
        usual = {"TRUSTED_KEYS": stack.trusted, "AUDIT_SECONDS": str(EVERY), **to}
        gate = start_gate(stores[0] if stores else None, {**usual, **variables})
        if not stores:
            publish(lab_seed, gate)
            stores.append(gate.state)
        gate.wait()
        return gate

    return begin


def until(true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


def sent_on(hostile: Any) -> str:
    """The traceparent of the last call that the upstream got."""
    lines = hostile.got[-1].decode("latin-1").split("\r\n")
    return next(line.partition(": ")[2] for line in lines if line.lower().startswith("traceparent:"))


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_call_can_be_followed_from_its_caller_to_the_upstream(
    start: Callable[..., Any], collector: Collector, hostile: Any, reader: str
) -> None:
    gate = start(collector)
    hostile.answer = OK
    trace, caller = ids()
    headers = {"traceparent": f"00-{trace}-{caller}-01", "tracestate": "a=1", "Airgate-Dag-Id": "close"}
    permitted = gate.call(f"/hostile/{SECRET}?q={SECRET}", token=reader, headers=headers)
    assert permitted.status == 200
    seen = sent_on(hostile)
    denied = gate.call("/crm/v1/accounts", token=reader, headers=headers)
    failed = gate.call("/gone/x", "POST", token=reader)
    assert (denied.status, failed.status) == (403, 502)
    until(lambda: all(collector.spans(one.id) for one in (permitted, denied, failed)))

    server, client = collector.spans(permitted.id)
    assert (server["traceId"], server["parentSpanId"]) == (trace, caller)
    assert (client["traceId"], client["parentSpanId"]) == (trace, server["spanId"])
    assert seen == f"00-{trace}-{client['spanId']}-01"
    assert server["traceState"] == client["traceState"] == "a=1"
    told = server["attributes"]
    assert (told["airgate.decision"], told["airgate.permits"]) == ("permit", ["lab-open"])
    assert (told["http.route"], told["http.response.status_code"]) == ("/hostile/**", 200)
    assert (told["airgate.dag"], told["airgate.upstream"]) == ("close", "hostile")
    assert "airgate.attested" not in told
    assert client["attributes"]["server.port"] == hostile.port
    assert int(server["startTimeUnixNano"]) <= int(client["startTimeUnixNano"])
    assert (
        int(client["startTimeUnixNano"]) <= int(client["endTimeUnixNano"]) == int(server["endTimeUnixNano"])
    )

    (refused,) = collector.spans(denied.id)
    assert (refused["traceId"], refused["parentSpanId"]) == (trace, caller)
    assert refused["attributes"]["airgate.reason"] == denied.code
    assert "status" not in refused

    server, client = collector.spans(failed.id)
    assert server["traceId"] == client["traceId"] == failed.id
    assert "parentSpanId" not in server
    assert server["status"] == client["status"] == {"code": 2}
    assert server["attributes"]["error.type"] == "upstream.unreachable"
    assert client["attributes"]["error.type"] == "unreachable"

    for answer, of in ((permitted, trace), (denied, trace), (failed, failed.id)):
        assert {event["trace_id"] for event in gate.events(answer)} == {of}
    for _, got, body in collector.got:
        assert got["api-key"] == SECRET
        assert got["content-type"] == "application/json"
        assert SECRET not in json.dumps(body)
        assert reader not in json.dumps(body)
    chain = json.loads(gate.audit.read_text("utf-8").partition("\n")[0])["chain"]
    resource = plain(collector.bodies("/v1/traces")[0]["resourceSpans"][0]["resource"]["attributes"])
    assert (resource["service.name"], resource["service.instance.id"]) == ("airgate", chain)
    assert resource["deployment.environment.name"] == "airgate-local"
    assert SECRET not in gate.log.read_text("utf-8")


def test_metrics_and_health_count_the_calls_that_were_made(
    start: Callable[..., Any], collector: Collector, hostile: Any, reader: str, token: Token
) -> None:
    gate = start(collector)
    hostile.answer = OK
    made = Counter[int]()
    for path, times in {"/hostile/x": 5, "/crm/v1/accounts": 4, "/gone/x": 3, "/nowhere/at-all": 2}.items():
        for _ in range(times):
            made[gate.call(path, token=reader).status] += 1
    for _ in range(6):
        made[gate.call("/hostile/x").status] += 1
    assert made == {200: 5, 403: 4, 502: 3, 404: 2, 401: 6}

    def decisions() -> Counter[tuple[Any, ...]]:
        names = ("airgate.upstream", "airgate.decision", "airgate.reason")
        return Counter(
            {tuple(map(told.get, names)): count for told, count in collector.metric("airgate.decisions")}
        )

    expected = {
        ("hostile", "permit", None): 5,
        ("hostile", "deny", "token.missing"): 6,
        ("crm", "deny", "policy.no_match"): 4,
        ("gone", "permit", None): 3,
        ("_other", "deny", "route.unknown_upstream"): 2,
    }
    until(lambda: decisions() == expected)
    answered = Counter[int]()
    for told, count in collector.metric("http.server.request.duration"):
        answered[told["http.response.status_code"]] += count
    assert answered == made
    calls = {
        (told["airgate.upstream"], told["airgate.outcome"]): n
        for told, n in collector.metric("airgate.upstream.calls")
    }
    assert calls == {("hostile", "2xx"): 5, ("gone", "unreachable"): 3}
    assert collector.metric("airgate.upstream.errors") == [({"airgate.upstream": "gone"}, 3)]
    lookups = {
        (told["airgate.cache"], told["airgate.result"]): n
        for told, n in collector.metric("airgate.cache.lookups")
    }
    assert lookups["tokens", "miss"] == 1
    assert lookups["tokens", "hit"] == 13
    assert lookups["shards", "hit"] + lookups["shards", "miss"] == 14

    report = gate.call("/-/health", token=token("oncall")).json()["telemetry"]
    assert report["decisions"] == {"permit": 8, "deny": 12}
    assert report["reasons"] == {"policy.no_match": 4, "route.unknown_upstream": 2, "token.missing": 6}
    assert report["upstreams"]["gone"]["errors"] == 3
    assert report["export"]["metrics"]["failures"] == report["export"]["traces"]["failures"] == 0
    assert report["export"]["collector"] == collector.url.partition("//")[2]
    anybodys = gate.call("/-/health").json()
    assert "telemetry" not in anybodys


def test_without_a_collector_a_trace_goes_by_as_it_is(
    start: Callable[..., Any], hostile: Any, reader: str, token: Token
) -> None:
    gate = start(None)
    hostile.answer = OK
    trace, caller = ids()
    sent = f"00-{trace}-{caller}-01"
    assert gate.call("/hostile/x", token=reader, headers={"traceparent": sent}).status == 200
    assert sent_on(hostile) == sent
    report = gate.call("/-/health", token=token("oncall")).json()["telemetry"]
    assert (report["export"], report["decisions"]["permit"]) == (None, 1)


def test_what_nobody_samples_is_counted_only(
    start: Callable[..., Any], collector: Collector, hostile: Any, reader: str
) -> None:
    gate = start(collector, OTLP_RATIO="0")
    hostile.answer = OK
    unsampled, sampled = (f"00-{'-'.join(ids())}-{flags}" for flags in ("00", "01"))
    left_out = gate.call("/hostile/x", token=reader, headers={"traceparent": unsampled})
    assert sent_on(hostile) == unsampled
    begun = gate.call("/hostile/x", token=reader)
    assert sent_on(hostile).endswith("-00")
    kept = gate.call("/hostile/x", token=reader, headers={"traceparent": sampled})
    until(lambda: collector.spans(kept.id))
    until(lambda: sum(count for _, count in collector.metric("airgate.decisions")) == 3)
    assert not collector.spans(left_out.id)
    assert not collector.spans(begun.id)


@pytest.mark.parametrize(
    "trouble", ["hangs", "answers 500", "answers 503", "sends elsewhere", "is not there"]
)
def test_a_collector_in_trouble_slows_no_answer_and_is_counted(
    start: Callable[..., Any], hostile: Any, reader: str, token: Token, trouble: str
) -> None:
    with ExitStack() as stack:
        collector, elsewhere = (stack.enter_context(listening()) for _ in range(2))
        error = trouble
        if trouble == "hangs":
            collector.hang.set()
            error = "no answer in time"
        elif trouble == "sends elsewhere":
            collector.status, collector.headers = 307, {"Location": f"{elsewhere.url}/v1/traces"}
            error = "answered 307"
        elif trouble == "is not there":
            collector.close()
            error = "cannot be reached"
        else:
            collector.status = error = int(trouble[-3:])  # type: ignore[assignment]
            error = f"answered {collector.status}"
        gate = start(collector)
        hostile.answer = OK
        gate.call("/hostile/x", token=reader)
        slowest, end = 0.0, time.monotonic() + 4 * EVERY + 3  # longer than the gate waits for a collector
        while time.monotonic() < end:
            begun = time.monotonic()
            assert gate.call("/hostile/x", token=reader).status == 200
            slowest = max(slowest, time.monotonic() - begun)
            time.sleep(0.05)
        assert slowest < 1.5  # a collector that hangs is waited for longer, but not here

        def export() -> dict[str, Any]:
            told: dict[str, Any] = gate.call("/-/health", token=token("oncall")).json()["telemetry"]["export"]
            return told

        until(lambda: export()["traces"]["failures"] >= 1)
        traces = export()["traces"]
        assert traces["error"].startswith(error)
        assert traces["sent"] == 0
        assert (traces["failed"] > 0) is (trouble != "answers 503")  # which is to be sent once more
        assert elsewhere.got == []
        assert SECRET not in gate.log.read_text("utf-8")


@pytest.mark.parametrize(
    ("variables", "warning"),
    [
        ({"OTLP_ENDPOINT": "http://collector.example.com"}, "OTLP_ENDPOINT: expected https"),
        ({"OTLP_RATIO": "most"}, "OTLP_RATIO: expected a number from 0 to 1"),
        ({"OTLP_HEADERS": SECRET}, "OTLP_HEADERS: expected name=value"),
    ],
)
def test_settings_that_are_wrong_stop_nothing_and_health_says_which(
    start: Callable[..., Any],
    collector: Collector,
    hostile: Any,
    reader: str,
    token: Token,
    variables: dict[str, str],
    warning: str,
) -> None:
    gate = start(collector, **variables)
    hostile.answer = OK
    assert gate.call("/hostile/x", token=reader).status == 200
    time.sleep(3 * EVERY)
    report = gate.call("/-/health", token=token("oncall")).json()
    [told] = [each for each in report["warnings"] if each.startswith("OTLP")]
    assert told.startswith(warning)
    assert SECRET not in json.dumps(report) + gate.log.read_text("utf-8")
    assert report["status"] == "ok"
    assert collector.got == []
