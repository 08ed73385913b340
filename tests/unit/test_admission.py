"""Who may: what a revocation and a grant do to requests as they come in, and proofs that all isolates know of."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from test_bound_tokens import BOUND, proof, proving
from test_gateway import Gate, asking
from world import (
    ISSUER,
    NOW,
    World,
    canonical,
    document,
    grant,
    revocation,
    rule,
    signed,
    token,
    trusting,
    undoing,
)

import dpop
from access import act_id
from keys import Key
from model import Outbound, Reason, Refusal, UpstreamAnswer
from state import State
from view import Ages

WAIT, STALE = Ages().wait, Ages().stale
CLOSE = rule(id="close", conditions=[["subject.roles.any", ["closer"]]], owner="close@example.com")
AUDIT = rule(
    id="audit",
    conditions=[["subject.kind", ["human"]]],
    target={"upstreams": ["ledger"], "methods": ["GET"], "paths": ["/audit/**"]},
    obligations={"require": {"headers": ["X-Change-Id"], "justification": False}},
)
AUDIT_URL = "https://gate/ledger/audit/2026"


def trusting_gate(*policies: dict[str, Any]) -> Gate:
    gate = Gate(document(*policies))
    gate.world.secrets = trusting()
    return gate


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A gate that takes signed policy only, with a permit for publishers."""
    gate = trusting_gate()
    yield gate
    gate.world.settle()


def isolate(gate: Gate) -> Gate:
    """Another isolate of the same Worker."""
    other = Gate()
    other.world, other.state = gate.world, State()
    return other


# Revocations.


@pytest.mark.parametrize(
    ("match", "request_", "reason"),
    [
        pytest.param({"token_id": "1"}, asking(), Reason.TOKEN_REVOKED, id="the token"),
        pytest.param({"token_id": "1", "subject": "finance-etl"}, asking(), Reason.TOKEN_REVOKED, id="its token"),
        pytest.param({"subject": "finance-etl"}, asking(), Reason.POLICY_REVOKED, id="the subject"),
        pytest.param(
            {"subject": "finance-etl", "issuer": "company"}, asking(), Reason.POLICY_REVOKED, id="the issuer's subject"
        ),
        pytest.param({"issuer": "company"}, asking(), Reason.POLICY_REVOKED, id="all of an issuer's"),
        pytest.param(
            {"dag": "close"}, asking(token(airflow={"dag": "close"})), Reason.POLICY_REVOKED, id="the DAG, attested"
        ),
        pytest.param(
            {"dag": "close", "subject": "finance-etl"}, asking(airgate_dag_id="close"), Reason.POLICY_REVOKED,
            id="the subject's DAG, as it says",
        ),
        pytest.param(
            {"run": "r-1", "subject": "finance-etl"}, asking(airgate_run_id="r-1"), Reason.POLICY_REVOKED,
            id="the subject's run, as it says",
        ),
        pytest.param({"token_id": "2"}, asking(), None, id="another token"),
        pytest.param({"subject": "mallory"}, asking(), None, id="another subject"),
        pytest.param({"issuer": ISSUER}, asking(), None, id="an issuer by its address: policy has a name for it"),
        pytest.param({"dag": "close"}, asking(airgate_dag_id="close"), None, id="a DAG that the caller only says"),
    ],
)  # fmt: skip
def test_what_is_revoked_is_refused(
    gate: Gate, match: dict[str, str], request_: Any, reason: Reason | None
) -> None:
    text = gate.world.act(revocation(match=match))
    for each in (gate, isolate(gate)):
        if reason is None:
            each.relay(request_)
            continue
        line = each.refuse(request_, reason)
        assert line["detail"] == f"{act_id(text)}: its token leaked"
        assert (line["subject"], line["issuer"], line["token_id"]) == (
            "finance-etl",
            "company",
            "1",
        )


def test_nobody_is_told_why_something_was_revoked(gate: Gate) -> None:
    gate.world.act(revocation(match={"token_id": "1"}))
    result = gate.answer(asking())
    assert isinstance(result, Refusal)
    assert result.status == 401
    assert 'error="invalid_token"' in result.headers["www-authenticate"]
    assert "leaked" not in result.body + str(result.headers)
    gate.world.act(revocation())
    result = isolate(gate).answer(asking(token(jti="2")))
    assert isinstance(result, Refusal)
    assert (result.status, "www-authenticate" in result.headers) == (403, False)
    assert json.loads(result.body)["retryable"] is False


def test_a_token_that_was_verified_before_is_refused_from_the_next_reading_on(gate: Gate) -> None:
    gate.relay(asking())
    gate.world.act(revocation())
    gate.relay(asking())  # nobody has asked D1 since
    gate.later(WAIT + 1)
    line = gate.refuse(asking(), Reason.POLICY_REVOKED)
    assert (line["subject"], "permits" in line) == ("finance-etl", False)
    assert gate.world.of("verify").count("one") == 1  # the token, once
    assert len(gate.world.of("send")) == 2


def test_after_two_seconds_one_request_still_passes_and_the_next_does_not(gate: Gate) -> None:
    gate.relay(asking())
    gate.world.act(revocation())
    gate.later(2.1)
    gate.relay(asking())
    gate.world.settle()
    gate.refuse(asking(), Reason.POLICY_REVOKED)


def test_what_is_lifted_or_over_is_refused_no_more(gate: Gate) -> None:
    text = gate.world.act(revocation())
    gate.refuse(asking(), Reason.POLICY_REVOKED)
    gate.world.act(undoing("lift", text))
    gate.later(WAIT + 1)
    gate.relay(asking())
    gate.world.act(revocation(until=int(NOW) + 30))
    gate.later(2 * WAIT + 3)
    gate.refuse(asking(), Reason.POLICY_REVOKED)
    gate.later(30)
    gate.relay(asking())


def test_a_forged_lift_lifts_nothing(gate: Gate) -> None:
    text = gate.world.act(revocation())
    gate.world.act(undoing("lift", text), "mallory")
    gate.refuse(asking(), Reason.POLICY_REVOKED)
    gate.world.values["state/acts"] = canonical(
        {"acts": [signed("act", canonical(undoing("lift", text)), "mallory")]}
    )
    isolate(gate).refuse(asking(), Reason.POLICY_REVOKED)


def test_a_revocation_that_comes_while_a_token_is_verified_counts(gate: Gate) -> None:
    state = gate.state

    class Revoking(World):
        async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
            self.act(revocation())
            await state.view.read(self, 1.0)
            return await super().verify(key, algorithm, given, signed)

    gate.world = Revoking()
    gate.refuse(asking(), Reason.POLICY_REVOKED)


class Dripping(World):
    """A caller whose body takes its time, and who is revoked meanwhile."""

    document: dict[str, Any]

    async def hold(self, limit: int, timeout: float) -> None:
        self.act(self.document)
        self.clock += WAIT + 1
        assert self.state is not None
        await self.state.view.read(self, 1.0)
        await super().hold(limit, timeout)

    state: State | None = None


@pytest.mark.parametrize(
    ("match", "reason"),
    [({"subject": "finance-etl"}, Reason.POLICY_REVOKED), ({"token_id": "1"}, Reason.TOKEN_REVOKED)],
    ids=["the subject", "the token"],
)
def test_a_call_that_was_decided_before_and_not_sent_yet_is_not_sent(
    match: dict[str, str], reason: Reason
) -> None:
    world = Dripping(document(ledger={"retries": 1}))
    world.document = revocation(match=match)
    gate = Gate()
    gate.world, world.state = world, gate.state
    request = asking(method="PUT", content_length="3")._replace(has_body=True)
    world.sent = b"abc"
    result = gate.answer(request)
    assert isinstance(result, Refusal)
    assert (result.status, json.loads(result.body)["code"]) == (401 if "token" in reason else 403, reason)
    assert world.of("send") == []
    (outcome,) = world.lines("outcome")
    assert (outcome["result"], outcome["status"]) == ("revoked", None)
    assert world.lines("decision")[-1]["decision"] == "permit"


def test_a_call_is_not_tried_again_once_its_caller_is_revoked() -> None:
    state = State()

    class Failing(World):
        async def send(self, call: Outbound) -> UpstreamAnswer:
            self.act(revocation())
            await state.view.read(self, 1.0)
            return await super().send(call)

    gate = Gate()
    gate.world, gate.state = Failing(document(ledger={"retries": 3})), state
    gate.world.answer = UpstreamAnswer(503, {})
    result = gate.answer(asking())
    assert isinstance(result, Refusal)
    assert (result.status, len(gate.world.of("send"))) == (403, 1)
    assert gate.world.lines("outcome")[-1]["result"] == "revoked"


def test_who_acts_for_another_is_refused_when_either_is_revoked(gate: Gate) -> None:
    delegated = asking(token(act={"sub": "assistant"}))
    gate.relay(delegated)
    gate.world.act(revocation(match={"subject": "assistant"}))
    gate.later(WAIT + 1)
    gate.refuse(delegated, Reason.POLICY_REVOKED)
    gate.relay(asking())
    gate.world.act(revocation())
    gate.later(2 * WAIT + 2)
    gate.refuse(delegated, Reason.POLICY_REVOKED)


def test_nobody_learns_of_a_revocation_who_is_not_who_it_names(gate: Gate) -> None:
    """A bad token of a revoked subject is refused as any bad token is."""
    gate.world.act(revocation())
    for bad, reason in ((token(exp=1), Reason.TOKEN_EXPIRED), ("x.y.z", Reason.TOKEN_MALFORMED)):
        gate.refuse(asking(bad), reason)


def test_the_revoked_are_refused_wherever_they_go(gate: Gate) -> None:
    gate.world.act(revocation())
    gate.refuse(asking(url="https://gate/nowhere/x"), Reason.POLICY_REVOKED)
    gate.refuse(asking(url="https://gate/crm/x"), Reason.POLICY_REVOKED)
    result = gate.answer(asking(url="https://gate/-/health"))
    assert isinstance(result, Refusal)
    assert json.loads(result.body) == {"status": "ok"}  # as for anyone
    assert gate.world.lines("decision")[-1]["detail"].startswith("policy.revoked")


def test_without_d1_it_is_decided_by_the_last_view_and_not_for_long(gate: Gate) -> None:
    gate.relay(asking())
    gate.world.act(revocation())
    gate.world.broken["database"] = OSError("away")
    gate.later(STALE)
    gate.relay(asking())
    gate.later(STALE + 1)
    gate.refuse(asking(), Reason.STATE_STALE)
    gate.world.broken.clear()
    gate.later(STALE + 4)
    gate.refuse(asking(), Reason.POLICY_REVOKED)


# Grants.


def test_a_role_that_is_granted_opens_and_is_on_record() -> None:
    gate = trusting_gate(CLOSE)
    gate.refuse(asking(), Reason.POLICY_NO_MATCH)
    text = gate.world.act(grant(until=int(NOW) + 60))
    gate.later(WAIT + 1)
    relay = gate.relay(asking())
    assert relay.headers["airgate-policy"].startswith("close@")
    line = gate.world.lines("decision")[-1]
    assert (line["grants"], line["permits"]) == ([act_id(text)], ["close"])
    assert line["roles"]["granted"] == line["roles"]["effective"] == ["closer", "publisher", "reader"]
    assert line["roles"]["lent"] == ["closer"]
    gate.later(59)
    gate.relay(asking())
    gate.later(60)  # over, though D1 has not been asked again
    line = gate.refuse(asking(), Reason.POLICY_NO_MATCH)
    assert ("grants" in line, line["roles"]["granted"]) == (False, ["publisher", "reader"])
    assert "lent" not in line["roles"]


def test_a_role_that_was_lent_and_made_no_difference_is_told_apart_from_the_tokens_own() -> None:
    """Or whoever reads the record takes it for one that the issuer grants."""
    gate = trusting_gate(rule())
    gate.world.act(grant())
    gate.relay(asking())
    line = gate.world.lines("decision")[-1]
    assert ("grants" in line, line["roles"]["lent"]) == (False, ["closer"])


def test_a_grant_that_has_not_begun_lends_nothing_yet() -> None:
    gate = trusting_gate(CLOSE)
    gate.world.act(grant(**{"from": int(NOW) + 5}))
    gate.refuse(asking(), Reason.POLICY_NO_MATCH)
    gate.later(5)
    gate.relay(asking())


def test_a_grant_that_is_ended_lends_nothing_any_more() -> None:
    gate = trusting_gate(CLOSE)
    text = gate.world.act(grant())
    gate.relay(asking())
    gate.world.d1.acts.append((2, (canonical(undoing("end", text)), "", "")))
    gate.later(WAIT + 1)
    gate.refuse(asking(), Reason.POLICY_NO_MATCH)


@pytest.mark.parametrize(
    ("tag", "reason", "effective"),
    [
        pytest.param("closer", None, ["closer"], id="it may be named"),
        pytest.param("publisher", Reason.POLICY_NO_MATCH, ["publisher"], id="and left out"),
        pytest.param("admin", Reason.ROLE_NOT_GRANTED, None, id="one that nobody granted may not"),
    ],
)
def test_a_role_tag_beside_a_grant(tag: str, reason: Reason | None, effective: list[str] | None) -> None:
    gate = trusting_gate(CLOSE)
    gate.world.act(grant())
    if reason is None:
        gate.relay(asking(airgate_role=tag))
    else:
        gate.refuse(asking(airgate_role=tag), reason)
    line = gate.world.lines("decision")[-1]
    assert line["subject"] == "finance-etl"
    if effective is not None:
        assert line["roles"]["effective"] == effective


def test_where_roles_must_be_named_a_grant_is_no_way_around_it() -> None:
    bundle = document(CLOSE)
    bundle["issuers"]["company"]["role_tag"] = "required"
    gate = Gate(bundle)
    gate.world.secrets = trusting()
    gate.world.act(grant())
    line = gate.refuse(asking(), Reason.ROLE_REQUIRED)
    assert line["subject"] == "finance-etl"
    gate.relay(asking(airgate_role="closer"))


def test_a_forbid_stands_above_every_grant() -> None:
    for forbidding in (
        [["subject.roles.any", ["publisher"]]],
        [["subject.roles.any", ["closer"]]],
        [["subject.roles.none", ["closer"]]],
        [],
    ):
        stop = rule(id="stop", effect="forbid", conditions=forbidding)
        gate = trusting_gate(CLOSE, stop)
        gate.world.act(grant())
        gate.world.act(grant(gives={"policy": "close"}))
        assert gate.refuse(asking(), Reason.POLICY_FORBIDDEN)["forbids"] == ["stop"]


def test_a_policy_that_is_granted_asks_for_what_it_always_asks_for() -> None:
    gate = trusting_gate(AUDIT)
    gate.refuse(asking(url=AUDIT_URL), Reason.POLICY_NO_MATCH)
    text = gate.world.act(grant(gives={"policy": "audit"}))
    gate.later(WAIT + 1)
    gate.refuse(asking(url=AUDIT_URL), Reason.REQUEST_HEADER_REQUIRED)
    gate.relay(asking(url=AUDIT_URL, x_change_id="C-1"))
    assert gate.world.lines("decision")[-1]["grants"] == [act_id(text)]
    gate.refuse(asking(url=AUDIT_URL, method="POST", x_change_id="C-1"), Reason.POLICY_NO_MATCH)


def test_one_who_acts_for_another_is_not_lent_what_that_other_is() -> None:
    gate = trusting_gate(CLOSE)
    gate.world.act(grant())
    gate.refuse(asking(token(act={"sub": "assistant"})), Reason.POLICY_NO_MATCH)
    gate.relay(asking())


def test_a_grant_revives_nobody_who_is_revoked() -> None:
    gate = trusting_gate(CLOSE)
    gate.world.act(grant())
    gate.world.act(revocation())
    gate.refuse(asking(), Reason.POLICY_REVOKED)


@pytest.mark.parametrize(
    "secrets", [{}, {"TRUSTED_KEYS": ""}, trusting()], ids=["no keys", "empty", "another key"]
)
def test_a_forged_grant_opens_nothing(secrets: dict[str, str]) -> None:
    gate = trusting_gate(CLOSE)
    gate.world.secrets = secrets
    text = canonical(grant())
    kid = "mallory" if secrets.get("TRUSTED_KEYS") else "operator"
    gate.world.act(grant(), kid)
    gate.world.values["state/acts"] = canonical({"acts": [signed("act", text, kid), (text, "", "")]})
    gate.refuse(asking(), Reason.POLICY_NO_MATCH)


def test_what_is_lent_is_not_remembered_with_the_token() -> None:
    """A token is verified once; its grants are those of the moment."""
    gate = trusting_gate(CLOSE)
    gate.refuse(asking(), Reason.POLICY_NO_MATCH)
    gate.world.act(grant(until=int(NOW) + 20))
    gate.later(WAIT + 1)
    gate.relay(asking())
    gate.later(20)
    gate.refuse(asking(), Reason.POLICY_NO_MATCH)
    assert gate.world.of("verify").count("one") == 1


# Proofs that all isolates know of.


@pytest.fixture
def strict() -> Iterator[Gate]:
    bundle = document()
    bundle["issuers"]["company"]["dpop_replay"] = "strict"
    gate = Gate(bundle)
    yield gate
    gate.world.settle()


def statements(gate: Gate, verb: str) -> int:
    return [statement for statement, _, _ in gate.world.of("database")].count(verb)


def test_a_proof_is_used_once_in_all_isolates(strict: Gate) -> None:
    strict.relay(proving())
    assert len(strict.world.d1.proofs) == 1
    other = isolate(strict)
    line = other.refuse(proving(), Reason.TOKEN_PROOF_REPLAYED)
    assert (line["subject"], line["detail"]) == ("finance-etl", "at another isolate")
    strict.refuse(proving(), Reason.TOKEN_PROOF_REPLAYED)
    assert statements(strict, "INSERT") == 2  # what this isolate knows itself it does not ask
    other.relay(proving(dpop=proof(jti="2")))


def test_where_policy_does_not_ask_for_it_d1_is_not_asked(gate: Gate) -> None:
    gate.relay(proving())
    isolate(gate).relay(proving())
    assert statements(gate, "INSERT") == statements(gate, "DELETE") == 0
    assert gate.world.d1.proofs == {}


@pytest.mark.parametrize("failure", [OSError("away"), TimeoutError()])
def test_a_proof_of_which_d1_cannot_tell_is_refused_and_may_be_made_anew(
    strict: Gate, failure: OSError
) -> None:
    strict.relay(proving())
    strict.world.broken["database"] = failure
    again = proving(dpop=proof(jti="2"))
    line = strict.refuse(again, Reason.STATE_UNAVAILABLE)
    assert line["subject"] == "finance-etl"
    result = strict.answer(proving(dpop=proof(jti="3")))
    assert isinstance(result, Refusal)
    assert (result.status, result.headers["retry-after"]) == (503, "5")
    assert "www-authenticate" not in result.headers
    strict.relay(asking())  # one that is bound to no key needs none
    strict.world.broken.clear()
    strict.refuse(again, Reason.TOKEN_PROOF_REPLAYED)  # nobody can tell whether D1 has noted it
    strict.relay(proving(dpop=proof(jti="4")))


def test_a_proof_that_is_wrong_is_not_noted(strict: Gate) -> None:
    for bad in (proof(signed_by="mallory"), proof(htm="PUT"), proof(iat=NOW - 100)):
        strict.refuse(proving(dpop=bad), Reason.TOKEN_PROOF_INVALID)
    assert (strict.world.d1.proofs, statements(strict, "INSERT")) == ({}, 0)


def test_d1_is_cleared_up_once_a_minute(strict: Gate) -> None:
    def prove(later: float, jti: str) -> None:
        strict.later(later)
        strict.relay(proving(dpop=proof(jti=jti, iat=NOW + later)))
        strict.world.settle()

    prove(0, "a")
    assert statements(strict, "DELETE") == 1
    prove(1, "b")
    prove(59, "c")
    assert (statements(strict, "DELETE"), len(strict.world.d1.proofs)) == (1, 3)
    prove(dpop.FORGET, "d")
    assert statements(strict, "DELETE") == 2
    prove(2 * dpop.FORGET + 1, "e")
    assert statements(strict, "DELETE") == 3
    assert len(strict.world.d1.proofs) == 3  # those of the first two seconds are over


def test_a_clearing_up_that_fails_refuses_nobody(strict: Gate) -> None:
    strict.relay(proving())
    strict.world.broken["database"] = OSError("away")
    strict.world.settle()
    strict.world.broken.clear()
    strict.relay(proving(dpop=proof(jti="2")))


def test_the_same_proof_is_not_asked_about_twice_in_one_request(strict: Gate) -> None:
    """A policy that comes while a request waits is another reason to look at its token, and not at its proof."""
    state = strict.state

    class Publishing(World):
        async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
            if key.kid == "the caller's" and 2 not in self.d1.pointers:
                bundle = document(rule(id="another"))
                bundle["issuers"]["company"]["dpop_replay"] = "strict"
                self.publish(bundle, 2)
                await state.refresh(self, 1)
            return await super().verify(key, algorithm, given, signed)

    world = Publishing()
    world.values, world.d1 = strict.world.values, strict.world.d1
    strict.world = world
    strict.relay(proving())
    assert statements(strict, "INSERT") == 1
    assert strict.world.lines("decision")[-1]["sequence"] == 2


def test_a_bound_token_that_is_revoked_uses_its_proof_up(strict: Gate) -> None:
    """Who holds the key is known by then; a revocation tells only them."""
    strict.world.act(revocation())
    strict.refuse(proving(dpop=proof(signed_by="mallory")), Reason.TOKEN_PROOF_INVALID)
    strict.refuse(proving(), Reason.POLICY_REVOKED)
    strict.refuse(proving(), Reason.TOKEN_PROOF_REPLAYED)


def test_an_issuer_that_becomes_strict_is_strict_for_tokens_that_are_known(gate: Gate) -> None:
    gate.relay(proving())
    bundle = document()
    bundle["issuers"]["company"]["dpop_replay"] = "strict"
    gate.world.publish(bundle, 2)
    gate.later(WAIT + 1)
    gate.relay(proving(BOUND, dpop=proof(jti="2", iat=NOW + WAIT + 1)))
    assert len(gate.world.d1.proofs) == 1
