"""Security event tokens: which are taken in, what each that is not is answered, and what comes of those that are."""

import json
from collections.abc import Coroutine, Generator
from contextlib import suppress
from inspect import CORO_CLOSED, getcoroutinestate
from types import coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_gateway import Gate, asking
from world import (
    ABSENT,
    AUDIENCE,
    HEADER,
    ISSUER,
    KEY,
    NOW,
    World,
    compact,
    document,
    grant,
    inbound,
    jwks,
    number,
    token,
    trusting,
    without,
)

import gateway
from model import ANSWERS, Denied, Inbound, Reason, Refusal
from secevent import LIMIT, LONGEST_ISSUER, PAST, REVOKED, TYPE, read, refused
from sessions import ENDED, LONGEST, MOST, SUPERSEDED
from state import State
from tokens import parse, validate

EVENTS = "https://gate/-/events"
OTHER = "https://other.example.com"


def reasoned(result: Any = ENDED) -> dict[str, Any]:
    return {"event_timestamp": int(NOW), "initiating_entity": "system", "reason_admin": {"en": result}}


def named(session: Any = "s-1", /, **changes: Any) -> dict[str, Any]:
    return without({"format": "complex", "session": {"format": "opaque", "id": session}}, **changes)


CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "iat": int(NOW),
    "jti": "e-1",
    "aud": AUDIENCE,
    "sub_id": named(),
    "events": {REVOKED: reasoned()},
}


def event(header: dict[str, Any] | None = None, kid: str | None = "one", **claims: Any) -> str:
    """A good event, with changes."""
    return compact(
        without({**HEADER, "typ": "secevent+jwt"}, **(header or {})), without(CLAIMS, **claims), kid
    )


def pushed(media: str | None = TYPE, url: str = EVENTS, at: float = NOW, **headers: str) -> Inbound:
    return inbound(
        url, "POST", body=True, at=at, **({} if media is None else {"content_type": media}), **headers
    )


def push(gate: Gate, body: str | bytes | None = None, request: Inbound | None = None) -> Refusal:
    gate.world.sent = body if isinstance(body, bytes) else (body or event()).encode()
    result = gate.answer(request or pushed(at=gate.world.clock))
    assert isinstance(result, Refusal)
    return result


def reason(gate: Gate, request: Inbound) -> Reason | None:
    """Why a call is refused; None: it isn't."""
    gate.answer(request)
    told = gate.world.lines("decision")[-1]["reason"]
    return None if told is None else Reason(told)


@pytest.fixture
def gate() -> Gate:
    return Gate()


def calling(session: Any = "s-1", at: float = NOW, **claims: Any) -> Inbound:
    return asking(token(sid=session, **claims), at=at)


# What is taken in.


@pytest.mark.parametrize(
    ("result", "expected"),
    [(ENDED, Reason.TOKEN_SESSION_ENDED), (SUPERSEDED, Reason.TOKEN_SESSION_SUPERSEDED)],
)
def test_a_session_ends_at_once(gate: Gate, result: str, expected: Reason) -> None:
    assert reason(gate, calling()) is None
    answer = push(gate, event(events={REVOKED: reasoned(result)}))
    assert (answer.status, answer.body) == (202, "")
    assert reason(gate, calling()) is expected
    assert reason(gate, calling("s-2")) is None
    assert reason(gate, calling(ABSENT)) is None
    assert reason(gate, calling(jti="made later", iat=NOW)) is expected
    assert gate.world.d1.sessions == [[1, ISSUER, "s-1", result, int(NOW) + 3600 + 2 * 60 + 60]]


def test_it_is_on_record_who_ended_what(gate: Gate) -> None:
    push(gate, event(events={REVOKED: reasoned(SUPERSEDED)}))
    line = gate.world.lines("decision")[-1]
    assert (line["decision"], line["page"], line["upstream"], line["sequence"]) == (
        "permit",
        "events",
        "-",
        1,
    )
    assert line["ended"] == {
        "issuer": "company",
        "session": "s-1",
        "result": "superseded",
        "event_id": "e-1",
    }
    assert "subject" not in line


@coroutine
def waiting() -> Generator[None]:
    yield


class Left(World):
    """A sender that hangs up: its request waits for ever, and what the runtime was asked to see through goes on."""

    async def last(self, work: Coroutine[Any, Any, bool]) -> bool:
        self.deferred.append(work)
        await waiting()
        return True

    async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
        told = await super().database(sql, values, timeout)
        await waiting()
        return told


@pytest.mark.parametrize("fails", [False, True])
def test_what_ends_though_its_sender_has_left_is_on_record(fails: bool) -> None:
    gate, world = Gate(), Left()
    gate.answer(asking())  # so that policy and keys are there
    if fails:
        world.broken["database"] = OSError("away")
    world.sent = event().encode()
    request = gateway.handle(pushed(), gate.state, world)
    request.send(None)
    request.close()
    for work in world.deferred:
        while getcoroutinestate(work) != CORO_CLOSED:
            with suppress(StopIteration):
                work.send(None)
    [line] = world.lines("decision")
    assert (line["decision"], line["reason"], line["ended"]["session"]) == (
        ("deny", "state.unavailable", "s-1") if fails else ("permit", None, "s-1")
    )
    assert len(world.d1.sessions or []) == (0 if fails else 1)


def test_a_mistake_of_ours_while_it_is_taken_in_is_on_record_once(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def note(*_: Any) -> None:
        raise RuntimeError("in full")

    monkeypatch.setattr("secevent.note", note)
    assert push(gate).status == 503
    line = gate.world.lines("decision")[-1]
    assert (line["reason"], line["detail"].partition(" at ")[0]) == ("internal", "RuntimeError")


def test_another_isolate_learns_of_it(gate: Gate) -> None:
    other = Gate()
    other.world = gate.world
    assert reason(other, calling()) is None
    push(gate)
    assert reason(other, calling()) is None  # not yet
    gate.later(11)
    assert reason(other, calling(at=NOW + 11)) is Reason.TOKEN_SESSION_ENDED
    fresh = Gate()
    fresh.world, fresh.state = gate.world, State()
    assert reason(fresh, calling(at=NOW + 11)) is Reason.TOKEN_SESSION_ENDED


def test_it_is_over_when_no_token_of_the_session_can_be_accepted_any_more(gate: Gate) -> None:
    """The longest-lived token, of an issuer whose clock is ahead by the skew: its end comes before the row's."""
    push(gate)
    end = NOW + 3600 + 2 * 60
    gate.later(end - NOW - 0.1)
    longest = calling(iat=NOW + 60, exp=NOW + 3660, at=end - 0.1)
    assert reason(gate, longest) is Reason.TOKEN_SESSION_ENDED
    gate.later(end - NOW)
    assert reason(gate, longest) is Reason.TOKEN_EXPIRED


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(event(aud=[AUDIENCE]), id="its audience in a list"),
        pytest.param(event(aud=["https://others.example.com", AUDIENCE]), id="for others as well"),
        pytest.param(event({"typ": "application/secevent+jwt"}), id="its type in full"),
        pytest.param(event({"typ": "SECEVENT+JWT"}), id="its type in capitals"),
        pytest.param(event(iat=NOW + 60), id="made by a clock that is a little ahead"),
        pytest.param(event(iat=NOW - PAST - 60), id="on its way for ten minutes"),
        pytest.param(event(iat=NOW - 0.5), id="made within a second"),
        pytest.param(event(events={REVOKED: {}}), id="for no reason"),
        pytest.param(event(events={REVOKED: reasoned("policy violation")}), id="for another reason"),
        pytest.param(event(events={REVOKED: {"reason_admin": "x"}}), id="for a reason that is a text"),
        pytest.param(event(events={REVOKED: {**reasoned(), "event_timestamp": "x"}}), id="at no time"),
        pytest.param(event(txn="t", toe=int(NOW)), id="with more claims"),
        pytest.param(event() + "\n", id="with a line break behind it"),
    ],
)
def test_an_event_that_is_taken_in(gate: Gate, body: str) -> None:
    assert push(gate, body).status == 202
    assert reason(gate, calling()) is Reason.TOKEN_SESSION_ENDED


@pytest.mark.parametrize("media", ["Application/Secevent+JWT", TYPE + "; charset=utf-8", f" {TYPE} "])
def test_a_type_may_be_written_in_other_ways(gate: Gate, media: str) -> None:
    assert push(gate, request=pushed(media)).status == 202


@pytest.mark.parametrize(
    "session", ["x" * LONGEST, "\U0001f600" * LONGEST, "'; DROP TABLE \"sessions\\", "é ж/?#%"]
)
def test_a_session_may_be_called_anything_that_can_be_printed(gate: Gate, session: str) -> None:
    assert push(gate, event(sub_id=named(session))).status == 202
    assert reason(gate, calling(session)) is Reason.TOKEN_SESSION_ENDED


# What is not.


def said(value: Any) -> str:
    """A value, for a test's name."""
    return "none" if value is ABSENT else json.dumps(value)[:60]


REFUSED: list[tuple[str, str | bytes, Reason, str]] = [
    # what it is, its text, the reason on record, the error that the sender is told
    ("nothing", b"", Reason.TOKEN_MALFORMED, "invalid_request"),
    ("words", b"hello", Reason.TOKEN_MALFORMED, "invalid_request"),
    ("bytes", b"\xff\xfe", Reason.TOKEN_MALFORMED, "invalid_request"),
    ("two of them", event() + " " + event(), Reason.TOKEN_MALFORMED, "invalid_request"),
    ("a list of JSON", json.dumps([event()]), Reason.TOKEN_MALFORMED, "invalid_request"),
    ("one without a signature", event().rpartition(".")[0] + ".", Reason.TOKEN_MALFORMED, "invalid_request"),
    ("a claim twice", compact({**HEADER, "typ": "secevent+jwt"}, b'{"iss":"a","iss":"b"}'), Reason.TOKEN_MALFORMED,
     "invalid_request"),
    ("one that is too long", event(more="x" * LIMIT), Reason.REQUEST_BODY_TOO_LARGE, "invalid_request"),
    ("an access token", token(sid="s-1"), Reason.TOKEN_TYPE, "invalid_request"),
    ("an event of type at+jwt", event({"typ": "at+jwt"}), Reason.TOKEN_TYPE, "invalid_request"),
    ("an event of type JWT", event({"typ": "JWT"}), Reason.TOKEN_TYPE, "invalid_request"),
    ("an event of no type", event({"typ": ABSENT}), Reason.TOKEN_TYPE, "invalid_request"),
    ("a logout token", event({"typ": "logout+jwt"}), Reason.TOKEN_TYPE, "invalid_request"),
    ("one with sub", event(sub="finance-etl"), Reason.TOKEN_CLAIMS, "invalid_request"),
    ("one with exp", event(exp=NOW + 60), Reason.TOKEN_CLAIMS, "invalid_request"),
    ("one without jti", event(jti=ABSENT), Reason.TOKEN_CLAIMS, "invalid_request"),
    ("one with a number for jti", event(jti=7), Reason.TOKEN_CLAIMS, "invalid_request"),
    ("one with a long jti", event(jti="x" * (LONGEST + 1)), Reason.TOKEN_CLAIMS, "invalid_request"),
    ("one without iat", event(iat=ABSENT), Reason.TOKEN_CLAIMS, "invalid_request"),
    ("one with a text for iat", event(iat="now"), Reason.TOKEN_CLAIMS, "invalid_request"),
    ("one with true for iat", event(iat=True), Reason.TOKEN_CLAIMS, "invalid_request"),
    ("one of before 1970", event(iat=-1), Reason.TOKEN_CLAIMS, "invalid_request"),
    ("one of long ago", event(iat=NOW - PAST - 61), Reason.TOKEN_EXPIRED, "invalid_request"),
    ("one of the future", event(iat=NOW + 61), Reason.TOKEN_NOT_YET_VALID, "invalid_request"),
    ("one without aud", event(aud=ABSENT), Reason.TOKEN_AUDIENCE, "invalid_audience"),
    ("one for another", event(aud="https://other.example.com"), Reason.TOKEN_AUDIENCE, "invalid_audience"),
    ("one for nobody", event(aud=[]), Reason.TOKEN_AUDIENCE, "invalid_audience"),
    ("one for a number", event(aud=[7]), Reason.TOKEN_AUDIENCE, "invalid_audience"),
    ("one for an object", event(aud={AUDIENCE: 1}), Reason.TOKEN_AUDIENCE, "invalid_audience"),
    ("one of nobody", event(iss=ABSENT), Reason.TOKEN_ISSUER, "invalid_issuer"),
    ("one of somebody", event(iss=OTHER), Reason.TOKEN_ISSUER, "invalid_issuer"),
    ("one of an issuer with a slash", event(iss=ISSUER + "/"), Reason.TOKEN_ISSUER, "invalid_issuer"),
    ("one by a key that is not known", event({"kid": "nine"}), Reason.TOKEN_KEY, "invalid_key"),
    ("one by no algorithm", event({"alg": "none"}), Reason.TOKEN_ALGORITHM, "invalid_key"),
    ("one by a shared secret", event({"alg": "HS256"}), Reason.TOKEN_ALGORITHM, "invalid_key"),
    ("one by an algorithm that policy has not", event({"alg": "RS256"}), Reason.TOKEN_ALGORITHM, "invalid_key"),
    ("one that somebody else signed", event(kid="two"), Reason.TOKEN_SIGNATURE, "authentication_failed"),
    *[
        (f"a subject such as {said(subject)}", event(sub_id=subject), Reason.TOKEN_CLAIMS, "invalid_request")
        for subject in (
            ABSENT, None, "s-1", [], {}, {"format": "opaque", "id": "s-1"}, {"format": "complex"},
            named(format="opaque"), named(format=ABSENT), named(user={"format": "opaque", "id": "u"}),
            named(session="s-1"), named(session=None), named(session=[]), named(session={"id": "s-1"}),
            named(session={"format": "opaque"}), named(session={"format": "email", "id": "s-1"}),
            named(session={"format": "opaque", "id": "s-1", "more": 1}),
            named(None), named(7), named(""), named(["s-1"]), named("x" * (LONGEST + 1)), named("a\0b"), named("a\n"),
        )
    ],
    *[
        (f"events such as {said(events)}", event(events=events), Reason.TOKEN_CLAIMS, "invalid_request")
        for events in (
            ABSENT, None, [], {}, REVOKED, {REVOKED: None}, {REVOKED: []}, {REVOKED + "/": {}},
            {"https://schemas.openid.net/secevent/caep/event-type/credential-change": {}},
            {REVOKED: {}, "https://schemas.openid.net/secevent/caep/event-type/credential-change": {}},
        )
    ],
]  # fmt: skip


@pytest.mark.parametrize(("what", "body", "expected", "error"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_not_taken_in(gate: Gate, what: str, body: str | bytes, expected: Reason, error: str) -> None:
    answer = push(gate, body)
    assert (answer.status, json.loads(answer.body)["err"]) == (400, error)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-language"] == "en"
    assert "www-authenticate" not in answer.headers
    line = gate.world.lines("decision")[-1]
    assert (line["decision"], line["reason"], line["page"]) == ("deny", expected, "events")
    assert "ended" not in line
    assert gate.world.d1.sessions == []
    assert reason(gate, calling()) is None


@pytest.mark.parametrize("media", [None, "", "application/json", "application/jwt", "text/plain", TYPE + "x"])
def test_what_is_said_to_be_something_else_is_not_read(gate: Gate, media: str | None) -> None:
    answer = push(gate, request=pushed(media))
    assert (answer.status, json.loads(answer.body)) == (
        400, {"err": "invalid_request", "description": "send it as application/secevent+jwt"},
    )  # fmt: skip
    assert gate.world.lines("decision")[-1]["reason"] == Reason.REQUEST_BODY_INVALID


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_events_are_posted(gate: Gate, method: str) -> None:
    gate.world.sent = event().encode()
    gate.refuse(inbound(EVENTS, method, body=method == "PUT", content_type=TYPE), Reason.TOKEN_MISSING)


def test_an_event_opens_nothing_as_a_token(gate: Gate) -> None:
    for made in (event(), event(sub="finance-etl", exp=NOW + 60, client_id="finance-etl")):
        gate.refuse(asking(made), Reason.TOKEN_TYPE)
        rules = next(iter(gate.state.bundle.issuers.values())).rules  # type: ignore[union-attr]
        for kind in ("at+jwt", "any", "id_token"):
            with pytest.raises(Denied) as denied:
                validate(parse(made), rules._replace(type=kind), NOW)
            assert denied.value.reason is Reason.TOKEN_TYPE
    # Nor does one that claims to be an access token, for it has neither subject nor end.
    gate.refuse(asking(event({"typ": "at+jwt"})), Reason.TOKEN_CLAIMS)


@given(
    st.binary(max_size=200)
    | st.builds(
        lambda header, claims: compact(header, claims).encode(),
        st.dictionaries(
            st.sampled_from(["alg", "typ", "kid"]), st.none() | st.integers() | st.text(max_size=5)
        ),
        st.dictionaries(
            st.sampled_from([*CLAIMS, "sub", "exp", "sid"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(ISSUER),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["format", "session", "id", REVOKED, "x"]), inner)
                ),
                max_leaves=6,
            ),
        ),
    )
)
def test_whatever_is_sent_it_is_read_or_refused(body: bytes) -> None:
    try:
        token, ended = read(pushed(), body)
    except Denied as denied:
        page = refused(denied, Refusal(ANSWERS[denied.reason].status, {"www-authenticate": "x"}, ""))
    else:
        assert (token.type, list(token.claims["events"])) == ("secevent+jwt", [REVOKED])
        assert ended.session == token.claims["sub_id"]["session"]["id"]
        return
    assert json.loads(page.body)["err"].startswith("invalid_")


# What costs nothing, and what may be tried again.


@pytest.mark.parametrize(
    "body",
    [row[1] for row in REFUSED if row[3] not in ("invalid_key", "authentication_failed")],
    ids=[row[0] for row in REFUSED if row[3] not in ("invalid_key", "authentication_failed")],
)
def test_no_keys_are_fetched_for_what_cannot_be_taken_in(gate: Gate, body: str | bytes) -> None:
    push(gate, body)
    assert gate.world.of("fetch") == gate.world.of("verify") == []


def test_a_flood_of_made_up_keys_costs_one_fetch(gate: Gate) -> None:
    push(gate)
    fetched = len(gate.world.of("fetch"))
    for each in range(20):
        push(gate, event({"kid": f"k-{each}"}))
    assert len(gate.world.of("fetch")) == fetched + 1


@pytest.mark.parametrize(
    ("port", "expected"), [("database", Reason.STATE_UNAVAILABLE), ("fetch", Reason.ISSUER_UNAVAILABLE)]
)
def test_what_could_not_be_done_is_to_be_tried_again(gate: Gate, port: str, expected: Reason) -> None:
    reason(gate, inbound("https://gate/-/health"))
    gate.world.broken[port] = OSError("away")
    answer = push(gate)
    assert (answer.status, json.loads(answer.body)["code"], answer.headers["retry-after"]) == (
        503,
        expected,
        "5",
    )
    gate.world.broken.clear()
    gate.later(6)
    assert reason(gate, calling(at=NOW + 6)) is None
    assert push(gate).status == 202
    assert reason(gate, calling(at=NOW + 6)) is Reason.TOKEN_SESSION_ENDED


def test_without_a_policy_nobody_is_believed(gate: Gate) -> None:
    gate.world.d1.pointers.clear()
    assert push(gate).status == 503


# Told again, and too often.


def test_an_event_that_is_replayed_changes_nothing_and_asks_nothing_of_d1(gate: Gate) -> None:
    push(gate)
    before, asked = list(gate.world.d1.sessions or []), len(gate.world.of("database"))
    for _ in range(5):
        assert push(gate).status == 202
    assert push(gate, event(events={REVOKED: reasoned(SUPERSEDED)}, jti="e-2")).status == 202
    assert (gate.world.d1.sessions, len(gate.world.of("database"))) == (before, asked)
    assert reason(gate, calling()) is Reason.TOKEN_SESSION_ENDED


def test_a_session_that_is_told_of_again_later_is_refused_for_longer(gate: Gate) -> None:
    push(gate)
    gate.later(300)
    push(gate, event(iat=NOW + 300))
    assert gate.world.d1.sessions == [[2, ISSUER, "s-1", ENDED, int(NOW) + 300 + 3780]]


def test_of_an_issuer_that_ends_too_many_nothing_more_is_written(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessions.MOST", 3)
    for each in range(4):
        assert push(gate, event(sub_id=named(f"s-{each}"))).status == 202
    answer = push(gate, event(sub_id=named("s-9")))
    assert (answer.status, answer.headers["retry-after"]) == (429, "60")
    assert len(gate.world.d1.sessions or []) == 4
    assert reason(gate, calling("not ended")) is Reason.STATE_STALE
    assert reason(gate, calling(ABSENT)) is None
    assert MOST == 50_000
    # When the last of them is over, so is that.
    gate.later(3780)
    assert push(gate, event(sub_id=named("s-9"), iat=NOW + 3780)).status == 202
    assert reason(gate, calling("not ended", at=NOW + 3780, iat=NOW + 3700, exp=NOW + 4000)) is None


def test_rows_that_are_over_are_taken_away_now_and_then(gate: Gate) -> None:
    push(gate)
    gate.world.settle()
    gate.later(3780 + 3600)
    push(gate, event(iat=gate.world.clock, sub_id=named("s-2")))
    gate.world.settle()
    assert [row[2] for row in gate.world.d1.sessions or []] == ["s-1", "s-2"]
    gate.later(3780 + 3600 + 61)
    push(gate, event(iat=gate.world.clock, sub_id=named("s-3")))
    gate.world.settle()
    assert [row[2] for row in gate.world.d1.sessions or []] == ["s-2", "s-3"]


# Whose session it is.


def two_issuers() -> Gate:
    made = document()
    company = made["issuers"]["company"]
    made["issuers"]["other"] = {**company, "issuer": OTHER, "jwks_uri": OTHER + "/keys"}
    made["roles"]["publisher"].append({"issuer": "other", "claim": ["groups"], "value": "finance-publishers"})
    gate = Gate(made)
    gate.world.pages[OTHER + "/keys"] = jwks({**KEY, "x": number(9, 32), "kid": "theirs"})
    return gate


def theirs(**claims: Any) -> str:
    return compact({**HEADER, "kid": "theirs"}, {**json.loads(json.dumps(ACCESS)), **claims}, "theirs")


ACCESS = {
    "iss": OTHER,
    "aud": AUDIENCE,
    "sub": "etl",
    "client_id": "etl",
    "jti": "1",
    "iat": NOW - 10,
    "exp": NOW + 300,
    "groups": ["finance-publishers"],
}


def test_an_issuer_ends_its_own_sessions_only() -> None:
    gate = two_issuers()
    told = event({"kid": "theirs"}, "theirs", iss=OTHER)
    assert push(gate, told).status == 202
    assert reason(gate, calling()) is None
    assert reason(gate, asking(theirs(sid="s-1"))) is Reason.TOKEN_SESSION_ENDED
    # Nor can it say that it is another one.
    assert push(gate, event({"kid": "theirs"}, "theirs")).status == 400
    assert gate.world.lines("decision")[-1]["reason"] == Reason.TOKEN_KEY
    assert push(gate, event({"kid": "one"}, "theirs")).status == 400
    assert reason(gate, calling()) is None


def test_an_issuer_that_is_called_something_else_in_policy_by_now_is_still_the_same() -> None:
    gate = Gate()
    push(gate)
    made = document()
    text = json.dumps(made).replace('"company"', '"renamed"')
    gate.world.publish(json.loads(text), 2)
    gate.later(11)
    assert reason(gate, calling(at=NOW + 11)) is Reason.TOKEN_SESSION_ENDED
    assert gate.world.lines("decision")[-1]["issuer"] == "renamed"


def test_an_issuer_with_a_name_that_is_too_long_ends_nothing() -> None:
    """No gate would read such a row."""
    long = "https://" + "i" * (LONGEST_ISSUER - 7)
    made = document()
    made["issuers"]["company"]["issuer"] = long
    gate = Gate(made)
    assert push(gate, event(iss=long)).status == 400
    made["issuers"]["company"]["issuer"] = long[:-1]
    gate = Gate(made)
    assert push(gate, event(iss=long[:-1])).status == 202


def test_a_grant_revives_nobody(gate: Gate) -> None:
    gate.world.secrets = trusting()
    gate.world.act(grant())
    push(gate)
    assert reason(gate, calling()) is Reason.TOKEN_SESSION_ENDED


# A database that lacks the table: the Worker was uploaded before its migration.


def test_without_the_table_a_gate_goes_on_and_takes_no_events(gate: Gate) -> None:
    gate.world.d1.sessions = None
    assert reason(gate, calling()) is None
    assert push(gate).status == 503
    assert reason(gate, calling()) is None
    warnings = gate.state.report(NOW)["warnings"]
    assert [text for text in warnings if "sessions" in text] == [
        "D1 lacks the table sessions, so no session that ends is known: airgate deploy"
    ]
    gate.world.d1.sessions = []
    gate.later(11)
    assert push(gate).status == 202
    assert reason(gate, calling(at=NOW + 11)) is Reason.TOKEN_SESSION_ENDED
    assert not [text for text in gate.state.report(NOW)["warnings"] if "sessions" in text]


def test_an_isolate_that_has_too_many_warns(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessions.MOST", 1)
    for each in range(2):
        push(gate, event(sub_id=named(f"s-{each}")))
    assert gate.state.report(NOW)["view"]["sessions"] == {"ended": 0, "full": [ISSUER]}
    [warning] = [text for text in gate.state.report(NOW)["warnings"] if "sessions" in text]
    assert ISSUER in warning
