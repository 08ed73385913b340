"""Audit events: one decision for every request, written before any effect, and one outcome for every forwarded call.

Where an issuer tells that a session has ended, the line and D1's answer to that go together (secevent.py).

Each event is one line of JSON in ASCII (airgate/audit/event.schema.json). Tokens, secrets, bodies and values of queries
are never in it, and a path only where its upstream opted in: paths hold secrets and people. Its place in the log is
added by journal.py.

Both lines are on the path of every request, so they are written out field by field: a general encoder takes three
times as long. Everything that comes from outside goes through `_text` or `_texts`.
"""

import functools
import json
import re
from collections.abc import Container, Iterable, Mapping
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as _quote
from typing import Any

import query
import traceparent
from document import read_object
from model import Caller, Decision, Denied, Exchanged, Fact, Inbound, Reason, Target
from obligations import Obligations
from pseudonym import PLAIN, Names
from traceparent import Trace

SCHEMA = 2
LONGEST = 512  # characters of a value that comes from outside
MOST = 100  # entries of a list that comes from outside
BOUND = 7900  # bytes of an event: with its place in the log it stays below 8 KB
_NAMED = re.compile(r"[a-z0-9.-]{1,24}")  # what may be told of an upstream that there is not
PERSONS = frozenset({"triggered_by", "owners"})  # facts of a task that are names of people
NOWHERE = ',"worker":{"location":null,"version":null}'


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


def describe(caller: Caller, names: Names = PLAIN) -> str:
    """The part of a decision event that names the caller and the task it speaks for."""
    identity = caller.identity
    subject, actor = names.of(identity.issuer, identity.subject), identity.actor
    whose = identity.issuer
    if identity.exchanged is not None and identity.exchanged.alone:
        whose = identity.exchanged.alone[-1][1].identity.issuer
    return (
        f',"issuer":{_text(identity.issuer)},"subject":{_text(subject)},"kind":{_text(identity.kind)}'
        f',"roles":{{"granted":{_texts(sorted(identity.granted))},"tagged":{_texts(caller.tagged)}'
        f',"effective":{_texts(sorted(caller.effective))}'
        + (f',"unknown":{_texts(sorted(identity.unknown))}' if identity.unknown else "")
        + (f',"lent":{_texts(sorted(caller.lent.roles))}' if caller.lent is not None else "")
        + "}"
        + (f',"actor":{_text(names.of(whose, actor))}' if actor else "")
        + (f',"jkt":{_text(identity.jkt)}' if identity.jkt else "")
        + (f',"token_id":{_text(identity.token_id)}' if identity.token_id else "")
        + (_exchanged(identity.exchanged) if identity.exchanged is not None else "")
        + ',"workload":{'
        + ",".join(
            [
                _fact(name, _named(name, fact, identity.issuer, names))
                for name, fact in caller.workload.items()
            ]
        )
        + "}"
    )


def _named(name: str, fact: Fact, issuer: str, names: Names) -> Fact:
    """A fact as the log may have it: some name people."""
    if names is PLAIN or name not in PERSONS:
        return fact
    if isinstance(fact.value, str):
        return fact._replace(value=names.of(issuer, fact.value))
    return fact._replace(value=tuple([names.of(issuer, value) for value in fact.value]))


def ended(issuer: str, session: str, result: str, event_id: str) -> str:
    """The part of a decision event that names the session of which its issuer tells that it has ended."""
    told = f'"session":{_text(session)},"result":"{result}","event_id":{_text(event_id)}'
    return f',"ended":{{"issuer":{_text(issuer)},{told}}}'


def issued(token_id: str, upstream: str, roles: Iterable[str], expires_in: int, actor: str | None) -> str:
    """The part of a decision event that says which gate token was issued: never the token."""
    acting = f',"actor":{_text(actor)}' if actor is not None else ""
    return (
        f',"issued":{{"token_id":{_text(token_id)},"upstream":{_text(upstream)},"roles":{_texts(roles)}'
        f',"expires_in":{expires_in}{acting}}}'
    )


def _exchanged(exchanged: Exchanged) -> str:
    return (
        f',"exchanged":{{"upstream":{_text(exchanged.upstream)},"parents":{_texts(exchanged.parents)}'
        f',"delegated":{"true" if exchanged.alone else "false"}}}'
    )


def _outline(caller: Caller, names: Names) -> str:
    """As `describe`, but short whatever it says: there may be many of these for one request."""
    identity = caller.identity
    subject = names.of(identity.issuer, identity.subject)
    facts = [
        _fact(name, fact._replace(value=fact.value[:64]))
        for name in ("dag", "task", "run")
        if (fact := caller.workload.get(name)) is not None
    ]
    return (
        f',"issuer":{_text(identity.issuer)},"subject":{_text(subject, 256)},"kind":{_text(identity.kind)}'
        f',"roles":{_texts(sorted(caller.effective)[:16])},"workload":{{{",".join(facts)}}}'
    )


def _head(event: str, now: float, request_id: str, trace_id: str) -> str:
    return (
        f'{{"event":"{event}","schema":{SCHEMA},"time":"{timestamp(now)}","request_id":"{request_id}"'
        f',"trace_id":"{trace_id}"'
    )


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


def worker(location: str | None, version: str | None) -> str:
    """The part of a decision event that says where it was made, and by which version of the Worker."""
    return f',"worker":{{"location":{_text(location, 8)},"version":{_text(version, 64)}}}'


def where(error: Exception) -> str:
    """An unforeseen error for the audit log: its kind and place, never its text, which may quote a secret."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else ""
    return type(error).__name__ + place


class Record:
    """What is known of one request so far; `gateway.handle` fills it in as stages pass."""

    # Of most requests nearly all of these stay as they are, so they are the class's.
    known: Container[str] = ()  # names of upstreams
    target: Target | None = None
    described = ""  # describe(caller), once there is one
    decision: Decision | None = None
    bundle: str | None = None
    sequence: int | None = None
    log_path = False
    log_query: frozenset[str] = frozenset()  # names of parameters whose values may be on record
    counted = ""  # the upstream's name as the counters have it
    country: str | None = None  # of the client, where policy asks for it
    justification = ""  # why, in the caller's words, where policy asks for it
    page = ""  # one of the gate's own, answered by the gate itself
    credential: str | None = None  # which one of the upstream's the gate shows it
    cors: Mapping[str, str] = {}  # what a page of another origin may see of the answer
    issued = ""  # issued(), of a request that got a token of the gate's
    keyed = False  # whether the upstream gets an Idempotency-Key
    tries = 1  # of the call to the upstream
    grants: tuple[str, ...] = ()  # ids of those without which policy would have decided otherwise
    note = ""  # why a caller of a public page was not told more
    logged = False  # whether the decision event is on record already, with what it is about (secevent.py)

    def __init__(
        self, inbound: Inbound, worker: str = NOWHERE, names: Names = PLAIN, trace: Trace | None = None
    ) -> None:
        self.inbound = inbound
        self.trace = trace or traceparent.read(inbound.headers, inbound.request_id)
        self.worker = worker
        self.names = names
        self.evaluations: list[str] = []  # lines about the questions that this request asks
        self.url = inbound.url  # at the gate; of a check, `inbound` is the request that it is about

    def headers(self) -> dict[str, str]:
        """What every answer tells its caller."""
        headers = {"airgate-request-id": self.inbound.request_id, **self.cors}
        if (decision := self.decision) is not None:
            headers["airgate-decision"] = "permit" if decision.permit else "deny"
            if decision.policies:
                headers["airgate-policy"] = f"{decision.policies[0]}@{self.bundle}"
        return headers

    def decided(self, denied: Denied | None, now: float) -> str:
        """The decision event."""
        inbound, target, decision = self.inbound, self.target, self.decision
        headers, received_at = inbound.headers, inbound.received_at
        line = _head("decision", received_at, inbound.request_id, self.trace.trace_id)
        if denied is None:
            line += f',"decision":"permit","reason":null,"detail":{_text(self.note) if self.note else "null"}'
        else:
            line += f',"decision":"deny","reason":"{denied.reason}","detail":{_text(denied.detail or None)}'
        line += f',"method":{_quote(inbound.method[:16])},"upstream":{_text(self._upstream(), 64)}'
        if decision is not None:
            line += _ruling(decision)
            if decision.alone:
                line += f',"alone":"{decision.alone}"'
        bundle, sequence = self.bundle, self.sequence
        line += (
            f',"bundle":{"null" if bundle is None else _quote(bundle)}'
            f',"sequence":{"null" if sequence is None else sequence}'
            f',"client":{_text(headers.get("cf-connecting-ip"), 64)}{self.described}'
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
            line += f',"page":{_text(self.page)}{self.issued}'
        if target is not None:
            if self.log_path:
                line += f',"path":{_text(target.path, 1024)}'
            if target.query:
                line += f',"query":{query.told(target.query, self.log_query)}'
        if "content-length" in headers and (size := _size(headers["content-length"])) is not None:
            line += f',"request_bytes":{size}'
        return f'{line},"gate_ms":{_milliseconds(now - received_at)}{self.worker}}}'

    def _upstream(self) -> str | None:
        """Where the request wants to go, as far as that is a name: anything may stand first in a path."""
        if self.target is None:
            return None
        name = self.target.upstream
        return name if name in self.known or _NAMED.fullmatch(name) else "?"

    def evaluated(
        self, number: int, target: Target, caller: Caller, decision: Decision, grants: tuple[str, ...] = ()
    ) -> str:
        """The evaluation event: one question of those that this request asks, and what policy says of it."""
        return (
            f"{_head('evaluation', self.inbound.received_at, self.inbound.request_id, self.trace.trace_id)}"
            f',"number":{number},"decision":"{"permit" if decision.permit else "deny"}"'
            f',"reason":{_text(decision.reason)},"method":{_text(target.method, 64)}'
            f',"upstream":{_text(target.upstream, 128)}'
            f'{_ruling(decision)},"bundle":{_text(self.bundle)}{_outline(caller, self.names)}'
            + (f',"grants":{_texts(grants)}}}' if grants else "}")
        )

    def ended(
        self,
        now: float,
        result: str,
        status: int | None,
        sent_at: float,
        detail: str = "",
        length: str | None = None,
    ) -> str:
        """The outcome event: how the upstream took the call. `result`: answered, or why not.

        `length`: the answer's Content-Length, if it has one.
        """
        head = _head("outcome", now, self.inbound.request_id, self.trace.trace_id)
        line = (
            f'{head},"upstream":{_text(self.target.upstream if self.target else None, 64)},"result":{_quote(result)}'
            f',"detail":{_text(detail) if detail else "null"},"status":{"null" if status is None else status}'
            f',"upstream_ms":{_milliseconds(now - sent_at)}'
        )
        if self.tries > 1:
            line += f',"tries":{self.tries}'
        if length is not None and (size := _size(length)) is not None:
            line += f',"response_bytes":{size}'
        return line + "}"


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _size(length: str | None) -> int | None:
    """What a Content-Length says (RFC 9110 §8.6); None where there is none that can be read."""
    if length is None or not (length.isascii() and length.isdigit() and len(length) <= 15):
        return None
    return int(length)


def _event(event: str, now: float, members: Mapping[str, Any]) -> str:
    """An event that is rare enough for a general encoder."""
    told = {"event": event, "schema": SCHEMA, "time": timestamp(now), **members}
    return json.dumps(told, separators=(",", ":"))


def bundle_event(
    now: float,
    result: str,
    detail: str,
    bundle: str | None,
    sequence: int | None,
    by: str = "",
    of: int | None = None,
) -> str:
    """A change of policy, or a failure to read it, as this isolate saw it. `result`: loaded or refused.

    `by`: whose signature it has. `of`: the number that it goes back to, for a rollback.
    """
    action = None if result != "loaded" else "publish" if of is None else "rollback"
    members = {
        "result": result,
        "action": action,
        "of": of,
        "detail": detail[:LONGEST] or None,
        "bundle": bundle,
        "sequence": sequence,
        "by": by[:LONGEST] or None,
    }
    return _event("bundle", now, members)


def act_event(now: float, result: str, name: str, detail: str, document: str, names: Names = PLAIN) -> str:
    """A revocation, a grant, or the end of one, as this isolate learnt it. `result`: known or refused."""
    action, text = _act(document, names, result == "known")
    members = {
        "result": result,
        "action": action,
        "id": name,
        "detail": detail[:LONGEST] or None,
        "act": text[: 2048 if result == "known" else LONGEST],
    }
    return _event("act", now, members)


def _act(document: str, names: Names, known: bool) -> tuple[str | None, str]:
    """What an act does, and its text as the log may have it. Of one that doesn't count nobody can tell who is in it."""
    try:
        act = read_object(document.encode("utf-8"), limit=4 * LONGEST, depth=3)
    except ValueError:
        return None, "" if names is not PLAIN else document
    action = act.get("act")
    if names is not PLAIN and (names.error or not known):
        document = ""
    elif names is not PLAIN:
        for members in (act, act.get("match"), act.get("to")):
            if isinstance(members, dict) and isinstance(subject := members.get("subject"), str):
                issuer = members.get("issuer")
                members["subject"] = names.of(issuer if isinstance(issuer, str) else "", subject)
        document = json.dumps(act, separators=(",", ":"), ensure_ascii=False)
    return action if action in ("revoke", "lift", "grant", "end") else None, document


def opening_event(
    now: float,
    gate: str,
    location: str | None,
    version: str | None,
    keys: Mapping[str, Any],
    names: Names,
) -> str:
    """The first event of a chain: which isolate this is. `keys`: the ids of those that it has."""
    members = {
        "gate": gate[:LONGEST],
        "worker": {
            "location": location[:8] if location is not None else None,
            "version": version[:64] if version is not None else None,
        },
        "keys": keys,
        "subjects": "plain" if names is PLAIN else "pseudonym",
    }
    return _event("opening", now, members)


def keys_event(now: float, of: str, issuer: str | None, added: list[str], removed: list[str]) -> str:
    """Another set of keys than before. `of`: audit, trusted, assertion, or issuer, and then whose."""
    members = {
        "of": of,
        "issuer": issuer,
        "added": [kid[:128] for kid in added[:16]],
        "removed": [kid[:128] for kid in removed[:16]],
    }
    return _event("keys", now, members)


def checkpoint_event(now: float, document: str, key: str, signature: str) -> str:
    """A signed statement of how far the chain has come (chain.py)."""
    return _event("checkpoint", now, {"document": document, "key": key, "signature": signature})


def register_event(now: float, number: int) -> str:
    """The chain's row in the register was there, and is gone."""
    return _event("register", now, {"result": "missing", "number": number})


def lost_event(now: float, request_id: str, trace_id: str, kind: str) -> str:
    """The outcome event of an answer that could not be handed to the caller, beside the one that says how it came."""
    return f'{_head("outcome", now, request_id, trace_id)},"result":"lost","detail":{_text(kind)}}}'


def crash_event(now: float, request_id: str, kind: str) -> str:
    """The decision event of a request that could not even be read."""
    return (
        f"{_head('decision', now, request_id, request_id)}"
        f',"decision":"deny","reason":{_text(Reason.INTERNAL)},"detail":{_text(kind)}}}'
    )


# Those that say which event it is, or are matched by others, stay whole; each is short.
_WHOLE = frozenset(
    {
        "event",
        "schema",
        "time",
        "request_id",
        "trace_id",
        "decision",
        "reason",
        "result",
        "action",
        "id",
        "bundle",
    }
    | {"document", "key", "signature"}
)
# Characters of a text, entries of a list, members of an object; however much there is, the last is short enough.
_CUTS = ((160, 24, 100), (64, 8, 32), (24, 2, 16), (8, 1, 8))


def fitted(event: str) -> str:
    """The event, within BOUND: of one that is longer, long texts and lists are shortened, and named in `cut`."""
    if len(event) <= BOUND:
        return event
    members = json.loads(event)
    cut: list[str] = []
    for longest, most, members_of in _CUTS:
        for name, value in members.items():
            if name in _WHOLE or (shorter := _shorter(value, longest, most, members_of)) == value:
                continue
            members[name] = shorter
            if name not in cut:
                cut.append(name)
        event = json.dumps({**members, "cut": cut}, separators=(",", ":"))
        if len(event) <= BOUND:
            break
    return event


def _shorter(value: Any, longest: int, most: int, members: int) -> Any:
    if isinstance(value, str):
        return value[:longest]
    if isinstance(value, list):
        return [_shorter(one, longest, most, members) for one in value[:most]]
    if isinstance(value, dict):
        some = list(value.items())[:members]
        return {name[:64]: _shorter(one, longest, most, members) for name, one in some}
    return value
