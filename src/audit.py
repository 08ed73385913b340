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
from obligations import Obligations

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
        f',"effective":{_texts(sorted(caller.effective))}'
        + (f',"unknown":{_texts(sorted(identity.unknown))}' if identity.unknown else "")
        + (f',"lent":{_texts(sorted(caller.lent.roles))}' if caller.lent is not None else "")
        + "}"
        + (f',"actor":{_text(identity.actor)}' if identity.actor else "")
        + (f',"jkt":{_text(identity.jkt)}' if identity.jkt else "")
        + (f',"token_id":{_text(identity.token_id)}' if identity.token_id else "")
        + ',"workload":{'
        + ",".join([_fact(name, fact) for name, fact in caller.workload.items()])
        + "}"
    )


def _outline(caller: Caller) -> str:
    """As `describe`, but short whatever it says: there may be many of these for one request."""
    identity = caller.identity
    facts = [
        _fact(name, fact._replace(value=fact.value[:64]))
        for name in ("dag", "task", "run")
        if (fact := caller.workload.get(name)) is not None
    ]
    return (
        f',"issuer":{_text(identity.issuer)},"subject":{_text(identity.subject, 256)},"kind":{_text(identity.kind)}'
        f',"roles":{_texts(sorted(caller.effective)[:16])},"workload":{{{",".join(facts)}}}'
    )


def _head(event: str, now: float, request_id: str) -> str:
    return f'{{"event":"{event}","schema":{SCHEMA},"time":"{timestamp(now)}","request_id":"{request_id}"'


def _ruling(decision: Decision) -> str:
    return _ruled(
        decision.route,
        decision.permits,
        decision.forbids,
        decision.shadow,
        decision.would,
        decision.obligations,
    )


@functools.lru_cache(256)  # one for each set of policies that decides together
def _ruled(
    route: str | None,
    permits: tuple[str, ...],
    forbids: tuple[str, ...],
    shadow: tuple[str, ...],
    would: bool,
    obligations: Obligations,
) -> str:
    line = f',"route":{_text(route)},"permits":{_texts(permits)},"forbids":{_texts(forbids)},"shadow":{_texts(shadow)}'
    if shadow:
        line += f',"would":"{"permit" if would else "deny"}"'
    if asked := obligations.documents():
        text = json.dumps(asked, separators=(",", ":"))
        line += f',"obligations":{text if len(text) <= LONGEST else _texts([one["type"] for one in asked])}'
    return line


def where(error: Exception) -> str:
    """An unforeseen error for the audit log: its kind and place, never its text, which may quote a secret."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else ""
    return type(error).__name__ + place


class Record:
    """What is known of one request so far; `gateway.handle` fills it in as stages pass."""

    __slots__ = (
        "bundle",
        "cors",
        "country",
        "credential",
        "decision",
        "described",
        "evaluations",
        "grants",
        "inbound",
        "justification",
        "keyed",
        "log_path",
        "note",
        "page",
        "sequence",
        "target",
        "tries",
        "url",
    )

    def __init__(self, inbound: Inbound) -> None:
        self.inbound = inbound
        self.url = (
            inbound.url
        )  # as it reached the gate; of a check, `inbound` is the request that it is about
        self.target: Target | None = None
        self.described = ""  # describe(caller), once there is one
        self.decision: Decision | None = None
        self.bundle: str | None = None
        self.sequence: int | None = None
        self.log_path = False
        self.country: str | None = None  # of the client, where policy asks for it
        self.evaluations: list[str] = []  # lines about the questions that this request asks
        self.justification = ""  # why, in the caller's words, where policy asks for it
        self.page = ""  # one of the gate's own, answered by the gate itself
        self.credential: str | None = None  # which one of the upstream's the gate shows it
        self.cors: dict[str, str] = {}  # what a page of another origin may see of the answer
        self.keyed = False  # whether the upstream gets an Idempotency-Key
        self.tries = 1  # of the call to the upstream
        self.grants: tuple[str, ...] = ()  # ids of those without which policy would have decided otherwise
        self.note = ""  # why a caller of a public page was not told more

    def headers(self) -> dict[str, str]:
        """What every answer tells its caller."""
        headers = {"airgate-request-id": self.inbound.request_id, **self.cors}
        if (decision := self.decision) is not None:
            headers["airgate-decision"] = "permit" if decision.permit else "deny"
            if decision.policies:
                headers["airgate-policy"] = f"{decision.policies[0]}@{self.bundle}"
        return headers

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
            line += _ruling(decision)
        line += (
            f',"bundle":{_text(self.bundle)},"sequence":{"null" if self.sequence is None else self.sequence}'
            f',"client":{_text(inbound.headers.get("cf-connecting-ip"), 64)}{self.described}'
        )
        if self.grants:
            line += f',"grants":{_texts(self.grants)}'
        if self.country:
            line += f',"country":{_text(self.country, 8)}'
        if self.justification:
            line += f',"justification":{_text(self.justification)}'
        if self.credential is not None:
            line += f',"credential":{_text(self.credential, 64)}'
        if self.page:
            line += f',"page":{_text(self.page)}'
        if target is not None and self.log_path:
            line += f',"path":{_text(target.path, 1024)}'
        return line + "}"

    def evaluated(
        self, number: int, target: Target, caller: Caller, decision: Decision, grants: tuple[str, ...] = ()
    ) -> str:
        """The evaluation event: one question of those that this request asks, and what policy says of it."""
        return (
            f"{_head('evaluation', self.inbound.received_at, self.inbound.request_id)}"
            f',"number":{number},"decision":"{"permit" if decision.permit else "deny"}"'
            f',"reason":{_text(decision.reason)},"method":{_text(target.method, 64)}'
            f',"upstream":{_text(target.upstream, 128)}'
            f'{_ruling(decision)},"bundle":{_text(self.bundle)}{_outline(caller)}'
            + (f',"grants":{_texts(grants)}}}' if grants else "}")
        )

    def ended(self, now: float, result: str, status: int | None, sent_at: float, detail: str = "") -> str:
        """The outcome event: how the upstream took the call. `result`: answered, or why not."""
        return (
            f"{_head('outcome', now, self.inbound.request_id)}"
            f',"upstream":{_text(self.target.upstream if self.target else None, 64)}'
            f',"result":{_text(result)},"detail":{_text(detail or None)}'
            f',"status":{"null" if status is None else status},"upstream_ms":{max(0, round((now - sent_at) * 1000))}'
            + (f',"tries":{self.tries}}}' if self.tries > 1 else "}")
        )


def bundle_event(
    now: float, result: str, detail: str, bundle: str | None, sequence: int | None, by: str = ""
) -> str:
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
            "by": by[:LONGEST] or None,
        },
        separators=(",", ":"),
    )


def act_event(now: float, result: str, name: str, detail: str, document: str) -> str:
    """A revocation, a grant, or the end of one, as this isolate learnt it. `result`: known or refused."""
    return json.dumps(
        {
            "event": "act",
            "schema": SCHEMA,
            "time": timestamp(now),
            "result": result,
            "id": name,
            "detail": detail[:LONGEST] or None,
            "act": document[: 2048 if result == "known" else LONGEST],
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
