"""Calls to put conditions to, and what conditions say of them."""

from collections.abc import Mapping
from typing import Any

from language import load
from world import NOW, rule

from conditions import Call, Truth
from model import Caller, Fact, Identity, Target


def who(
    kind: str = "workload",
    granted: str = "",
    used: str | None = None,
    unknown: str = "",
    claims: Mapping[str, tuple[str, ...]] | None = None,
    facts: Mapping[str, Fact] | None = None,
    jkt: str | None = None,
    actor: str | None = None,
) -> Caller:
    """A caller; roles are single letters, claims are named by their path with dots."""
    held = frozenset(granted)
    asked = {tuple(path.split(".")): values for path, values in (claims or {}).items()}
    return Caller(
        Identity("company", "etl", kind, held, {}, frozenset(unknown), asked, jkt, actor),
        None,
        held if used is None else frozenset(used),
        dict(facts or {}),
    )


def call(
    path: str = "/v1/a",
    query: str = "",
    caller: Caller | None = None,
    now: float = NOW,
    client: str | None = None,
    country: str | None = None,
    upstream: str = "ledger",
    properties: dict[str, tuple[str, ...]] | None = None,
) -> Call:
    target = Target("GET", upstream, tuple(path.split("/")[1:]), path, query, properties or {})
    return Call(caller or who(), target, now, client, country)


def asking(name: str = "7", **properties: tuple[str, ...]) -> Call:
    """A question about a resource."""
    return call("/" + name, upstream="resource:todo", properties=properties)


def said(row: list[Any], asked: Call, path: str = "/**", effect: str = "permit") -> Truth:
    """The truth of a compiled condition, alone in a policy."""
    upstream = asked.target.upstream
    target = {"upstreams": [upstream], "methods": ["*"], "paths": [path]}
    shard = load(upstream, rule(conditions=[row], effect=effect, target=target))
    ((policy, route),) = shard.lookup.reachable(asked.target)
    truth = policy.truth(asked, route)
    decision = shard.decide(asked)
    if effect == "permit":  # unknown never opens the gate
        assert (decision.permits, decision.forbids) == (("publish",) * (truth is True), ())
    else:  # and never escapes a forbid
        assert (decision.permits, decision.forbids) == ((), ("publish",) * (truth is not False))
    return truth


def check(row: list[Any], asked: Call, truth: Truth, path: str = "/**") -> None:
    """For conditions that mean the same in a permit and in a forbid."""
    assert said(row, asked, path) is truth
    assert said(row, asked, path, "forbid") is truth


T, F, U = True, False, None
