"""Audit lines: valid JSON with exactly the members that are documented, one line whatever they are given."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import NOW

import audit
from audit import (
    LONGEST,
    MOST,
    Record,
    act_event,
    bundle_event,
    crash_event,
    describe,
    lost_event,
    timestamp,
)
from model import Caller, Decision, Denied, Fact, Identity, Inbound, Lent, Reason, Target
from obligations import Limit, Obligations

BASE = {
    "event",
    "schema",
    "time",
    "request_id",
    "decision",
    "reason",
    "detail",
    "method",
    "upstream",
    "bundle",
    "sequence",
    "client",
}
DECIDED = {"route", "permits", "forbids", "shadow", "would"}
CALLER = {"issuer", "subject", "kind", "roles", "workload"}
OUTCOME = {"event", "schema", "time", "request_id", "upstream", "result", "detail", "status", "upstream_ms"}


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
    assert one_line(record().decided(None)) == {
        "event": "decision",
        "schema": 1,
        "time": "2027-01-15T08:00:00.000Z",
        "request_id": "f" * 32,
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
    }


def test_a_denial_has_its_reason_and_detail() -> None:
    line = one_line(record().decided(Denied(Reason.POLICY_FORBIDDEN, "so it is")))
    assert (line["decision"], line["reason"], line["detail"]) == ("deny", "policy.forbidden", "so it is")


@pytest.mark.parametrize(
    ("changes", "denied", "members"),
    [
        pytest.param({}, None, BASE | DECIDED | CALLER, id="a permit"),
        pytest.param(
            {"log_path": True}, None, BASE | DECIDED | CALLER | {"path"}, id="a permit with its path"
        ),
        pytest.param(
            {"grants": ("a" * 32,)}, None, BASE | DECIDED | CALLER | {"grants"}, id="a permit by a grant"
        ),
        pytest.param(
            {"decision": None}, Denied(Reason.ROLE_MALFORMED), BASE | CALLER, id="a caller, but no decision"
        ),
        pytest.param(
            {"decision": None, "described": ""},
            Denied(Reason.TOKEN_MISSING),
            BASE,
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
    assert set(one_line(record(**changes).decided(denied))) == members


def test_a_path_is_there_only_where_its_upstream_opted_in_and_a_query_never() -> None:
    assert "/v1/a" not in record().decided(None)
    assert one_line(record(log_path=True).decided(None))["path"] == "/v1/a"
    assert "secret" not in record(log_path=True).decided(None)


def test_values_that_are_not_there_are_null() -> None:
    nothing = record(target=None, bundle=None, sequence=None)
    nothing.inbound = inbound(client=None)
    line = one_line(nothing.decided(None))
    assert [line[name] for name in ("upstream", "bundle", "sequence", "client")] == [None] * 4


def test_a_note_is_the_detail_of_a_permit_only() -> None:
    noted = record(note="token.expired: 5 s ago")
    assert one_line(noted.decided(None))["detail"] == "token.expired: 5 s ago"
    assert one_line(noted.decided(Denied(Reason.INTERNAL, "here")))["detail"] == "here"
    assert one_line(noted.decided(Denied(Reason.INTERNAL)))["detail"] is None


def test_no_tag_is_null_and_not_an_empty_list() -> None:
    line = one_line(record(described=describe(caller(tagged=None, workload={}))).decided(None))
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
        "schema": 1,
        "time": timestamp(NOW),
        "result": "refused",
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
        "schema": 1,
        "time": timestamp(NOW),
        "result": "known",
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
        "schema": 1,
        "time": timestamp(NOW),
        "request_id": "e" * 32,
        "decision": "deny",
        "reason": "internal",
        "detail": 'odd"kind',
    }


def test_a_lost_event() -> None:
    assert one_line(lost_event(NOW, "e" * 32, 'odd"kind')) == {
        "event": "outcome",
        "schema": 1,
        "time": timestamp(NOW),
        "request_id": "e" * 32,
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
    return made.decided(denied)


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
    line = one_line(made.decided(None))
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
    lines = [record().decided(None), record().ended(NOW, "answered", 200, NOW), crash_event(NOW, "", "")]
    assert [one_line(line)["schema"] for line in [*lines, bundle_event(NOW, "", "", None, None)]] == [
        audit.SCHEMA
    ] * 4


def test_what_policy_asked_for_is_in_the_line() -> None:
    made = record()
    asked = Obligations(limits=(Limit(60, 60, ("subject",), ""),), justification=True)
    made.decision = Decision(True, None, ("publish",), obligations=asked)
    made.country, made.justification = "DE", "the month is closing"
    line = one_line(made.decided(None))
    assert line["obligations"] == asked.documents()
    assert (line["country"], line["justification"]) == ("DE", "the month is closing")
    assert "would" not in line  # nothing is in shadow


def test_long_obligations_are_named_only() -> None:
    made = record()
    asked = Obligations(max_body=1, others=(("watermark", '"' + "x" * 2000 + '"'),))
    made.decision = Decision(True, None, ("publish",), obligations=asked)
    assert one_line(made.decided(None))["obligations"] == ["max_body", "watermark"]


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
    line = one_line(made.decided(None))
    assert (line["token_id"], line["grants"]) == ("t-1", ["a" * 32, "b" * 32])
    plain = one_line(record().decided(None))
    assert not {"token_id", "grants"} & plain.keys()


def test_an_evaluation_names_who_was_asked_about_and_what_policy_says() -> None:
    made = record()
    identity = Identity("company", "someone-else", "human", frozenset({"reader"}), {})
    target = Target("can_read", "resource:todo", ("7",), "", "")
    decision = Decision(False, Reason.POLICY_FORBIDDEN, ("p",), ("f",), "/*", "o", ("s",), False)
    line = one_line(made.evaluated(3, target, Caller(identity, None, frozenset({"reader"}), {}), decision))
    assert line == {
        "event": "evaluation",
        "schema": 1,
        "time": "2027-01-15T08:00:00.000Z",
        "request_id": "f" * 32,
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
