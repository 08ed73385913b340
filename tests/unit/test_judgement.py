"""Judging recorded calls: never more certain than the log, and never another answer than the gate's."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import logged
from hypothesis import given, settings
from hypothesis import strategies as st
from language import BOTH, PATHS, Dice, Scene, examples, scene
from world import MADE, canonical, document, rule

from airgate.policy import index
from airgate.policy.judgement import Judge, Judgement, Known
from airgate.policy.policyset import PolicySet
from airgate.policy.traffic import Group, Traffic
from audit import BOUND, Record, describe
from conditions import Call
from model import Decision, Inbound, Target
from pseudonym import PLAIN, Names

ROLES = "abc"
ISSUERS = ("company", "partner")


@dataclass(frozen=True)
class Policies:
    engine: PolicySet
    rules: Mapping[str, list[index.Rule]]


def policies(*given: dict[str, Any]) -> Policies:
    """A policy set in which both issuers grant the roles of scenes by a claim."""
    # One more upstream, so that there's a policy in any case.
    other = rule(
        id="other", target={"upstreams": ["crm"], "methods": ["GET"], "paths": ["/**"]}, conditions=[]
    )
    bundle = document(*given, other, ledger={"encoded_slash": "segment"})
    company = bundle["issuers"]["company"]
    bundle["issuers"]["partner"] = company | {"issuer": "https://partner.example.com"}
    bundle["roles"] = {
        role: [{"issuer": issuer, "claim": ["groups"], "value": role} for issuer in ISSUERS] for role in ROLES
    }
    shards = {name: MADE[name] for name in bundle["shards"].values()}
    rules = {upstream: index.rules(json.loads(MADE[name])) for upstream, name in bundle["shards"].items()}
    return Policies(PolicySet.load(canonical(bundle), shards), rules)


class Logged:
    """A scene's call, with its path as an address and the tag that its roles follow from, and its event."""

    def __init__(self, given: Scene) -> None:
        path = "".join("/" + quote(segment, safe="") for segment in given.target.segments)
        caller = given.caller
        if caller.effective != caller.identity.granted:
            caller = caller._replace(tagged=tuple(sorted(caller.effective)))
        self.caller, self.path = caller, path
        # A log counts in milliseconds, and conditions on the time in whole seconds.
        self.call = Call(caller, given.target, given.now, given.client, given.country)
        self.scene = given

    def event(
        self, decision: Decision, version: str, *, with_path: bool, names: Names = PLAIN, bound: int = BOUND
    ) -> str:
        """`bound`: bytes that a line may have; a longer one is shortened."""
        given = self.scene
        headers = {} if given.client is None else {"cf-connecting-ip": given.client}
        record = Record(
            Inbound("f" * 32, given.now, given.target.method, "https://gate.example.com/", headers, False)
        )
        target = given.target
        record.target = Target(target.method, "ledger", target.segments, self.path, target.query)
        record.bundle, record.described, record.log_path = version, describe(self.caller, names), with_path
        record.country = given.country
        with patch("audit.BOUND", bound):
            return logged.decided(record, decision)


def judged(log: Path, line: str, judge: Judge, *, all_roles: bool) -> tuple[Judgement, Group]:
    log.write_text(line + "\n", "utf-8")
    [call] = Traffic([log], keep_run=judge.compares_run).calls()
    judge.learn([call.group])
    if all_roles:
        judge.seen = {issuer: set(ROLES) for issuer in ISSUERS}
    return judge.judge(judge.case(call), call), call.group


TEXTS = st.binary(min_size=160, max_size=160)


def at_the_ledger(text: bytes) -> Scene:
    return scene(b"\x00" + text[1:])


@settings(max_examples=examples(300))
@given(text=TEXTS, more=st.binary(min_size=16, max_size=16))
def test_what_is_certain_is_what_the_gate_says(tmp_path_factory: Any, text: bytes, more: bytes) -> None:
    given, dice = at_the_ledger(text), Dice(more)
    call = Logged(given)
    # Other paths, at times, than the candidate's policies have.
    old = [
        each | {"target": each["target"] | {"paths": [dice.of(PATHS)]}} if dice.of(BOTH) else each
        for each in given.policies
    ]
    before, after = policies(*old, given.more), policies(*given.policies)
    judge = Judge(after, [Known(before, {before.engine.bundle.version})] if dice.of(BOTH) else [])
    line = call.event(
        before.engine.decide(call.call),
        before.engine.bundle.version,
        with_path=bool(dice.of(BOTH)),
        names=Names(b"k" * 32) if dice.of(BOTH) else PLAIN,
        bound=dice.of((BOUND, BOUND, 900, 600)),
    )
    folder = tmp_path_factory.mktemp("log")
    judgement, group = judged(folder / "audit.ndjson", line, judge, all_roles=bool(dice.of(BOTH)))
    truth = after.engine.decide(call.call)
    assert group.permit is before.engine.decide(call.call).permit
    assert judgement.permits in (None, truth.permit)
    if judgement.permits is None:
        assert judgement.why


@settings(max_examples=examples(150))
@given(text=TEXTS, more=st.binary(min_size=16, max_size=16))
def test_the_set_that_decided_says_the_same_again_for_certain(
    tmp_path_factory: Any, text: bytes, more: bytes
) -> None:
    given, dice = at_the_ledger(text), Dice(more)
    call = Logged(given)
    same = policies(*given.policies)
    version = same.engine.bundle.version
    decision = same.engine.decide(call.call)
    line = call.event(decision, version, with_path=bool(dice.of(BOTH)))
    folder = tmp_path_factory.mktemp("log")
    judgement, group = judged(
        folder / "audit.ndjson", line, Judge(same, [Known(same, {version})]), all_roles=True
    )
    assert judgement.permits is decision.permit is group.permit


BLIND = ("subject.claims.", "target.query.", "when.equals", "when.country")


@settings(max_examples=examples(150))
@given(text=TEXTS)
def test_where_the_log_holds_all_that_policies_ask_for_the_answer_is_certain(
    tmp_path_factory: Any, text: bytes
) -> None:
    given = at_the_ledger(text)
    shown = [
        policy
        for policy in given.policies
        if not any(str(row[0]).startswith(BLIND) for row in policy["conditions"])
    ]
    call, after = Logged(given), policies(*shown)
    line = call.event(policies(*given.policies).engine.decide(call.call), "0" * 12, with_path=True)
    folder = tmp_path_factory.mktemp("log")
    judgement, _ = judged(folder / "audit.ndjson", line, Judge(after), all_roles=True)
    assert judgement.permits is after.engine.decide(call.call).permit


@settings(max_examples=examples(150))
@given(text=TEXTS)
def test_paths_that_count_as_alike_have_the_same_policies(text: bytes) -> None:
    given = at_the_ledger(text)
    after = policies(*given.policies)
    judge = Judge(after)
    call = Logged(given)
    path = f"/ledger{call.path}"
    exact, _ = judge._at(given.target.method, "ledger", path)
    alike, _ = judge._at(given.target.method, "ledger", judge._alike("ledger", path))
    assert exact is alike
