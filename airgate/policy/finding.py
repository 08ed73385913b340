"""One thing about valid policy that deserves a second look."""

from dataclasses import dataclass

from airgate.policy.seed import Problem


@dataclass(frozen=True, order=True)
class Finding:
    """One thing to look at, at its place."""

    problem: Problem
    code: str  # stable
    policy: str  # the policy's id; empty when it's about something else
    note: bool = False  # true: as it must be, and worth knowing
