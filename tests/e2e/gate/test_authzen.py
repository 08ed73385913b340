"""AuthZEN through the running gate: published decisions, gateways' questions, and what nobody learns."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airgate.node import PROJECT

SEED = Path(__file__).resolve().parent / "authzen"
EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"
CONFIGURATION = "/.well-known/authzen-configuration"
JSON = {"Content-Type": "application/json"}
TODO, GATEWAY = "svc-todo-app", "svc-gateway"

_CORPORA = PROJECT / os.environ.get("AIRGATE_CORPORA", "../shared/corpora")
_FILE = _CORPORA / "authzen" / "todo-decisions-1_0-02.json"
CORPUS: dict[str, Any] = json.loads(_FILE.read_text("utf-8")) if _FILE.is_file() else {}
MISSING = pytest.param(
    None, None, marks=pytest.mark.skip(reason=f"{_FILE} isn't there: published decisions, kept elsewhere")
)

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def todos(start_gate: Callable[..., Any], publish: Callable[..., Any]) -> Any:
    """A gate with the policies of the folder beside this file."""
    gate = start_gate()
    publish(SEED, gate)
    gate.wait()
    return gate


@pytest.fixture(scope="module")
def ask(todos: Any, mint: Callable[..., str]) -> Ask:
    """ask(request, asker=TODO, path=EVALUATION, headers={}, **claims): the answer to a question that `asker` sends."""
    tokens: dict[str, str] = {}

    def send(
        request: Any,
        asker: str = TODO,
        path: str = EVALUATION,
        headers: dict[str, str] | None = None,
        **claims: Any,
    ) -> Any:
        claims = {"sub": asker, "groups": []} | claims
        token = tokens.setdefault(json.dumps(claims), mint(claims))
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        return todos.call(path, "POST", token=token, headers={**JSON, **(headers or {})}, body=body)

    return send


def document(answer: Any) -> Any:
    """The document of a question that was answered."""
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json"), answer.body
    return answer.json()


def decision(answer: Any) -> bool:
    """A single decision; anything but a boolean fails."""
    decided = document(answer)
    assert type(decided["decision"]) is bool
    assert "evaluations" not in decided
    return bool(decided["decision"])


def decisions(answer: Any) -> list[bool]:
    decided = document(answer)
    assert decided.keys() == {"evaluations"}
    assert {type(one["decision"]) for one in decided["evaluations"]} == {bool}
    return [one["decision"] for one in decided["evaluations"]]


def question(
    subject: str, action: str = "can_create_todo", resource: Any = "todo", **more: Any
) -> dict[str, Any]:
    if isinstance(resource, str):
        resource = {"type": resource, "id": "1"}
    return {
        "subject": {"type": "user", "id": subject},
        "action": {"name": action},
        "resource": resource,
        **more,
    }


# The interoperability events.


def _title(number: int, request: dict[str, Any]) -> str:
    owner = request["resource"].get("properties", {}).get("ownerID", "")
    return f"{number} {request['action']['name']} {owner}".strip()


SINGLE = [
    pytest.param(case["request"], case["expected"], id=_title(number, case["request"]))
    for number, case in enumerate(CORPUS.get("evaluation", ()))
] or [MISSING]
BATCHES = [
    pytest.param(case["request"], case["expected"], id=f"batch {number}")
    for number, case in enumerate(CORPUS.get("evaluations", ()))
] or [MISSING]


@pytest.mark.parametrize(("request_", "expected"), SINGLE)
def test_a_decision_of_the_events(ask: Ask, request_: Any, expected: bool) -> None:
    assert decision(ask(request_)) is expected
    assert decision(ask(request_, path=EVALUATIONS)) is expected  # without a list: the same question


@pytest.mark.parametrize(("request_", "expected"), BATCHES)
def test_a_batch_of_the_events(ask: Ask, request_: Any, expected: Any) -> None:
    assert decisions(ask(request_, path=EVALUATIONS)) == [one["decision"] for one in expected]
    for one, outcome in zip(request_["evaluations"], expected, strict=True):
        single = {name: value for name, value in (request_ | one).items() if name != "evaluations"}
        assert decision(ask(single)) is outcome["decision"]


@pytest.mark.skipif(not CORPUS, reason=f"{_FILE} isn't there: published decisions, kept elsewhere")
def test_the_events_decisions_are_all_here() -> None:
    assert (len(SINGLE), len(BATCHES)) == (40, 3)


# Several at once. The first editor may create, and the first viewer may not.

EDITOR = "CiRmZDE2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs"
VIEWER = "CiRmZDM2MTRkMy1jMzlhLTQ3ODEtYjdiZC04Yjk2ZjVhNTEwMGQSBWxvY2Fs"
WHO = {
    "p": {"subject": {"type": "user", "id": EDITOR}},
    "d": {"subject": {"type": "user", "id": VIEWER}},
    "e": {"subject": {"type": "user"}},
}
RUNS = [
    pytest.param("pdep", None, "pdep", id="no semantics: all"),
    pytest.param("pdep", "execute_all", "pdep", id="all"),
    pytest.param("ppdp", "deny_on_first_deny", "ppd", id="until one is denied"),
    pytest.param("pep", "deny_on_first_deny", "pe", id="until one can't be made"),
    pytest.param("pp", "deny_on_first_deny", "pp", id="until one is denied, and none is"),
    pytest.param("dep", "permit_on_first_permit", "dep", id="until one is permitted, the last"),
    pytest.param("pdp", "permit_on_first_permit", "p", id="until one is permitted, the first"),
    pytest.param("dd", "permit_on_first_permit", "dd", id="until one is permitted, and none is"),
]


@pytest.mark.parametrize(("each", "semantics", "made"), RUNS)
def test_semantics(todos: Any, ask: Ask, each: str, semantics: str | None, made: str) -> None:
    request = {**question(EDITOR), "evaluations": [WHO[letter] for letter in each]}
    if semantics is not None:
        request["options"] = {"evaluations_semantic": semantics}
    answer = ask(request, path=EVALUATIONS)
    assert decisions(answer) == [letter == "p" for letter in made]
    for letter, one in zip(made, document(answer)["evaluations"], strict=True):
        assert ("error" in one.get("context", {})) == (letter == "e")
    told = lines(todos, answer, ask)
    assert [event["decision"] for event in told if event["event"] == "evaluation"] == [
        "permit" if letter == "p" else "deny" for letter in made if letter != "e"
    ]


def test_an_empty_list_is_one_evaluation(ask: Ask) -> None:
    assert decision(ask({**question(EDITOR), "evaluations": []}, path=EVALUATIONS)) is True


def test_the_same_question_has_the_same_answer(ask: Ask) -> None:
    assert {decision(ask(question(EDITOR))) for _ in range(5)} == {True}
    assert {decision(ask(question(VIEWER))) for _ in range(5)} == {False}


# Gateways.

READS = {"claims": {"groups": ["finance-readers"]}}
POSTS = {"claims": {"groups": ["finance-publishers"]}}
CLOSING = {"workload": {"dag": "finance_close"}, "ip": "198.51.100.7"}


def route(
    path: str = "/ledger/v1/entries", method: str = "GET", properties: Any = None, **more: Any
) -> dict[str, Any]:
    """What a gateway asks about a call of somebody's, whose token it has seen."""
    subject = {
        "type": "identity",
        "id": "svc-other",
        "properties": READS if properties is None else properties,
    }
    resource = {"type": "route", "id": "/{rest}", "properties": {"uri": f"https://gate.example.com{path}"}}
    return {"subject": subject, "action": {"name": method}, "resource": resource, **more}


NO_MATCH, FORBIDDEN = "policy.no_match", "policy.forbidden"
ROUTES = [
    pytest.param(route(), "", id="a reader reads"),
    pytest.param(route("/ledger/v1/entries/7?page=2"), "", id="a reader reads one"),
    pytest.param(route("/ledger/v1/entries/%73ealed"), FORBIDDEN, id="a forbid, in another spelling"),
    pytest.param(route("/ledger/v1/entries/7?format=raw"), FORBIDDEN, id="a query"),
    pytest.param(route("/ledger/v1/others"), NO_MATCH, id="a path that nothing permits"),
    pytest.param(route("/nowhere/v1/entries"), NO_MATCH, id="no such upstream"),
    pytest.param(route(method="DELETE"), NO_MATCH, id="another method"),
    pytest.param(route(properties={}), NO_MATCH, id="without claims roles are unknown"),
    pytest.param(route(properties={"roles": ["finance-reader"]}), "", id="roles in place of claims"),
    pytest.param(route(properties={"roles": []}), NO_MATCH, id="no roles"),
    pytest.param(route(method="POST", properties=POSTS, context=CLOSING), "", id="a task in the office"),
    pytest.param(
        route(method="POST", properties=POSTS, context={**CLOSING, "ip": "203.0.113.1"}),
        NO_MATCH,
        id="a task from elsewhere",
    ),
    pytest.param(
        route(method="POST", properties=POSTS, context={"ip": "198.51.100.7"}), NO_MATCH, id="no task"
    ),
    pytest.param(
        route("/ledger/v1/office/abroad"), FORBIDDEN, id="an unknown country falls under a forbid"
    ),
    pytest.param(route("/ledger/v1/office/abroad", context={"country": "DE"}), "", id="a known country"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "reason"), ROUTES)
def test_a_gateway_asks_about_a_call(ask: Ask, request_: dict[str, Any], reason: str) -> None:
    answer = ask(request_, GATEWAY)
    assert decision(answer) is (reason == "")
    assert document(answer).get("context", {}).get("reason", "") == reason


def test_obligations_are_passed_on(ask: Ask) -> None:
    context = document(ask(route(method="POST", properties=POSTS, context=CLOSING), GATEWAY))["context"]
    assert context["policies"] == ["ledger-post"]
    assert context["obligations"] == [
        {
            "id": "rate_limit",
            "type": "rate_limit",
            "properties": {"limit": 60, "per": 60, "by": ["subject", "dag"]},
        },
        {
            "id": "require",
            "type": "require",
            "properties": {"headers": ["x-change-id"], "justification": False},
        },
        {"id": "notify", "type": "notify", "properties": {"value": {"channel": "finance-log"}}},
    ]


@pytest.mark.parametrize(
    "path",
    ["/ledger/../x", "/ledger//x", "/ledger/a%2fb", "/ledger/a;b", "/resource:todo/1"],
)
def test_an_ambiguous_path_is_denied_with_an_error(ask: Ask, path: str) -> None:
    answer = ask(route(path), GATEWAY)
    assert decision(answer) is False
    assert document(answer)["context"]["error"]["status"] == 400


def test_a_template_alone_is_denied_with_what_to_do(ask: Ask) -> None:
    request = {**route(), "resource": {"type": "route", "id": "/ledger/v1/entries/{id}"}}
    answer = ask(request, GATEWAY)
    assert decision(answer) is False
    assert "properties.path" in document(answer)["context"]["error"]["message"]


@pytest.mark.parametrize(
    "request_",
    [route(), route(properties={"roles": ["finance-reader"]}),
     route("/ledger/v1/office/abroad", context={"country": "DE"})],
)  # fmt: skip
def test_what_an_asker_is_not_trusted_to_know_does_not_count(ask: Ask, request_: dict[str, Any]) -> None:
    assert decision(ask(request_, GATEWAY)) is True
    assert decision(ask(request_, TODO)) is False


def test_a_role_of_the_subject_s_own_needs_no_trust(ask: Ask) -> None:
    request = route(properties={})
    request["subject"]["id"] = "svc-auditor"
    assert decision(ask(request, TODO)) is True


CALLS = [
    pytest.param("GET", "/ledger/v1/entries", id="permitted"),
    pytest.param("GET", "/ledger/v1/entries/7?format=csv", id="permitted, with a query"),
    pytest.param("GET", "/ledger/v1/entries/7?format=raw", id="forbidden by its query"),
    pytest.param("GET", "/ledger/v1/entries/sealed", id="forbidden"),
    pytest.param("GET", "/ledger/v1/office/abroad", id="forbidden, for want of a country"),
    pytest.param("GET", "/ledger/v1/others", id="no match"),
    pytest.param("POST", "/ledger/v1/entries", id="another method"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_the_answer_is_what_the_call_would_get(
    todos: Any, ask: Ask, mint: Callable[..., str], method: str, path: str
) -> None:
    claims = {"sub": "finance-etl", "groups": ["finance-readers"]}
    call = todos.call(path, method, token=mint(claims))
    asked = route(path, method)
    asked["subject"]["id"] = "finance-etl"
    itself = document(ask(asked, "finance-etl", groups=["finance-readers"]))
    by_gateway = document(ask(asked, GATEWAY))
    assert (itself["decision"], by_gateway["decision"]) == (call.status == 200, call.status == 200)
    if call.code:
        assert itself["context"]["reason"] == by_gateway["context"]["reason"] == call.code


# What is refused.

HOSTILE = [
    pytest.param(b"", 400, "request.body_invalid", id="nothing"),
    pytest.param(b"{", 400, "request.body_invalid", id="the beginning of an object"),
    pytest.param(b"[]", 400, "request.body_invalid", id="a list"),
    pytest.param(b'{"a":' * 5000, 400, "request.body_invalid", id="5,000 objects never closed"),
    pytest.param(b'{"a":NaN}', 400, "request.body_invalid", id="NaN"),
    pytest.param(b'{"subject":{},"subject":{}}', 400, "request.body_invalid", id="a name appears twice"),
    pytest.param(b'{"a":"\\ud800"}', 400, "request.body_invalid", id="half a surrogate pair"),
    pytest.param(b'{"a":"\xff"}', 400, "request.body_invalid", id="not UTF-8"),
    pytest.param(b'{"a":"' + b"x" * 70_000 + b'"}', 413, "request.body_too_large", id="more than 64 KiB"),
    pytest.param({"subject": "x"}, 400, "request.body_invalid", id="a subject that is a text"),
    pytest.param({**question("x"), "action": {"name": 1}}, 400, "request.body_invalid", id="a number for a name"),
    pytest.param(
        {"action": {"name": "read"}, "resource": {"type": "a", "id": "b"}},
        400,
        "request.body_invalid",
        id="no subject",
    ),
    pytest.param(
        question("x" * 2000), 400, "request.body_invalid", id="an endless subject"
    ),
]  # fmt: skip


@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS])
@pytest.mark.parametrize(("body", "status", "code"), HOSTILE)
def test_a_body_that_is_no_question(ask: Ask, body: Any, status: int, code: str, path: str) -> None:
    answer = ask(body, path=path)
    assert (answer.status, answer.code) == (status, code)
    assert answer.json()["detail"]


def test_a_refusal_says_what_is_wrong_and_where(ask: Ask) -> None:
    request = question(EDITOR, resource={"type": "todo"})
    assert ask(request).json()["detail"] == "request.resource.id: missing"
    answer = ask({**question(EDITOR), "evaluations": [{}] * 51}, path=EVALUATIONS)
    assert (answer.status, answer.json()["detail"]) == (400, "request.evaluations: expected at most 50")
    several = document(ask({**question(EDITOR), "evaluations": [request, {}]}, path=EVALUATIONS))
    assert several["evaluations"] == [
        {
            "decision": False,
            "context": {"error": {"status": 400, "message": "evaluations[0].resource.id: missing"}},
        },
        {"decision": True, "context": {"policies": ["todo-create"]}},
    ]


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_question_is_json(ask: Ask, media: str) -> None:
    answer = ask(question(EDITOR), headers={"Content-Type": media})
    assert (answer.status, answer.code) == (400, "request.body_invalid")
    assert "application/json" in answer.json()["detail"]


@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS])
def test_a_stranger_is_answered_nothing(todos: Any, mint: Callable[..., str], path: str) -> None:
    body = json.dumps(question(EDITOR)).encode()
    for token, code in ((None, "token.missing"), (mint(exp=1, iat=0), "token.expired")):
        answer = todos.call(path, "POST", token=token, headers=JSON, body=body)
        assert (answer.status, answer.code) == (401, code)
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="airgate"')


NOBODY = [
    pytest.param({"asker": "svc-nobody"}, NO_MATCH, id="no permit to ask"),
    pytest.param({"asker": TODO, "airgate_kind": "agent"}, FORBIDDEN, id="a forbid"),
]


@pytest.mark.parametrize(("who", "code"), NOBODY)
def test_not_everybody_may_ask(ask: Ask, who: dict[str, Any], code: str) -> None:
    for body in (question(who["asker"]), question(EDITOR), b"{"):
        answer = ask(body, **who)
        assert (answer.status, answer.code) == (403, code)


def test_questions_are_posted(todos: Any, mint: Callable[..., str]) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert todos.call(EVALUATION, method, token=mint(sub=TODO)).status == 404


# What nobody learns.

ITSELF = {"asker": "finance-etl", "groups": ["finance-readers"]}


def test_a_caller_asks_about_itself(ask: Ask) -> None:
    asked = route(properties={})
    asked["subject"] = {"type": "workload", "id": "finance-etl"}
    assert document(ask(asked, **ITSELF)) == {"decision": True}  # and by which policies, it isn't told
    denied = document(ask({**asked, "action": {"name": "POST"}}, **ITSELF))
    assert denied == {"decision": False, "context": {"reason": NO_MATCH}}


def test_a_caller_widens_nothing_by_what_it_says(ask: Ask) -> None:
    asked = route(method="POST", context={**CLOSING, "country": "DE"})
    asked["subject"] = {
        "type": "human",
        "id": "finance-etl",
        "properties": {"roles": ["finance-publisher"], "claims": {"groups": ["finance-publishers"]}},
    }
    assert document(ask(asked, **ITSELF)) == {"decision": False, "context": {"reason": NO_MATCH}}


def test_a_role_tag_narrows_a_question(ask: Ask) -> None:
    asked = route(properties={})
    asked["subject"]["id"] = "finance-etl"
    groups = ["finance-readers", "finance-publishers"]
    assert decision(ask(asked, "finance-etl", groups=groups)) is True
    reader, publisher = ({"Airgate-Role": f"finance-{name}"} for name in ("reader", "publisher"))
    assert decision(ask(asked, "finance-etl", headers=reader, groups=groups)) is True
    # Not even asking is permitted to publishers.
    assert ask(asked, "finance-etl", headers=publisher, groups=groups).code == NO_MATCH


def test_about_others_a_caller_learns_nothing(todos: Any, ask: Ask) -> None:
    subjects: list[dict[str, Any]] = [
        {"type": "user", "id": EDITOR},  # one that there is, and whose answer would be true
        {"type": "user", "id": "nobody"},
        {"type": "user", "id": "finance-etl", "properties": {"issuer": "nobody"}},
    ]
    seen = set()
    for subject in subjects:
        for request, path in (
            ({**question(""), "subject": subject}, EVALUATION),
            ({**question("finance-etl"), "evaluations": [{}, {"subject": subject}]}, EVALUATIONS),
        ):
            answer = ask(request, path=path, **ITSELF)
            shown = {**answer.json(), "request_id": ""}
            seen.add((answer.status, json.dumps(shown)))
            told = lines(todos, answer, ask)
            assert [event["event"] for event in told] == ["decision"]
            assert (told[0]["decision"], told[0]["reason"]) == ("deny", NO_MATCH)
            assert told[0]["subject"] == "finance-etl"
    [(status, body)] = seen
    assert (status, json.loads(body)["code"]) == (403, NO_MATCH)
    assert "detail" not in json.loads(body)


def test_every_evaluation_counts(ask: Ask) -> None:
    # Eleven: the limit of five may begin anew once in between.
    request = {**question(EDITOR), "evaluations": [{}] * 11}
    answer = ask(request, "svc-slow", EVALUATIONS)
    assert (answer.status, answer.code) == (429, "limit.rate")
    assert answer.headers["Retry-After"]


# On record.


def lines(gate: Any, answer: Any, ask: Ask) -> list[dict[str, Any]]:
    """All lines about a request: those of one after it are there as well."""
    gate.events(ask(question(EDITOR)), count=2)
    found: list[dict[str, Any]] = gate.events(answer)
    return found


def test_a_request_is_one_decision_and_its_questions_are_on_record(todos: Any, ask: Ask) -> None:
    request = {
        **question(EDITOR),
        "evaluations": [{}, {"subject": {"type": "user", "id": VIEWER}}, {"action": {}}],
    }
    decided, *evaluations = lines(todos, ask(request, path=EVALUATIONS), ask)
    assert [event["event"] for event in evaluations] == ["evaluation", "evaluation"]
    assert [(event["subject"], event["decision"], event["reason"]) for event in evaluations] == [
        (EDITOR, "permit", None),
        (VIEWER, "deny", NO_MATCH),
    ]
    assert (decided["event"], decided["decision"], decided["subject"]) == ("decision", "permit", TODO)
    assert (decided["page"], decided["permits"]) == ("evaluations", ["ask-about-anybody"])


def test_what_a_question_says_is_not_on_record(todos: Any, ask: Ask) -> None:
    request = question(EDITOR, resource={"type": "todo", "id": "id-s3cret", "properties": {"a": "p-s3cret"}})
    request["context"] = {"a": "c-s3cret"}
    assert "s3cret" not in json.dumps(lines(todos, ask(request), ask))
    assert "s3cret" not in json.dumps(lines(todos, ask({**request, "subject": "b-s3cret"}), ask))


@pytest.mark.parametrize("status", [200, 400, 401, 403])
def test_a_request_id_is_echoed(todos: Any, ask: Ask, status: int) -> None:
    headers = {"X-Request-ID": "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"}
    if status == 401:
        answer = todos.call(EVALUATION, "POST", headers={**JSON, **headers}, body=b"{}")
    else:
        body = b"{" if status == 400 else question(EDITOR)
        answer = ask(body, "svc-nobody" if status == 403 else TODO, headers=headers)
    assert (answer.status, answer.headers["X-Request-ID"]) == (status, headers["X-Request-ID"])


@pytest.mark.parametrize("given", ["a b", "x" * 129, "<script>", "a,b"])
def test_a_request_id_that_could_do_harm_is_not_echoed(ask: Ask, given: str) -> None:
    answer = ask(question(EDITOR), headers={"X-Request-ID": given})
    assert decision(answer) is True
    assert answer.headers["X-Request-ID"] is None


def test_without_a_request_id_there_is_no_echo(ask: Ask) -> None:
    assert ask(question(EDITOR)).headers["X-Request-ID"] is None


def test_the_metadata_leads_to_the_endpoints(todos: Any, ask: Ask) -> None:
    found = document(todos.call(CONFIGURATION))
    base = found["policy_decision_point"]
    assert base.endswith("://gate.example.com")
    assert found == {
        "policy_decision_point": base,
        "access_evaluation_endpoint": base + EVALUATION,
        "access_evaluations_endpoint": base + EVALUATIONS,
    }
    for endpoint in ("access_evaluation_endpoint", "access_evaluations_endpoint"):
        assert decision(ask(question(EDITOR), path=found[endpoint].removeprefix(base))) is True
