"""What the gate tells of itself: counters, always; spans and metrics over OTLP, where somebody wants them.

A request costs a few counts, and one tuple where its spans are exported. They are encoded and sent behind answers, in
bounded batches. A collector that is slow, full or wrong costs spans, which are counted, and never holds up an answer.
"""

import math
from typing import Any, NamedTuple, Protocol

import audit
import forward
import metrics
import otlp
import spans
import traceparent
from bundle import OWN, Bundle
from counters import OTHER, Counters, Sinks
from model import Denied, Inbound
from otlp import Settings
from policy import METHODS
from spans import OTHER_METHOD, Call, Served
from traceparent import Trace
from upstream import Upstream

WAITING = 2048  # requests whose spans wait to be sent; those of more are dropped, and counted
HEAVIEST = 4_000_000  # characters, about, that they may take
SPAN = 1000  # characters of one, less what it says of its caller
BATCH = 64  # of them in one message: other requests wait while it is written
TIMEOUT = 2.0  # seconds for a collector's answer
LONGEST = 4.0  # seconds after which no other message of spans is begun
CLAIM = 20.0  # seconds after which an export that should be over counts as lost
PAUSE, LONGEST_PAUSE = 10.0, 320.0  # seconds without another try after a failure: twice as long after each
LONGEST_ASKED = 600.0  # of those that a collector may ask for

_RETRYABLE = frozenset({429, 502, 503, 504})  # OTLP 1.x, "Retryable Response Codes"


class Ports(Protocol):
    """What telemetry needs of the outside world."""

    def now(self) -> float: ...
    def secret(self, name: str) -> str:
        """A variable or secret of the Worker's. Raises LookupError."""

    def location(self) -> str | None:
        """Where this isolate runs, such as FRA; None when the runtime does not say."""

    async def tell(
        self, url: str, headers: dict[str, str], body: bytes, timeout: float, limit: int
    ) -> tuple[int, bytes, str | None]:
        """As `post`: status and body of the answer, and its Retry-After. No redirects. Raises OSError."""


class _Message(NamedTuple):
    """An encoded message, and how many spans or data points are in it."""

    body: bytes
    size: int


class _Signal:
    """Traces, or metrics: how sending them goes. Counts are of spans, or of data points."""

    __slots__ = ("error", "failed", "failures", "path", "pause", "quiet", "rejected", "sent")

    def __init__(self, path: str) -> None:
        self.path = path
        self.sent = 0
        self.rejected = 0  # which the collector would not have, though it took the rest
        self.failed = 0  # in messages that never arrived
        self.failures = 0  # of messages, a second try counted for itself
        self.error = ""  # why the last message failed; empty when it did not
        self.pause = PAUSE
        self.quiet = 0.0  # until when nothing is sent

    def may(self, now: float) -> bool:
        """Whether a message may be sent. Where the clock was set back, nobody waits until it is there again."""
        return not 0 < self.quiet - now <= LONGEST_ASKED

    def arrived(self, count: int, rejected: int) -> None:
        self.sent += count - rejected
        self.rejected += rejected
        self.error, self.pause, self.quiet = "", PAUSE, 0.0

    def missed(self, why: str, now: float, asked: str | None) -> None:
        """Note a failure. `asked`: the collector's Retry-After, which counts where it is a number of seconds."""
        self.failures += 1
        self.error = why
        wait = self.pause
        if asked is not None and asked.isascii() and asked.isdigit() and len(asked) < 10:
            wait = min(max(wait, float(asked)), LONGEST_ASKED)
        self.quiet = now + wait
        self.pause = min(2 * self.pause, LONGEST_PAUSE)

    def report(self) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "rejected": self.rejected,
            "failed": self.failed,
            "failures": self.failures,
            "error": self.error or None,
        }


class Telemetry:
    """One isolate's."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.warning = ""  # what is wrong with the settings; empty when nothing is
        self._since = 0.0  # seconds since the epoch of the first request; 0: there was none yet
        self._scheme = ""  # of the address that it came to
        self._settings: Settings | None = None
        self._least: str | None = None  # for traceparent.read
        self._waiting: list[Served] = []
        self._again: _Message | None = None  # spans that the collector asked for once more
        self._under_way = 0  # spans that are being sent
        self._weight = 0  # characters of these, about
        self._dropped = 0  # spans for which there was no room
        self._traces, self._metrics = _Signal("/v1/traces"), _Signal("/v1/metrics")
        self._claimed = -math.inf  # until when somebody exports

    def begin(self, inbound: Inbound, ports: Ports) -> Trace:
        """The trace that a request is part of. With the first one the settings are read. Never raises."""
        if not self._since:
            self._since, self._scheme = inbound.received_at, inbound.url.partition(":")[0]
            try:
                self._settings = otlp.read_settings(ports.secret)
            except ValueError as error:
                self.warning = f"{error}: no telemetry is exported"
            else:
                if self._settings is not None:
                    self._least = traceparent.sampled_from(self._settings.ratio)
        return traceparent.read(inbound.headers, inbound.request_id, self._least)

    def decided(self, record: audit.Record, denied: Denied | None, bundle: Bundle | None) -> None:
        """Count a decision, as soon as it is on record. `bundle`: the one in force."""
        target = record.target
        upstream = target.upstream if target is not None else ""
        if bundle is None or upstream not in bundle.upstreams:
            upstream = OWN if record.page and record.page != "authz" else OTHER
        record.counted = upstream
        if denied is None:
            self.counters.decided(upstream, "permit", "")
        else:
            self.counters.decided(upstream, "deny", denied.reason.value)

    def answered(self, record: audit.Record, status: int, now: float, denied: Denied | None) -> None:
        """Count an answer of the gate's own, and keep what its span tells. `denied`: why it is a refusal."""
        inbound = record.inbound
        method = inbound.method if inbound.method in METHODS else OTHER_METHOD
        seconds = max(0.0, now - inbound.received_at)
        self.counters.answered(record.counted, method, status, seconds)
        if record.trace.recorded and self._may_record(record):
            reason = "" if denied is None else denied.reason.value
            self._keep(record, status, now, reason, "", None)

    def forwarded(
        self,
        record: audit.Record,
        status: int,
        now: float,
        upstream: Upstream,
        sent_at: float,
        result: str,
        failure: Denied | None,
    ) -> None:
        """Count the answer to a call that was permitted, and how the upstream took it; keep what the spans tell.

        `status`: of the answer to the caller. `sent_at`: when the upstream's turn began. `result`: as in the outcome
        event. `failure`: why there is no answer of the upstream's; None: there is, and its status is `status`.
        """
        inbound = record.inbound
        seconds, waited = now - inbound.received_at, now - sent_at
        if not seconds >= waited >= 0:  # the clock was set back
            seconds = waited = 0.0
        self.counters.called(
            record.counted, inbound.method, status, result, record.tries > 0, seconds, waited
        )
        if record.trace.recorded:
            target = record.target
            path = target.path if target is not None and record.log_path else ""
            answer = status if failure is None else 0
            call = Call(upstream.base, path, sent_at, result, answer, record.tries) if record.tries else None
            self._keep(record, status, now, "", "" if failure is None else failure.reason.value, call)

    def _may_record(self, record: audit.Record) -> bool:
        """Whether nobody unknown decides that by a flag in a header: for them it is a matter of the share."""
        known = bool(record.described) or record.trace.parent is None
        return known or (self._least is not None and record.inbound.request_id[18:] >= self._least)

    def _keep(
        self, record: audit.Record, status: int, now: float, reason: str, failure: str, call: Call | None
    ) -> None:
        """Keep what the spans of a request tell. Nothing of that holds on to its headers."""
        weight = SPAN + 2 * len(record.described)
        if len(self._waiting) >= WAITING or self._weight + weight > HEAVIEST:
            self._dropped += 1 if call is None else 2
            return
        self._weight += weight
        inbound, target = record.inbound, record.target
        served = Served(
            record.trace,
            inbound.request_id,
            inbound.received_at,
            now,
            inbound.method,
            forward.origin(record.url),
            record.counted if record.counted not in (OTHER, OWN) else None,
            target.path if target is not None and record.log_path else "",
            record.page,
            status,
            reason,
            failure,
            record.decision,
            record.bundle,
            record.sequence,
            record.described,
            call,
        )
        self._waiting.append(served)

    def crashed(self) -> None:
        """Count a request that could not even be read."""
        self.counters.decided(OTHER, "deny", "internal")

    async def export(self, ports: Ports, instance: str, sinks: Sinks) -> None:
        """Send what there is, the spans that wait and all counts, where that is wanted. Never raises.

        Takes LONGEST and two TIMEOUTs at most. `instance`: the isolate's id.
        """
        settings, now = self._settings, ports.now()
        if settings is None or 0 < self._claimed - now <= CLAIM:
            return
        self._claimed = now + CLAIM
        try:
            version = _told(ports, "VERSION")
            resource = {
                "service.name": otlp.SCOPE,
                "service.version": version,
                "service.instance.id": instance,
                "deployment.environment.name": _told(ports, "GATE"),
                "cloud.provider": "cloudflare",
                "cloud.platform": "cloudflare.workers",
                "cloud.region": ports.location(),
            }
            if not await self._send_spans(settings, resource, version, ports):
                self._metrics.quiet = self._traces.quiet
            await self._send_metrics(settings, resource, version, sinks, ports)
        except Exception as error:  # a mistake of ours: the gate goes on
            self._traces.error = audit.where(error)
        finally:
            self._claimed = -math.inf

    async def _send_spans(
        self, settings: Settings, resource: dict[str, Any], version: str, ports: Ports
    ) -> bool:
        """Returns whether the collector can be reached, as far as is known."""
        signal, reached, end = self._traces, True, ports.now() + LONGEST
        signal.failed += self._under_way  # the runtime has ended what sent them
        self._under_way = 0
        while reached and (self._again is not None or self._waiting):
            if not signal.may(now := ports.now()) or now >= end:
                break
            again, self._again = self._again, None
            message = again or self._batch(resource, version)
            self._under_way = message.size
            reached, retryable = await _send(signal, message, settings, ports)
            self._under_way = 0
            if signal.error:
                if retryable and again is None:
                    self._again = message
                else:
                    signal.failed += message.size
        return reached

    def _batch(self, resource: dict[str, Any], version: str) -> _Message:
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        self._weight -= sum([SPAN + 2 * len(served.described) for served in batch])
        self._under_way = len(batch)  # at least, should it not be possible to write them out
        made = [span for served in batch for span in spans.told(served)]
        return _Message(otlp.traces(resource, version, made), len(made))

    async def _send_metrics(
        self, settings: Settings, resource: dict[str, Any], version: str, sinks: Sinks, ports: Ports
    ) -> None:
        signal, now = self._metrics, ports.now()
        if not signal.may(now):
            return
        traces = self._traces
        counts = {
            "sent": traces.sent,
            "dropped": self._dropped,
            "rejected": traces.rejected,
            "failed": traces.failed,
        }
        failures = {"traces": traces.failures, "metrics": signal.failures}
        told = metrics.told(self.counters, sinks, counts, failures, self._scheme, self._since, now)
        message = _Message(otlp.metrics(resource, version, told), sum([metric.points for metric in told]))
        await _send(signal, message, settings, ports)
        if signal.error:  # the next message says all of it again
            signal.failed += message.size

    def report(self, sinks: Sinks) -> dict[str, Any]:
        """All counts, and how exporting goes, for health."""
        settings = self._settings
        return {
            "since": audit.timestamp(self._since),
            **self.counters.report(sinks),
            "export": None
            if settings is None
            else {
                "collector": settings.host,
                "ratio": settings.ratio,
                "waiting": len(self._waiting),  # requests
                "dropped": self._dropped,
                "traces": self._traces.report(),
                "metrics": self._metrics.report(),
            },
        }


def _told(ports: Ports, name: str) -> str:
    try:
        return ports.secret(name)
    except (LookupError, ValueError):
        return ""


async def _send(signal: _Signal, message: _Message, settings: Settings, ports: Ports) -> tuple[bool, bool]:
    """Send a message. Returns whether the collector can be reached, and whether it asks for the message once more."""
    headers = {"user-agent": otlp.SCOPE, **settings.headers, "content-type": "application/json"}
    url = settings.endpoint + signal.path
    try:
        status, body, asked = await ports.tell(url, headers, message.body, TIMEOUT, otlp.LIMIT)
    except OSError as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else f"cannot be reached: {error}"
        signal.missed(why[:120], ports.now(), None)
        return False, False
    if 200 <= status < 300:
        signal.arrived(message.size, min(otlp.rejected(body), message.size))
        return True, False
    signal.missed(f"answered {status}", ports.now(), asked)
    return status not in _RETRYABLE, status in _RETRYABLE
