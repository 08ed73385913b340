"""W3C Trace Context: a caller's trace goes on at the upstream, and a call without one begins its own."""

import re
from collections.abc import Mapping

MOST = 512  # characters of tracestate
LONG = 128  # characters: members longer than that are the first to go

# §3.2: what every version begins with. Version 00 ends there; a later one may go on after another dash.
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_STATE = re.compile(r"[\t -~]+")
_NO_TRACE = "0" * 32
_NO_PARENT = "0" * 16


def context(headers: Mapping[str, str], request_id: str) -> dict[str, str]:
    """The trace headers of a call to an upstream. Names in lower case.

    A new trace has the request's id, 32 hex digits, so that a request is found in traces and traces in the audit log.
    """
    parent = _parent(headers.get("traceparent", ""))
    if parent is None:
        # §4.3: state that belongs to no trace says nothing.
        return {"traceparent": f"00-{request_id}-{_begun(request_id)}-00"}
    state = _state(headers.get("tracestate", ""))
    return {"traceparent": parent, "tracestate": state} if state else {"traceparent": parent}


def _parent(text: str) -> str | None:
    read = _PARENT.fullmatch(text)
    if read is None:
        return None
    version, trace, parent, flags, more = read.groups()
    if version == "ff" or trace == _NO_TRACE or parent == _NO_PARENT:
        return None
    if version == "00":
        return text if more is None else None
    # §2.3: of a later version only what this one knows is passed on, in its own words; so is its one flag.
    return f"00-{trace}-{parent}-{int(flags, 16) & 1:02x}"


def _begun(request_id: str) -> str:
    parent = request_id[16:]
    return parent if parent != _NO_PARENT else "0000000000000001"


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
