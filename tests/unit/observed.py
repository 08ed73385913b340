"""An isolate whose requests are told of, and a collector that keeps what it is sent and answers as it is told to."""

import json
from collections.abc import Generator, Mapping
from typing import Any

from world import NOW, run

import audit
from audit import describe
from model import Caller, Decision, Denied, Fact, Identity, Inbound, Target
from pseudonym import PLAIN
from telemetry import TIMEOUT, Telemetry
from upstream import Upstream

REQUEST = "0af7651916cd43dd8448eb211c80319c"
SERVER, CLIENT = REQUEST[:16], REQUEST[16:]
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
COLLECTOR = "https://collector.example.com:4318/otlp"
EXPORTING = {
    "OTLP_ENDPOINT": COLLECTOR,
    "OTLP_HEADERS": "api-key=planted",
    "VERSION": "7",
    "GATE": "airgate-test",
}
LEDGER = Upstream("https://ledger.example.com/api", "o@example.com", 2.5, False)
LOGGED = LEDGER._replace(log_path=True)
DECISION = Decision(True, None, ("publish", "read"), (), "/v1/entries/{id}", "o@example.com", ("try-out",))
INSTANCE, SINKS = "c" * 32, {"logs": (12, 0), "r2": (10, 2)}


class Hanging:
    """What nobody ends."""

    def __await__(self) -> Generator[None]:
        yield


class Bundle:
    """As much of one as is looked at."""

    upstreams: Mapping[str, Upstream] = {"ledger": LEDGER}


class Ports:
    """A Worker with variables, and a collector that says what it is told to."""

    def __init__(self, variables: Mapping[str, str] = EXPORTING) -> None:
        self.variables = variables
        self.time = NOW + 10
        self.takes = 0.0  # seconds that the collector takes for every message
        self.says: list[Any] = []  # status, body and Retry-After of the answers to come, or errors; then 200
        self.posted: list[tuple[str, dict[str, str], Any]] = []  # address, headers, body
        self.bodies: list[bytes] = []  # of these, as they were sent

    def now(self) -> float:
        return self.time

    def secret(self, name: str) -> str:
        return self.variables[name]

    def location(self) -> str | None:
        return "FRA"

    async def tell(
        self, url: str, headers: dict[str, str], body: bytes, timeout: float, limit: int
    ) -> tuple[int, bytes, str | None]:
        assert timeout == TIMEOUT
        self.posted.append((url, headers, json.loads(body)))
        self.bodies.append(body)
        self.time += self.takes
        said = self.says.pop(0) if self.says else (200, b"{}", None)
        if isinstance(said, Hanging):
            await said
        if isinstance(said, Exception):
            raise said
        answer: tuple[int, bytes, str | None] = said
        return answer

    def to(self, path: str) -> list[Any]:
        return [body for url, _, body in self.posted if url == COLLECTOR + path]

    @property
    def spans(self) -> list[dict[str, Any]]:
        """All that were sent, their attributes as plain values."""
        found = []
        for body in self.to("/v1/traces"):
            for each in body["resourceSpans"][0]["scopeSpans"][0]["spans"]:
                found.append({**each, "attributes": plain(each["attributes"])})
        return found

    @property
    def metrics(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        """Of the last message: by name, each point's attributes and its value, or the count of a histogram's."""
        found = {}
        for metric in self.to("/v1/metrics")[-1]["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]:
            points = metric.get("sum", metric.get("histogram"))["dataPoints"]
            found[metric["name"]] = [
                (plain(point["attributes"]), value(point, "asInt", "asDouble", "count")) for point in points
            ]
        return found


def value(members: dict[str, Any], *names: str) -> Any:
    name = next(name for name in names if name in members)
    return int(members[name]) if name in ("asInt", "intValue", "count") else members[name]


def plain(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    def of(value_: dict[str, Any]) -> Any:
        if "arrayValue" in value_:
            return [of(one) for one in value_["arrayValue"]["values"]]
        return value(value_, "stringValue", "boolValue", "intValue")

    return {one["key"]: of(one["value"]) for one in attributes}


def caller() -> str:
    identity = Identity("company", "finance-etl", "workload", frozenset({"publisher", "reader"}), {})
    workload = {"dag": Fact("close", True), "run": Fact("r1", False), "tags": Fact(("a", "b"), False)}
    return describe(Caller(identity, None, frozenset({"publisher"}), workload), PLAIN)


class Scene:
    """One isolate and its requests."""

    def __init__(self, variables: Mapping[str, str] = EXPORTING) -> None:
        self.ports = Ports(variables)
        self.telemetry = Telemetry()
        self.bundle: Any = Bundle()

    def record(
        self,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        upstream: str | None = "ledger",
        url: str = "https://gate.example.com/ledger/v1/entries/7?q=planted",
        page: str = "",
        **changes: Any,
    ) -> audit.Record:
        inbound = Inbound(
            REQUEST, NOW, method, url, {"authorization": "Bearer planted", **(headers or {})}, False
        )
        record = audit.Record(inbound, trace=self.telemetry.begin(inbound, self.ports))
        if upstream is not None:
            record.target = Target(method, upstream, ("v1", "entries", "7"), "/v1/entries/7", "?q=planted")
        record.page = page
        for name, changed in changes.items():
            setattr(record, name, changed)
        return record

    def known(self, **changes: Any) -> audit.Record:
        """A call that policy permits."""
        known = {"decision": DECISION, "bundle": "0123456789ab", "sequence": 7, "described": caller()}
        return self.record(**{**known, **changes})

    def answered(
        self, record: audit.Record, status: int, denied: Denied | None = None, after: float = 0.25
    ) -> None:
        self.telemetry.decided(record, denied, self.bundle)
        self.telemetry.answered(record, status, NOW + after, denied)

    def forwarded(
        self,
        record: audit.Record,
        status: int = 200,
        result: str = "answered",
        failure: Denied | None = None,
        upstream: Upstream = LEDGER,
    ) -> None:
        self.telemetry.decided(record, None, self.bundle)
        self.telemetry.forwarded(record, status, NOW + 0.25, upstream, NOW + 0.0625, result, failure)

    def export(self) -> Ports:
        run(self.telemetry.export(self.ports, INSTANCE, SINKS))
        return self.ports

    def report(self) -> dict[str, Any]:
        return self.telemetry.report(SINKS)
