"""Obligations: what a permit asks of the gate, and of the caller, for a call that it lets through.

Those of all permits that matched are merged; the order of policies means nothing. One that this gate cannot honour
denies the call, so the list is open: a newer policy never gets weaker on an older gate.
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

PERIODS = (10, 60)  # seconds; the Workers rate-limiting bindings count in no others
BY = ("subject", "dag", "task", "role", "policy")


class Limit(NamedTuple):
    """At most `limit` calls in `per` seconds for each combination of the values named in `by`."""

    limit: int
    per: int
    by: tuple[str, ...]
    policy: str  # whose calls are counted together; empty: not by policy

    @property
    def binding(self) -> str:
        """The rate-limiting binding that counts it, as wrangler.toml names it."""
        return f"LIMIT_{self.limit}_PER_{self.per}S"


class Obligations(NamedTuple):
    """What one permit asks, or all that matched together."""

    limits: tuple[Limit, ...] = ()  # every one is checked
    credential: str | None = None  # which of the upstream's credentials to use
    max_body: int | None = None  # bytes
    headers: tuple[str, ...] = ()  # that the caller must send, in lower case
    justification: bool = False  # whether the caller must say why
    others: tuple[tuple[str, str], ...] = ()  # unknown to this gate: name, and value as JSON
    conflict: str = ""  # why they cannot all be honoured; empty: they can

    def within(self, max_body: int) -> "Obligations":
        """The same for an upstream that takes at most so many bytes."""
        return self._replace(max_body=max_body if self.max_body is None else min(max_body, self.max_body))

    def documents(self) -> list[dict[str, Any]]:
        """As an answer to an AuthZEN question lists them: type and properties of each, under an id of its own."""
        listed: list[tuple[str, Any]] = [
            ("rate_limit", {"limit": limit.limit, "per": limit.per, "by": list(limit.by)})
            for limit in self.limits
        ]
        if self.credential is not None:
            listed.append(("credential", {"name": self.credential}))
        if self.max_body is not None:
            listed.append(("max_body", {"bytes": self.max_body}))
        if self.headers or self.justification:
            listed.append(("require", {"headers": list(self.headers), "justification": self.justification}))
        listed += [(name, {"value": json.loads(value)}) for name, value in self.others]
        names = [name for name, _ in listed]
        numbers = [names[:place].count(name) + 1 for place, name in enumerate(names)]
        return [
            {"id": name if number == 1 else f"{name}-{number}", "type": name, "properties": properties}
            for number, (name, properties) in zip(numbers, listed, strict=True)
        ]


NOTHING = Obligations()


def canonical(value: Any) -> str:
    """A JSON value with one spelling, so that equal ones are equal texts. ValueError for NaN, which is none."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def merge(each: Iterable[Obligations]) -> Obligations:
    """All of them together: the strictest of each kind, whatever the order they come in."""
    lowest: dict[tuple[int, tuple[str, ...], str], int] = {}
    credentials: set[str] = set()
    bodies: list[int] = []
    headers: set[str] = set()
    others: set[tuple[str, str]] = set()
    conflicts: set[str] = set()
    justification = False
    for one in each:
        for limit in one.limits:
            key = (limit.per, limit.by, limit.policy)
            lowest[key] = min(limit.limit, lowest.get(key, limit.limit))
        if one.credential is not None:
            credentials.add(one.credential)
        if one.max_body is not None:
            bodies.append(one.max_body)
        headers.update(one.headers)
        others.update(one.others)
        justification = justification or one.justification
        if one.conflict:
            conflicts.add(one.conflict)
    if len(credentials) > 1:
        conflicts.add(f"credentials {', '.join(sorted(credentials))}")
    return Obligations(
        limits=tuple([Limit(lowest[key], *key) for key in sorted(lowest)]),
        credential=min(credentials) if len(credentials) == 1 and not conflicts else None,
        max_body=min(bodies, default=None),
        headers=tuple(sorted(headers)),
        justification=justification,
        others=tuple(sorted(others)),
        conflict="; ".join(sorted(conflicts)),
    )
