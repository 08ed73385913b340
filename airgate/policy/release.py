"""Putting a policy set in force: what that would change, and the writes that do it, in an order that can break off.

Shards and bundle go to KV first, under their hashes: nothing names them yet. Then one row is added to the ledger in D1:
that is the moment. Last comes KV's copy of that row. Wherever this ends, the set before or the new one is in force, and
the same command finds out and goes on.
"""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airgate.engine import BUNDLE, SHARD
from airgate.environment import FAILED, INVALID, REFUSED, Environment, EnvironmentMissing, by_hand
from airgate.moments import clock
from airgate.node import NodeMissing, WranglerFailed
from airgate.policy.check import counted
from airgate.policy.compile import Compiled
from airgate.policy.ledger import (
    HIGHEST,
    Ledger,
    NotTrusted,
    append,
    draft,
    read_ledger,
    require_trusted,
    write_copy,
)
from airgate.policy.stored import StoredError, missing, read_stored
from airgate.signing_key import SigningKey, without_key

NOTE_LENGTH = 500

Say = Callable[[str], None]


class PublishError(Exception):
    """It could not be put in force. The message says why, what was written, and how to go on."""

    def __init__(self, text: str, status: int = FAILED) -> None:
        self.status = status  # the command's exit code
        super().__init__(text)


@dataclass(frozen=True)
class Change:
    """One difference between two policy sets, by name."""

    verb: str  # added | removed | changed
    noun: str  # policy | role | upstream | issuer | time zone
    name: str
    members: tuple[str, ...] = ()  # of an upstream: what has changed

    def __str__(self) -> str:
        return f"{self.verb} {self.noun} {self.name}" + (
            f": {', '.join(self.members)}" if self.members else ""
        )


@dataclass(frozen=True)
class Release:
    """A policy set that is to be put in force."""

    compiled: Compiled
    note: str = ""
    commit: str = ""
    of: int | None = None  # the number that a rollback goes back to
    stored: bool = False  # all of it has just been read from KV


@dataclass(frozen=True)
class Plan:
    """What there is, and what would come of a release."""

    release: Release
    ledger: Ledger
    before: Compiled | None  # what is in force; None: nothing, or it can't be read
    unread: str  # why it can't be read
    changes: tuple[Change, ...]
    at: int  # seconds since the epoch, when it was made

    def nothing_new(self, key: SigningKey | None) -> bool:
        """Whether this very set is in force already, and nothing needs a new row: to be put right, or this key's
        signature, for the one that it has may be trusted no longer soon."""
        entries = self.ledger.entries
        return (
            bool(entries)
            and entries[0].counts
            and not self.ledger.lost
            and entries[0].bundle == self.release.compiled.sha256
            and (key is None or entries[0].signed.key == key.kid)
        )


@dataclass(frozen=True)
class Published:
    """What is in force now. `written` is False when the same bundle was in force before."""

    sequence: int
    bundle: str  # SHA-256 in hex
    written: bool
    changes: tuple[Change, ...] = ()
    mended: tuple[str, ...] = ()  # what was missing beside what is in force, and has been written


def plan(env: Environment, release: Release, ledger: Ledger | None = None) -> Plan:
    """Compare with what is in force. `ledger`: if it has been read.

    Raises PublishError, NodeMissing and WranglerFailed.
    """
    refuse_note(release.note)
    try:
        ledger = ledger or read_ledger(env)
    except EnvironmentMissing as error:
        raise PublishError(str(error)) from None
    after = release.compiled
    entry = ledger.in_force
    before, unread = None, ""
    if entry is not None:
        try:
            before = after if entry.bundle == after.sha256 else read_stored(env, entry.bundle, after.stored)
        except StoredError as error:
            unread = str(error)
    changes = () if before is after else tuple(named_changes(before, after))
    return Plan(release, ledger, before, unread, changes, int(time.time()))


def refuse_note(note: str) -> None:
    """Raises PublishError for a note that is too long, or not text."""
    if len(note) > NOTE_LENGTH:
        raise PublishError(f"The note is longer than {NOTE_LENGTH} characters. Shorten it.", INVALID)
    try:
        note.encode("utf-8")
    except UnicodeEncodeError:
        raise PublishError("The note is not UTF-8. Write it anew.", INVALID) from None


def put_in_force(
    env: Environment, planned: Plan, key: SigningKey | None, say: Say = lambda _: None
) -> Published:
    """Carry out a plan. Raises PublishError."""
    release, ledger = planned.release, planned.ledger
    compiled = release.compiled
    try:
        require_trusted(env, key)
    except NotTrusted as error:
        raise PublishError(str(error), REFUSED) from None
    if planned.nothing_new(key):
        return _mended(env, planned, say)
    number = ledger.next
    if number > HIGHEST:
        raise PublishError(
            f"The ledger ends with number {ledger.newest}, and a gate reads none above {HIGHEST}. Nobody got there by "
            "publishing: somebody has written to D1. Find out who, and take the row away:\n  "
            + by_hand(env, f"DELETE FROM pointers WHERE sequence >= {HIGHEST}")
        )
    verbs = [change.verb for change in planned.changes if change.noun == "policy"]
    members: dict[str, Any] = {
        "bundle": compiled.sha256,
        "published_at": int(time.time()),
        "note": release.note,
        "commit": release.commit,
        "policies": policies(compiled),
        **{verb: verbs.count(verb) for verb in ("added", "changed", "removed")},
        "of": release.of,
    }
    try:
        signed = draft(env, number, key, members)
    except ValueError as error:
        raise PublishError(f"The gate would not take this: {error}", REFUSED) from None
    if not release.stored:
        contents = {SHARD + digest: text for digest, text in compiled.stored.items()}
        say(f"Writing {counted(len(contents), 'shard')} and the bundle to KV")
        with _telling(
            f"Nothing has changed on {env.name}: of what was written to KV nothing is named by anything. "
            "Run the same command again."
        ):
            env.kv_put(contents | {BUNDLE + compiled.sha256: compiled.text})
    say(f"Adding number {number} to the ledger")
    with _telling(
        f"Whether number {number} is in force on {env.name} is not known. Run the same command again: it finds out, "
        "and goes on from there."
    ):
        first = append(env, ledger.newest, number, signed)
    if not first:
        raise PublishError(_overtaken(env), REFUSED)
    say("Writing KV's copy of it")
    with _telling(
        f"Number {number} is in force on {env.name}; KV's copy of its row could not be written. "
        "Run the same command again: it writes the copy."
    ):
        write_copy(env, signed)
    return Published(number, compiled.sha256, True, planned.changes)


def _mended(env: Environment, planned: Plan, say: Say) -> Published:
    """Write what is missing beside the entry in force, and nothing else."""
    say("Looking whether all of it is in KV")
    entry = planned.ledger.entries[0]
    mended = []
    with _telling(f"Number {entry.number} stays in force. Run the same command again."):
        lacking = missing(env, planned.release.compiled)
        if lacking:
            env.kv_put(lacking)
            mended += sorted(lacking)
        if not planned.ledger.copied:
            write_copy(env, entry.signed)
            mended.append("policy/head")
    return Published(entry.number, entry.bundle, False, (), tuple(mended))


def _overtaken(env: Environment) -> str:
    try:
        entry = read_ledger(env).entries[0]
    except (WranglerFailed, NodeMissing, IndexError):
        who = "somebody else's row is there"
    else:
        why = f": {entry.why}" if entry.why else ""
        who = f"{entry.by} published number {entry.number} at {clock(entry.at)}{why}"
    return (
        f"Somebody else was first: {who}. Yours is not in force.\nRun this command again: its plan will be against "
        f"what is in force now. What that is: airgate policy history --env {env.name}"
    )


@contextmanager
def _telling(otherwise: str) -> Iterator[None]:
    """Say how to go on when a write fails, or is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        raise PublishError(f"Interrupted. {otherwise}") from None
    except (WranglerFailed, NodeMissing, EnvironmentMissing) as error:
        raise PublishError(f"{error}\n{otherwise}") from None


def policies(compiled: Compiled) -> int:
    """How many policies a set has."""
    return len({rule.id for rules in compiled.rules.values() for rule in rules})


def commit_of(folder: Path) -> str:
    """The git commit that a folder is of, with `+` when it has been changed since; empty when git doesn't know it."""
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if commit is None or _git(folder, "ls-files", "--", ".") in (None, ""):
        return ""
    return commit.strip() + ("+" if _git(folder, "status", "--porcelain", "--", ".") != "" else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=without_key(),
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def named_changes(before: Compiled | None, after: Compiled) -> Iterator[Change]:
    """Differences by name, policies first. Of time zones only what is known of one that both have."""
    old_names = _named(before) if before is not None else {}
    for noun, new in _named(after).items():
        old = old_names.get(noun, {})
        for name in sorted(old.keys() | new.keys()):
            if name in old and name in new:
                members = _members(old[name], new[name])
                if old[name] != new[name] and (members or noun not in ("upstream", "issuer")):
                    yield Change("changed", noun, name, members if noun == "upstream" else ())
            elif noun != "time zone":
                yield Change("added" if name in new else "removed", noun, name)


def _named(compiled: Compiled) -> dict[str, dict[str, Any]]:
    """Everything that has a name, by what it is: in the order in which changes are told."""
    rules: dict[str, list[Any]] = {}
    zones: dict[str, Any] = {}
    for upstream, each in sorted(compiled.rules.items()):
        for rule in each:
            rules.setdefault(rule.id, [rule]).append(upstream)
        if '"when.time"' in compiled.shards[upstream]:
            zones |= json.loads(compiled.shards[upstream])["zones"]
    bundle = compiled.bundle
    sections = {"role": bundle["roles"], "upstream": bundle["upstreams"], "issuer": bundle["issuers"]}
    return {"policy": rules, **sections, "time zone": zones}


def _members(old: Any, new: Any) -> tuple[str, ...]:
    """The settings that differ. Of one that an older format didn't have, nothing is said."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return ()
    return tuple(sorted(name for name in old.keys() & new.keys() if old[name] != new[name]))
