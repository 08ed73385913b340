"""What is done about obligations; that the pipeline does it for every call is in test_gateway.py."""

from typing import Any

import pytest
from world import World, inbound, run

from audit import Record
from duty import LONGEST, SHORTEST, honour
from model import Caller, Denied, Fact, Identity, Reason, Target
from obligations import NOTHING, Limit, Obligations

CALLER = Caller(
    Identity("company", "etl", "workload", frozenset({"a", "b"}), {}),
    None,
    frozenset({"a", "b"}),
    {"dag": Fact("close", False)},
)
TARGET = Target("POST", "ledger", ("v1",), "/v1", "")


def honoured(asked: Obligations, caller: Caller = CALLER, **request: Any) -> tuple[Record, World]:
    record, world = Record(inbound(**request)), World()
    run(honour(asked, caller, TARGET, record, world))
    return record, world


def refused(asked: Obligations, **request: Any) -> Denied:
    with pytest.raises(Denied) as caught:
        honoured(asked, **request)
    return caught.value


def test_nothing_is_asked_for() -> None:
    record, world = honoured(NOTHING)
    assert (record.justification, world.happened) == ("", [])


@pytest.mark.parametrize("length", [SHORTEST, LONGEST])
def test_a_justification_goes_on_record(length: int) -> None:
    record, _ = honoured(Obligations(justification=True), airgate_justification="x" * length)
    assert record.justification == "x" * length


@pytest.mark.parametrize("length", [0, SHORTEST - 1, LONGEST + 1])
def test_a_justification_of_another_length(length: int) -> None:
    denied = refused(Obligations(justification=True), airgate_justification="x" * length)
    assert denied.reason is Reason.REQUEST_JUSTIFICATION_REQUIRED


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="not there"),
        pytest.param({"x_change_id": ""}, id="empty"),
        pytest.param({"x_change_id": "7", "connection": "close, X-Change-Id"}, id="for this connection only"),
    ],
)
def test_a_required_header(headers: dict[str, str]) -> None:
    asked = Obligations(headers=("x-change-id",))
    assert refused(asked, **headers).reason is Reason.REQUEST_HEADER_REQUIRED
    honoured(asked, x_change_id="7", connection="close")


def keys(limit: Limit, caller: Caller = CALLER) -> set[str]:
    return {key for _, key in honoured(Obligations(limits=(limit,)), caller)[1].of("allow")}


def test_limits_by_other_things_do_not_share_a_count() -> None:
    """Even where the values are the same text."""
    same = CALLER._replace(workload={name: Fact("a,b", False) for name in ("dag", "task")})
    limits = [Limit(600, 60, by, "") for by in (("subject", "dag"), ("subject", "task"), ("subject", "role"))]
    assert len(set().union(*[keys(limit, same) for limit in limits])) == 3


def test_nobody_else_uses_up_a_callers_limit() -> None:
    limit = Limit(600, 60, ("subject",), "")
    other = CALLER._replace(identity=CALLER.identity._replace(issuer="partner"))
    assert keys(limit).isdisjoint(keys(limit, other))
    assert keys(limit) == keys(limit, CALLER._replace(workload={}))
