"""Gate tokens: who acts for whom, what makes them narrower, what ends them, and that nobody can make one up."""

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from language import examples
from test_assertion import NEW, OLD, secret
from test_exchange import (
    ENTRIES,
    OWN,
    PARTNER,
    READ,
    THUMBPRINT,
    WRITE,
    Exchanging,
    bundle,
    forged,
    may_exchange,
    of_partner,
    proof,
    refused_at,
    told,
)
from test_gateway import KEY_CREDENTIAL, asking
from world import (
    ABSENT,
    CLAIMS,
    ISSUER,
    NOW,
    b64,
    canonical,
    document,
    inbound,
    revocation,
    rule,
    token,
    without,
)

import gatetoken
from access import act_id
from bundle import load_bundle
from identity import identify
from model import Denied, Inbound, Reason
from sessions import Ended
from state import State

I_R = "invalid_request"


# Who acts for whom.

PERSON = {"sub": "alice", "airgate_kind": "human", "jti": "a-1"}
FOR_AGENTS = rule(id="agents", conditions=[["subject.kind", ["agent"]]])
FOR_PEOPLE = rule(id="people", conditions=[["subject.kind", ["human"]]])
FOR_ASSISTANT = rule(id="assistant", conditions=[["subject.id", ["assistant"]]])
EACH = (FOR_AGENTS, FOR_PEOPLE, FOR_ASSISTANT)


def test_an_agent_acts_for_a_person() -> None:
    gate = Exchanging(*EACH, may_exchange())
    given = gate.get(token(**PERSON), actor_token=of_partner())
    assert gate.line["issued"]["actor"] == "assistant"
    claims = told(given)
    assert (claims["sub"], claims["act"]) == ("alice", {"iss": PARTNER, "sub": "assistant"})
    assert claims["client_id"] == "assistant"
    gate.relay(asking(given))
    line = gate.line
    assert (line["subject"], line["actor"], line["kind"]) == ("alice", "assistant", "agent")
    assert line["permits"] == ["agents", "people", "assistant"]
    assert line["exchanged"] == {"upstream": "ledger", "parents": ["a-1", "p-1"], "delegated": True}
    assert "alone" not in line


@pytest.mark.parametrize("kind", ["human", "workload", "agent"])
def test_whoever_acts_for_somebody_is_an_agent(kind: str) -> None:
    forbid = rule(id="no", effect="forbid", conditions=[["subject.kind", ["agent"]]])
    gate = Exchanging(rule(), forbid, may_exchange())
    given = gate.get(actor_token=of_partner(airgate_kind=kind))
    assert refused_at(gate, asking(given)) == Reason.POLICY_FORBIDDEN
    assert (gate.line["kind"], gate.line["forbids"]) == ("agent", ["no"])


@pytest.mark.parametrize(
    ("missing", "alone"),
    [
        pytest.param(FOR_AGENTS, None, id="the agent for the person"),
        pytest.param(FOR_PEOPLE, "subject", id="the person alone"),
        pytest.param(FOR_ASSISTANT, "actor", id="the agent alone"),
    ],
)
def test_each_of_three_must_be_permitted(missing: dict[str, Any], alone: str | None) -> None:
    gate = Exchanging(*[one for one in EACH if one is not missing], may_exchange())
    given = gate.get(token(**PERSON), actor_token=of_partner())
    assert refused_at(gate, asking(given)) == Reason.POLICY_NO_MATCH
    assert gate.line.get("alone") == alone
    assert gate.line["detail"] == (f"to the {alone} alone" if alone else None)


@pytest.mark.parametrize(
    ("conditions", "alone"),
    [
        pytest.param([["subject.kind", ["agent"]]], None, id="what no agent may, whoever stands behind it"),
        pytest.param([["subject.delegated", True]], None, id="what nobody may for somebody else"),
        pytest.param(
            [["subject.id", ["alice"]], ["subject.delegated", False]], "subject", id="what the person may not"
        ),
        pytest.param([["subject.issuer", ["partner"]]], "actor", id="what the agent may not"),
        pytest.param(
            [["subject.kind", ["agent"]], ["subject.roles.any", ["admin"]]],
            None,
            id="what no agent may for an admin",
        ),
    ],
)
def test_any_forbid_refuses(conditions: list[Any], alone: str | None) -> None:
    forbid = rule(id="no", effect="forbid", conditions=conditions)
    gate = Exchanging(*EACH, forbid, may_exchange())
    groups = ["finance-readers", "admins"]
    given = gate.get(token(**PERSON, groups=groups), actor_token=of_partner(groups=["finance-readers"]))
    assert refused_at(gate, asking(given)) == Reason.POLICY_FORBIDDEN
    assert (gate.line["forbids"], gate.line.get("alone")) == (["no"], alone)


@pytest.mark.parametrize(
    ("subject", "actor", "scope"),
    [
        (["finance-publishers", "finance-readers"], ["finance-readers"], "reader"),
        (["finance-readers"], ["finance-publishers", "finance-readers"], "reader"),
        (["finance-publishers"], ["finance-readers"], ""),
        (
            ["admins", "finance-readers"],
            ["admins", "finance-readers"],
            "reader",
        ),  # the other issuer has no admins
    ],
)
def test_permits_see_the_roles_that_both_have(subject: list[str], actor: list[str], scope: str) -> None:
    gate = Exchanging(READ, WRITE, may_exchange())
    given = gate.get(token(groups=subject), actor_token=of_partner(groups=actor))
    assert told(given)["scope"] == scope
    reads = refused_at(gate, asking(given))
    assert (reads is None) is (scope == "reader")
    assert refused_at(gate, asking(given, method="POST")) == Reason.POLICY_NO_MATCH
    answer = gate.ask(token(groups=subject), actor_token=of_partner(groups=actor), scope="publisher")
    gate.turn_down(answer, "invalid_scope", Reason.EXCHANGE_SCOPE)


def test_what_all_three_permits_ask_for_is_asked() -> None:
    asks = {"rate_limit": [{"limit": 600, "per": 60, "by": ["subject"]}]}
    needs = {"require": {"headers": ["X-Change-Id"], "justification": False}}
    gate = Exchanging(
        FOR_AGENTS,
        {**FOR_PEOPLE, "obligations": asks},
        {**FOR_ASSISTANT, "obligations": needs},
        may_exchange(),
    )
    given = gate.get(token(**PERSON), actor_token=of_partner())
    assert refused_at(gate, asking(given)) == Reason.REQUEST_HEADER_REQUIRED
    gate.relay(asking(given, x_change_id="1"))
    assert len(gate.world.of("allow")) == 1
    assert [one["type"] for one in gate.line["obligations"]] == ["rate_limit", "require"]


def test_an_agents_limits_are_counted_for_it_whoever_it_acts_for() -> None:
    asks = {"rate_limit": [{"limit": 600, "per": 60, "by": ["subject"]}]}
    limited = [{**one, "obligations": asks} for one in (FOR_PEOPLE, FOR_ASSISTANT)]
    gate = Exchanging(FOR_AGENTS, *limited, may_exchange())
    for person in ("alice", "bob"):
        gate.relay(asking(gate.get(token(**{**PERSON, "sub": person}), actor_token=of_partner())))
    first, of_the_agent, second, again = [key for _, key in gate.world.of("allow")]
    assert of_the_agent == again
    assert len({first, of_the_agent, second}) == 3
    gate.answer(asking(of_partner()))
    assert gate.world.of("allow")[-1][1] == again  # as when it calls for itself
    gate.answer(asking(token(**PERSON)))
    assert gate.world.of("allow")[-1][1] == first


def test_permits_whose_credentials_exclude_each_other_let_nothing_through() -> None:
    made = bundle(
        FOR_AGENTS,
        {**FOR_PEOPLE, "obligations": {"credential": "a"}},
        {**FOR_ASSISTANT, "obligations": {"credential": "b"}},
        may_exchange(),
    )
    gate = Exchanging()
    gate.world.publish(made)
    given = gate.get(token(**PERSON), actor_token=of_partner())
    assert refused_at(gate, asking(given)) == Reason.POLICY_OBLIGATION
    assert gate.line["detail"] == "credentials a, b"


def test_a_credential_that_one_of_them_would_not_get_alone_lets_nothing_through() -> None:
    """A permit that names none means the upstream's own, which is not the one that the agent's permit names."""
    asks = {"obligations": {"credential": "admin"}}
    for policies, refused in (
        ((FOR_AGENTS, FOR_PEOPLE, {**FOR_ASSISTANT, **asks}), True),
        ((FOR_AGENTS, {**FOR_PEOPLE, **asks}, FOR_ASSISTANT), True),
        (({**FOR_AGENTS, **asks}, FOR_PEOPLE, FOR_ASSISTANT), True),
        ((FOR_AGENTS, FOR_PEOPLE, FOR_ASSISTANT), False),
    ):
        made = bundle(*policies, may_exchange())
        keys = dict.fromkeys(("usual", "admin"), KEY_CREDENTIAL)
        made["upstreams"]["ledger"] |= {"credential": "usual", "credentials": keys}
        gate = Exchanging()
        gate.world.publish(made)
        gate.world.secrets[KEY_CREDENTIAL["secret"]] = "of-a-test"
        given = gate.get(token(**PERSON), actor_token=of_partner())
        if refused:
            assert refused_at(gate, asking(given)) == Reason.POLICY_OBLIGATION
            assert gate.line["detail"].endswith("different credentials: admin, usual")
        else:
            gate.relay(asking(given))
            assert gate.line["credential"] == "usual"


def test_shadow_says_what_would_be() -> None:
    shadow = rule(id="soon", effect="forbid", mode="shadow", conditions=[["subject.id", ["assistant"]]])
    gate = Exchanging(*EACH, shadow, may_exchange())
    gate.relay(asking(gate.get(token(**PERSON), actor_token=of_partner())))
    assert (gate.line["shadow"], gate.line["would"]) == (["soon"], "deny")


def test_at_the_exchange_policy_is_asked_about_the_agent_for_the_person() -> None:
    permit = may_exchange(conditions=[["subject.kind", ["agent"]], ["subject.delegated", True]])
    gate = Exchanging(*EACH, permit)
    gate.get(token(**PERSON), actor_token=of_partner())
    line = gate.line
    assert (line["subject"], line["actor"], line["kind"], line["permits"]) == (
        "alice",
        "assistant",
        "agent",
        ["exchange"],
    )
    gate.turn_down(gate.ask(token(**PERSON)), "unauthorized_client", Reason.POLICY_NO_MATCH)
    gate.turn_down(gate.ask(of_partner()), "unauthorized_client", Reason.POLICY_NO_MATCH)


MAY = {"iss": PARTNER, "sub": "assistant"}


@pytest.mark.parametrize(
    ("named", "may"),
    [
        pytest.param(MAY, True, id="the actor"),
        pytest.param({**MAY, "client_id": "assistant"}, True, id="and its client"),
        pytest.param({"iss": PARTNER, "client_id": "assistant"}, True, id="its client alone"),
        pytest.param({"sub": "assistant"}, False, id="a namesake of the subject's own issuer"),
        pytest.param({**MAY, "sub": "other"}, False, id="another"),
        pytest.param({**MAY, "iss": ISSUER}, False, id="of another issuer"),
        pytest.param({**MAY, "groups": ["x"]}, False, id="with something that can't be compared"),
        pytest.param({"iss": PARTNER}, False, id="an issuer, and nobody of it"),
        pytest.param({}, False, id="nobody"),
        pytest.param("assistant", False, id="a text"),
        pytest.param([MAY], False, id="a list"),
        pytest.param({**MAY, "sub": ["assistant"]}, False, id="a name that is a list"),
        pytest.param({**MAY, "client_id": None}, False, id="a name that is null"),
        pytest.param(None, False, id="null"),
    ],
)
def test_may_act(named: Any, may: bool) -> None:
    gate = Exchanging()
    for subject in (token(may_act=named), gate.get(token(may_act=named))):
        answer = gate.ask(subject, actor_token=of_partner())
        if may:
            assert answer.status == 200
        else:
            gate.turn_down(answer, I_R, Reason.EXCHANGE_REFUSED)


@pytest.mark.parametrize("named", [{"client_id": None}, {"iss": ISSUER, "client_id": None}, None], ids=str)
def test_an_actor_without_a_client_is_not_the_one_that_null_names(named: Any) -> None:
    gate = Exchanging(type="any")
    actor = token(sub="assistant", client_id=ABSENT, jti="a-2")
    assert gate.ask(actor_token=actor).status == 200
    gate.turn_down(gate.ask(token(may_act=named), actor_token=actor), I_R, Reason.EXCHANGE_REFUSED)


def test_who_can_be_no_actor() -> None:
    gate = Exchanging()
    delegated = gate.get(actor_token=of_partner())
    for subject, actor in (
        (token(), gate.get(of_partner())),  # a gate token
        (token(), of_partner(act={"sub": "bob"})),  # for whom somebody acts already
        (delegated, of_partner(sub="second")),
    ):
        gate.turn_down(gate.ask(subject, actor_token=actor), I_R, Reason.EXCHANGE_REFUSED)


def test_conditions_on_claims_are_about_the_subject() -> None:
    by_claim = rule(conditions=[["subject.kind", ["agent"]], ["subject.claims.any", ["dep"], ["x"]]])
    gate = Exchanging(by_claim, FOR_ASSISTANT, FOR_PEOPLE, may_exchange())
    for subject, actor, reason in (("x", "y", None), ("y", "x", Reason.POLICY_NO_MATCH)):
        given = gate.get(token(**PERSON, dep=subject), actor_token=of_partner(dep=actor))
        assert refused_at(gate, asking(given)) == reason


def test_an_actor_that_the_issuer_names_stays() -> None:
    gate = Exchanging(rule(), may_exchange())
    given = gate.get(token(act={"sub": "bob", "act": {"sub": "carol"}}))
    assert told(given)["act"] == {"iss": ISSUER, "sub": "bob"}
    gate.relay(asking(given))
    assert (gate.line["actor"], gate.line["kind"]) == ("bob", "workload")
    assert gate.line["exchanged"]["delegated"] is False
    both = told(gate.get(token(act={"sub": "bob"}), actor_token=of_partner()))
    assert both["act"] == {"iss": PARTNER, "sub": "assistant", "act": {"iss": ISSUER, "sub": "bob"}}
    elsewhere = {"iss": "https://elsewhere.example.com", "sub": "bob"}
    assert told(gate.get(token(act=elsewhere)))["act"] == elsewhere


def test_an_upstream_is_told_of_which_issuer_each_actor_is() -> None:
    """Of both issuers somebody is called `assistant`; the subject's own has put bob between."""
    gate = Exchanging(rule(), may_exchange())
    made = bundle(rule(), may_exchange())
    made["upstreams"]["ledger"]["assertion"] = True
    gate.world.publish(made, 2)

    def stated(given: str) -> Any:
        gate.relay(asking(given))
        return told(gate.world.of("send")[-1].headers["airgate-assertion"])["act"]

    assert stated(gate.get(actor_token=of_partner())) == {"iss": PARTNER, "sub": "assistant"}
    own = token(sub="assistant", jti="c-1")
    assert stated(gate.get(actor_token=own)) == {"iss": ISSUER, "sub": "assistant"}
    assert stated(token(act={"sub": "bob"})) == {"iss": ISSUER, "sub": "bob"}
    both = gate.get(token(act={"sub": "bob"}), actor_token=of_partner())
    assert stated(both) == {"iss": PARTNER, "sub": "assistant", "act": {"iss": ISSUER, "sub": "bob"}}


def test_attested_context_of_either_counts_and_is_not_mixed() -> None:
    by_dag = rule(conditions=[["workload.dag", ["close"], True]])
    gate = Exchanging(by_dag, may_exchange())
    task = of_partner(airflow={"dag": "close"})
    given = gate.get(token(airflow={"dag": "close"}), actor_token=task)
    gate.relay(asking(given))
    assert gate.line["workload"] == {"dag": {"value": "close", "attested": True}}
    for subject, actor, alone in (
        (token(airflow={"dag": "close"}), of_partner(airflow={"dag": "other"}), "actor"),
        (token(airflow={"dag": "other"}), task, None),
        (token(), task, "subject"),
    ):
        assert refused_at(gate, asking(gate.get(subject, actor_token=actor))) == Reason.POLICY_NO_MATCH
        assert gate.line.get("alone") == alone


def test_pseudonyms_are_of_the_actors_own_issuer() -> None:
    gate = Exchanging(*EACH, may_exchange())
    gate.world.secrets |= {"AUDIT_SUBJECTS": "pseudonym", "AUDIT_PSEUDONYM_KEY": "k" * 32}
    gate.state.begin(gate.world)
    given = gate.get(token(**PERSON), actor_token=of_partner())
    actor = gate.line["issued"]["actor"]
    assert gate.line["actor"] == actor
    gate.relay(asking(given))
    assert gate.line["actor"] == actor
    gate.answer(asking(of_partner()))
    assert gate.line["subject"] == actor


# Narrower and narrower.


def test_a_gate_token_is_narrowed_further() -> None:
    gate = Exchanging(READ, WRITE, may_exchange(lifetime=600))
    first = gate.get(token(airflow={"dag": "close"}), headers={"airgate_task_id": "t"})
    second = gate.get(first, scope="reader", headers={"airgate_task_id": "other", "airgate_run_id": "r"})
    claims = told(second)
    assert claims["airgate"]["parents"] == [told(first)["jti"]]
    assert claims["airgate"]["workload"] == {"task": "t"}
    gate.relay(asking(second))
    assert gate.line["exchanged"]["parents"] == [told(first)["jti"], "1"]
    assert {name: fact["value"] for name, fact in gate.line["workload"].items()} == {
        "task": "t",
        "dag": "close",
    }
    assert refused_at(gate, asking(second, method="POST")) == Reason.POLICY_NO_MATCH
    gate.turn_down(gate.ask(second, scope="publisher"), "invalid_scope", Reason.EXCHANGE_SCOPE)


def test_it_stays_with_its_upstream() -> None:
    gate = Exchanging(READ, may_exchange(upstreams=["ledger", "crm"]))
    first = gate.get()
    gate.turn_down(gate.ask(first, audience="crm"), "invalid_target", Reason.EXCHANGE_TARGET)
    assert told(gate.get(first, audience=ABSENT))["aud"] == f"{OWN}/ledger"


def test_it_ends_with_the_one_before() -> None:
    gate = Exchanging(rule(), may_exchange(lifetime=60))
    first = gate.get()
    gate.later(50)
    second = gate.get(first)
    assert told(second)["exp"] == told(first)["exp"] == NOW + 60


def test_so_many_times_and_no_more() -> None:
    gate = Exchanging()
    each = token()
    for _ in range(gatetoken.MOST_PARENTS + 1):
        each = gate.get(each)
    gate.relay(asking(each))
    assert len(gate.line["exchanged"]["parents"]) == gatetoken.MOST_PARENTS + 1
    gate.turn_down(gate.ask(each), I_R, Reason.EXCHANGE_REFUSED)


def test_an_agent_gets_no_more_than_the_gate_token_that_it_was_given() -> None:
    """Neither by the roles of both, nor by what the person may do alone."""
    gate = Exchanging(FOR_AGENTS, FOR_ASSISTANT, WRITE, READ, may_exchange())
    narrow = gate.get(scope="reader")
    given = gate.get(narrow, actor_token=of_partner())
    assert told(given)["scope"] == "reader"
    assert told(given)["airgate"]["most"] == ["reader"]
    gate.relay(asking(given))
    assert refused_at(gate, asking(given, method="POST")) == Reason.POLICY_NO_MATCH
    assert gate.line["alone"] == "subject"
    again = gate.get(given)
    assert refused_at(gate, asking(again, method="POST")) == Reason.POLICY_NO_MATCH
    assert gate.line["exchanged"]["parents"] == [told(narrow)["jti"], told(given)["jti"], "1", "p-1"]


# Bound to a key.

BOUND = token(cnf={"jkt": THUMBPRINT})


def proving(gate_token: str, number: str = "1", **changes: Any) -> Inbound:
    """A call with a gate token that is bound to a key."""
    ath = b64(sha256(gate_token.encode()).digest())
    shown = proof(ENTRIES, "GET", jti=f"use-{number}", ath=ath, **changes)
    return inbound(ENTRIES, authorization=f"DPoP {gate_token}", dpop=shown)


def test_a_token_is_bound_when_a_proof_is_shown() -> None:
    gate = Exchanging(may_exchange(bound=True), rule())
    gate.turn_down(gate.ask(), "invalid_dpop_proof", Reason.TOKEN_PROOF_MISSING)
    answer = gate.ask(headers={"dpop": proof()})
    document = json.loads(answer.body)
    assert document["token_type"] == "DPoP"
    given = document["access_token"]
    assert told(given)["cnf"] == {"jkt": THUMBPRINT}
    gate.relay(proving(given))
    assert refused_at(gate, proving(given)) == Reason.TOKEN_PROOF_REPLAYED
    assert refused_at(gate, asking(given)) == Reason.TOKEN_SCHEME
    assert refused_at(gate, inbound(ENTRIES, airgate_token=given)) == Reason.TOKEN_PROOF_MISSING


def test_a_bound_token_is_exchanged_with_a_proof_of_its_key_only() -> None:
    gate = Exchanging()
    gate.turn_down(gate.ask(BOUND), "invalid_dpop_proof", Reason.TOKEN_PROOF_MISSING)
    other = token(cnf={"jkt": "A" * 43})
    gate.turn_down(gate.ask(other, {"dpop": proof()}), "invalid_dpop_proof", Reason.TOKEN_PROOF_INVALID)
    given = gate.get(BOUND, {"dpop": proof(jti="2")})
    assert told(given)["cnf"] == {"jkt": THUMBPRINT}
    gate.relay(proving(given))
    assert gate.line["jkt"] == THUMBPRINT
    gate.turn_down(gate.ask(given), "invalid_dpop_proof", Reason.TOKEN_PROOF_MISSING)
    again = gate.get(given, {"dpop": proof(jti="3")})
    assert told(again)["cnf"] == {"jkt": THUMBPRINT}


def test_the_actors_key_binds_too_and_two_keys_can_not_be_shown() -> None:
    gate = Exchanging()
    actor = of_partner(cnf={"jkt": THUMBPRINT})
    gate.turn_down(gate.ask(actor_token=actor), "invalid_dpop_proof", Reason.TOKEN_PROOF_MISSING)
    gate.relay(proving(gate.get(headers={"dpop": proof()}, actor_token=actor)))
    other = token(cnf={"jkt": "A" * 43})
    answer = gate.ask(other, {"dpop": proof(jti="2")}, actor_token=actor)
    gate.turn_down(answer, "invalid_dpop_proof", Reason.TOKEN_PROOF_INVALID)


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param("x", id="no proof"),
        pytest.param(proof(htu="https://gate/-/other"), id="for another page"),
        pytest.param(proof(htu=f"{OWN}/-/token"), id="for another host"),
        pytest.param(proof(htm="GET"), id="for another method"),
        pytest.param(proof(iat=NOW - 100), id="an old one"),
        pytest.param(proof(iat=NOW + 10), id="from the future"),
        pytest.param(proof(jti=ABSENT), id="without an id"),
        pytest.param(proof(signed_by="another"), id="by another key"),
        pytest.param(f"{proof()}, {proof(jti='2')}", id="two"),
        pytest.param("x" * 5000, id="too long"),
    ],
)
@pytest.mark.parametrize("subject", [token(), BOUND], ids=["unbound", "bound"])
def test_proofs_that_are_none(subject: str, shown: str) -> None:
    gate = Exchanging()
    gate.turn_down(gate.ask(subject, {"dpop": shown}), "invalid_dpop_proof", Reason.TOKEN_PROOF_INVALID)
    assert len(gate.state.proofs) == 0


def test_a_proof_counts_once() -> None:
    gate = Exchanging()
    gate.get(BOUND, {"dpop": proof()})
    gate.turn_down(gate.ask(BOUND, {"dpop": proof()}), "invalid_dpop_proof", Reason.TOKEN_PROOF_REPLAYED)
    gate = Exchanging(dpop_replay="strict")
    gate.get(BOUND, {"dpop": proof()})
    gate.state = State()  # another isolate
    gate.turn_down(gate.ask(BOUND, {"dpop": proof()}), "invalid_dpop_proof", Reason.TOKEN_PROOF_REPLAYED)


def test_binding_an_unbound_token_opens_nothing_that_asks_for_a_bound_one() -> None:
    bound_only = rule(conditions=[["subject.dpop", True]])
    gate = Exchanging(bound_only, may_exchange())
    assert refused_at(gate, proving(gate.get(headers={"dpop": proof()}))) == Reason.POLICY_NO_MATCH
    gate.relay(proving(gate.get(BOUND, {"dpop": proof(jti="2")}), "2"))
    forbid = rule(id="no", effect="forbid", conditions=[["subject.dpop", False]])
    gate = Exchanging(rule(), forbid, may_exchange())
    assert refused_at(gate, proving(gate.get(headers={"dpop": proof()}))) == Reason.POLICY_FORBIDDEN


def test_proofs_are_counted_for_whom_the_token_names_and_not_for_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All tasks of an Airflow have one client id: one of them would use up the share of all."""
    monkeypatch.setattr("dpop.SHARE", 3)
    gate = Exchanging()
    one, other = [
        gate.get(token(sub=name, client_id="airflow"), headers={"dpop": proof(jti=f"for {name}")})
        for name in ("close/publish", "sync/load")
    ]
    refused = [refused_at(gate, proving(one, f"{number}")) for number in range(4)]
    assert refused[-1] == Reason.LIMIT_PROOFS
    assert refused_at(gate, proving(other, "first")) is None


def test_an_issuer_whose_tokens_must_be_bound() -> None:
    gate = Exchanging(dpop="required")
    gate.turn_down(gate.ask(), I_R, Reason.TOKEN_UNBOUND)
    gate.relay(proving(gate.get(BOUND, {"dpop": proof()})))


# What ends it.


@pytest.mark.parametrize(
    "match",
    [
        {"token_id": "1"}, {"subject": "finance-etl"}, {"issuer": "company"}, {"dag": "close"}, {"session": "s-1"},
        {"subject": "finance-etl", "task": "t"}, {"subject": "finance-etl", "issuer": "company"},
        {"token_id": "p-1"}, {"subject": "assistant"}, {"issuer": "partner"}, {"session": "s-2"},
        {"subject": "assistant", "issuer": "partner"},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_is_revoked_of_either_takes_it_along(match: dict[str, str]) -> None:
    gate = Exchanging()
    subject = token(sid="s-1", airflow={"dag": "close"})
    actor = of_partner(sid="s-2")
    given = gate.get(subject, actor_token=actor, headers={"airgate_task_id": "t"})
    gate.relay(asking(given))
    text = gate.world.act(revocation(match=match))
    gate.later(30)
    reason = Reason.TOKEN_REVOKED if "token_id" in match else Reason.POLICY_REVOKED
    assert refused_at(gate, asking(given)) == reason
    assert gate.line["detail"].startswith(act_id(text))
    error = I_R if "token_id" in match else "unauthorized_client"
    answer = gate.ask(subject, actor_token=actor, headers={"airgate_task_id": "t"})
    gate.turn_down(answer, error, reason)


@pytest.mark.parametrize(
    "match",
    [
        {"subject": "assistant", "issuer": "company"}, {"subject": "finance-etl", "issuer": "partner"},
        {"token_id": "p-1", "issuer": "company", "subject": "assistant"}, {"token_id": "2"}, {"dag": "other"},
    ],
    ids=str,
)  # fmt: skip
def test_a_namesake_of_another_issuer_is_somebody_else(match: dict[str, str]) -> None:
    gate = Exchanging()
    given = gate.get(actor_token=of_partner())
    gate.world.act(revocation(match=match))
    gate.later(30)
    gate.relay(asking(given))


def test_whoever_acts_by_the_issuers_own_word_takes_it_along() -> None:
    gate = Exchanging()
    given = gate.get(token(act={"sub": "agent-7"}))
    again = gate.get(given)
    gate.relay(asking(given))
    gate.world.act(revocation(match={"subject": "agent-7"}))
    gate.later(30)
    assert [refused_at(gate, asking(each)) for each in (given, again)] == [Reason.POLICY_REVOKED] * 2


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({"subject": "assistant", "dag": "close"}, True),
        ({"subject": "assistant", "issuer": "partner", "session": "s-1"}, True),
        ({"subject": "assistant", "dag": "other"}, False),
        ({"subject": "assistant", "issuer": "company", "dag": "close"}, False),  # a namesake
    ],
    ids=str,
)
def test_an_agent_is_shut_out_of_one_task_that_it_acts_for(match: dict[str, str], hit: bool) -> None:
    gate = Exchanging()
    given = gate.get(token(sid="s-1", airflow={"dag": "close"}), actor_token=of_partner())
    gate.world.act(revocation(match=match))
    gate.later(30)
    assert refused_at(gate, asking(given)) == (Reason.POLICY_REVOKED if hit else None)


def test_a_gate_token_and_those_made_of_it_are_revoked_by_its_id() -> None:
    gate = Exchanging()
    first = gate.get()
    second = gate.get(first)
    third = gate.get(second)
    other = gate.get()
    gate.world.act(revocation(match={"token_id": told(second)["jti"]}))
    gate.later(30)
    for each, reason in (
        (first, None),
        (second, Reason.TOKEN_REVOKED),
        (third, Reason.TOKEN_REVOKED),
        (other, None),
    ):
        assert refused_at(gate, asking(each)) == reason
    gate.turn_down(gate.ask(second), I_R, Reason.TOKEN_REVOKED)


@pytest.mark.parametrize(("issuer", "session"), [(ISSUER, "s-1"), (PARTNER, "s-2")])
def test_it_ends_with_the_task_of_either(issuer: str, session: str) -> None:
    gate = Exchanging()
    subject, actor = token(sid="s-1"), of_partner(sid="s-2")
    given = gate.get(subject, actor_token=actor)
    gate.relay(asking(given))
    gate.state.view.sessions.add([Ended(1, issuer, session, "ended", int(NOW) + 600)], NOW)
    assert refused_at(gate, asking(given)) == Reason.TOKEN_SESSION_ENDED
    gate.turn_down(gate.ask(subject, actor_token=actor), I_R, Reason.TOKEN_SESSION_ENDED)


# A policy that has changed since.


def published(gate: Exchanging, made: dict[str, Any]) -> None:
    gate.world.publish(made, 2)
    gate.later(30)


def test_roles_are_worked_out_anew_and_the_token_gets_none_that_it_lacked() -> None:
    gate = Exchanging(READ, WRITE, may_exchange())
    given = gate.get(token(groups=["finance-readers"]))
    made = bundle(READ, WRITE, may_exchange())
    made["roles"]["publisher"].append({"issuer": "company", "claim": ["groups"], "value": "finance-readers"})
    published(gate, made)
    gate.relay(asking(given))
    assert gate.line["roles"]["granted"] == ["publisher", "reader"]
    assert refused_at(gate, asking(given, method="POST")) == Reason.POLICY_NO_MATCH
    made["roles"]["reader"] = made["roles"]["reader"][1:2]
    gate.world.publish(made, 3)
    gate.later(60)
    assert refused_at(gate, asking(given)) == Reason.POLICY_NO_MATCH


CHANGED = [
    pytest.param(lambda made: made["issuers"].pop("company"), Reason.TOKEN_ISSUER, id="the issuer is gone"),
    pytest.param(
        lambda made: made["issuers"]["company"].update(require=[{"claim": ["sub"], "any": ["nobody"]}]),
        Reason.TOKEN_CLAIMS,
        id="a claim is required that it lacks",
    ),
    pytest.param(
        lambda made: made["issuers"]["company"]["kind"].update(claim=["kind"]),
        Reason.TOKEN_CLAIMS,
        id="the kind is read from a claim that was not kept",
    ),
    pytest.param(
        lambda made: made["issuers"]["company"].update(dpop="required"),
        Reason.TOKEN_UNBOUND,
        id="it must be bound",
    ),
    pytest.param(
        lambda made: made["upstreams"].pop("ledger"), Reason.ROUTE_UNKNOWN_UPSTREAM, id="no such upstream"
    ),
]


@pytest.mark.parametrize(("change", "reason"), CHANGED)
def test_a_policy_under_which_it_could_not_be_made(change: Any, reason: Reason) -> None:
    gate = Exchanging()
    given = gate.get()
    gate.relay(asking(given))
    made = bundle(rule(), may_exchange())
    change(made)
    if reason in (Reason.TOKEN_ISSUER,):
        made["roles"] = {
            name: [one for one in ways if one["issuer"] != "company"] for name, ways in made["roles"].items()
        }
    if reason is Reason.ROUTE_UNKNOWN_UPSTREAM:
        made["shards"].pop("ledger")
    published(gate, made)
    assert refused_at(gate, asking(given)) == reason


def test_a_value_that_is_required_no_more() -> None:
    """The claim was kept, for it was required then as well."""
    required = [{"claim": ["dep"], "any": ["x", "y"]}]
    gate = Exchanging(require=required)
    given = gate.get(token(dep="x"))
    gate.relay(asking(given))
    published(gate, bundle(require=[{"claim": ["dep"], "any": ["y"]}]))
    assert refused_at(gate, asking(given)) == Reason.TOKEN_CLAIMS
    assert gate.line["detail"] == "dep is not one that is required"


def test_a_claim_that_policy_reads_since_is_not_taken_for_missing() -> None:
    gate = Exchanging()
    given = gate.get(token(dep="x"))
    forbid = rule(id="no", effect="forbid", conditions=[["subject.claims.any", ["dep"], ["x"]]])
    published(gate, bundle(rule(), forbid, may_exchange()))
    assert refused_at(gate, asking(given)) == Reason.TOKEN_CLAIMS
    assert "exchange the token again" in gate.line["detail"]
    assert refused_at(gate, asking(gate.get(token(dep="x", exp=NOW + 900)))) == Reason.POLICY_FORBIDDEN


# Nobody can make one up.


def good(gate: Exchanging) -> dict[str, Any]:
    return told(gate.get(headers={"airgate_dag_id": "close"}, actor_token=of_partner()))


def changed(claims: dict[str, Any], **inner: Any) -> dict[str, Any]:
    return {**claims, "airgate": without(claims["airgate"], **inner)}


def test_what_the_gate_signs_so_is_accepted() -> None:
    """So that what the tests below change is what is refused."""
    gate = Exchanging()
    gate.relay(asking(forged(good(gate))))


OTHERS = [
    pytest.param({"typ": "airgate-assertion+jwt"}, {}, Reason.TOKEN_TYPE, id="an assertion's type"),
    pytest.param({"typ": "JWT"}, {}, Reason.TOKEN_TYPE, id="any JWT"),
    pytest.param({"typ": ABSENT}, {}, Reason.TOKEN_TYPE, id="no type"),
    pytest.param(
        {"typ": "application/at+jwt"}, {}, Reason.TOKEN_TYPE, id="a type that the gate never writes"
    ),
    pytest.param({"typ": "secevent+jwt"}, {}, Reason.TOKEN_TYPE, id="a security event's"),
    pytest.param({"alg": "none"}, {}, Reason.TOKEN_ALGORITHM, id="no algorithm"),
    pytest.param({"alg": "HS256"}, {}, Reason.TOKEN_ALGORITHM, id="a secret's algorithm"),
    pytest.param({"alg": "EdDSA"}, {}, Reason.TOKEN_KEY, id="another key's algorithm"),
    pytest.param({"kid": "one"}, {}, Reason.TOKEN_KEY, id="the issuer's key"),
    pytest.param({}, {"aud": "ledger"}, Reason.TOKEN_AUDIENCE, id="an assertion's audience"),
    pytest.param({}, {"aud": [f"{OWN}/ledger"]}, Reason.TOKEN_CLAIMS, id="a list of audiences"),
    pytest.param({}, {"aud": f"{OWN}/crm"}, Reason.TOKEN_AUDIENCE, id="another upstream's"),
    pytest.param({}, {"exp": NOW + 700}, Reason.TOKEN_CLAIMS, id="a long life"),
    pytest.param({}, {"exp": True}, Reason.TOKEN_CLAIMS, id="an end that is no time"),
    pytest.param(
        {}, {"iat": int(NOW) + 100, "exp": int(NOW) + 200}, Reason.TOKEN_NOT_YET_VALID, id="from the future"
    ),
    pytest.param({}, {"sub": "mallory"}, Reason.TOKEN_CLAIMS, id="another subject than that of its claims"),
    pytest.param({}, {"cnf": {"x5t#S256": "x"}}, Reason.TOKEN_CLAIMS, id="another kind of binding"),
    pytest.param({}, {"cnf": {"jkt": "x"}}, Reason.TOKEN_CLAIMS, id="no thumbprint"),
    pytest.param({}, {"nbf": int(NOW)}, Reason.TOKEN_CLAIMS, id="a claim that is not known"),
    *[
        pytest.param({}, {name: ABSENT}, Reason.TOKEN_CLAIMS, id=f"no {name}")
        for name in ("aud", "sub", "client_id", "iat", "exp", "jti", "scope", "airgate")
    ],
]


@pytest.mark.parametrize(("header", "claims", "reason"), OTHERS)
def test_whatever_else_the_same_key_signs_is_none(
    header: dict[str, Any], claims: dict[str, Any], reason: Reason
) -> None:
    gate = Exchanging()
    text = forged(without(good(gate), **claims), **header)
    assert refused_at(gate, asking(text)) == reason
    gate.turn_down(gate.ask(text), I_R, reason)


INNER = [
    *[{name: ABSENT} for name in ("issuer", "upstream", "subject", "most", "workload", "parents", "reads", "actor")],
    {"most": "reader"}, {"parents": "1"}, {"parents": None}, {"workload": []}, {"workload": {"session": ["x"]}},
    {"workload": {"color": "red"}}, {"workload": {"dag": {"value": "x", "attested": True}}},
    {"workload": {"tags": "x"}},
    {"subject": {}}, {"subject": {"iss": ISSUER}}, {"subject": {"iss": 1, "sub": "finance-etl"}}, {"actor": {}},
    {"actor": "assistant"}, {"limit": 1}, {"reads": 1}, {"upstream": None},
]  # fmt: skip


@pytest.mark.parametrize(
    "inner", INNER, ids=lambda inner: str({k: "absent" if v is ABSENT else v for k, v in inner.items()})
)
def test_a_shape_that_this_gate_does_not_write(inner: dict[str, Any]) -> None:
    gate = Exchanging()
    assert refused_at(gate, asking(forged(changed(good(gate), **inner)))) == Reason.TOKEN_CLAIMS


@pytest.mark.parametrize("party", ["subject", "actor"])
def test_whoever_was_bound_to_a_key_stays_bound_to_it(party: str) -> None:
    gate = Exchanging()
    claims = good(gate)
    bound = {**claims["airgate"][party], "cnf": {"jkt": "A" * 43}}
    assert refused_at(gate, asking(forged(changed(claims, **{party: bound})))) == Reason.TOKEN_CLAIMS
    other = {**changed(claims, **{party: bound}), "cnf": {"jkt": THUMBPRINT}}
    assert refused_at(gate, proving(forged(other))) == Reason.TOKEN_CLAIMS


def test_every_part_is_covered_by_the_signature() -> None:
    gate = Exchanging()
    text = gate.get()
    for place in range(0, len(text), 7):
        other = "A" if text[place] != "A" else "B"
        altered = text[:place] + other + text[place + 1 :]
        reason = refused_at(gate, asking(altered))
        assert reason is not None
        assert reason.startswith("token."), (place, reason)


def test_an_old_key_still_verifies_and_a_key_that_is_gone_does_not() -> None:
    gate = Exchanging()
    given = gate.get()
    for keys, reason in (
        (({**OLD}, {**without(NEW, d=ABSENT)}), None),
        (({**OLD},), Reason.TOKEN_KEY),
    ):
        other = Exchanging()
        other.world.secrets["ASSERTION_KEYS"] = secret(*keys)
        assert refused_at(other, asking(given)) == reason
        assert OWN not in str(other.world.of("fetch"))
    stranger = Exchanging()
    stranger.world.secrets["ASSERTION_KEYS"] = secret(NEW, issuer="https://other.example.com")
    assert refused_at(stranger, asking(given)) == Reason.TOKEN_ISSUER


def test_an_issuer_in_policy_that_calls_itself_like_the_gate_is_never_asked() -> None:
    gate = Exchanging(READ, WRITE, may_exchange())
    given = gate.get(scope="reader")
    made = bundle(READ, WRITE, may_exchange())
    made["issuers"]["copy"] = {
        **made["issuers"]["company"],
        "issuer": OWN,
        "jwks_uri": f"{OWN}/-/jwks.json",
        "audiences": [f"{OWN}/ledger", CLAIMS["aud"]],
        "algorithms": ["ES256", "EdDSA"],
    }
    published(gate, made)
    gate.relay(asking(given))
    assert refused_at(gate, asking(given, method="POST")) == Reason.POLICY_NO_MATCH
    assert refused_at(gate, asking(token(iss=OWN, exp=NOW + 300))) == Reason.TOKEN_KEY
    assert f"{OWN}/-/jwks.json" not in gate.world.of("fetch")


def test_a_gate_token_is_no_authorization_of_the_callers_own() -> None:
    made = bundle(rule(obligations={"credential": "own"}), may_exchange())
    made["upstreams"]["ledger"]["credentials"] = {"own": {"kind": "caller"}}
    gate = Exchanging()
    gate.world.publish(made)
    given = gate.get()
    request = inbound(ENTRIES, airgate_token=given, authorization=f"Bearer {given}")
    assert refused_at(gate, request) == Reason.REQUEST_HEADER_INVALID
    gate.relay(inbound(ENTRIES, airgate_token=given, authorization="Bearer opaque"))


# What is kept of a token.

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from(["x", "y", "finance-readers", "human", "a b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    "groups",
    "scope",
    "scp",
    "airgate_kind",
    "dep",
    "org",
    "airflow",
    "hasgroups",
    "_claim_names",
    "junk",
    "a",
]
ACTING = st.fixed_dictionaries(
    {"sub": st.sampled_from(["x", "y"])},
    optional={"iss": st.sampled_from([None, "", "x"]), "act": st.just({"sub": "z"}), "a": st.just("b")},
)
PATHS = [
    ("groups",),
    ("scope",),
    ("scp",),
    ("dep",),
    ("org",),
    ("org", "a"),
    ("org", "a", "b"),
    ("act", "sub"),
    ("act", "iss"),
    ("act",),
]


@settings(max_examples=examples(600))
@given(
    st.dictionaries(st.sampled_from(NAMES), VALUES),
    st.just({}) | st.fixed_dictionaries({"act": ACTING}),
    st.lists(st.sampled_from(PATHS), max_size=4),
    st.lists(st.sampled_from(PATHS), max_size=2),
    st.sampled_from([None, ("airgate_kind",), ("org", "a"), ("scope",), ("scp",)]),
    st.sampled_from([("org", "b"), ("scope",), ("scp",)]),
)
def test_what_is_kept_says_the_same_as_the_whole(
    claims: dict[str, Any],
    acting: dict[str, Any],
    granting: list[Any],
    asked: list[Any],
    kind: Any,
    tags: Any,
) -> None:
    made = document()
    made["issuers"]["company"]["kind"]["claim"] = kind
    made["issuers"]["company"]["attested"] = {"dag": ["airflow", "a"], "tags": [*tags]}
    made["issuers"]["company"]["truncates"] = [{"claim": ["groups"], "at": 3}]
    made["roles"]["reader"] = [
        {"issuer": "company", "claim": [*path], "value": "x"} for path in granting
    ] or [{"issuer": "company", "subject": "s"}]
    made["claims"] = [[*path] for path in {*asked}]
    issuer = load_bundle(canonical(made)).issuers[ISSUER]
    whole = {"iss": ISSUER, "sub": "s", "jti": "1", "sid": "s-1", **claims, **acting}

    def read(what: dict[str, Any]) -> Any:
        try:
            return identify(what, "s", issuer.mapping)
        except Denied as denied:
            return denied.reason

    before = read(whole)
    assume(not isinstance(before, Reason))  # of a token that is refused nothing is kept
    kept = gatetoken.pruned(whole, issuer)
    assert read(kept) == before
    assert gatetoken.pruned(kept, issuer) == kept
    assert "junk" not in kept


@pytest.mark.parametrize("scope", ["a b", None, ["a"]], ids=str)
def test_of_a_token_with_scopes_in_two_claims_both_are_kept(scope: Any) -> None:
    """Grants read the first, and what is attested the one that policy names."""
    made = document()
    made["issuers"]["company"]["attested"] = {"tags": ["scp"]}
    issuer = load_bundle(canonical(made)).issuers[ISSUER]
    whole = {"iss": ISSUER, "sub": "s", "scope": scope, "scp": ["close"], "other": 1}
    kept = gatetoken.pruned(whole, issuer)
    assert kept == without(whole, other=ABSENT)
    assert identify(kept, "s", issuer.mapping) == identify(whole, "s", issuer.mapping)
    assert identify(kept, "s", issuer.mapping).attested["tags"].value == ("close",)
