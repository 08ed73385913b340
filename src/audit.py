"""Audit events: one decision for every request, written before any effect, and one outcome for every forwarded call.

Each event is one line of JSON. Tokens, secrets, bodies and query strings are never in it, and a path only where
its upstream opted in: paths hold secrets and people.

Both lines are on the path of every request, so they are written out field by field: a general encoder takes three
times as long. Everything that comes from outside goes through `_text` or `_texts`.
"""

import functools
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as _quote

from model import Caller, Decision, Denied, Fact, Inbound, Reason, Target

SCHEMA = 1
LONGEST = 512  # characters of a value that comes from outside
MOST = 100  # entries of a list that comes from outside


def _text(value: str | None, longest: int = LONGEST) -> str:
    return "null" if value is None else _quote(value[:longest])


def _texts(values: Iterable[str] | None) -> str:
    return "null" if values is None else "[" + ",".join([_text(value) for value in list(values)[:MOST]]) + "]"


_second = (-1, "")  # the last second that was written out, and how


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    global _second
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    if _second[0] != whole:
        _second = (whole, datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    return f"{_second[1]}.{milliseconds:03}Z"


def _fact(name: str, fact: Fact) -> str:
    value = _text(fact.value) if isinstance(fact.value, str) else _texts(fact.value)
    return f'"{name}":{{"value":{value},"attested":{"true" if fact.attested else "false"}}}'


def describe(caller: Caller) -> str:
    """The part of a decision event that names the caller and the task it speaks for."""
    identity = caller.identity
    return (
        f',"issuer":{_text(identity.issuer)},"subject":{_text(identity.subject)},"kind":{_text(identity.kind)}'
        f',"roles":{{"granted":{_texts(sorted(identity.granted))},"tagged":{_texts(caller.tagged)}'
        f',"effective":{_texts(sorted(caller.effective))}}},"workload":{{'
        + ",".join([_fact(name, fact) for name, fact in caller.workload.items()])
        + "}"
    )


def _head(event: str, now: float, request_id: str) -> str:
    return f'{{"event":"{event}","schema":{SCHEMA},"time":"{timestamp(now)}","request_id":"{request_id}"'


@functools.lru_cache(256)  # one for each set of policies that decides together
def _ruling(route: str | None, policies: tuple[str, ...], shadow: tuple[str, ...]) -> str:
    return f',"route":{_text(route)},"policies":{_texts(policies)},"shadow":{_texts(shadow)}'


class Record:
    """What is known of one request so far; `gateway.handle` fills it in as stages pass."""

    __slots__ = (
        "bundle",
        "decision",
        "described",
        "inbound",
        "log_path",
        "note",
        "page",
        "sequence",
        "target",
    )

    def __init__(self, inbound: Inbound) -> None:
        self.inbound = inbound
        self.target: Target | None = None
        self.described = ""  # describe(caller), once there is one
        self.decision: Decision | None = None
        self.bundle: str | None = None
        self.sequence: int | None = None
        self.log_path = False
        self.page = ""  # one of the gate's own, answered by the gate itself
        self.note = ""  # why a caller of a public page was not told more

    def decided(self, denied: Denied | None) -> str:
        """The decision event, as the line to be written."""
        inbound, target, decision = self.inbound, self.target, self.decision
        line = _head("decision", inbound.received_at, inbound.request_id)
        if denied is None:
            line += f',"decision":"permit","reason":null,"detail":{_text(self.note or None)}'
        else:
            line += f',"decision":"deny","reason":"{denied.reason}","detail":{_text(denied.detail or None)}'
        line += f',"method":{_text(inbound.method, 16)},"upstream":{_text(target.upstream if target else None, 64)}'
        if decision is not None:
            line += _ruling(decision.route, decision.policies, decision.shadow)
        line += (
            f',"bundle":{_text(self.bundle)},"sequence":{"null" if self.sequence is None else self.sequence}'
            f',"client":{_text(inbound.headers.get("cf-connecting-ip"), 64)}{self.described}'
        )
        if self.page:
            line += f',"page":{_text(self.page)}'
        if target is not None and self.log_path:
            line += f',"path":{_text(target.path, 1024)}'
        return line + "}"

    def ended(self, now: float, result: str, status: int | None, sent_at: float, detail: str = "") -> str:
        """The outcome event: how the upstream took the call. `result`: answered, or why not."""
        return (
            f"{_head('outcome', now, self.inbound.request_id)}"
            f',"upstream":{_text(self.target.upstream if self.target else None, 64)}'
            f',"result":{_text(result)},"detail":{_text(detail or None)}'
            f',"status":{"null" if status is None else status},"upstream_ms":{max(0, round((now - sent_at) * 1000))}}}'
        )


def bundle_event(now: float, result: str, detail: str, bundle: str | None, sequence: int | None) -> str:
    """A change of policy, or a failure to read it, as this isolate saw it. `result`: loaded or refused."""
    return json.dumps(
        {
            "event": "bundle",
            "schema": SCHEMA,
            "time": timestamp(now),
            "result": result,
            "detail": detail[:LONGEST] or None,
            "bundle": bundle,
            "sequence": sequence,
        },
        separators=(",", ":"),
    )


def lost_event(now: float, request_id: str, kind: str) -> str:
    """The outcome event of an answer that could not be handed to the caller, beside the one that says how it came."""
    return f'{_head("outcome", now, request_id)},"result":"lost","detail":{_text(kind)}}}'


def crash_event(now: float, request_id: str, kind: str) -> str:
    """The decision event of a request that could not even be read."""
    return (
        f"{_head('decision', now, request_id)}"
        f',"decision":"deny","reason":{_text(Reason.INTERNAL)},"detail":{_text(kind)}}}'
    )
