"""The gate's own pages: which requests are for one, and AuthZEN answers about those who are revoked or have grants."""

import json
from typing import Any

import pytest
from test_gateway import HEALTH, MAY_ASK, QUESTIONS, Gate, asking, evaluating, question
from world import ISSUER, NOW, document, grant, inbound, revocation, rule, signed, trusting, undoing

from access import act_id
from model import Reason, Refusal, Target
from pages import page

EDIT = rule(
    id="edit",
    target={"upstreams": ["resource:todo"], "methods": ["edit"], "paths": ["/*"]},
    conditions=[["subject.roles.any", ["closer"]]],
)


@pytest.mark.parametrize(
    ("method", "upstream", "segments", "name"),
    [
        ("GET", "-", "jwks.json", "jwks"),
        ("GET", "-", "health", "health"),
        ("HEAD", "-", "health", "health"),
        ("GET", ".well-known", "authzen-configuration", "authzen-configuration"),
        ("GET", ".well-known", "oauth-protected-resource", "oauth-protected-resource"),
        ("POST", "-", "events", "events"),
        ("GET", "-", "events", ""),
        ("POST", "-", "events/x", ""),
        ("POST", "ledger", "events", ""),
        ("POST", "access", "v1/evaluation", "evaluation"),
        ("POST", "access", "v1/evaluations", "evaluations"),
        ("GET", ".well-known", "oauth-authorization-server", "oauth-authorization-server"),
        ("POST", "-", "token", "token"),
        ("GET", "-", "token", ""),
        ("POST", "-", "token/x", ""),
        ("POST", "-", "health", ""),
        ("HEAD", "-", "jwks.json", ""),
        ("GET", "-", "", ""),
        ("GET", "-", "health/x", ""),
        ("GET", "-", "Health", ""),
        ("GET", "ledger", "health", ""),
        ("GET", "access", "v1/evaluation", ""),
        ("POST", "access", "v1", ""),
        ("POST", "access", "v1/evaluation/x", ""),
        ("OPTIONS", ".well-known", "oauth-protected-resource", ""),
    ],
)
def test_which_page_a_request_is_for(method: str, upstream: str, segments: str, name: str) -> None:
    target = Target(method, upstream, tuple(segments.split("/")) if segments else (), "/" + segments, "")
    assert page(target) == name


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        pytest.param("https://gate/-/jwks.json", "application/jwk-set+json", id="keys"),
        pytest.param("https://gate/-/health", "application/json", id="health"),
        pytest.param("https://gate/.well-known/authzen-configuration", "application/json", id="AuthZEN"),
        pytest.param("https://gate/.well-known/oauth-protected-resource", "application/json", id="OAuth"),
    ],
)
def test_the_pages_that_are_for_anyone(url: str, kind: str) -> None:
    gate = Gate()
    gate.world.act(revocation())
    for request in (inbound(url), asking(url=url)):  # the revoked are anyone, too
        result = gate.answer(request)
        assert isinstance(result, Refusal)
        assert (result.status, result.headers["content-type"]) == (200, kind)


# Health.


def told(gate: Gate, request: Any) -> dict[str, Any]:
    result = gate.answer(request)
    assert isinstance(result, Refusal)
    body: dict[str, Any] = json.loads(result.body)
    return body


@pytest.mark.parametrize("version", [None, "0.2.0", "", 7, {"a": 1}], ids=repr)
def test_health_tells_the_version_where_there_is_one(version: Any) -> None:
    """And what a Worker's variable can't be is no reason to fail."""
    gate = Gate()
    if version is not None:
        gate.world.secrets["VERSION"] = version
    expected = {"version": version} if isinstance(version, str) else {}
    assert told(gate, inbound(HEALTH)) == {"status": "ok", **expected}
    assert told(gate, asking(url=HEALTH))["bundle"]["sequence"] == 1


def test_health_fails_when_nothing_is_in_force_and_still_tells_the_version() -> None:
    gate = Gate()
    gate.world.secrets["VERSION"] = "0.2.0"
    gate.world.d1.pointers.clear()
    assert told(gate, inbound(HEALTH)) == {"status": "failing", "version": "0.2.0"}
    assert gate.world.lines("decision")[-1]["detail"].startswith("policy.unavailable")


def test_health_is_no_more_for_one_who_is_revoked_than_for_anyone() -> None:
    gate = Gate()
    gate.world.act(revocation())
    assert told(gate, asking(url=HEALTH)) == {"status": "ok"}
    line = gate.world.lines("decision")[-1]
    assert (line["decision"], line["subject"]) == ("permit", "finance-etl")
    assert line["detail"].startswith("policy.revoked: ")


def test_a_grant_may_be_of_the_permit_to_see_health() -> None:
    seen = rule(
        id="see",
        conditions=[["subject.id", ["somebody"]]],
        target={"upstreams": ["-"], "methods": ["GET"], "paths": ["/health"]},
    )
    gate = Gate(document(seen))
    gate.world.secrets = trusting()
    assert told(gate, asking(url=HEALTH)) == {"status": "ok"}
    text = gate.world.act(grant(gives={"policy": "see"}))
    gate.later(11)
    assert told(gate, asking(url=HEALTH))["view"]["grants"] == 1
    assert gate.world.lines("decision")[-1]["grants"] == [act_id(text)]


# AuthZEN questions.


def asked(
    gate: Gate, subject: str = "mallory", roles: list[str] | None = None
) -> tuple[bool, dict[str, Any]]:
    """The answer to a question about a subject, and the line about it."""
    asking_about = question(subject, roles=roles or [])
    if subject != "finance-etl":  # all of its claims: so nobody acts for it
        asking_about["subject"]["properties"]["claims"] = {"sub": subject, "airgate_kind": "human"}
    answer = evaluating(gate, asking_about)
    assert answer.status == 200
    return json.loads(answer.body)["decision"], gate.world.lines("evaluation")[-1]


TRUSTED = {**MAY_ASK, "obligations": {"asking": {"about": "any", "trust": ["roles", "claims"]}}}


def questioned(*policies: dict[str, Any]) -> Gate:
    """A gate that answers the usual caller's questions about anyone, and believes what it says of roles and claims."""
    gate = Gate(document(TRUSTED, EDIT, *policies))
    gate.world.secrets = trusting()
    return gate


def test_what_is_revoked_is_denied_in_answers_too() -> None:
    gate = questioned()
    assert asked(gate, roles=["closer"])[0] is True
    gate.world.act(revocation(match={"subject": "mallory"}))
    gate.later(11)
    decision, line = asked(gate, roles=["closer"])
    assert (decision, line["decision"], line["reason"]) == (False, "deny", Reason.POLICY_REVOKED)
    assert (line["subject"], line["permits"]) == ("mallory", [])
    assert asked(gate, "ada", ["closer"])[0] is True


@pytest.mark.parametrize(
    ("result", "reason"),
    [("ended", Reason.TOKEN_SESSION_ENDED), ("superseded", Reason.TOKEN_SESSION_SUPERSEDED)],
)
def test_of_a_session_that_has_ended_an_application_learns_by_the_tokens_claims(
    result: str, reason: Reason
) -> None:
    trusting_asker = {**MAY_ASK, "obligations": {"asking": {"about": "any", "trust": ["roles", "claims"]}}}
    gate = Gate(document(trusting_asker, EDIT))
    gate.world.d1.sessions = [[1, ISSUER, "s-1", result, int(NOW) + 60]]
    for claims, expected in (({"sid": "s-1"}, reason), ({"sid": "s-2"}, None), ({}, None)):
        asks = question("ada", roles=["closer"])
        asks["subject"]["properties"]["claims"] = claims
        answer = json.loads(evaluating(gate, asks).body)
        assert answer["decision"] is (expected is None)
        assert gate.world.lines("evaluation")[-1]["reason"] == expected
    gate.later(60)
    assert json.loads(evaluating(gate, asks).body)["decision"] is True


def test_one_who_is_revoked_asks_nothing() -> None:
    gate = questioned()
    gate.world.act(revocation())
    answer = evaluating(gate, question("ada", roles=["closer"]))
    assert (answer.status, json.loads(answer.body)["code"]) == (403, "policy.revoked")
    assert gate.world.lines("evaluation") == []
    assert gate.world.of("body") == []


def test_of_several_questions_those_about_the_revoked_are_denied() -> None:
    gate = questioned()
    gate.world.act(revocation(match={"subject": "mallory"}))
    items = [question(name, roles=["closer"]) for name in ("ada", "mallory", "eve")]
    answer = evaluating(gate, {"evaluations": items}, QUESTIONS)
    assert [one["decision"] for one in json.loads(answer.body)["evaluations"]] == [True, False, True]
    assert [line["reason"] for line in gate.world.lines("evaluation")] == [None, "policy.revoked", None]


def test_what_a_trusted_asker_says_of_a_task_is_enough_to_refuse() -> None:
    """The gate refuses a token that attests it; whoever goes by the answer has to refuse as well."""
    trusting_asker = {**MAY_ASK, "obligations": {"asking": {"about": "any", "trust": ["roles", "workload"]}}}
    gate = Gate(document(trusting_asker, EDIT))
    gate.world.act(revocation(match={"dag": "close"}))
    said = {**question("ada", roles=["closer"]), "context": {"workload": {"dag": "close"}}}
    assert json.loads(evaluating(gate, said).body)["decision"] is False
    other = {**question("ada", roles=["closer"]), "context": {"workload": {"dag": "open"}}}
    assert json.loads(evaluating(gate, other).body)["decision"] is True
    unheard = question("ada", roles=["closer"])
    assert json.loads(evaluating(gate, unheard).body)["decision"] is True


def test_what_a_caller_says_of_its_own_task_revokes_it_neither_here_nor_there() -> None:
    self_asker = {**MAY_ASK, "obligations": None}
    mine = rule(id="mine", target=EDIT["target"])
    gate = Gate(document(self_asker, mine, rule()))
    gate.world.act(revocation(match={"dag": "close"}))
    gate.relay(asking(airgate_dag_id="close"))
    answer = evaluating(gate, question("finance-etl", roles=[]), airgate_dag_id="close")
    assert json.loads(answer.body)["decision"] is True
    gate.world.act(revocation(match={"dag": "close", "subject": "finance-etl"}))
    gate.later(11)
    assert evaluating(gate, question("finance-etl", roles=[]), airgate_dag_id="close").status == 403


@pytest.mark.parametrize("gives", [{"role": "closer"}, {"policy": "edit"}], ids=["a role", "a policy"])
@pytest.mark.parametrize("subject", ["mallory", "finance-etl"], ids=["another", "itself"])
def test_what_is_granted_is_permitted_in_answers_too(subject: str, gives: dict[str, str]) -> None:
    gate = questioned()
    assert asked(gate, subject)[0] is False
    text = gate.world.act(grant(to={"issuer": "company", "subject": subject}, gives=gives))
    gate.later(11)
    decision, line = asked(gate, subject)
    assert (decision, line["permits"], line["grants"]) == (True, ["edit"], [act_id(text)])
    assert asked(gate, "somebody else")[0] is False
    gate.world.act(undoing("end", text))
    gate.later(60)
    decision, line = asked(gate, subject)
    assert (decision, "grants" in line) == (False, False)


@pytest.mark.parametrize("subject", ["mallory", "finance-etl"], ids=["another", "itself"])
@pytest.mark.parametrize(
    "conditions",
    [
        [],
        [["subject.roles.any", ["closer"]]],
        [["subject.roles.none", ["closer"]]],
        [["subject.id", ["mallory", "finance-etl"]]],
    ],
    ids=["everyone", "the role that is lent", "whoever lacks it", "the subject"],
)
def test_a_forbid_stands_above_grants_in_answers_too(subject: str, conditions: list[Any]) -> None:
    stop = rule(id="stop", effect="forbid", target=EDIT["target"], conditions=conditions)
    gate = questioned(stop)
    gate.world.act(grant(to={"issuer": "company", "subject": subject}))
    gate.world.act(grant(to={"issuer": "company", "subject": subject}, gives={"policy": "edit"}))
    decision, line = asked(gate, subject)
    assert (decision, line["forbids"], line["reason"]) == (False, ["stop"], Reason.POLICY_FORBIDDEN)


def test_a_role_that_is_lent_lends_no_other_in_answers_about_the_asker() -> None:
    gate = questioned()
    gate.world.act(grant(gives={"role": "oncall"}))
    gate.world.act(grant(to={"role": "oncall"}))
    assert asked(gate, "finance-etl")[0] is False
    assert asked(gate, "mallory", ["oncall"])[0] is True


def test_nothing_is_lent_in_answers_to_one_for_whom_somebody_may_act() -> None:
    """Without its claims nobody can tell; and the gate lends nothing to one who acts for another."""
    gate = questioned()
    gate.world.act(grant(to={"issuer": "company", "subject": "mallory"}))
    assert asked(gate, "mallory")[0] is True
    assert json.loads(evaluating(gate, question("mallory", roles=[])).body)["decision"] is False
    delegated = question("mallory", roles=[])
    delegated["subject"]["properties"]["claims"] = {"airgate_kind": "human", "act": {"sub": "assistant"}}
    assert json.loads(evaluating(gate, delegated).body)["decision"] is False


def test_one_who_acts_for_another_is_refused_in_answers_when_it_is_revoked() -> None:
    gate = questioned()
    gate.world.act(revocation(match={"subject": "assistant"}))
    delegated = question("mallory", roles=["closer"])
    delegated["subject"]["properties"]["claims"] = {"airgate_kind": "human", "act": {"sub": "assistant"}}
    assert json.loads(evaluating(gate, delegated).body)["decision"] is False
    assert asked(gate, "mallory", ["closer"])[0] is True


def test_a_forged_grant_is_none_in_answers_either() -> None:
    gate = questioned()
    gate.world.act(grant(to={"issuer": "company", "subject": "mallory"}), "somebody")
    gate.world.values["state/acts"] = json.dumps({"acts": [signed("pointer", "{}")]})
    assert asked(gate)[0] is False


def test_a_grant_may_be_of_the_permit_to_ask() -> None:
    ask = {**MAY_ASK, "conditions": [["subject.id", ["somebody"]]]}
    gate = Gate(document(ask, EDIT))
    gate.world.secrets = trusting()
    assert evaluating(gate, question("ada", roles=["closer"])).status == 403
    text = gate.world.act(grant(gives={"policy": "ask"}))
    gate.later(11)
    assert asked(gate, "ada", ["closer"])[0] is True
    line = gate.world.lines("decision")[-1]
    assert (line["permits"], line["grants"]) == (["ask"], [act_id(text)])


def test_answers_stop_when_nobody_can_tell_what_is_revoked() -> None:
    gate = questioned()
    asked(gate)
    gate.world.broken["database"] = OSError("away")
    gate.later(61)
    answer = evaluating(gate, question("ada", roles=["closer"]))
    assert (answer.status, json.loads(answer.body)["code"]) == (503, "state.stale")
