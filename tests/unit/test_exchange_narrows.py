"""Whatever policy says, a token holds, and is asked for: an exchanged token permits no more than the one before."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from language import BOTH, CLIENTS, MOMENTS, Dice, examples, load, policy, target
from test_exchange import Exchanging, bundle, may_exchange, of_partner, told
from world import ABSENT, NOW, inbound, run, token

import admission
from audit import Record
from bundle import Bundle
from conditions import Call
from identity import act, asserted
from model import Caller, Decision, Identity
from shard import Shard
from verified import Seen

GROUPS = ["a", "b", "c"]
HEADERS = {
    "airgate_dag_id": ["x", "xz", "y"],
    "airgate_environment": ["x", "z"],
    "airgate_dag_tags": ["x", "x, y"],
}


def claims(dice: Dice) -> dict[str, Any]:
    """Some of a token's claims that policies look at. A claim may be missing: then roles are unknown."""
    return {
        "groups": dice.of([dice.several(GROUPS), dice.several(GROUPS), dice.several(GROUPS), ABSENT]),
        "airgate_kind": dice.of([ABSENT, "workload", "human", "agent"]),
        "dep": dice.of([ABSENT, "x", ["x", "y"], True, {"a": 1}]),
        "org": dice.of([ABSENT, {"unit": "x"}, {"unit": ["y"], "other": 1}, "x"]),
        "scope": dice.of([ABSENT, "x y", ["x"]]),
        "scp": dice.of([ABSENT, ["y"]]),
        "airflow": dice.of(
            [ABSENT, {"dag": "x"}, {"dag": "xz", "task": "y", "tags": ["x"]}, {"environment": "x"}]
        ),
    }


def world(dice: Dice) -> tuple[Exchanging, Shard]:
    policies = [policy(dice, "ledger", f"p{number}") for number in range(dice.of([1, 2, 3, 4, 5]))]
    made = bundle(*policies, may_exchange(roles=dice.of([None, None, dice.several(GROUPS) or ["a"]])))
    made["issuers"]["company"]["attested"] = {
        name: ["airflow", name] for name in ("dag", "task", "tags", "environment")
    }
    made["roles"] = {
        role: [{"issuer": issuer, "claim": ["groups"], "value": role} for issuer in ("company", "partner")]
        for role in GROUPS
    }
    gate = Exchanging()
    gate.world.publish(made)
    return gate, load("ledger", *policies)


def headers(dice: Dice) -> dict[str, str]:
    return {name: dice.of(HEADERS[name]) for name in dice.several(list(HEADERS))}


def permitted(shard: Shard, caller: Caller, call: Call) -> bool:
    return shard.decide(Call(caller, call.target, call.now, call.client, call.country)).permit


class Step:
    """One token on the way, and what it was got with."""

    def __init__(self, text: str, seen: Seen) -> None:
        self.text, self.identity, self.until = text, seen.identity, seen.until

    def alone(self, context: dict[str, str]) -> Caller:
        """Whoever it names, acting under all that it may."""
        return act(self.identity, {name.replace("_", "-"): value for name, value in context.items()})

    def acting(self, context: dict[str, str], roles: frozenset[str]) -> Caller:
        """The same, under these roles."""
        caller = self.alone(context)
        assert roles <= caller.effective
        return caller._replace(tagged=tuple(sorted(roles)), effective=roles)


def decided(gate: Exchanging, policies: Bundle, shard: Shard, caller: Caller, call: Call) -> Decision:
    request = inbound(at=call.now)
    if call.client is not None:
        request.headers["cf-connecting-ip"] = call.client
    record = Record(request)
    gate.world.from_country = call.country
    return admission.decide(record, policies, caller, call.target, shard, gate.world)


@settings(max_examples=examples(400))
@given(st.binary(min_size=240, max_size=240))
def test_an_exchanged_token_permits_a_subset(text: bytes) -> None:
    dice = Dice(text)
    call = Call(
        Caller(Identity("", "", "", frozenset(), {}), None, frozenset(), {}),
        target(dice, "ledger"),
        dice.of(MOMENTS),
        dice.of(CLIENTS),
        dice.of([None, "DE", "FR"]),
    )
    gate, shard = world(dice)
    context = headers(dice)
    steps: list[Step] = []
    subject = token(sub=dice.of("xyz"), **claims(dice))
    actors: list[str] = []
    for number in range(dice.of([2, 2, 3, 4])):
        policies = run(gate.state.current(gate.world))
        steps.append(Step(subject, run(admission.recognise(subject, policies, gate.state, gate.world, NOW))))
        asked: dict[str, Any] = {"scope": " ".join(dice.several(GROUPS)) or ABSENT} if dice.of(BOTH) else {}
        if not actors and dice.of(BOTH):
            actors.append(of_partner(sub=dice.of("xyz"), **claims(dice)))
            asked["actor_token"] = actors[0]
        answer = gate.ask(subject, context if number == 0 else headers(dice), **asked)
        if answer.status != 200:
            break
        subject = json.loads(answer.body)["access_token"]
        said = told(subject)
        new = Step(subject, run(admission.recognise(subject, policies, gate.state, gate.world, NOW)))
        before = steps[-1]

        # At use, headers with context change nothing, and a tag narrows.
        noise = headers(dice)
        granted = sorted(new.alone({}).effective)
        tag = [role for role in granted if dice.of(BOTH)]
        caller = new.alone(noise | ({"airgate_role": ",".join(tag)} if tag else {}))
        decision = decided(gate, policies, shard, caller, call)

        assert new.until <= before.until
        assert caller.effective <= frozenset(said["scope"].split()) <= before.alone(context).effective
        assert caller.workload == {**asserted(as_sent(context)), **caller.identity.attested}
        assert caller.identity.granted >= steps[0].identity.granted
        if not decision.permit:
            continue
        if "actor_token" not in asked:
            as_before = before.acting(context, caller.effective)
            assert decided(gate, policies, shard, as_before, call).permit
        else:
            actor = Step(
                actors[0], run(admission.recognise(actors[0], policies, gate.state, gate.world, NOW))
            )
            assert caller.effective <= actor.identity.granted
            assert (caller.identity.kind, caller.identity.actor) == ("agent", actor.identity.subject)
            assert permitted(shard, before.alone(context), call)
            assert permitted(shard, actor.alone(context), call)


def as_sent(context: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in context.items()}
