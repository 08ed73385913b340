"""AuthZEN questions: which can be read, who may ask them about whom, what of them counts, and how they are answered."""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import ISSUER, NOW, canonical, document, rule, shards

from authzen import (
    LIMIT,
    LONGEST,
    MOST,
    MOST_VALUES,
    SEMANTICS,
    SINGLE,
    Asking,
    Invalid,
    Question,
    answer,
    asking,
    configuration,
    echo,
    questions,
    refuse_other_media,
)
from bundle import load_bundle
from conditions import Call
from identity import MOST_TAGS, act, identify
from model import Caller, Decision, Denied, Fact, Reason, Target
from obligations import Limit, Obligations
from obligations import canonical as one_spelling
from shard import load_shard

PARTNER = "https://partner.example.com"
DOCUMENT = document()
DOCUMENT["issuers"]["partner"] = {
    **DOCUMENT["issuers"]["company"],
    "issuer": PARTNER,
    "kind": {"claim": None, "default": "agent", "values": {}},
    "attested": {},
}
DOCUMENT["issuers"]["bots"] = {**DOCUMENT["issuers"]["company"], "issuer": "https://bots.example.com"}
DOCUMENT["issuers"]["robots"] = {**DOCUMENT["issuers"]["partner"], "issuer": "https://robots.example.com"}
DOCUMENT["roles"]["bot"] = [{"issuer": "bots", "kind": "agent"}, {"issuer": "robots", "kind": "agent"}]
DOCUMENT["roles"]["visitor"] = [{"issuer": "partner", "claim": ["groups"], "value": "visitors"}]
DOCUMENT["upstreams"] |= {
    "ledger-v2": {**DOCUMENT["upstreams"]["ledger"], "base": "https://ledger.example.com/api/v2"},
    "twin-a": {**DOCUMENT["upstreams"]["crm"], "base": "https://twin.example.com:8443"},
    "twin-b": {**DOCUMENT["upstreams"]["crm"], "base": "https://twin.example.com:8443"},
}
DOCUMENT["claims"] = [["department"]]
BUNDLE = load_bundle(canonical(DOCUMENT))
COMPANY = BUNDLE.issuers[ISSUER].mapping

CLAIMS = {"groups": ["finance-readers"], "airflow": {"dag": "finance_close"}, "department": "finance"}
ASKER = act(identify(CLAIMS, "finance-etl", COMPANY), {"airgate-task-id": "load"})
CLIENT, COUNTRY = "198.51.100.7", "DE"

SELF = Asking("self", frozenset())


def anyone(*trust: str) -> Asking:
    return Asking("any", frozenset(trust))


EVERYTHING = anyone("roles", "claims", "workload", "client")

QUESTION: dict[str, Any] = {
    "subject": {"type": "workload", "id": "finance-etl"},
    "action": {"name": "read"},
    "resource": {"type": "todo", "id": "1"},
}


def about(subject: Any = "ada", **more: Any) -> dict[str, Any]:
    """The question, about a subject (its id, or all of it), and with other members."""
    if isinstance(subject, str):
        subject = {"type": "user", "id": subject}
    return {**QUESTION, "subject": subject, **more}


GATE = "gate.example.com"


def ask(
    request: Any, asking: Asking = SELF, *, batch: bool = False, asker: Caller = ASKER
) -> tuple[list[Question | Invalid], str]:
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return questions(body, batch, asker, asking, BUNDLE.issuers, CLIENT, COUNTRY, BUNDLE.upstreams, GATE)


def one(request: Any, asking: Asking = SELF, *, asker: Caller = ASKER) -> Question:
    """The only question of a request, which can be read."""
    [question], semantics = ask(request, asking, asker=asker)
    assert isinstance(question, Question)
    assert semantics == SINGLE
    return question


def refused(work: Callable[[], Any]) -> Denied:
    with pytest.raises(Denied) as caught:
        work()
    return caught.value


def unreadable(request: Any, asking: Asking = SELF, *, batch: bool = False) -> str:
    """What the asker of a request that can't be read is told."""
    denied = refused(lambda: ask(request, asking, batch=batch))
    assert (denied.reason, denied.hint) == (Reason.REQUEST_BODY_INVALID, denied.detail)
    assert 0 < len(denied.hint) <= 200
    return denied.hint


# What a permit lets its caller ask.


def obliged(*each: Any) -> Obligations:
    return Obligations(others=tuple([("asking", one_spelling(value)) for value in each]))


def says(about: str, *trust: str) -> dict[str, Any]:
    return {"about": about, "trust": list(trust)}


ASKING = [
    pytest.param([], SELF, id="nothing: about itself"),
    pytest.param([says("self")], SELF, id="self"),
    pytest.param([says("any")], anyone(), id="any, and trusts nothing"),
    pytest.param([says("any", "roles", "client")], anyone("roles", "client"), id="any, and trusts"),
    pytest.param([says("self"), says("any", "roles")], anyone("roles"), id="one of two says any"),
    pytest.param(
        [says("any", "claims", "roles"), says("any", "client", "roles")],
        anyone("roles"),
        id="what both trust counts",
    ),
    pytest.param([says("any", "roles"), says("any")], anyone(), id="one of two trusts nothing"),
    pytest.param(
        [says("self", "claims", "workload"), says("any", "workload")],
        anyone("workload"),
        id="a permit for itself alone takes nothing away",
    ),
    pytest.param([says("self", "workload")], Asking("self", frozenset({"workload"})), id="self, and trusts"),
]


@pytest.mark.parametrize(("each", "expected"), ASKING)
def test_what_a_permit_lets_ask(each: list[Any], expected: Asking) -> None:
    assert asking(obliged(*each)) == asking(obliged(*reversed(each))) == expected


def test_other_obligations_say_nothing_about_asking() -> None:
    assert asking(Obligations(others=(("notify", '{"about":"any","trust":["roles"]}'),))) == SELF


WRONG_ASKING = [
    pytest.param({"about": "all", "trust": []}, id="another word"),
    pytest.param({"about": ["any"], "trust": []}, id="a list"),
    pytest.param({"about": "any", "trust": ["roles", "groups"]}, id="trusts what this version does not know"),
    pytest.param({"about": "any", "trust": "roles"}, id="trust is no list"),
    pytest.param({"about": "any", "trust": [1]}, id="trusts a number"),
    pytest.param({"about": "any"}, id="trust is missing"),
    pytest.param({"trust": []}, id="about is missing"),
    pytest.param({"about": "any", "trust": [], "until": 1}, id="one member more"),
    pytest.param("any", id="a text"),
    pytest.param(None, id="null"),
]


@pytest.mark.parametrize("value", WRONG_ASKING)
def test_what_this_version_cannot_honour_is_refused(value: Any) -> None:
    assert refused(lambda: asking(obliged(value))).reason is Reason.POLICY_OBLIGATION
    assert refused(lambda: asking(obliged(says("any"), value))).reason is Reason.POLICY_OBLIGATION


# Around the questions.

ECHOED = [
    pytest.param("bfe9eb29-ab87-4ca3-be83-a1d5d8305716", True, id="a UUID"),
    pytest.param("A.b_c~1-2", True, id="all marks that are harmless"),
    pytest.param("x" * 128, True, id="128 characters"),
    pytest.param("x" * 129, False, id="129 characters"),
    pytest.param("", False, id="nothing in it"),
    pytest.param("a b", False, id="a space"),
    pytest.param("a\r\nSet-Cookie: b", False, id="a line break"),
    pytest.param("a\n", False, id="a line break at the end"),
    pytest.param('"a"', False, id="quotes"),
    pytest.param("ä", False, id="not ASCII"),
    pytest.param("a, b", False, id="sent twice"),
]


@pytest.mark.parametrize(("given", "harmless"), ECHOED)
def test_a_request_id_is_echoed_when_it_is_harmless(given: str, harmless: bool) -> None:
    assert echo(given) == (given if harmless else None)


def test_no_request_id_no_echo() -> None:
    assert echo(None) is None


@pytest.mark.parametrize(
    "media", ["application/json", "application/json; charset=utf-8", "Application/JSON ;x=y"]
)
def test_json_is_read(media: str) -> None:
    refuse_other_media(media)


@pytest.mark.parametrize(
    "media",
    [None, "", "text/plain", "text/json", "application/jsonp", "application/x-www-form-urlencoded", "json",
     "application/json, text/plain", "application/vnd.api+json", "text/plain; application/json"],
)  # fmt: skip
def test_another_type_of_content_is_refused(media: str | None) -> None:
    denied = refused(lambda: refuse_other_media(media))
    assert (denied.reason, denied.hint) == (
        Reason.REQUEST_BODY_INVALID,
        "Content-Type: expected application/json",
    )


def test_the_metadata_names_the_endpoints() -> None:
    assert configuration("https://gate.example.com") == {
        "policy_decision_point": "https://gate.example.com",
        "access_evaluation_endpoint": "https://gate.example.com/access/v1/evaluation",
        "access_evaluations_endpoint": "https://gate.example.com/access/v1/evaluations",
    }


# Bodies that are no question.

TEXT = json.dumps(QUESTION)


def with_resource(properties: str) -> bytes:
    """The question with the text of its resource's properties."""
    return TEXT.replace('"id": "1"', f'"id": "1", "properties": {properties}').encode()


HOSTILE = [
    pytest.param(b"", "Expecting value", id="nothing"),
    pytest.param(b"null", "not an object", id="null"),
    pytest.param(b"[]", "not an object", id="a list"),
    pytest.param(b'"x"', "not an object", id="a text"),
    pytest.param(b"{", "brackets do not match|Expecting", id="the beginning of an object"),
    pytest.param(TEXT.encode() + b"x", "more than one", id="more after it"),
    pytest.param(TEXT.encode("utf-16"), "utf-8", id="UTF-16"),
    pytest.param(b"\xef\xbb\xbf" + TEXT.encode(), "BOM|Expecting value", id="a byte order mark"),
    pytest.param(TEXT.encode() + b" " * LIMIT, f"longer than {LIMIT} bytes", id="64 KiB of blanks after it"),
    pytest.param(with_resource('{"a": ' + "[" * 20 + "]" * 20 + "}"), "nested", id="nested 22 levels deep"),
    pytest.param(
        with_resource('{"a": ' + "[" * 30_000 + "]" * 30_000 + "}"), "more", id="nested 30,002 deep"
    ),
    pytest.param(with_resource('{"a": ' + '{"b":' * 10_000), "more", id="10,000 objects never closed"),
    pytest.param(with_resource('{"a": 1, "a": 2}'), "twice", id="a property appears twice"),
    pytest.param(TEXT.replace("{", '{"subject": {}, ', 1).encode(), "twice", id="the subject appears twice"),
    pytest.param(
        TEXT.replace('"id"', '"id": "finance-etl", "\\u0069d"', 1).encode(),
        "twice",
        id="the id appears twice, spelled otherwise",
    ),
    pytest.param(with_resource('{"a": NaN}'), "not JSON", id="NaN"),
    pytest.param(with_resource('{"a": -Infinity}'), "not JSON", id="minus infinity"),
    pytest.param(with_resource('{"a": 1e999}'), "out of range", id="a number out of range"),
    pytest.param(with_resource('{"a": ' + "9" * 5000 + "}"), "limit", id="a number of 5,000 digits"),
    pytest.param(with_resource('{"a": "\\ud800"}'), "surrogates", id="half a surrogate pair as a value"),
    pytest.param(with_resource('{"\\udc00": 1}'), "surrogates", id="half a surrogate pair as a name"),
    pytest.param(
        TEXT.replace('"1"', '"\\ud800"').encode(), "surrogates", id="half a surrogate pair as an id"
    ),
    pytest.param(TEXT.replace('"1"', '"\xff"').encode("latin-1"), "utf-8", id="Latin-1"),
    pytest.param(TEXT.replace('"1"', '"\x00"').encode(), "control character", id="a bare control character"),
]


@pytest.mark.parametrize("batch", [False, True], ids=["evaluation", "evaluations"])
@pytest.mark.parametrize(("body", "told"), HOSTILE)
def test_a_hostile_body_is_refused(body: bytes, told: str, batch: bool) -> None:
    assert re.search(told, unreadable(body, EVERYTHING, batch=batch))


def at(request: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy of the request with the value at the end of the path."""
    request = deepcopy(request)
    place = request
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return request


FULL: dict[str, Any] = {
    "subject": {"type": "user", "id": "ada", "properties": {
        "issuer": "company", "roles": ["reader"], "claims": {"groups": []}
    }},
    "action": {"name": "read", "properties": {}},
    "resource": {"type": "todo", "id": "1", "properties": {"ip": "192.0.2.1"}},
    "context": {
        "workload": {"dag": "d", "task": "t", "run": "r", "environment": "prod", "tags": ["a"]},
        "ip": "192.0.2.1",
        "country": "DE",
    },
}  # fmt: skip
ROUTE: dict[str, Any] = {**FULL, "action": {"name": "GET"}, "resource": {"type": "route", "id": "/x", "properties": {
    "path": "/ledger/v1", "uri": "/ledger/v1", "hostname": "gate.example.com"
}}}  # fmt: skip

VALUES: dict[str, list[Any]] = {
    "object": [None, True, 0, 1.5, "x", [], [{}]],
    "text": [None, True, 0, 1.5, [], ["x"], {}],
    "texts": [None, True, 0, "x", {}, [1], [None], [["x"]], ["x", {}]],
}
TYPED: list[tuple[dict[str, Any], tuple[str | int, ...], str]] = [
    (FULL, ("subject",), "object"),
    (FULL, ("subject", "type"), "text"),
    (FULL, ("subject", "id"), "text"),
    (FULL, ("subject", "properties"), "object"),
    (FULL, ("subject", "properties", "issuer"), "text"),
    (FULL, ("subject", "properties", "roles"), "texts"),
    (FULL, ("subject", "properties", "claims"), "object"),
    (FULL, ("action",), "object"),
    (FULL, ("action", "name"), "text"),
    (FULL, ("action", "properties"), "object"),
    (FULL, ("resource",), "object"),
    (FULL, ("resource", "type"), "text"),
    (FULL, ("resource", "id"), "text"),
    (FULL, ("resource", "properties"), "object"),
    (FULL, ("resource", "properties", "ip"), "text"),
    (FULL, ("context",), "object"),
    (FULL, ("context", "workload"), "object"),
    (FULL, ("context", "workload", "dag"), "text"),
    (FULL, ("context", "workload", "task"), "text"),
    (FULL, ("context", "workload", "run"), "text"),
    (FULL, ("context", "workload", "environment"), "text"),
    (FULL, ("context", "workload", "tags"), "texts"),
    (FULL, ("context", "ip"), "text"),
    (FULL, ("context", "country"), "text"),
    (ROUTE, ("resource", "properties", "path"), "text"),
    (ROUTE, ("resource", "properties", "uri"), "text"),
    (ROUTE, ("resource", "properties", "hostname"), "text"),
]
PLACES = [pytest.param(*case, id=".".join(map(str, case[1]))) for case in TYPED]


@pytest.mark.parametrize(("request_", "path", "kind"), PLACES)
def test_a_wrong_type_is_refused_wherever_it_is(
    request_: dict[str, Any], path: tuple[str | int, ...], kind: str
) -> None:
    one(request_, EVERYTHING)  # as it is, it can be read
    for value in VALUES[kind]:
        told = unreadable(at(request_, path, value), EVERYTHING)
        assert ".".join(map(str, path)) in told, value
        [asked, wrong, last], _ = ask(
            {"evaluations": [request_, at(request_, path, value), request_]}, EVERYTHING, batch=True
        )
        assert isinstance(wrong, Invalid)
        assert (wrong.status, wrong.message[:15]) == (400, "evaluations[1].")
        assert asked == last == one(request_, EVERYTHING)


@pytest.mark.parametrize(
    "path",
    [("subject",), ("action",), ("resource",), ("subject", "type"), ("subject", "id"), ("action", "name"),
     ("resource", "type"), ("resource", "id")],
    ids=".".join,
)  # fmt: skip
def test_what_is_required_is_required(path: tuple[str, ...]) -> None:
    request = deepcopy(QUESTION)
    place = request
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    for batch in (False, True):
        assert unreadable(request, batch=batch) == f"request.{'.'.join(path)}: missing"
    [wrong, asked], _ = ask({"evaluations": [request, QUESTION]}, batch=True)
    assert wrong == Invalid(400, f"evaluations[0].{'.'.join(path)}: missing")
    assert asked == one(QUESTION)


@pytest.mark.parametrize(
    "path",
    [("subject", "type"), ("subject", "id"), ("action", "name"), ("resource", "type"), ("resource", "id"),
     ("subject", "properties", "issuer")],
    ids=".".join,
)  # fmt: skip
def test_names_have_a_length(path: tuple[str, ...]) -> None:
    request = at(about(), ("subject", "properties"), {})
    if path[-1] != "issuer":
        assert isinstance(one(at(request, path, "x" * LONGEST), EVERYTHING), Question)
    for value in ("", "x" * (LONGEST + 1)):
        assert unreadable(at(request, path, value), EVERYTHING).endswith(f"1 to {LONGEST} characters")


def test_members_that_are_not_known_are_ignored() -> None:
    more = {"a": [{"b": None}], "evaluation": 1, "__proto__": {}}
    request = {
        **QUESTION,
        **more,
        "subject": {**QUESTION["subject"], **more, "properties": more},
        "action": {**QUESTION["action"], **more, "properties": more},
        "resource": {**QUESTION["resource"], **more},
        "context": more,
    }
    assert one(request) == one(QUESTION)
    assert one({**QUESTION, "evaluations": "x", "options": "y"}) == one(QUESTION)  # of the other endpoint


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
MEMBERS = ("subject", "action", "resource", "context", "evaluations", "options")


@given(
    st.dictionaries(
        st.sampled_from(MEMBERS),
        JSON
        | st.dictionaries(
            st.sampled_from(["type", "id", "name", "properties", "workload", "evaluations_semantic"]), JSON
        )
        | st.lists(st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=4), max_size=3),
    ),
    st.booleans(),
)
def test_whatever_is_sent_is_read_or_refused(request: Any, batch: bool) -> None:
    outcome: Any
    try:
        outcome = ask(request, EVERYTHING, batch=batch)
    except Denied as denied:
        outcome = denied
    if isinstance(outcome, Denied):
        assert (outcome.reason, outcome.hint) == (Reason.REQUEST_BODY_INVALID, outcome.detail)
        assert outcome.hint
    else:
        asked, semantics = outcome
        assert 1 <= len(asked) <= MOST
        assert semantics in (SINGLE, *SEMANTICS)


# Several evaluations.


def test_what_an_evaluation_leaves_out_is_the_request_s() -> None:
    other = {"type": "list", "id": "2", "properties": {"a": 1}}
    context = {"ip": "192.0.2.9"}
    request = {
        **QUESTION,
        "context": context,
        "evaluations": [{}, {"action": {"name": "write"}}, {"resource": other}, {"context": {}}],
    }
    asked, semantics = ask(request, EVERYTHING, batch=True)
    singly = [
        {**QUESTION, "context": context},
        {**QUESTION, "context": context, "action": {"name": "write"}},
        {**QUESTION, "context": context, "resource": other},
        QUESTION,
    ]
    assert asked == [one(request, EVERYTHING) for request in singly]
    assert semantics == "execute_all"


def test_a_default_is_replaced_whole() -> None:
    resource = {"type": "todo", "id": "1", "properties": {"owner": "ada"}}
    request = {**QUESTION, "resource": resource, "evaluations": [{"resource": {"type": "todo", "id": "1"}}]}
    [asked], _ = ask(request, batch=True)
    assert asked == one(QUESTION)
    [wrong], _ = ask({**QUESTION, "evaluations": [{"resource": {"id": "1"}}]}, batch=True)
    assert wrong == Invalid(400, "evaluations[0].resource.type: missing")


@pytest.mark.parametrize(
    "more", [{}, {"evaluations": []}, {"evaluations": [], "options": {"evaluations_semantic": SEMANTICS[1]}}],
    ids=["no list", "an empty list", "an empty list with semantics"],
)  # fmt: skip
def test_without_a_list_there_is_one_evaluation(more: dict[str, Any]) -> None:
    assert ask({**QUESTION, **more}, batch=True) == ([one(QUESTION)], SINGLE)


def test_there_is_a_most() -> None:
    asked, _ = ask({**QUESTION, "evaluations": [{}] * MOST}, batch=True)
    assert asked == [one(QUESTION)] * MOST
    assert unreadable({**QUESTION, "evaluations": [{}] * (MOST + 1)}, batch=True).endswith(f"at most {MOST}")


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_semantics_are_chosen(semantics: str) -> None:
    request = {**QUESTION, "evaluations": [{}], "options": {"evaluations_semantic": semantics, "other": 1}}
    assert ask(request, batch=True)[1] == semantics


@pytest.mark.parametrize(
    "options",
    [None, [], "execute_all", {"evaluations_semantic": None}, {"evaluations_semantic": "execute"},
     {"evaluations_semantic": ["execute_all"]}, {"evaluations_semantic": ""}],
    ids=repr,
)  # fmt: skip
def test_semantics_that_are_not_known_are_refused(options: Any) -> None:
    request: dict[str, Any] = {**QUESTION, "options": options}
    assert unreadable({**request, "evaluations": []}, batch=True).startswith("request.options")
    assert unreadable({**request, "evaluations": [{}]}, batch=True).startswith("request.options")


@pytest.mark.parametrize("evaluations", [None, {}, "x", 1], ids=repr)
def test_a_list_is_a_list(evaluations: Any) -> None:
    assert unreadable({**QUESTION, "evaluations": evaluations}, batch=True).startswith("request.evaluations")


@pytest.mark.parametrize("item", [None, [], "x", 1, True], ids=repr)
def test_an_evaluation_is_an_object(item: Any) -> None:
    asked, _ = ask({**QUESTION, "evaluations": [{}, item]}, batch=True)
    assert asked == [one(QUESTION), Invalid(400, "evaluations[1]: not an object")]


@pytest.mark.parametrize(
    ("name", "value"),
    [("subject", "ada"), ("subject", {"id": "ada"}), ("action", {"name": 1}), ("resource", {"type": "todo"}),
     ("resource", {"type": "todo", "id": "1", "properties": []}), ("context", [])],
)  # fmt: skip
def test_a_default_is_complete_even_when_nobody_takes_it(name: str, value: Any) -> None:
    request = {**QUESTION, name: value, "evaluations": [{**QUESTION, "context": {}}]}
    assert unreadable(request, batch=True).startswith(f"request.{name}")


# About itself.


def test_about_itself_all_is_its_token_s() -> None:
    assert one(QUESTION) == Question(
        Target("read", "resource:todo", ("1",), "", "", {}), ASKER, CLIENT, COUNTRY
    )
    assert ASKER.effective == {"reader"}
    assert ASKER.workload == {"dag": Fact("finance_close", True), "task": Fact("load", False)}


NO_WIDENING: dict[str, dict[str, Any]] = {
    "another type": {"subject": {"type": "human", "id": "finance-etl"}},
    "its own issuer": {"subject": {**QUESTION["subject"], "properties": {"issuer": "company"}}},
    "more roles": {"subject": {**QUESTION["subject"], "properties": {"roles": ["reader", "publisher"]}}},
    "fewer roles": {"subject": {**QUESTION["subject"], "properties": {"roles": []}}},
    "roles of a wrong type": {"subject": {**QUESTION["subject"], "properties": {"roles": {"publisher": 1}}}},
    "other claims": {
        "subject": {
            **QUESTION["subject"],
            "properties": {"claims": {"groups": ["finance-publishers"], "department": "it"}},
        }
    },
    "another task": {"context": {"workload": {"dag": "other", "task": "other", "tags": ["finance"]}}},
    "another client": {"context": {"ip": "203.0.113.1", "country": "FR"}},
    "another time": {"context": {"time": "1985-10-26T01:22-07:00", "now": 0}},
}


@pytest.mark.parametrize("more", NO_WIDENING.values(), ids=NO_WIDENING)
@pytest.mark.parametrize("may", [SELF, anyone()], ids=["self", "any"])
def test_about_itself_a_body_changes_nothing(more: dict[str, Any], may: Asking) -> None:
    assert one({**QUESTION, **more}, may) == one(QUESTION)


@pytest.mark.parametrize("name", [name for name in NO_WIDENING if "role" in name or "claims" in name])
def test_whoever_may_speak_for_others_still_does_not_for_itself(name: str) -> None:
    assert one({**QUESTION, **NO_WIDENING[name]}, EVERYTHING) == one(QUESTION)


@given(properties=st.dictionaries(st.text(max_size=5) | st.sampled_from(["roles", "claims"]), JSON, max_size=4),
       context=st.dictionaries(st.text(max_size=5) | st.sampled_from(["ip", "country", "workload"]), JSON,
                               max_size=4))  # fmt: skip
def test_what_is_not_trusted_does_not_count(properties: dict[str, Any], context: dict[str, Any]) -> None:
    properties.pop("issuer", None)
    for may in (SELF, anyone()):
        for name in ("finance-etl", "ada")[: 1 + (may != SELF)]:
            plain = about({"type": "agent", "id": name})
            said = about({"type": "agent", "id": name, "properties": properties}, context=context)
            assert one(said, may) == one(plain, may)


def test_a_role_tag_narrows_what_it_asks_under() -> None:
    identity = ASKER.identity._replace(granted=frozenset({"reader", "publisher"}))
    tagged = act(identity, {"airgate-role": "reader"})
    caller = one(QUESTION, asker=tagged).caller
    assert caller.effective == {"reader"}
    assert caller.identity.granted == {"reader", "publisher"}


def test_trusted_about_its_task_it_replaces_what_headers_say_and_not_what_its_token_says() -> None:
    may = Asking("self", frozenset({"workload"}))
    context = {"workload": {"dag": "other", "run": "r1", "tags": ["finance"]}}
    assert one({**QUESTION, "context": context}, may).caller.workload == {
        "dag": Fact("finance_close", True),
        "run": Fact("r1", False),
        "tags": Fact(("finance",), False),
    }
    assert one(QUESTION, may).caller.workload == ASKER.workload


OTHERS = [
    pytest.param({"type": "workload", "id": "other"}, id="another subject"),
    pytest.param({"type": "workload", "id": "finance-etl "}, id="a space makes another subject"),
    pytest.param({"type": "workload", "id": "Finance-ETL"}, id="other letter case makes another subject"),
    pytest.param(
        {"type": "workload", "id": "finance-etl", "properties": {"issuer": "partner"}},
        id="the same name at another issuer",
    ),
    pytest.param(
        {"type": "workload", "id": "finance-etl", "properties": {"issuer": "nobody"}},
        id="an issuer that isn't there: no other answer than for one that is",
    ),
    pytest.param(
        {"type": "workload", "id": "finance-etl", "properties": {"issuer": ISSUER}},
        id="an issuer's address is no name",
    ),
]


@pytest.mark.parametrize("subject", OTHERS)
@pytest.mark.parametrize("trust", [(), ("roles", "claims", "workload", "client")], ids=["", "trusted"])
def test_nobody_asks_about_others_unless_policy_says_so(subject: dict[str, Any], trust: Any) -> None:
    may = Asking("self", frozenset(trust))
    denied = refused(lambda: ask(about(subject), may))
    assert (denied.reason, denied.hint) == (Reason.POLICY_NO_MATCH, "")
    # One such question among others refuses them all, wherever it stands.
    orders: list[list[dict[str, Any]]] = [[{"subject": subject}, {}], [{}, {"subject": subject}]]
    for evaluations in orders:
        request = {**QUESTION, "evaluations": evaluations}
        assert refused(lambda request=request: ask(request, may, batch=True)).reason is Reason.POLICY_NO_MATCH  # type: ignore[misc]


# About any subject.

KINDS = [
    pytest.param("workload", "company", "workload", id="a workload"),
    pytest.param("human", "company", "human", id="a human"),
    pytest.param("agent", "company", "agent", id="an agent"),
    pytest.param("user", "company", "human", id="a user is a human"),
    pytest.param("identity", "company", "workload", id="anything else is what its issuer's are"),
    pytest.param("identity", "partner", "agent", id="anything else is what another issuer's are"),
    pytest.param("Human", "company", "workload", id="letter case counts"),
    pytest.param("human", "partner", "agent", id="an issuer whose tokens say no kind: what all of its are"),
]


@pytest.mark.parametrize(("said", "issuer", "kind"), KINDS)
def test_kinds(said: str, issuer: str, kind: str) -> None:
    identity = one(
        about({"type": said, "id": "ada", "properties": {"issuer": issuer}}), anyone()
    ).caller.identity
    assert (identity.issuer, identity.subject, identity.kind) == (issuer, "ada", kind)


def test_an_issuer_that_is_not_there() -> None:
    subject = {"type": "user", "id": "ada", "properties": {"issuer": "nobody"}}
    assert unreadable(about(subject), anyone()) == (
        "request.subject.properties.issuer: expected the name of an issuer in policy"
    )
    [wrong, asked], _ = ask({**about(), "evaluations": [{"subject": subject}, {}]}, anyone(), batch=True)
    assert isinstance(wrong, Invalid)
    assert isinstance(asked, Question)


GROUPS = {"groups": ["finance-publishers"]}
ROLES = [
    pytest.param("ada", {}, (), set(), {"publisher", "reader"}, id="a claim could grant them: unknown"),
    pytest.param("auditor", {}, (), {"reader"}, {"publisher"}, id="granted to the subject: known"),
    pytest.param("ada", {"issuer": "partner"}, (), set(), {"visitor"}, id="another issuer, other roles"),
    pytest.param("auditor", {"issuer": "partner"}, (), set(), {"visitor"}, id="a grant is one issuer's"),
    pytest.param(
        "ada",
        {"roles": ["publisher"]},
        ("claims", "client"),
        set(),
        {"publisher", "reader"},
        id="not trusted",
    ),
    pytest.param("ada", {"roles": ["publisher"]}, ("roles",), {"publisher"}, set(), id="trusted with roles"),
    pytest.param("ada", {"roles": []}, ("roles",), set(), set(), id="trusted: it has none"),
    pytest.param("ada", {}, ("roles",), set(), {"publisher", "reader"}, id="trusted, and says nothing"),
    pytest.param(
        "auditor", {"roles": ["publisher"]}, ("roles",), {"publisher", "reader"}, set(), id="beside its own"
    ),
    pytest.param(
        "ada", {"claims": GROUPS}, ("roles",), set(), {"publisher", "reader"}, id="claims aren't trusted"
    ),
    pytest.param("ada", {"claims": GROUPS}, ("claims",), {"publisher"}, set(), id="trusted with claims"),
    pytest.param(
        "ada", {"claims": {"groups": []}}, ("claims",), set(), set(), id="a claim that grants nothing"
    ),
    pytest.param(
        "ada", {"claims": {"sub": "ada"}}, ("claims",), set(), {"publisher", "reader"}, id="claims without it"
    ),
    pytest.param("ada", {}, ("claims",), set(), {"publisher", "reader"}, id="no claims"),
    pytest.param(
        "ada",
        {"claims": GROUPS, "roles": ["visitor"]},
        ("claims", "roles"),
        {"publisher", "visitor"},
        set(),
        id="trusted with both",
    ),
]


@pytest.mark.parametrize(("subject", "properties", "trust", "granted", "unknown"), ROLES)
def test_roles(
    subject: str, properties: dict[str, Any], trust: tuple[str, ...], granted: set[str], unknown: set[str]
) -> None:
    caller = one(about({"type": "user", "id": subject, "properties": properties}), anyone(*trust)).caller
    assert caller.identity.granted == caller.effective == granted
    assert caller.identity.unknown == unknown
    assert caller.tagged is None


def claiming(claims: Any, kind: str = "identity", issuer: str = "company") -> dict[str, Any]:
    return about({"type": kind, "id": "ada", "properties": {"claims": claims, "issuer": issuer}})


def test_trusted_claims_are_read_as_a_token_s() -> None:
    claims = {
        "iss": ISSUER, "sub": "ada", "airgate_kind": "human", "groups": "finance-readers",
        "airflow": {"dag": "close"}, "department": ["finance", "it"], "other": 1,
    }  # fmt: skip
    caller = one(claiming(claims), anyone("claims")).caller
    assert caller.identity == identify(claims, "ada", COMPANY)._replace(untold=frozenset({"subject.dpop"}))
    assert caller.identity.claims == {("department",): ("finance", "it")}
    assert caller.workload == {"dag": Fact("close", True)}
    assert one(claiming(claims), anyone("roles")).caller == one(claiming({}), anyone("claims")).caller


@pytest.mark.parametrize(
    ("request_", "trust", "granted"),
    [
        pytest.param(claiming({}, "agent", "bots"), (), None, id="a kind that the asker says grants nothing"),
        pytest.param(claiming({}, "user", "bots"), (), None, id="nor is it known not to"),
        pytest.param(claiming({}, "agent", "bots"), ("claims",), None, id="claims that hold nothing"),
        pytest.param(
            claiming({"airgate_kind": "agent"}, "agent", "bots"),
            ("claims",),
            True,
            id="a kind that a claim says",
        ),
        pytest.param(
            claiming({"airgate_kind": "human"}, "user", "bots"),
            ("claims",),
            False,
            id="another kind in a claim",
        ),
        pytest.param(
            claiming({}, "identity", "robots"),
            (),
            True,
            id="a kind that no claim says: the issuer's only one",
        ),
    ],
)
def test_roles_by_kind(request_: dict[str, Any], trust: tuple[str, ...], granted: bool | None) -> None:
    """`granted`: None is unknown."""
    who = one(request_, anyone(*trust)).caller.identity
    assert ("bot" in who.granted, "bot" in who.unknown) == (granted is True, granted is None)


@pytest.mark.parametrize(
    ("claims", "trust", "actor", "untold"),
    [
        pytest.param(
            {"act": {"sub": "bot"}}, ("claims",), "bot", {"subject.dpop"}, id="an actor that claims tell"
        ),
        pytest.param({"sub": "ada"}, ("claims",), None, {"subject.dpop"}, id="claims that tell of none"),
        pytest.param({}, ("claims",), None, {"subject.dpop", "subject.delegated"}, id="no claims told"),
        pytest.param(
            {"act": {"sub": "bot"}}, ("roles",), None, {"subject.dpop", "subject.delegated"}, id="not trusted"
        ),
        pytest.param(
            {"cnf": {"jkt": "k" * 43}}, ("claims",), None, {"subject.dpop"}, id="a key that nobody proved"
        ),
    ],
)
def test_what_only_a_token_could_tell_is_unknown(
    claims: dict[str, Any], trust: tuple[str, ...], actor: str | None, untold: set[str]
) -> None:
    who = one(claiming(claims), anyone(*trust)).caller.identity
    assert (who.actor, who.jkt, who.untold) == (actor, None, untold)


CONTRADICTIONS = [
    pytest.param(claiming({"sub": "eve"}), "claims.sub", id="another subject"),
    pytest.param(claiming({"sub": None}), "claims.sub", id="no subject"),
    pytest.param(claiming({"iss": PARTNER}), "claims.iss", id="another issuer"),
    pytest.param(claiming({"airgate_kind": "workload"}, "user"), "subject.type", id="another kind than user"),
    pytest.param(claiming({"airgate_kind": "human"}, "agent"), "subject.type", id="another kind than agent"),
    pytest.param(claiming({"airgate_kind": "robot"}), "claims: kind", id="no kind"),
    pytest.param(claiming({"groups": [1]}), "claims: a claim that grants roles", id="groups are no texts"),
    pytest.param(claiming({"hasgroups": True}), "claims: 'groups' is not in it", id="groups elsewhere"),
    pytest.param(claiming({"airflow": {"dag": ["x"]}}), "claims: the attested dag", id="a list of DAGs"),
]


@pytest.mark.parametrize(("request_", "told"), CONTRADICTIONS)
def test_claims_that_contradict_are_refused(request_: dict[str, Any], told: str) -> None:
    assert told in unreadable(request_, anyone("claims"))
    one(request_, anyone("roles", "workload", "client"))  # where they don't count, nobody looks


def test_claims_and_type_may_agree() -> None:
    assert one(claiming({"airgate_kind": "human"}, "user"), anyone("claims")).caller.identity.kind == "human"
    # What the gate would not read in a token, it does not read here.
    partner = one(claiming({"airgate_kind": "human"}, "user", "partner"), anyone("claims"))
    assert partner.caller.identity.kind == "agent"
    assert (
        one(claiming({"email": "a@example.com"}, "user"), anyone("claims")).caller.identity.kind == "workload"
    )


WRONG_ROLES = [
    pytest.param(["Reader"], id="capitals"),
    pytest.param([""], id="an empty one"),
    pytest.param(["reader\n"], id="a line break"),
    pytest.param(["*"], id="a star"),
    pytest.param(["x" * 64], id="64 characters"),
    pytest.param(["reader"] * (MOST_VALUES + 1), id="too many"),
]


@pytest.mark.parametrize("roles", WRONG_ROLES)
def test_what_cannot_be_a_role_is_refused(roles: list[str]) -> None:
    subject = {"type": "user", "id": "ada", "properties": {"roles": roles}}
    assert "subject.properties.roles" in unreadable(about(subject), anyone("roles"))
    one(about(subject), anyone())


def test_another_s_task_is_unknown_unless_the_asker_is_trusted_to_say_it() -> None:
    request = about({"type": "workload", "id": "x"}, context={"workload": FULL["context"]["workload"]})
    assert one(request, anyone("roles", "claims", "client")).caller.workload == {}
    assert one(request, anyone("workload")).caller.workload == {
        "dag": Fact("d", False),
        "task": Fact("t", False),
        "run": Fact("r", False),
        "environment": Fact("prod", False),
        "tags": Fact(("a",), False),
    }


def test_what_the_claims_say_of_a_task_stands() -> None:
    request = {
        **claiming({"airflow": {"dag": "close"}}, "workload"),
        "context": {"workload": {"dag": "x", "run": "r"}},
    }
    workload = one(request, EVERYTHING).caller.workload
    assert workload == {"dag": Fact("close", True), "run": Fact("r", False)}


WRONG_WORKLOAD = [
    pytest.param({"dag": ""}, "dag", id="an empty DAG"),
    pytest.param({"dag": "x" * 257}, "dag", id="an endless DAG"),
    pytest.param({"task": "a\tb"}, "task", id="a tab"),
    pytest.param({"run": "\u202e"}, "run", id="text that turns its direction"),
    pytest.param({"environment": 1}, "environment", id="a number"),
    pytest.param({"tags": "finance"}, "tags", id="tags are no list"),
    pytest.param({"tags": [""]}, "tags", id="an empty tag"),
    pytest.param({"tags": ["x" * 257]}, "tags", id="an endless tag"),
    pytest.param({"tags": ["a"] * (MOST_TAGS + 1)}, "tags", id="too many tags"),
]


@pytest.mark.parametrize(("workload", "member"), WRONG_WORKLOAD)
def test_a_task_that_cannot_be_is_refused(workload: dict[str, Any], member: str) -> None:
    request = about(context={"workload": workload})
    assert f"context.workload.{member}" in unreadable(request, anyone("workload"))
    one(request, anyone())


def located(ip: Any = None, country: Any = None, resource_ip: Any = None) -> dict[str, Any]:
    context = {name: value for name, value in (("ip", ip), ("country", country)) if value is not None}
    resource: dict[str, Any] = {"type": "todo", "id": "1"}
    if resource_ip is not None:
        resource["properties"] = {"ip": resource_ip}
    return {"context": context, "resource": resource}


WHENCE = [
    pytest.param({}, None, None, id="nothing"),
    pytest.param(located("192.0.2.1"), "192.0.2.1", None, id="the context's address"),
    pytest.param(located(resource_ip="192.0.2.1"), "192.0.2.1", None, id="the resource's address"),
    pytest.param(located("192.0.2.1", "FR", "192.0.2.1"), "192.0.2.1", "FR", id="both agree"),
    pytest.param(located("2001:db8::1"), "2001:db8::1", None, id="version 6"),
    pytest.param(located(country="FR"), None, "FR", id="a country alone"),
]


@pytest.mark.parametrize(("more", "client", "country"), WHENCE)
def test_where_another_calls_from(more: dict[str, Any], client: str | None, country: str | None) -> None:
    trusted = one(about(**more), anyone("client"))
    assert (trusted.client, trusted.country) == (client, country)
    untrusted = one(about(**more), anyone("roles", "claims", "workload"))
    assert (untrusted.client, untrusted.country) == (None, None)  # never where the asker calls from


def test_where_it_calls_from_itself() -> None:
    asked = one({**QUESTION, **located("192.0.2.1")}, anyone("client"))
    # With another address the country is another's, too.
    assert (asked.client, asked.country) == ("192.0.2.1", None)
    asked = one(QUESTION, anyone("client"))
    assert (asked.client, asked.country) == (CLIENT, COUNTRY)


WRONG_PLACES = [
    pytest.param(located("192.0.2.1/32"), "context.ip", id="a range"),
    pytest.param(located("192.0.2.1:80"), "context.ip", id="a port"),
    pytest.param(located("192.0.2.01"), "context.ip", id="a leading zero"),
    pytest.param(located("localhost"), "context.ip", id="a name"),
    pytest.param(located(""), "context.ip", id="nothing in it"),
    pytest.param(located(resource_ip="x"), "resource.properties.ip", id="no address of the resource"),
    pytest.param(located("192.0.2.1", resource_ip="192.0.2.2"), "context.ip", id="two addresses"),
    pytest.param(located(country="de"), "context.country", id="a country in small letters"),
    pytest.param(located(country="DEU"), "context.country", id="three letters"),
    pytest.param(located(country="D\n"), "context.country", id="a line break"),
]


@pytest.mark.parametrize(("more", "told"), WRONG_PLACES)
def test_a_place_that_cannot_be_is_refused(more: dict[str, Any], told: str) -> None:
    assert told in unreadable(about(**more), anyone("client"))
    one(about(**more), anyone())


# What is asked for.

PROPERTIES = [
    pytest.param("ada@example.com", ("ada@example.com",), id="a text"),
    pytest.param("", ("",), id="an empty text"),
    pytest.param(7, ("7",), id="a whole number"),
    pytest.param(-7, ("-7",), id="a negative number"),
    pytest.param(True, ("true",), id="true"),
    pytest.param(False, ("false",), id="false"),
    pytest.param(["a", 1, True, "1"], ("a", "1", "true", "1"), id="a list of them"),
    pytest.param([], (), id="an empty list"),
    pytest.param(["a"] * MOST_VALUES, ("a",) * MOST_VALUES, id="100 values"),
    pytest.param(["a"] * (MOST_VALUES + 1), None, id="101 values: unknown"),
    pytest.param(None, None, id="null: unknown"),
    pytest.param(1.0, None, id="a number with a point: unknown"),
    pytest.param({"a": 1}, None, id="an object: unknown"),
    pytest.param(["a", None], None, id="a list with null in it: unknown"),
    pytest.param(["a", ["b"]], None, id="a list in a list: unknown"),
]


@pytest.mark.parametrize(("value", "held"), PROPERTIES)
def test_properties_of_a_resource(value: Any, held: tuple[str, ...] | None) -> None:
    resource = {"type": "todo", "id": "../1?", "properties": {"owner": value, "other": "x"}}
    expected = {"other": ("x",)} | ({} if held is None else {"owner": held})
    assert one({**QUESTION, "resource": resource}).target == Target(
        "read", "resource:todo", ("../1?",), "", "", expected
    )


def call(upstream: str, *segments: str, path: str | None = None, query: str = "?;") -> Target:
    return Target("GET", upstream, segments, "/" + "/".join(segments) if path is None else path, query)


ROUTES = [
    pytest.param("/ledger/v1/entries", {}, call("ledger", "v1", "entries"), id="the id"),
    pytest.param("/x/{y}", {"path": "/ledger/v1/7"}, call("ledger", "v1", "7"), id="the path beside a template"),
    pytest.param("x", {"path": "/ledger/v1?a=1"}, call("ledger", "v1", query="?a=1"), id="a path with its query"),
    pytest.param("x", {"path": "/ledger/v1?"}, call("ledger", "v1", query="?"), id="a path that says: no query"),
    pytest.param("x", {"uri": "/ledger/v1"}, call("ledger", "v1"), id="a URI without a host"),
    pytest.param(
        "x", {"uri": "https://gate.example.com/ledger/v1"}, call("ledger", "v1", query=""), id="a whole URI"
    ),
    pytest.param(
        "x",
        {"uri": "HTTPS://gate.example.com/ledger/v1?a=1", "path": "/ledger/v1"},
        call("ledger", "v1", query="?a=1"),
        id="a whole URI, and its path",
    ),
    pytest.param(
        "x", {"path": "/ledger/%61", "hostname": "Gate.example.com."}, call("ledger", "a"), id="the gate's host"
    ),
    pytest.param(
        "x", {"path": "/ledger/a%20b/"}, call("ledger", "a b", path="/a%20b/"), id="as the gate reads it"
    ),
    pytest.param("/", {}, call("", path=""), id="no upstream"),
    pytest.param("/-/health", {}, call("-", "health"), id="a page of the gate's own"),
    # As the upstreams' own hosts are called.
    pytest.param(
        "x", {"path": "/api/v1/x", "hostname": "ledger.example.com"}, call("ledger", "v1", "x"), id="its host"
    ),
    pytest.param(
        "x", {"path": "/api/v2/x", "hostname": "ledger.example.com"}, call("ledger-v2", "x"), id="longest base"
    ),
    pytest.param(
        "x", {"path": "/api/v20", "hostname": "ledger.example.com"}, call("ledger", "v20"), id="whole segments"
    ),
    pytest.param("x", {"path": "/api", "hostname": "ledger.example.com"}, call("ledger", path=""), id="its base"),
    pytest.param(
        "x", {"path": "/%61pi/", "hostname": "LEDGER.example.com:443"}, call("ledger"), id="other spellings"
    ),
    pytest.param(
        "x", {"path": "/ledger/x", "hostname": "crm.example.com"}, call("crm", "ledger", "x"), id="no name in it"
    ),
    pytest.param(
        "x", {"uri": "https://crm.example.com/a?b"}, call("crm", "a", query="?b"), id="a whole URI's host"
    ),
    *[
        pytest.param("x", {"uri": f"{start}/api/v1/x"}, call("ledger", "v1", "x", query=""), id=start)
        for start in (
            "https://ledger.example.com.",
            "https://LEDGER.example.com:",
            "https://ledger.example.com:00443",
        )
    ],
]  # fmt: skip


def route(name: str, properties: dict[str, Any], method: str = "GET") -> dict[str, Any]:
    return {
        **QUESTION,
        "action": {"name": method},
        "resource": {"type": "route", "id": name, "properties": properties},
    }


@pytest.mark.parametrize(("name", "properties", "target"), ROUTES)
def test_routes(name: str, properties: dict[str, Any], target: Target) -> None:
    assert one(route(name, properties)).target == target


AMBIGUOUS, MALFORMED = "route.path_ambiguous", "route.malformed"
NO_ROUTES = [
    pytest.param("/todos/{id}", {}, AMBIGUOUS, id="a template alone"),
    pytest.param("/ledger/../crm/x", {}, AMBIGUOUS, id="dot segments"),
    pytest.param("x", {"path": "/ledger/%2e%2e/x"}, AMBIGUOUS, id="encoded dot segments"),
    pytest.param("x", {"path": "/ledger//x"}, AMBIGUOUS, id="an empty segment"),
    pytest.param("x", {"path": "/ledger/a%2fb"}, AMBIGUOUS, id="an encoded slash"),
    pytest.param("x", {"path": "/ledger/a;b=c"}, AMBIGUOUS, id="a path parameter"),
    pytest.param("x", {"path": "/ledger/a%252fb"}, AMBIGUOUS, id="encoded twice"),
    pytest.param("x", {"path": "/ledger/a\\b"}, AMBIGUOUS, id="a backslash"),
    # A host that is nobody's would let whoever sends it choose how the path is read.
    *[
        pytest.param("x", {"uri": f"{start}/ledger/a"}, MALFORMED, id=start)
        for start in (
            "http://crm.example.com",
            "https://crm.example.com:8443",
            "https://crm.example.com ",
            "https://crm.example.com..",
            "https://api.example.com",
        )
    ],
    pytest.param("x", {"path": "/ledger/a", "hostname": ""}, MALFORMED, id="a host of no letters"),
    pytest.param(
        "x", {"path": "/ledger/a", "hostname": "gate.example.com:8443"}, MALFORMED, id="another port"
    ),
    pytest.param(
        "x",
        {"uri": "https://crm.example.com/ledger/a", "hostname": "gate.example.com"},
        AMBIGUOUS,
        id="two hosts",
    ),
    pytest.param("x", {"path": "/a", "uri": "/b"}, AMBIGUOUS, id="path and URI differ"),
    pytest.param("x", {"path": "/a?b=1", "uri": "/a?b=2"}, AMBIGUOUS, id="their queries differ"),
    pytest.param("x", {"path": "/a?b=1", "uri": "/a"}, AMBIGUOUS, id="only the path has a query"),
    pytest.param("ledger/v1", {}, MALFORMED, id="no slash"),
    pytest.param(".evil.example/ledger/v1", {}, MALFORMED, id="more of a host"),
    pytest.param("x", {"path": ""}, MALFORMED, id="an empty path"),
    pytest.param(
        "/ledger", {"path": "ledger"}, MALFORMED, id="a path without a slash, beside an id with one"
    ),
    pytest.param("x", {"path": "/ledger/{id}"}, MALFORMED, id="a template as a path"),
    pytest.param("x", {"path": "/ledger/a#b"}, MALFORMED, id="a fragment"),
    pytest.param("x", {"path": "/ledger/ä"}, MALFORMED, id="not encoded"),
    pytest.param("x", {"path": "/ledger/" + "a" * 9000}, MALFORMED, id="endless"),
    pytest.param("x", {"uri": "https://me@crm.example.com/x"}, MALFORMED, id="a user in the URI"),
    pytest.param("x", {"uri": "ftp://crm.example.com/x"}, MALFORMED, id="another protocol"),
    pytest.param("x", {"uri": "//crm.example.com/x"}, MALFORMED, id="a URI without a scheme"),
    pytest.param("x", {"uri": "https://crm.example.com"}, MALFORMED, id="a URI without a path"),
    pytest.param("/resource:todo/1", {}, MALFORMED, id="a resource dressed up as an upstream"),
    pytest.param("/resource%3Atodo/1", {}, MALFORMED, id="a resource dressed up and encoded"),
    pytest.param(
        "x", {"path": "/other", "hostname": "ledger.example.com"}, MALFORMED, id="beside the upstream's base"
    ),
    pytest.param(
        "x", {"path": "/apix", "hostname": "ledger.example.com"}, MALFORMED, id="base and path share letters"
    ),
    pytest.param(
        "x", {"path": "/api/../x", "hostname": "ledger.example.com"}, AMBIGUOUS, id="out of the base"
    ),
    pytest.param(
        "x", {"path": "/x", "hostname": "twin.example.com"}, AMBIGUOUS, id="two upstreams at one address"
    ),
]


@pytest.mark.parametrize(("name", "properties", "code"), NO_ROUTES)
def test_a_route_with_more_than_one_reading_is_an_error_of_its_own(
    name: str, properties: dict[str, Any], code: str
) -> None:
    [wrong], semantics = ask(route(name, properties))
    assert semantics == SINGLE
    assert isinstance(wrong, Invalid)
    assert (wrong.status, f"({code})" in wrong.message) == (400, True)
    several = {"evaluations": [route(name, properties), QUESTION]}
    assert ask(several, batch=True)[0] == [wrong, one(QUESTION)]


@pytest.mark.parametrize("method", ["get", "TRACE", "CONNECT", "*", "GET "])
def test_a_method_is_one(method: str) -> None:
    [wrong], _ = ask(route("/ledger/x", {}, method))
    assert wrong == Invalid(400, "The method is not supported (request.method)")


def test_a_subject_comes_before_a_route() -> None:
    """Or the errors of routes would answer those who may not ask."""
    request = {**route("/ledger/../x", {}), "subject": {"type": "user", "id": "ada"}}
    assert refused(lambda: ask(request)).reason is Reason.POLICY_NO_MATCH


def test_without_upstreams_no_host_is_one() -> None:
    body = json.dumps(route("x", {"path": "/ledger/x", "hostname": "ledger.example.com"})).encode()
    [asked], _ = questions(body, False, ASKER, SELF, BUNDLE.issuers, None, None)
    assert isinstance(asked, Invalid)


# Answers.

PERMIT = Decision(True, None, permits=("p",), owner="o@example.com", shadow=("s",), bundle="b")
DENY = Decision(False, Reason.POLICY_NO_MATCH, owner="o@example.com")
FORBID = Decision(False, Reason.POLICY_FORBIDDEN, permits=("p",), forbids=("f", "g"))
LIMITS = (Limit(60, 60, ("subject",), ""), Limit(5, 10, ("subject", "dag"), "p"))
ASKED = one(QUESTION)

ANSWERS = [
    pytest.param(PERMIT, {"decision": True}, ["p"], id="permitted"),
    pytest.param(DENY, {"decision": False, "context": {"reason": "policy.no_match"}}, [], id="no match"),
    pytest.param(
        FORBID, {"decision": False, "context": {"reason": "policy.forbidden"}}, ["f", "g"], id="forbidden"
    ),
    pytest.param(
        PERMIT._replace(
            permit=False,
            reason=Reason.POLICY_OBLIGATION,
            obligations=Obligations(max_body=5, conflict="credentials reader, writer"),
        ),
        {"decision": False, "context": {"reason": "policy.obligation"}},
        ["p"],
        id="a conflict denies",
    ),
    pytest.param(
        DENY._replace(obligations=Obligations(max_body=5)),
        {"decision": False, "context": {"reason": "policy.no_match"}},
        [],
        id="a denial has no obligations",
    ),
    pytest.param(
        PERMIT._replace(
            obligations=Obligations(LIMITS, "writer", 1000, ("x-change-id",), True, (("notify", '["a"]'),))
        ),
        {
            "decision": True,
            "context": {
                "obligations": [
                    {
                        "id": "rate_limit",
                        "type": "rate_limit",
                        "properties": {"limit": 60, "per": 60, "by": ["subject"]},
                    },
                    {
                        "id": "rate_limit-2",
                        "type": "rate_limit",
                        "properties": {"limit": 5, "per": 10, "by": ["subject", "dag"]},
                    },
                    {"id": "credential", "type": "credential", "properties": {"name": "writer"}},
                    {"id": "max_body", "type": "max_body", "properties": {"bytes": 1000}},
                    {
                        "id": "require",
                        "type": "require",
                        "properties": {"headers": ["x-change-id"], "justification": True},
                    },
                    {"id": "notify", "type": "notify", "properties": {"value": ["a"]}},
                ]
            },
        },
        ["p"],
        id="obligations are the asker's duty, those that the gate does not know as well",
    ),
]


@pytest.mark.parametrize(("decision", "document", "policies"), ANSWERS)
def test_an_answer(decision: Decision, document: dict[str, Any], policies: list[str]) -> None:
    assert answer([ASKED], SINGLE, SELF, lambda _: decision) == document
    context = document.get("context", {}) | ({"policies": policies} if policies else {})
    expected = {"decision": document["decision"]} | ({"context": context} if context else {})
    assert answer([ASKED], SINGLE, anyone(), lambda _: decision) == expected
    assert answer([ASKED], "execute_all", SELF, lambda _: decision) == {"evaluations": [document]}


def test_an_evaluation_that_cannot_be_made_is_denied() -> None:
    wrong = Invalid(400, "evaluations[0].resource: missing")
    document = {
        "decision": False,
        "context": {"error": {"status": 400, "message": "evaluations[0].resource: missing"}},
    }
    assert answer([wrong], SINGLE, SELF, lambda _: PERMIT) == document
    assert answer([wrong], "execute_all", anyone(), lambda _: PERMIT) == {"evaluations": [document]}


RUNS = [
    pytest.param("pdp", "execute_all", "pdp", id="all"),
    pytest.param("ppp", "deny_on_first_deny", "ppp", id="until one is denied, and none is"),
    pytest.param("pdp", "deny_on_first_deny", "pd", id="until one is denied"),
    pytest.param("pep", "deny_on_first_deny", "pe", id="until one is denied: an error is"),
    pytest.param("dpd", "permit_on_first_permit", "dp", id="until one is permitted"),
    pytest.param("edp", "permit_on_first_permit", "edp", id="until one is permitted, the last"),
    pytest.param("ddd", "permit_on_first_permit", "ddd", id="until one is permitted, and none is"),
]


@pytest.mark.parametrize(("each", "semantics", "made"), RUNS)
def test_evaluations_run_until(each: str, semantics: str, made: str) -> None:
    decided: list[str] = []

    def decide(question: Question) -> Decision:
        decided.append(question.target.method)
        return PERMIT if question.target.method == "p" else DENY

    asked = [
        Invalid(400, "x") if letter == "e" else ASKED._replace(target=ASKED.target._replace(method=letter))
        for letter in each
    ]
    document = answer(asked, semantics, SELF, decide)
    assert [one["decision"] for one in document["evaluations"]] == [letter == "p" for letter in made]
    assert decided == [letter for letter in made if letter != "e"]  # and nothing is decided for nothing


# From a question to the answer, by policy.


def on_todos(effect: str, *conditions: list[Any]) -> dict[str, Any]:
    return rule(
        id=effect,
        effect=effect,
        target={"upstreams": ["resource:todo"], "methods": ["*"], "paths": ["/*"]},
        conditions=list(conditions),
    )


def on_calls(effect: str, *conditions: list[Any], path: str = "/v1/**") -> dict[str, Any]:
    return rule(
        id=effect,
        effect=effect,
        target={"upstreams": ["ledger"], "methods": ["*"], "paths": [path]},
        conditions=list(conditions),
    )


READER = ["subject.roles.any", ["reader"]]
NO_READER = ["subject.roles.none", ["reader"]]
FINANCE = ["subject.claims.any", ["department"], ["finance"]]
OFFICE = ["when.ip", ["198.51.100.0/24"]]
HERE = ["when.country", ["DE"]]
CLOSE = ["workload.dag", ["finance_*"], False]
CLOSE_ATTESTED = ["workload.dag", ["finance_*"], True]
OWNED = ["target.properties.any", "owner", ["ada"]]
AS_CSV = ["target.query.any", "format", ["csv"]]
NOT_AS_CSV = ["target.query.none", "format", ["csv"]]
ETL = {"type": "workload", "id": "etl"}
BY_ADA = {"resource": {"type": "todo", "id": "1", "properties": {"owner": "ada"}}}
READING = {"type": "user", "id": "ada", "properties": {"roles": ["reader"]}}
CLOSING = {"context": {"workload": {"dag": "finance_close"}}}
AT_THE_OFFICE = {"context": {"ip": CLIENT, "country": COUNTRY}}

# A question about another, and whether one condition lets a permit, and a forbid, match. Unknown: False, True.
DECIDED = [
    pytest.param(READER, about(), (), (False, True), id="an unknown role"),
    pytest.param(NO_READER, about(), (), (False, True), id="an unknown role that must not be"),
    pytest.param(READER, about(READING), (), (False, True), id="a role that nobody trusts the asker to know"),
    pytest.param(READER, about(READING), ("roles",), (True, True), id="a role from a trusted asker"),
    pytest.param(NO_READER, about(), ("roles",), (False, True), id="a trusted asker that says nothing"),
    pytest.param(
        NO_READER,
        about({**READING, "properties": {"roles": []}}),
        ("roles",),
        (True, True),
        id="no roles from a trusted asker",
    ),
    pytest.param(READER, about("auditor"), (), (True, True), id="a role of the subject's own"),
    pytest.param(FINANCE, about(), (), (False, True), id="an unknown claim"),
    pytest.param(FINANCE, claiming({"department": "it"}), (), (False, True), id="a claim that isn't trusted"),
    pytest.param(FINANCE, claiming({"department": "it"}), ("claims",), (False, False), id="a trusted claim"),
    pytest.param(OFFICE, about(), (), (False, True), id="an unknown address: not the asker's"),
    pytest.param(OFFICE, about(**AT_THE_OFFICE), (), (False, True), id="an address that isn't trusted"),
    pytest.param(OFFICE, about(**AT_THE_OFFICE), ("client",), (True, True), id="a trusted address"),
    pytest.param(HERE, about(**AT_THE_OFFICE), (), (False, True), id="a country that isn't trusted"),
    pytest.param(CLOSE, about(**CLOSING), ("workload",), (False, False), id="a human has no DAG"),
    pytest.param(CLOSE, about(ETL), (), (False, True), id="an unknown DAG: not the asker's"),
    pytest.param(CLOSE, about(ETL, **CLOSING), (), (False, True), id="a DAG that isn't trusted"),
    pytest.param(CLOSE, about(ETL, **CLOSING), ("workload",), (True, True), id="a trusted DAG"),
    pytest.param(
        CLOSE_ATTESTED, about(ETL, **CLOSING), ("workload",), (False, True), id="a trusted DAG is no attested one"
    ),
    pytest.param(OWNED, about(), (), (False, True), id="an unknown property"),
    pytest.param(OWNED, about(**BY_ADA), (), (True, True), id="a property"),
]  # fmt: skip


@pytest.mark.parametrize(("condition", "request_", "trust", "matches"), DECIDED)
def test_decisions(
    condition: list[Any], request_: dict[str, Any], trust: tuple[str, ...], matches: tuple[bool, bool]
) -> None:
    asked = one(request_, anyone(*trust))
    assert (
        decision(asked, on_todos("permit", condition)).permit,
        not decision(asked, on_todos("permit"), on_todos("forbid", condition)).permit,
    ) == matches


def decision(asked: Question, *policies: dict[str, Any]) -> Decision:
    [(upstream, text)] = shards(*policies).items()
    assert asked.target.upstream == upstream
    call = Call(asked.caller, asked.target, NOW, asked.client, asked.country)
    return load_shard(text, upstream).decide(call)


QUERIES = [
    pytest.param({"path": "/ledger/v1/x"}, (False, False, False), id="a path says nothing of the query"),
    pytest.param({"path": "/ledger/v1/x?format=csv"}, (True, False, False), id="a query"),
    pytest.param({"path": "/ledger/v1/x?"}, (False, True, True), id="no query, said so"),
    pytest.param(
        {"uri": "https://gate.example.com/ledger/v1/x"}, (False, True, True), id="a URI without one"
    ),
]


@pytest.mark.parametrize(("properties", "permitted"), QUERIES)
def test_an_unknown_query_opens_nothing(
    properties: dict[str, Any], permitted: tuple[bool, bool, bool]
) -> None:
    asked = one(route("x", properties))
    assert (
        decision(asked, on_calls("permit", AS_CSV)).permit,
        decision(asked, on_calls("permit", NOT_AS_CSV)).permit,
        decision(asked, on_calls("permit"), on_calls("forbid", AS_CSV)).permit,
    ) == permitted


def test_a_call_and_a_question_about_it_agree() -> None:
    policies = on_calls("permit", path="/v1/entries/{id}"), on_calls("forbid", path="/v1/entries/secret")
    for name, permitted in (("7", True), ("secret", False), ("%73ecret", False)):
        asked = one(route("/entries/{id}", {"path": f"/ledger/v1/entries/{name}"}))
        assert decision(asked, *policies).permit is permitted
