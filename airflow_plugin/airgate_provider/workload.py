"""The task behind a call: what the gate is told of it, and what makes a repeated call recognizable."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

from airgate_provider import compat

NAMESPACE = uuid.UUID("6f0d3b56-6d0e-5b4b-9a55-0f1a3c1d7a10")
MOST_TASKS = 64  # whose calls are remembered in one process
# The gate reads printable ASCII; RFC 9110 §5.5 leaves everything else to chance.
_PLAIN = "".join(map(chr, range(0x20, 0x7F)))
PLAIN_IN_LIST = _PLAIN.replace(",", "")
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")


@dataclass(frozen=True)
class Workload:
    """One try of one task instance. `map_index` is -1 for a task that is not mapped."""

    dag: str
    task: str
    run: str
    try_number: int = 1
    map_index: int = -1
    tags: tuple[str, ...] = ()
    span: str = field(default="", compare=False)  # Airflow's own span of this try, as a traceparent

    def headers(self) -> dict[str, str]:
        """The gate's workload headers. What is not plain ASCII is percent-encoded."""
        headers = {
            "Airgate-Dag-Id": encode(self.dag),
            "Airgate-Task-Id": encode(self.task),
            "Airgate-Run-Id": encode(self.run),
            "Airgate-Try-Number": str(self.try_number),
        }
        if self.map_index >= 0:
            headers["Airgate-Map-Index"] = str(self.map_index)
        if self.tags:
            headers["Airgate-Dag-Tags"] = ", ".join(encode(tag, PLAIN_IN_LIST) for tag in self.tags)
        return headers

    def idempotency_key(self, number: int = 1) -> str:
        """The same for every try of a task instance; another one for each of the different calls that it makes."""
        parts = [self.dag, self.run, self.task, str(self.map_index)]
        if number > 1:
            parts.append(str(number))
        return str(uuid.uuid5(NAMESPACE, "\0".join(parts)))

    def trace_id(self) -> str:
        """One for all calls of a DAG run (W3C Trace Context), where nothing else traces."""
        return hashlib.sha256(f"{self.dag}\0{self.run}".encode()).hexdigest()[:32]

    def to_dict(self) -> dict[str, Any]:
        """For a trigger, which is kept as JSON."""
        return {**asdict(self), "tags": list(self.tags)}

    @classmethod
    def from_dict(cls, values: dict[str, Any] | None) -> Workload | None:
        """What to_dict() made."""
        return None if values is None else cls(**{**values, "tags": tuple(values["tags"])})

    @classmethod
    def from_context(cls, context: dict[str, Any] | None) -> Workload | None:
        """The running task's. None when nothing says which that is."""
        if context is None or (ti := context.get("ti")) is None:
            return cls._from_environment()
        tags = getattr(context.get("dag"), "tags", None) or ()
        return cls(
            dag=ti.dag_id,
            task=ti.task_id,
            run=ti.run_id,
            try_number=ti.try_number,
            map_index=-1 if ti.map_index is None else ti.map_index,
            tags=tuple(sorted(str(tag) for tag in tags)),
            span=compat.task_span(context),
        )

    @classmethod
    def _from_environment(cls) -> Workload | None:
        said = compat.environment_context()
        if not {"DAG_ID", "TASK_ID", "DAG_RUN_ID"} <= said.keys():
            return None
        number = said.get("TRY_NUMBER", "1")
        return cls(
            said["DAG_ID"], said["TASK_ID"], said["DAG_RUN_ID"], int(number) if number.isdigit() else 1
        )


class Calls:
    """Which call of its task a request is: a repeated one has the number that it had."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Workload, list[bytes]] = OrderedDict()

    def number(self, workload: Workload, method: str, url: str, body: Any) -> int:
        """From 1. A body that is streamed counts as empty: reading it would use it up."""
        text = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else b""
        digest = hashlib.sha256(f"{method} {url}\n".encode() + text).digest()
        seen = self._seen.setdefault(workload, [])
        self._seen.move_to_end(workload)
        while len(self._seen) > MOST_TASKS:
            self._seen.popitem(last=False)
        if digest not in seen:
            seen.append(digest)
        return seen.index(digest) + 1


def traceparent(workload: Workload | None) -> str:
    """A W3C Trace Context header: Airflow's span where it traces, else one for the DAG run.

    Where it does not, Airflow 3 has ids for every try all the same, which say that nobody records them: that would
    keep the gate from recording its part.
    """
    current, own = _current_span(), workload.span if workload is not None else ""
    # On Airflow 2 a task's process inherits the executor's span, which is in another trace.
    if _sampled(own) and current[3:35] != own[3:35]:
        return own
    for said in (current, own):
        if _sampled(said) or (_TRACEPARENT.fullmatch(said) and _tracing()):
            return said
    trace_id = workload.trace_id() if workload is not None else uuid.uuid4().hex
    return f"00-{trace_id}-{uuid.uuid4().hex[:16]}-01"


def _current_span() -> str:
    """What goes on as this code runs; empty for nothing. Other threads than the task's own see nothing."""
    try:
        from opentelemetry import trace
    except ImportError:
        return ""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return ""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"


def _sampled(said: str) -> bool:
    found = _TRACEPARENT.fullmatch(said)
    return found is not None and bool(int(found[2], 16) & 1)


def _tracing() -> bool:
    """Whether anything in this process records spans: then one that is not sampled was chosen not to be."""
    try:
        from opentelemetry import trace
    except ImportError:
        return False
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


def encode(text: str, plain: str = _PLAIN) -> str:
    """A text as a header value."""
    return quote(text, safe=plain)
