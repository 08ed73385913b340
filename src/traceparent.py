"""W3C Trace Context: a caller's trace goes on at the upstream, and a call without one begins its own.

Where the gate exports no spans it stands in no trace: what a caller sent goes on as it is. Where it does, the upstream
sees the gate's own call as its parent. Span ids are halves of the request's id, which is random: nothing is drawn.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

MOST = 512  # characters of tracestate
LONG = 128  # characters: members longer than that are the first to go
SAMPLED = 0x01  # somebody records this trace
_KNOWN = 0x03  # and, from level 2 of the standard on, its id is random

# §3.2: what every version begins with. Version 00 ends there; a later one may go on after another dash.
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_STATE = re.compile(r"[\t -~]+")
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16


class Trace(NamedTuple):
    """The trace that a request is part of."""

    trace_id: str  # 32 hex digits
    parent: str | None  # id of the caller's span, 16 hex digits; None: the trace begins here
    flags: int
    state: str  # what goes on of the caller's tracestate; empty: nothing
    recorded: bool  # whether the gate exports its spans of it


def read(headers: Mapping[str, str], request_id: str, least: str | None = None) -> Trace:
    """The trace of a request. `headers`: names in lower case.

    A new trace has the request's id, 32 hex digits, so that a request is found in traces and traces in the audit log.
    `least`: what `sampled_from` made of the share of new traces that are recorded; None: no spans are exported.
    A caller's trace is recorded where the caller says so.
    """
    sent = headers.get("traceparent")
    found = None if sent is None else _read(sent)
    if found is None:
        # §4.3: state that belongs to no trace says nothing.
        if least is None or request_id[18:] < least:
            return Trace(request_id, None, 0, "", False)
        return Trace(request_id, None, SAMPLED, "", True)
    trace_id, parent, flags = found
    state = headers.get("tracestate", "")
    recorded = least is not None and bool(flags & SAMPLED)
    return Trace(trace_id, parent, flags, _state(state) if state else "", recorded)


def sampled_from(ratio: float) -> str:
    """From which 56 random bits on, as 14 hex digits, a trace is one of the share that is recorded."""
    return f"{round((1 - ratio) * 2**56):014x}" if ratio > 0 else "g"  # which is greater than any digit


def written(trace: Trace, request_id: str) -> dict[str, str]:
    """The trace headers of the call to the upstream. Names in lower case."""
    if trace.recorded:
        # §4.3: whoever becomes the parent sets the flags that it does not know to zero.
        told = f"00-{trace.trace_id}-{client_span(request_id)}-{trace.flags & _KNOWN:02x}"
    else:
        told = f"00-{trace.trace_id}-{trace.parent or client_span(request_id)}-{trace.flags:02x}"
    return {"traceparent": told, "tracestate": trace.state} if trace.state else {"traceparent": told}


def server_span(request_id: str) -> str:
    """The id of the span that is the request."""
    span = request_id[:16]
    return span if span != _NO_SPAN else "0000000000000002"


def client_span(request_id: str) -> str:
    """The id of the span that is the call to the upstream."""
    span = request_id[16:]
    return span if span != _NO_SPAN else "0000000000000001"


def _read(text: str) -> tuple[str, str, int] | None:
    """Trace, parent and flags; None for what is no traceparent."""
    found = _PARENT.fullmatch(text)
    if found is None:
        return None
    version, trace, parent, flags, more = found.groups()
    if version == "ff" or trace == _NO_TRACE or parent == _NO_SPAN:
        return None
    if version == "00":
        return (trace, parent, int(flags, 16)) if more is None else None
    # §2.3: of a later version only what this one knows is passed on, in its own words; so is its one flag.
    return trace, parent, int(flags, 16) & SAMPLED


def _state(text: str) -> str:
    """What may go on of a tracestate, empty for nothing: whole members, and as many as fit (§3.3.1.5)."""
    if _STATE.fullmatch(text) is None or len(text) > 16 * MOST:
        return ""
    text = text.strip(" \t")
    if len(text) <= MOST:
        return text
    members = [member.strip(" \t") for member in text.split(",")]
    over = len(",".join(members)) - MOST
    for index in range(len(members) - 1, -1, -1):
        if over > 0 and len(members[index]) > LONG:
            over -= len(members.pop(index)) + 1
    while over > 0 and members:
        over -= len(members.pop()) + 1
    return ",".join(members)
