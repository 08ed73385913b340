"""Events for tests of whatever reads a log: as gates write them, and as nobody should."""

import json
from typing import Any

from hypothesis import strategies as st

import audit
from access import act_id
from chain import Chain
from model import Caller, Decision, Denied, Exchanged, Fact, Identity, Inbound, Lent, Reason, Target
from obligations import Limit, Obligations
from pseudonym import PLAIN, Names

KINDS = ("opening", "decision", "evaluation", "outcome", "bundle", "act", "keys", "checkpoint", "register")
NOW = 1_795_245_261.25  # 2026-11-21T07:14:21.250Z

HOSTILE = (
    '<script>alert("x")</script>',
    "<img src=x onerror=alert(1)>",
    "\x1b]0;owned\x07\x1b[31mred",
    "admin\u202egnp.exe",
    "a\u200bb\u2066c\ufeff",
    "\ud800 half",
    "x" * 512,
    "line\nbreak\r\n\tand tab",
    "{{ 7 * 7 }}{% raw %}",
    "' OR 1=1 --",
    "\0",
    "",
)

texts = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(), max_size=40))
names = st.one_of(st.sampled_from(["ledger", "finance-etl", "company", "close"]), texts)


def act(kind: str = "revoke", **members: Any) -> str:
    """An act's document (docs/d1-schema.md)."""
    base: dict[str, Any] = {
        "act": kind, "gate": "production", "at": int(NOW), "until": int(NOW) + 3600, "by": "security", "reason": "leak",
    }  # fmt: skip
    usual: dict[str, dict[str, Any]] = {
        "revoke": {"match": {"issuer": "company", "subject": "etl"}},
        "grant": {
            "from": int(NOW), "to": {"issuer": "company", "subject": "etl"}, "gives": {"role": "reader"},
        },
        "lift": {"of": "a" * 32},
        "end": {"of": "b" * 32},
    }  # fmt: skip
    return json.dumps(base | usual[kind] | members)


def _act_event(document: str, detail: str = "") -> str:
    return audit.act_event(NOW, "known", act_id(document), detail, document)


def every_shape() -> dict[str, str]:
    """Events by a name for each shape that the gate writes; not in a chain yet."""
    target = Target("POST", "ledger", ("v1", "entries"), "/v1/entries", "?page=2&token=x&limit=9")
    identity = Identity(
        "company", "etl", "workload", frozenset({"reader", "writer"}), {}, frozenset({"auditor"}),
        jkt="thumb", actor="scheduler", token_id="jti-1",
    )  # fmt: skip
    workload = {"dag": Fact("close", True), "task": Fact("post", False), "tags": Fact(("a", "b"), False)}
    lent = Lent(frozenset({"reader"}), frozenset(), ("g" * 32,), identity)
    caller = Caller(identity, ("reader",), frozenset({"reader"}), workload, lent)
    asked = Obligations((Limit(60, 60, ("subject",), ""),), "main", 1000, ("x-incident",), True)
    permit = Decision(
        True, None, ("publish", "wide"), (), "/v1/entries", "o", ("shadowed",), False, asked, "abc"
    )
    deny = Decision(False, Reason.POLICY_FORBIDDEN, ("publish",), ("closed",), "/v1/**", "o", (), False)

    def record(names: Names = PLAIN, place: str = audit.NOWHERE) -> audit.Record:
        headers = {"cf-connecting-ip": "2001:db8::7", "content-length": "120"}
        found = audit.Record(Inbound("ab" * 16, NOW, "POST", "u", headers, True), place, names)
        found.target, found.bundle, found.sequence = target, "abc", 8
        found.described = audit.describe(caller, names)
        return found

    full = record(place=audit.worker("FRA", "3f2a, reads 3 to 4"))
    full.decision, full.log_path, full.log_query = permit, True, frozenset({"page"})
    full.country, full.justification, full.credential, full.grants = "DE", "month end", "main", ("g" * 32,)
    full.tries = 3
    denied = record(Names(b"k" * 32))
    denied.decision = deny
    early = audit.Record(Inbound("cd" * 16, NOW, "BREW", "u", {}, False))
    page = audit.Record(Inbound("ef" * 16, NOW, "GET", "u", {}, False))
    page.target, page.page, page.note = Target("GET", "-", ("health",), "/health", ""), "health", "no token"
    told = audit.Record(Inbound("0a" * 16, NOW, "POST", "u", {}, True))
    told.target, told.page = Target("POST", "-", ("events",), "/events", ""), "events"
    told.described = audit.ended("company", "0197f3c2", "superseded", "e-1")
    agent = identity._replace(
        kind="agent",
        exchanged=Exchanged("ledger", identity.granted, {}, ("jti-0", "jti-2"), (("actor", caller),)),
    )
    acting = record(Names(b"k" * 32))
    acting.described = audit.describe(
        Caller(agent, ("reader",), frozenset({"reader"}), workload), Names(b"k" * 32)
    )
    acting.decision = deny._replace(alone="actor")
    exchange = record()
    exchange.page = "token"
    exchange.issued = audit.issued("ab" * 16, "ledger", ["reader"], 300, "scheduler")
    plain = Decision(True, None, ("wide",), (), "/v1/entries", "o", (), False, bundle="abc")
    bare = record()
    bare.decision = plain
    keys = {"audit": "k1", "trusted": ["k2", "k3"], "assertion": []}
    long = record()
    long.decision = plain._replace(permits=tuple(f"{number}-{'p' * 500}" for number in range(100)))
    shapes = {
        "an opening": audit.opening_event(NOW, "production", "FRA", "v", keys, PLAIN),
        "an opening without keys": audit.opening_event(
            NOW, "airgate", None, None, {"audit": None, "trusted": [], "assertion": []}, Names(b"k" * 32)
        ),
        "a permit with everything": full.decided(None, NOW + 0.002),
        "a plain permit": bare.decided(None, NOW),
        "a denial by policy of a pseudonym": denied.decided(Denied(Reason.POLICY_FORBIDDEN), NOW),
        "a denial before policy": early.decided(Denied(Reason.REQUEST_METHOD, "BREW"), NOW),
        "a page": page.decided(None, NOW),
        "a session that has ended": told.decided(None, NOW),
        "an agent that may not do it alone": acting.decided(Denied(Reason.POLICY_FORBIDDEN, "to the actor alone"), NOW),
        "an exchange": exchange.decided(None, NOW),
        "a request that can't be read": audit.crash_event(NOW, "ab" * 16, "ValueError at read:7"),
        "a decision that had to be cut": long.decided(None, NOW),
        "a question": full.evaluated(0, target, caller, permit, ("g" * 32,)),
        "a question that was denied": full.evaluated(1, target, caller, deny),
        "an answer": full.ended(NOW + 0.1, "answered", 201, NOW, "", "99"),
        "an answer that is an error": bare.ended(NOW + 0.1, "answered", 503, NOW),
        "no answer": bare.ended(NOW + 9, "timeout", None, NOW, "no headers within 9 s"),
        "a lost answer": audit.lost_event(NOW, "ab" * 16, "cd" * 16, "AbortError"),
        "a publish": audit.bundle_event(NOW, "loaded", "", "abc", 8, "release pipeline"),
        "a rollback": audit.bundle_event(NOW, "loaded", "", "abc", 9, "release pipeline", 7),
        "policy that was refused": audit.bundle_event(NOW, "refused", "not signed", None, None),
        "an act that can't be read": audit.act_event(NOW, "refused", "f" * 32, "not JSON", "{half"),
        "an act of many characters": audit.act_event(NOW, "known", "f" * 32, "", act(reason="\u00e9" * 500)),
        "new keys": audit.keys_event(NOW, "trusted", None, ["k4"], ["k2"]),
        "an issuer's new keys": audit.keys_event(NOW, "issuer", "company", ["k5"], []),
        "keys that had to be cut": audit.keys_event(NOW, "issuer", "company", ["\u00e9" * 128] * 16, []),
        "an opening that had to be cut": audit.opening_event(
            NOW, "airgate", None, None, {**keys, "trusted": ["\u00e9" * 128] * 16}, PLAIN
        ),
        "a question that had to be cut": full.evaluated(2, target, caller, long.decision),
        "a checkpoint": audit.checkpoint_event(NOW, Chain("c" * 32).checkpoint("g", "t", 4), "k1", "s" * 86),
        "a missing row": audit.register_event(NOW, 7),
    }  # fmt: skip
    for kind in ("revoke", "grant", "lift", "end"):
        shapes[f"an act: {kind}"] = _act_event(act(kind), "signed by release")
    shapes["a revocation of a DAG"] = _act_event(act(match={"dag": "close"}))
    shapes["a grant to a role"] = _act_event(act("grant", to={"role": "reader"}))
    return shapes


def lines() -> dict[str, str]:
    """The same, as lines of chains; each opening begins one."""
    found = {}
    for number, (name, event) in enumerate(every_shape().items()):
        if event.startswith('{"event":"opening"'):
            chain = Chain(f"{number:032x}")
        found[name] = chain.link(audit.fitted(event))
    return found


_MEMBERS = sorted(
    {name for line in every_shape().values() for name in json.loads(line)} - {"event", "time"}
    | {"chain", "position", "previous", "hash", "request_id"}
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
_times = st.one_of(
    st.just("2026-11-21T07:14:21.250Z"),
    st.just("9999-12-31T23:59:59.999Z"),
    st.just("0001-01-01T00:00:00.000Z"),
    st.datetimes().map(lambda one: one.strftime("%Y-%m-%dT%H:%M:%S.") + f"{one.microsecond // 1000:03}Z"),
    texts,
)


@st.composite
def twisted(draw: st.DrawFn) -> dict[str, Any]:
    """A gate's event of some shape, of which a few members are something else, or gone."""
    event: dict[str, Any] = json.loads(draw(st.sampled_from(sorted(lines().values()))))
    for name in draw(st.lists(st.sampled_from(_MEMBERS), max_size=4)):
        event[name] = draw(_json | names)
    for name in draw(st.lists(st.sampled_from(sorted(event)), max_size=2)):
        if name not in ("event", "time"):
            event.pop(name, None)
    if draw(st.booleans()):
        event["time"] = draw(_times)
    if draw(st.integers(0, 9)) == 0:
        event["event"] = draw(st.sampled_from(KINDS) | texts)
    return event
