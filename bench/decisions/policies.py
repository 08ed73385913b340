"""What all engines decide by and are asked: policies that are easy to say in every language, and questions to them.

Policy i permits one role one method on one of eight upstreams, below /api/v1/team{i}/. So each question has one policy
that could permit it, wherever an engine starts to look.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from airgate.policy.index import Rule, canonical, shard

SIZES = (10, 100, 1_000, 10_000, 100_000)
METHODS = ("GET", "POST", "PUT", "DELETE")
UNUSED = ("unused-1", "unused-2")  # roles that the caller has and no policy names


class Policy(NamedTuple):
    """One permit."""

    id: str
    role: str
    method: str
    upstream: str
    prefix: str  # of the path, with a slash at its end


class Question(NamedTuple):
    """May a caller with these roles make this call, and the answer that is right."""

    roles: tuple[str, ...]
    method: str
    upstream: str
    path: str
    permit: bool


def policies(count: int) -> list[Policy]:
    return [_policy(number, count) for number in range(count)]


def _policy(number: int, count: int) -> Policy:
    return Policy(
        id=f"p{number:06}",
        role=f"role{number % max(4, count // 10)}",
        method=METHODS[number // 8 % 4],
        upstream=f"up{number % 8}",
        prefix=f"/api/v1/team{number}/",
    )


def questions(count: int) -> list[Question]:
    """The policy in the middle permits the first two. The others differ in one thing each, and nothing permits them."""
    middle = _policy(count // 2, count)
    right = Question((middle.role, *UNUSED), middle.method, middle.upstream, middle.prefix + "x", True)
    wrong = right._replace(permit=False)
    return [
        right,
        right._replace(path=middle.prefix + "reports/2026/11/summary"),
        wrong._replace(roles=UNUSED),
        wrong._replace(method="PATCH"),
        wrong._replace(upstream="elsewhere"),
        wrong._replace(path=middle.prefix.removesuffix("/") + "x/x"),  # /team5x is not below /team5/
        wrong._replace(path="/api/v2/" + middle.prefix.removeprefix("/api/v1/")),
    ]


def shard_of(given: Sequence[Policy], upstream: str) -> str:
    """The shard of these policies, as the gate reads it from KV."""
    rules = [
        Rule(
            id=policy.id,
            owner="owner@example.com",
            effect="permit",
            shadow=False,
            methods=[policy.method],
            paths=[policy.prefix + "**"],
            conditions=[["subject.issuer", ["company"]], ["subject.roles.any", [policy.role]]],
        )
        for policy in given
    ]
    return canonical(shard(upstream, rules, {}))


ZONES = {"Europe/Berlin": {"starts": [0], "offsets": [3600], "until": 2**40}}


def strict_shard(given: Sequence[Policy], upstream: str, *, shared: bool) -> str:
    """The same, each with ten conditions, two paths and obligations. Unless shared, four of the ten are its own."""
    rules = []
    for number, policy in enumerate(given):
        own = "" if shared else f"-{number}"
        conditions: list[list[Any]] = [
            ["subject.issuer", ["company"]],
            ["subject.kind", ["workload"]],
            ["subject.roles.any", sorted([policy.role, f"deputy{own}"])],
            ["subject.claims.any", ["department"], sorted(["finance", f"office{own}"])],
            ["workload.dag", [f"monthly{own}_*", "finance_*"], False],
            ["workload.tags.any", sorted(["finance", f"tag{own}"]), False],
            ["target.query.any", "format", ["csv", "json"]],
            ["when.time", "Europe/Berlin", ["fri", "mon", "thu", "tue", "wed"], 0, 1440],
            ["when.dates", 0, 2**40],
            ["when.ip", ["198.51.100.0/24", "2001:db8::/32"]],
        ]
        rules.append(
            Rule(
                id=policy.id,
                owner=f"owner{number % 20}@example.com",
                effect="permit",
                shadow=False,
                methods=[policy.method],
                paths=[policy.prefix + "**", policy.prefix + "reports/{id}"],
                conditions=conditions,
                obligations={
                    "rate_limit": [{"limit": 60, "per": 60, "by": ["subject"]}],
                    "max_body": 1_000_000,
                },
            )
        )
    return canonical(shard(upstream, rules, ZONES))


def crowded_shard(count: int, upstream: str) -> str:
    """Policies that all match the same calls."""
    rules = [
        Rule(
            f"p{number:06}",
            "owner@example.com",
            "permit",
            False,
            ["*"],
            ["/**"],
            [["subject.issuer", ["company"]]],
        )
        for number in range(count)
    ]
    return canonical(shard(upstream, rules, {}))
