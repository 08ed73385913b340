"""Which Worker a gate is: a label that `airgate deploy` gives it as the variable VERSION, and /-/health shows.

    3f2a1bc4d5e6+, 2026-11-21T22:25:03Z, reads 3 to 4

The commit it was deployed from, with a plus where the tree held more than that; when; and the formats of bundles that
it reads, so that a publisher can tell beforehand whether it would.
"""

import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import airgate.engine  # noqa: F401  the gate's own code can be imported from here on
from airgate.node import PROJECT
from bundle import FORMATS

VARIABLE = "VERSION"
UNKNOWN = "no commit"  # a folder that git knows nothing about

_LABEL = re.compile(
    r"([0-9a-f]{12}\+?|no commit), (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ), reads (\d{1,4}) to (\d{1,4})"
)


@dataclass(frozen=True)
class Version:
    """A Worker as it was uploaded. `formats`: the oldest and the newest that it reads."""

    commit: str
    at: datetime
    formats: tuple[int, int]

    @classmethod
    def of_tree(cls, now: datetime) -> "Version":
        """The Worker that would be uploaded now."""
        return cls(_commit(PROJECT), now.astimezone(UTC).replace(microsecond=0), (min(FORMATS), max(FORMATS)))

    @classmethod
    def read(cls, label: object) -> "Version | None":
        """The version that a label tells of; None when `airgate deploy` hasn't written it."""
        match = _LABEL.fullmatch(label) if isinstance(label, str) else None
        if match is None:
            return None
        at = datetime.strptime(match[2], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        return cls(match[1], at, (int(match[3]), int(match[4])))

    def __str__(self) -> str:
        oldest, newest = self.formats
        return f"{self.commit}, {self.at:%Y-%m-%dT%H:%M:%SZ}, reads {oldest} to {newest}"

    def reads(self, format: int) -> bool:  # noqa: A002  the bundle's own word
        """Whether this Worker reads bundles of a format."""
        return self.formats[0] <= format <= self.formats[1]


def _commit(folder: Path) -> str:
    """The commit of a tree, with a plus when files differ from it."""
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        return commit[:12] + ("+" if _git(folder, "status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()
