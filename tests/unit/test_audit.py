"""Audit events: valid JSON with exactly the members that are documented, one short line whatever they are given."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import NOW

import audit
from audit import (
    BOUND,
    LONGEST,
    MOST,
    Record,
    act_event,
    bundle_event,
    checkpoint_event,
    crash_event,
    describe,
    fitted,
    keys_event,
    lost_event,
    opening_event,
    register_event,
    timestamp,
    worker,
)
from chain import Chain
from model import Caller, Decision, Denied, Fact, Identity, Inbound, Lent, Reason, Target
from obligations import Limit, Obligations
from pseudonym import PLAIN, Names, pseudonym

BASE = {
    "event",
    "schema",
    "time",
    "request_id",
    "trace_id",
    "decision",
    "reason",
    "detail",
    "method",
    "upstream",
    "bundle",
    "sequence",
    "client",
    "gate_ms",
    "worker",
}
TARGET = {"query"}
DECIDED = {"route", "permits", "forbids", "shadow", "would"}
CALLER = {"issuer", "subject", "kind", "roles", "workload"}
OUTCOME = {
    "event",
    "schema",
    "time",
    "request_id",
    "trace_id",
    "upstream",
    "result",
    "detail",
    "status",
    "upstream_ms",
}
NOWHERE = {"location": None, "version": None}
IN_ORDER = [
    *(
        "event",
        "schema",
        "time",
        "request_id",
        "trace_id",
        "decision",
        "reason",
        "detail",
        "method",
        "upstream",
    ),
    *("route", "permits", "forbids", "shadow", "would", "bundle", "sequence", "client"),
    *("issuer", "subject", "kind", "roles", "workload", "query", "gate_ms", "worker"),
]


def inbound(method: str = "GET", client: str | None = "192.0.2.1") -> Inbound:
    headers = {"authorization": "Bearer secret"} | ({} if client is None else {"cf-connecting-ip": client})
    return Inbound("f" * 32, NOW, method, "https://gate/ledger/v1/a?q=secret", headers, False)


def caller(**changes: Any) -> Caller:
    values: dict[str, Any] = {
        "issuer": "company",
        "subject": "etl",
        "kind": "workload",
        "granted": frozenset({"reader", "publisher"}),
        "tagged": ("reader",),
        "workload": {"dag": Fact("close", True), "tags": Fact(("a", "b"), False)},
        **changes,
    }
    identity = Identity(values["issuer"], values["subject"], values["kind"], values["granted"], {})
    return Caller(identity, values["tagged"], frozenset({"reader"}), values["workload"])


def record(**changes: Any) -> Record:
    made = Record(inbound())
    made.target = Target("GET", "ledger", ("v1", "a"), "/v1/a", "?q=secret")
    made.described = describe(caller())
    made.decision = Decision(
        True, None, ("publish", "read"), (), "/v1/**", "o@example.com", ("try-out",), would=True
    )
    made.bundle, made.sequence = "0123456789ab", 7
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def one_line(line: str) -> dict[str, Any]:
    assert line.isascii()
    assert line.isprintable()
    read = json.loads(line, object_pairs_hook=lambda pairs: unique(pairs))
    assert isinstance(read, dict)
    return read


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_a_permit_in_full() -> None:
    line = record().decided(None, NOW + 0.012)
    assert list(one_line(line)) == IN_ORDER
    assert one_line(line) == {
        "event": "decision",
        "schema": 2,
        "time": "2027-01-15T08:00:00.000Z",
        "request_id": "f" * 32,
        "trace_id": "f" * 32,
        "decision": "permit",
        "reason": None,
        "detail": None,
        "method": "GET",
        "upstream": "ledger",
        "route": "/v1/**",
        "permits": ["publish", "read"],
        "forbids": [],
        "shadow": ["try-out"],
        "would": "permit",
        "bundle": "0123456789ab",
        "sequence": 7,
        "client": "192.0.2.1",
        "issuer": "company",
        "subject": "etl",
        "kind": "workload",
        "roles": {"granted": ["publisher", "reader"], "tagged": ["reader"], "effective": ["reader"]},
        "workload": {
            "dag": {"value": "close", "attested": True},
            "tags": {"value": ["a", "b"], "attested": False},
        },
        "query": {"q": None},
        "gate_ms": 12,
        "worker": NOWHERE,
    }


def test_a_denial_has_its_reason_and_detail() -> None:
    line = one_line(record().decided(Denied(Reason.POLICY_FORBIDDEN, "so it is"), NOW))
    assert (line["decision"], line["reason"], line["detail"]) == ("deny", "policy.forbidden", "so it is")


@pytest.mark.parametrize(
    ("changes", "denied", "members"),
    [
        pytest.param({}, None, BASE | TARGET | DECIDED | CALLER, id="a permit"),
        pytest.param(
            {"log_path": True}, None, BASE | TARGET | DECIDED | CALLER | {"path"}, id="a permit with its path"
        ),
        pytest.param(
            {"grants": ("a" * 32,)},
            None,
            BASE | TARGET | DECIDED | CALLER | {"grants"},
            id="a permit by a grant",
        ),
        pytest.param(
            {"decision": None},
            Denied(Reason.ROLE_MALFORMED),
            BASE | TARGET | CALLER,
            id="a caller, but no decision",
        ),
        pytest.param(
            {"decision": None, "described": ""},
            Denied(Reason.TOKEN_MISSING),
            BASE | TARGET,
            id="a target, but no caller",
        ),
        pytest.param(
            {
                "decision": None,
                "described": "",
                "target": None,
                "bundle": None,
                "sequence": None,
                "log_path": True,
            },
            Denied(Reason.ROUTE_MALFORMED),
            BASE,
            id="nothing at all",
        ),
    ],
)
def test_members_of_a_decision(changes: dict[str, Any], denied: Denied | None, members: set[str]) -> None:
    assert set(one_line(record(**changes).decided(denied, NOW))) == members


def test_a_path_is_there_only_where_its_upstream_opted_in_and_a_query_never() -> None:
    assert "/v1/a" not in record().decided(None, NOW)
    assert one_line(record(log_path=True).decided(None, NOW))["path"] == "/v1/a"
    assert "secret" not in record(log_path=True).decided(None, NOW)


def test_values_that_are_not_there_are_null() -> None:
    nothing = record(target=None, bundle=None, sequence=None)
    nothing.inbound = inbound(client=None)
    line = one_line(nothing.decided(None, NOW))
    assert [line[name] for name in ("upstream", "bundle", "sequence", "client")] == [None] * 4


def test_a_note_is_the_detail_of_a_permit_only() -> None:
    noted = record(note="token.expired: 5 s ago")
    assert one_line(noted.decided(None, NOW))["detail"] == "token.expired: 5 s ago"
    assert one_line(noted.decided(Denied(Reason.INTERNAL, "here"), NOW))["detail"] == "here"
    assert one_line(noted.decided(Denied(Reason.INTERNAL), NOW))["detail"] is None


def test_no_tag_is_null_and_not_an_empty_list() -> None:
    line = one_line(record(described=describe(caller(tagged=None, workload={}))).decided(None, NOW))
    assert (line["roles"]["tagged"], line["workload"]) == (None, {})


@pytest.mark.parametrize(
    ("result", "status", "detail", "took", "milliseconds"),
    [
        pytest.param("answered", 200, "", 0.1234, 123, id="answered"),
        pytest.param("timeout", None, "", 30.0, 30_000, id="no answer in time"),
        pytest.param("internal", None, "ValueError at send:7", 0.0, 0, id="a mistake of ours"),
        pytest.param("answered", 500, "", -1.0, 0, id="a clock that went back"),
    ],
)
def test_an_outcome(result: str, status: int | None, detail: str, took: float, milliseconds: int) -> None:
    line = one_line(record().ended(NOW + took, result, status, NOW, detail))
    assert set(line) == OUTCOME
    assert (line["event"], line["request_id"], line["upstream"]) == ("outcome", "f" * 32, "ledger")
    assert (line["result"], line["status"], line["detail"]) == (result, status, detail or None)
    assert (line["time"], line["upstream_ms"]) == (timestamp(NOW + took), milliseconds)


def test_a_bundle_event() -> None:
    line = one_line(bundle_event(NOW, "refused", "d" * 1000, None, None))
    assert line == {
        "event": "bundle",
        "schema": 2,
        "time": timestamp(NOW),
        "result": "refused",
        "action": None,
        "of": None,
        "detail": "d" * LONGEST,
        "bundle": None,
        "sequence": None,
        "by": None,
    }
    loaded = one_line(bundle_event(NOW, "loaded", "", "0123456789ab", 7, "release pipeline"))
    assert (loaded["detail"], loaded["bundle"], loaded["sequence"], loaded["by"]) == (
        None,
        "0123456789ab",
        7,
        "release pipeline",
    )
    assert one_line(bundle_event(NOW, "loaded", "", None, None, "b" * 1000))["by"] == "b" * LONGEST


def test_an_act_event() -> None:
    document = '{"act":"revoke"}'
    assert one_line(act_event(NOW, "known", "0" * 32, "", document)) == {
        "event": "act",
        "schema": 2,
        "time": timestamp(NOW),
        "result": "known",
        "action": "revoke",
        "id": "0" * 32,
        "detail": None,
        "act": document,
    }
    for result, longest in (("known", 2048), ("refused", LONGEST)):  # what counts is told whole
        line = one_line(act_event(NOW, result, "0" * 32, "d" * 1000, "x" * 5000))
        assert (line["result"], line["detail"], line["act"]) == (result, "d" * LONGEST, "x" * longest)


def test_a_crash_event() -> None:
    assert one_line(crash_event(NOW, "e" * 32, 'odd"kind')) == {
        "event": "decision",
        "schema": 2,
        "time": timestamp(NOW),
        "request_id": "e" * 32,
        "trace_id": "e" * 32,
        "decision": "deny",
        "reason": "internal",
        "detail": 'odd"kind',
    }


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ledger", "ledger"),
        ("ledgr", "ledgr"),
        ("a" * 24, "a" * 24),
        ("a" * 25, "?"),
        ("ghp_secret", "?"),
        ("Secret", "?"),
        ("", "?"),
        ("a-known-name-of-more-than-24", "a-known-name-of-more-than-24"),
    ],
)
def test_what_stands_first_in_a_path_is_told_when_it_is_a_name(name: str, told: str) -> None:
    made = record()
    assert made.target is not None
    made.target = made.target._replace(upstream=name)
    made.known = {"ledger", "a-known-name-of-more-than-24"}
    assert one_line(made.decided(None, NOW))["upstream"] == told


def test_a_lost_event() -> None:
    assert one_line(lost_event(NOW, "e" * 32, "d" * 32, 'odd"kind')) == {
        "event": "outcome",
        "schema": 2,
        "time": timestamp(NOW),
        "request_id": "e" * 32,
        "trace_id": "d" * 32,
        "result": "lost",
        "detail": 'odd"kind',
    }


HOSTILE = [
    pytest.param('"},"decision":"permit","x":{"y":"', id="quotes and braces"),
    pytest.param("a\nb\r\nc\u2028d\u2029e\x85f", id="line breaks of every kind"),
    pytest.param("\\", id="a backslash"),
    pytest.param("\x00\x01\x1b[31m\x7f", id="control characters"),
    pytest.param("\U0001f600", id="an emoji"),
    pytest.param("\ud800", id="a lone surrogate"),
    pytest.param("\u202etxt.exe", id="text turned around"),
    pytest.param("x" * 10_000, id="10 kB"),
    pytest.param("\U0001f600" * 10_000, id="10,000 emojis"),
    pytest.param('"' * 10_000, id="10,000 quotes"),
    pytest.param("\x00" * 10_000, id="10,000 NULs"),
]


def put(place: str, text: str) -> str:
    """A line with a hostile text in one place."""
    made, denied = record(log_path=True), None
    assert made.target is not None
    assert made.decision is not None
    match place:
        case "method" | "client":
            made.inbound = inbound(**{place: text})
        case "path" | "upstream":
            made.target = made.target._replace(**{place: text})
            made.known = {made.target.upstream}
        case "route":
            made.decision = made.decision._replace(route=text)
        case "permits" | "forbids" | "shadow":
            made.decision = made.decision._replace(**{place: (text,)})
        case "detail":
            denied = Denied(Reason.INTERNAL, text)
        case "note":
            made.note = text
        case "granted":
            made.described = describe(caller(granted=frozenset({text})))
        case "tagged":
            made.described = describe(caller(tagged=(text,)))
        case "dag":
            made.described = describe(caller(workload={"dag": Fact(text, False)}))
        case "tags":
            made.described = describe(caller(workload={"tags": Fact((text,), False)}))
        case "outcome":
            return made.ended(NOW, "internal", None, NOW, text)
        case "bundle":
            return bundle_event(NOW, "refused", text, None, None)
        case "publisher":
            return bundle_event(NOW, "loaded", "", None, None, text)
        case "act":
            return act_event(NOW, "refused", "0" * 32, text, "")
        case "document":
            return act_event(NOW, "refused", "0" * 32, "", text)
        case "grants":
            made.grants = (text,)
        case "token_id":
            identity = Identity("company", "etl", "workload", frozenset(), {}, token_id=text or "none")
            made.described = describe(Caller(identity, None, frozenset(), {}))
        case _:
            made.described = describe(caller(**{place: text}))
    return made.decided(denied, NOW)


PLACES = [
    "method",
    "client",
    "path",
    "upstream",
    "route",
    "permits",
    "forbids",
    "shadow",
    "detail",
    "note",
    "granted",
    "tagged",
    "dag",
    "tags",
    "issuer",
    "subject",
    "kind",
    "outcome",
    "bundle",
    "publisher",
    "act",
    "document",
    "grants",
    "token_id",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("place", PLACES)
def test_a_hostile_value_stays_inside_its_member(place: str, text: str) -> None:
    line = put(place, text)
    harmless = one_line(put(place, "harmless"))
    read = one_line(line)
    assert read.keys() == harmless.keys()
    assert len(line) <= 8192 or (place == "path" and not text.isascii())  # a path is ASCII by then
    member = {"granted": "roles", "tagged": "roles", "dag": "workload", "tags": "workload"}.get(place, place)
    member = {"publisher": "by", "document": "act"}.get(place, member)
    member = "detail" if place in ("note", "outcome", "bundle", "act") else member
    assert {name for name in read if read[name] != harmless[name]} == {member}
    longest = {"method": 16, "client": 64, "upstream": 64, "path": 1024}.get(place, LONGEST)
    assert json.dumps(text[:longest]) in line
    assert json.dumps(text[: longest + 1])[1:-1] not in line or len(text) <= longest


def test_lists_are_cut_off() -> None:
    many = tuple(f"t{number}" for number in range(10 * MOST))
    made = record(described=describe(caller(tagged=many, workload={"tags": Fact(many, True)})))
    line = one_line(made.decided(None, NOW))
    assert line["roles"]["tagged"] == line["workload"]["tags"]["value"] == list(many[:MOST])


@given(st.sampled_from(PLACES), st.text(st.characters(), max_size=50))
def test_any_value_stays_inside_its_member(place: str, text: str) -> None:
    assert one_line(put(place, text)).keys() == one_line(put(place, "harmless")).keys()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        pytest.param(0, "1970-01-01T00:00:00.000Z", id="the epoch"),
        pytest.param(NOW, "2027-01-15T08:00:00.000Z", id="a whole second"),
        pytest.param(NOW + 0.5, "2027-01-15T08:00:00.500Z", id="half a second more"),
        pytest.param(NOW + 0.9999, "2027-01-15T08:00:00.999Z", id="almost the next second"),
        pytest.param(NOW + 1, "2027-01-15T08:00:01.000Z", id="the next second"),
        pytest.param(NOW, "2027-01-15T08:00:00.000Z", id="a second before again"),
        pytest.param(951_827_696.007, "2000-02-29T12:34:56.007Z", id="a leap day"),
    ],
)
def test_a_timestamp(seconds: float, text: str) -> None:
    assert timestamp(seconds) == text
    assert timestamp(seconds) == text  # the second that was written out last is remembered


def test_the_schema_is_said_in_every_line() -> None:
    lines = [record().decided(None, NOW), record().ended(NOW, "answered", 200, NOW), crash_event(NOW, "", "")]
    assert [one_line(line)["schema"] for line in [*lines, bundle_event(NOW, "", "", None, None)]] == [
        audit.SCHEMA
    ] * 4


def test_what_policy_asked_for_is_in_the_line() -> None:
    made = record()
    asked = Obligations(limits=(Limit(60, 60, ("subject",), ""),), justification=True)
    made.decision = Decision(True, None, ("publish",), obligations=asked)
    made.country, made.justification = "DE", "the month is closing"
    line = one_line(made.decided(None, NOW))
    assert line["obligations"] == asked.documents()
    assert (line["country"], line["justification"]) == ("DE", "the month is closing")
    assert "would" not in line  # nothing is in shadow


def test_long_obligations_are_named_only() -> None:
    made = record()
    asked = Obligations(max_body=1, others=(("watermark", '"' + "x" * 2000 + '"'),))
    made.decision = Decision(True, None, ("publish",), obligations=asked)
    assert one_line(made.decided(None, NOW))["obligations"] == ["max_body", "watermark"]


def test_roles_that_nobody_knows_of_are_named() -> None:
    identity = Identity("company", "etl", "workload", frozenset(), {}, frozenset({"b", "a"}))
    line = one_line("{" + describe(Caller(identity, None, frozenset(), {}))[1:] + "}")
    assert line["roles"] == {"granted": [], "tagged": None, "effective": [], "unknown": ["a", "b"]}


def test_the_key_that_a_token_is_bound_to_is_named() -> None:
    identity = Identity("company", "etl", "workload", frozenset(), {}, jkt="a" * 43)
    line = one_line("{" + describe(Caller(identity, None, frozenset(), {}))[1:] + "}")
    assert line["jkt"] == "a" * 43
    assert "jkt" not in one_line("{" + describe(caller())[1:] + "}")


def test_roles_that_are_lent_are_told_apart() -> None:
    own = Identity("company", "etl", "workload", frozenset({"reader"}), {})
    mixed = own._replace(granted=frozenset({"reader", "closer"}))
    lent = Lent(frozenset({"closer"}), frozenset(), ("a" * 32,), own)
    line = one_line("{" + describe(Caller(mixed, None, mixed.granted, {}, lent))[1:] + "}")
    assert (line["roles"]["granted"], line["roles"]["lent"]) == (["closer", "reader"], ["closer"])
    assert "lent" not in one_line("{" + describe(caller())[1:] + "}")["roles"]


def test_the_token_is_named_by_its_id_and_the_grants_by_theirs() -> None:
    identity = Identity("company", "etl", "workload", frozenset(), {}, token_id="t-1")
    made = record(grants=("a" * 32, "b" * 32), described=describe(Caller(identity, None, frozenset(), {})))
    line = one_line(made.decided(None, NOW))
    assert (line["token_id"], line["grants"]) == ("t-1", ["a" * 32, "b" * 32])
    plain = one_line(record().decided(None, NOW))
    assert not {"token_id", "grants"} & plain.keys()


def test_an_evaluation_names_who_was_asked_about_and_what_policy_says() -> None:
    made = record()
    identity = Identity("company", "someone-else", "human", frozenset({"reader"}), {})
    target = Target("can_read", "resource:todo", ("7",), "", "")
    decision = Decision(False, Reason.POLICY_FORBIDDEN, ("p",), ("f",), "/*", "o", ("s",), False)
    line = one_line(made.evaluated(3, target, Caller(identity, None, frozenset({"reader"}), {}), decision))
    assert line == {
        "event": "evaluation",
        "schema": 2,
        "time": "2027-01-15T08:00:00.000Z",
        "request_id": "f" * 32,
        "trace_id": "f" * 32,
        "number": 3,
        "decision": "deny",
        "reason": "policy.forbidden",
        "method": "can_read",
        "upstream": "resource:todo",
        "route": "/*",
        "permits": ["p"],
        "forbids": ["f"],
        "shadow": ["s"],
        "would": "deny",
        "bundle": "0123456789ab",
        "issuer": "company",
        "subject": "someone-else",
        "kind": "human",
        "roles": ["reader"],
        "workload": {},
    }


def test_an_evaluation_is_short_whatever_it_is_about() -> None:
    facts = {name: Fact("\u00e4" * 256, False) for name in ("dag", "task", "run", "environment")}
    facts["tags"] = Fact(("\u00e4" * 256,) * 64, False)
    roles = frozenset(f"role-{number:058}" for number in range(100))
    caller = Caller(Identity("company", "\u00e4" * 1024, "human", roles, {}), None, roles, facts)
    target = Target("\u00e4" * 1024, "resource:" + "\u00e4" * 1024, ("7",), "", "")
    line = record().evaluated(0, target, caller, Decision(True, None, ("p",)))
    assert len(one_line(line)["roles"]) == 16
    assert len(line) < 6000


def test_members_come_in_the_order_that_is_documented() -> None:
    made = record(grants=("a" * 32,), country="DE", justification="why", credential="ci", page="health")
    made.log_path, made.inbound = True, inbound()._replace(headers={"content-length": "12"})
    made.decision = made.decision and made.decision._replace(obligations=Obligations(justification=True))
    more = ["grants", "country", "justification", "credential", "page", "path", "query", "request_bytes"]
    more += ["gate_ms", "worker"]
    before = [
        *IN_ORDER[: IN_ORDER.index("would") + 1],
        "obligations",
        *IN_ORDER[IN_ORDER.index("bundle") : -3],
    ]
    assert list(one_line(made.decided(None, NOW))) == before + more
    made.tries = 2
    told = one_line(made.ended(NOW, "answered", 200, NOW, length="7"))
    assert list(told)[-3:] == ["upstream_ms", "tries", "response_bytes"]


@pytest.mark.parametrize(
    ("length", "told"),
    [
        pytest.param("0", 0, id="nothing"),
        pytest.param("1234567", 1_234_567, id="a number"),
        pytest.param("007", 7, id="zeros in front"),
        pytest.param("9" * 15, int("9" * 15), id="a petabyte"),
        pytest.param("9" * 16, None, id="more than anybody sends"),
        pytest.param("-1", None, id="less than nothing"),
        pytest.param("1, 1", None, id="sent twice"),
        pytest.param("1_0", None, id="an underscore"),
        pytest.param(" 1", None, id="a space"),
        pytest.param("\u0663", None, id="a digit of another script"),
        pytest.param("", None, id="an empty text"),
        pytest.param(None, None, id="none"),
    ],
)
def test_bytes_are_what_a_content_length_says(length: str | None, told: int | None) -> None:
    made = record()
    if length is not None:
        made.inbound = inbound()._replace(headers={"content-length": length})
    assert one_line(made.decided(None, NOW)).get("request_bytes") == told
    assert one_line(made.ended(NOW, "answered", 200, NOW, length=length)).get("response_bytes") == told


def test_a_trace_is_named_in_all_events_of_its_request() -> None:
    made = record()
    made.trace = made.trace._replace(trace_id="e" * 32)
    target = Target("GET", "ledger", (), "/", "")
    lines = [
        made.decided(None, NOW),
        made.ended(NOW, "answered", 200, NOW),
        made.evaluated(0, target, caller(), Decision(True, None)),
    ]
    assert [(line["request_id"], line["trace_id"]) for line in map(one_line, lines)] == [
        ("f" * 32, "e" * 32)
    ] * 3


def test_values_of_a_query_are_there_only_under_the_names_that_policy_lists() -> None:
    made = record(log_query=frozenset({"limit"}))
    made.target = Target("GET", "ledger", (), "/", "?limit=7&q=secret&secret")
    assert one_line(made.decided(None, NOW))["query"] == {"limit": ["7"], "q": None, "?": None}
    made.target = Target("GET", "ledger", (), "/", "")
    assert "query" not in one_line(made.decided(None, NOW))
    made.target = Target("GET", "ledger", (), "/", "?")
    assert one_line(made.decided(None, NOW))["query"] == {}


def test_a_clock_that_went_back_makes_no_time_negative() -> None:
    assert one_line(record().decided(None, NOW - 60))["gate_ms"] == 0


def test_where_it_was_decided_and_by_which_version() -> None:
    made = record(worker=worker("FRA", "0.3.0"))
    assert one_line(made.decided(None, NOW))["worker"] == {"location": "FRA", "version": "0.3.0"}
    told = one_line("{" + worker("F" * 100, '"' * 100)[1:] + "}")["worker"]
    assert told == {"location": "F" * 8, "version": '"' * 64}


def test_an_opening_says_which_isolate_this_is() -> None:
    keys = {"audit": "a", "trusted": ["t", "u"], "assertion": []}
    line = one_line(opening_event(NOW, "airgate", "FRA", None, keys, PLAIN))
    assert list(line) == ["event", "schema", "time", "gate", "worker", "keys", "subjects"]
    assert line == {
        "event": "opening",
        "schema": 2,
        "time": timestamp(NOW),
        "gate": "airgate",
        "worker": {"location": "FRA", "version": None},
        "keys": keys,
        "subjects": "plain",
    }
    for names in (Names(b"k" * 32), Names(error="no key")):
        assert one_line(opening_event(NOW, "g", None, "1", keys, names))["subjects"] == "pseudonym"


def test_a_change_of_keys() -> None:
    line = one_line(keys_event(NOW, "issuer", "https://login.example.com", ["b"], ["a"]))
    assert line == {
        "event": "keys",
        "schema": 2,
        "time": timestamp(NOW),
        "of": "issuer",
        "issuer": "https://login.example.com",
        "added": ["b"],
        "removed": ["a"],
    }
    many = one_line(keys_event(NOW, "trusted", None, ["k" * 1000] * 1000, ["k" * 1000] * 1000))
    assert many["added"] == many["removed"] == ["k" * 128] * 16


def test_a_checkpoint_and_a_row_that_is_gone() -> None:
    assert one_line(checkpoint_event(NOW, '{"a":1}', "kid", "sig")) == {
        "event": "checkpoint",
        "schema": 2,
        "time": timestamp(NOW),
        "document": '{"a":1}',
        "key": "kid",
        "signature": "sig",
    }
    assert one_line(register_event(NOW, 7)) == {
        "event": "register",
        "schema": 2,
        "time": timestamp(NOW),
        "result": "missing",
        "number": 7,
    }


@pytest.mark.parametrize(
    ("result", "of", "action"),
    [("loaded", None, "publish"), ("loaded", 3, "rollback"), ("refused", None, None), ("refused", 3, None)],
)
def test_a_bundle_event_says_whether_it_goes_back(result: str, of: int | None, action: str | None) -> None:
    line = one_line(bundle_event(NOW, result, "", "0123456789ab", 7, "ci", of))
    assert (line["action"], line["of"]) == (action, of)


# Pseudonyms: nothing of an event says who somebody is.

WHO = Names(b"k" * 32)
NOBODY = Names(error="the secret is missing")
PERSON = "alice.liddell@example.com"


def named(issuer: str, subject: str) -> str:
    return pseudonym(b"k" * 32, issuer, subject)


def test_a_decision_has_pseudonyms_for_subject_and_actor() -> None:
    identity = Identity("company", PERSON, "human", frozenset(), {}, actor="bob@example.com")
    made = record(described=describe(Caller(identity, None, frozenset(), {}), WHO))
    line = made.decided(None, NOW)
    assert PERSON not in line
    assert "bob@example.com" not in line
    told = one_line(line)
    assert (told["subject"], told["actor"]) == (named("company", PERSON), named("company", "bob@example.com"))


def test_facts_of_a_task_that_name_people_are_pseudonyms_too() -> None:
    facts = {"dag": "close", "triggered_by": PERSON, "owners": (PERSON, "finance")}
    workload = {name: Fact(value, True) for name, value in facts.items()}
    identity = Identity("airflow", "close/publish", "workload", frozenset(), workload)
    line = record(described=describe(Caller(identity, None, frozenset(), workload), WHO)).decided(None, NOW)
    assert PERSON not in line
    told = {name: fact["value"] for name, fact in one_line(line)["workload"].items()}
    assert told == {
        "dag": "close",
        "triggered_by": named("airflow", PERSON),
        "owners": [named("airflow", PERSON), named("airflow", "finance")],
    }


def test_an_evaluation_has_a_pseudonym_for_whom_it_is_about() -> None:
    made = Record(inbound(), names=WHO)
    about = Caller(Identity("company", PERSON, "human", frozenset(), {}), None, frozenset(), {})
    line = made.evaluated(0, Target("can_read", "resource:todo", (), "", ""), about, Decision(True, None))
    assert PERSON not in line
    assert one_line(line)["subject"] == named("company", PERSON)


def test_without_a_key_for_pseudonyms_nobody_is_named() -> None:
    about = Caller(Identity("company", PERSON, "human", frozenset(), {}), None, frozenset(), {})
    for work in (
        lambda: describe(about, NOBODY),
        lambda: Record(inbound(), names=NOBODY).evaluated(
            0, Target("GET", "a", (), "", ""), about, Decision(True, None)
        ),
    ):
        with pytest.raises(Denied) as refused:
            work()
        assert refused.value.reason is Reason.INTERNAL
        assert PERSON not in str(refused.value)


ACTS: list[Any] = [
    pytest.param({"act": "revoke", "match": {"subject": PERSON}}, id="a revocation of a subject"),
    pytest.param(
        {"act": "revoke", "match": {"issuer": "company", "subject": PERSON}}, id="of a subject of an issuer"
    ),
    pytest.param({"act": "grant", "to": {"issuer": "company", "subject": PERSON}}, id="a grant"),
    pytest.param({"act": "revoke", "subject": PERSON}, id="an act of another make"),
    pytest.param({"act": PERSON[:16], "by": "oncall"}, id="a name for an act"),
    pytest.param({"act": "revoke", "match": {"subject": [PERSON]}}, id="a list of subjects"),
    pytest.param({"act": "revoke", "match": {"subject": {"x": PERSON}}}, id="an object for a subject"),
    pytest.param({"act": "revoke", "who": PERSON}, id="a member that nobody knows"),
    pytest.param({"act": [PERSON]}, id="a list for an act"),
    pytest.param([PERSON], id="no object"),
    pytest.param({"act": "revoke", "match": {"subject": PERSON}, "x": "x" * 3000}, id="too long"),
    pytest.param({"act": "revoke", "match": {"deep": {"deep": {"subject": PERSON}}}}, id="too deep"),
    pytest.param({"act": "revoke", "match": {"subject": PERSON}, "x": "\ud800"}, id="a lone surrogate"),
]


@pytest.mark.parametrize("document", ACTS)
@pytest.mark.parametrize("names", [WHO, NOBODY])
def test_an_act_that_does_not_count_names_nobody_under_pseudonyms(document: Any, names: Names) -> None:
    line = act_event(NOW, "refused", "0" * 32, "why", json.dumps(document), names)
    assert PERSON[:16] not in line
    assert one_line(line)["action"] in ("revoke", "grant", None)
    assert one_line(line)["act"] == ""


@pytest.mark.parametrize("document", ACTS[:3])
def test_an_act_that_counts_has_pseudonyms(document: dict[str, Any]) -> None:
    """Without an issuer it hits the subject of every one: then it has the pseudonym of none."""
    line = act_event(NOW, "known", "0" * 32, "", json.dumps(document), WHO)
    assert PERSON not in line
    told = json.loads(one_line(line)["act"])
    place = told.get("match") or told["to"]
    assert place["subject"] == named(place.get("issuer", ""), PERSON)
    assert told["act"] == one_line(line)["action"] == document["act"]
    assert one_line(act_event(NOW, "known", "0" * 32, "", json.dumps(document), NOBODY))["act"] == ""


def test_an_act_is_told_as_it_is_where_subjects_are() -> None:
    text = json.dumps({"act": "grant", "to": {"subject": PERSON}}) + " "
    assert one_line(act_event(NOW, "known", "0" * 32, "", text))["act"] == text
    assert one_line(act_event(NOW, "refused", "0" * 32, "", "[no JSON"))["act"] == "[no JSON"


# However much comes from outside, an event fits.


def heavy(letter: str, many: int, reason: Reason = Reason.REQUEST_JUSTIFICATION_REQUIRED) -> str:
    """A decision with as much as there can be in it, and more."""
    values = tuple(f"{number}{letter * 255}" for number in range(many))
    roles = frozenset(values)
    facts = {
        name: Fact(letter * 1024, False) for name in ("dag", "task", "run", "try", "map_index", "environment")
    }
    facts["tags"] = Fact(values, True)
    identity = Identity(
        letter * 64, letter * 512, letter * 64, roles, {}, roles, jkt=letter * 43, actor=letter * 512,
        token_id=letter * 512,
    )  # fmt: skip
    lent = Lent(roles, frozenset(), values, identity)
    made = record(described=describe(Caller(identity, values, roles, facts, lent)), log_path=True)
    pairs = [f"{letter * 70}{name}={letter * 300}" for name in range(40) for _ in range(5)]
    made.log_query = frozenset([pair.partition("=")[0] for pair in pairs])
    made.target = Target("GET", letter * 999, (), "/" + letter * 2000, "?" + "&".join(pairs))
    made.inbound = inbound(letter * 99, letter * 99)
    made.inbound.headers["content-length"] = "9" * 15
    others = Obligations(max_body=1, others=tuple((value[:60], "{}") for value in values))
    made.decision = Decision(False, None, values, values, letter * 512, letter, values, True, others)
    made.grants, made.country, made.justification = values, letter * 9, letter * 999
    made.credential, made.page, made.worker = letter * 99, letter * 99, worker(letter * 99, letter * 99)
    return made.decided(Denied(reason, letter * 999), NOW)


LETTERS = ["x", '"', "\\", "\x00", "\x7f", "\u00e9", "\u2028", "\ud800", "\U0001f600", "a\r\nb"]


def check_fitted(event: str) -> dict[str, Any]:
    """What became of an event, which says what was shortened and nothing else."""
    before, after = one_line(event), one_line(fitted(event))
    line = Chain("0" * 32).link(fitted(event))
    assert len(line.encode()) <= 8192
    one_line(line)
    cut = after.pop("cut", None)
    assert list(after) == list(before)
    changed = [name for name in before if before[name] != after[name]]
    assert sorted(cut or []) == sorted(changed)
    assert (cut is not None) == (len(event) > BOUND)
    assert not {"event", "schema", "time", "request_id", "trace_id", "decision", "reason", "bundle"} & set(
        changed
    )
    return after


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize("many", [1, 8, 100, 1000])
@pytest.mark.parametrize("reason", [Reason.INTERNAL, Reason.REQUEST_JUSTIFICATION_REQUIRED])
def test_a_decision_fits_whatever_is_in_it(letter: str, many: int, reason: Reason) -> None:
    event = heavy(letter, many, reason)
    after = check_fitted(event)
    assert after["reason"] == reason
    assert after["roles"].keys() == one_line(event)["roles"].keys()
    assert after["worker"].keys() == NOWHERE.keys()
    assert after["workload"].keys() == one_line(event)["workload"].keys()
    assert after["request_bytes"] == int("9" * 15)


@given(st.text(st.characters(), min_size=1, max_size=4), st.integers(0, 120), st.sampled_from(list(Reason)))
def test_any_decision_fits(letter: str, many: int, reason: Reason) -> None:
    check_fitted(heavy(letter, many, reason))


def test_what_fits_stays_as_it_is() -> None:
    line = record().decided(None, NOW)
    assert fitted(line) == line
    note = record(note="x" * LONGEST, justification="y" * LONGEST).decided(None, NOW)
    assert fitted(note) == note


@given(
    st.sampled_from(["opening", "keys", "bundle", "act", "outcome", "lost", "crash", "evaluation"]),
    st.text(st.characters(), min_size=1, max_size=4),
    st.integers(0, 1000),
)
def test_any_other_event_fits(event: str, letter: str, many: int) -> None:
    text = letter * many
    values = [f"{number}{text}" for number in range(40)]
    made = record()
    kids = [value[:128] for value in values[:16]]  # as journal.py reads them
    lines = {
        "opening": lambda: opening_event(
            NOW, text, text, text, {"audit": text[:128], "trusted": kids, "assertion": kids}, PLAIN
        ),
        "keys": lambda: keys_event(NOW, "issuer", text, values, values),
        "bundle": lambda: bundle_event(NOW, "refused", text, "0123456789ab", 7, text),
        "act": lambda: act_event(NOW, "known", "0" * 32, text, text),
        "outcome": lambda: made.ended(NOW, "internal", None, NOW, text),
        "lost": lambda: lost_event(NOW, "e" * 32, "d" * 32, text),
        "crash": lambda: crash_event(NOW, "e" * 32, text),
        "evaluation": lambda: made.evaluated(
            0,
            Target(text, text, (), "", ""),
            caller(subject=text, granted=frozenset(values), workload={"dag": Fact(text, True)}),
            Decision(False, Reason.POLICY_FORBIDDEN, tuple(values), tuple(values), text, text, tuple(values)),
            tuple(values),
        ),
    }
    check_fitted(lines[event]())


@pytest.mark.parametrize("letter", LETTERS)
def test_a_checkpoint_is_never_cut(letter: str) -> None:
    """What is signed would not be what is on record."""
    document = Chain("0" * 32).checkpoint(letter * 128, timestamp(NOW), 2**53)
    event = checkpoint_event(NOW, document, letter[0] * 256, "s" * 86)
    assert fitted(event) == event
    assert json.loads(one_line(event)["document"])["gate"] == letter * 128
