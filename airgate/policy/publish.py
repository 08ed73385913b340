"""`airgate policy publish`: compile a seed, and put it in force on a gate.

Exit codes: 0 published, or nothing to publish; 1 the store can't be reached; 2 invalid, nothing written.
"""

import getpass
import hashlib
import json
import os
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from airgate.dev.stack import Stack, StackError, read_stack
from airgate.engine import BUNDLE, POINTER, SHARD, load_pointer
from airgate.kv import BINDING, kv_get, kv_names, kv_put
from airgate.node import PROJECT, NodeMissing, WranglerFailed, run_wrangler
from airgate.policy import index
from airgate.policy.check import Folder, counted, report, summary
from airgate.policy.compile import Compiled, StandIns, compile_folder
from airgate.policy.seed import STARTER, SeedError, label

NOTE_LENGTH = 500
LONGEST_LIST = 1000  # names; a local store lists no more, so what is missing from such a list may be there
UNREACHABLE, INVALID = 1, 2

Say = Callable[[str], None]


class PublishError(Exception):
    """Nothing could be published. The message says why, and what to do."""


@dataclass(frozen=True)
class Change:
    """One difference between two policy sets."""

    verb: str  # added | removed | changed
    noun: str  # policy | role | upstream | issuer | time zone
    name: str
    members: tuple[str, ...] = ()  # of an upstream: what has changed

    def __str__(self) -> str:
        return f"{self.verb} {self.noun} {self.name}" + (
            f": {', '.join(self.members)}" if self.members else ""
        )


@dataclass(frozen=True)
class Published:
    """What is in force now. `written` is False when the same bundle was in force before."""

    sequence: int
    bundle: str  # SHA-256 in hex
    written: bool
    changes: tuple[Change, ...]


class Store(Protocol):
    """A gate's KV namespace. All methods raise WranglerFailed and NodeMissing."""

    def get(self, key: str) -> str | None: ...
    def names(self, prefix: str) -> set[str]: ...
    def put(self, values: Mapping[str, str]) -> None: ...


class LocalStore:
    """The KV of the running local stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def get(self, key: str) -> str | None:
        return kv_get(self._stack, key)

    def names(self, prefix: str) -> set[str]:
        return kv_names(self._stack, prefix)

    def put(self, values: Mapping[str, str]) -> None:
        kv_put(self._stack, values)


class RemoteStore:
    """The KV namespace of the deployed Worker, by way of wrangler and whatever account it is logged in to."""

    def get(self, key: str) -> str | None:
        try:
            return self._run("kv", "key", "get", key, "--text")
        except WranglerFailed as error:
            if "404" in str(error) or "not found" in str(error).lower():
                return None
            raise

    def names(self, prefix: str) -> set[str]:
        return {item["name"] for item in json.loads(self._run("kv", "key", "list", "--prefix", prefix))}

    def put(self, values: Mapping[str, str]) -> None:
        with tempfile.TemporaryDirectory(prefix="airgate-") as folder:
            file = Path(folder) / "value"  # a bundle can be too long for a command line
            for key, value in values.items():
                file.write_text(value, encoding="utf-8", newline="")
                self._run("kv", "key", "put", key, "--path", str(file))

    def _run(self, *arguments: str) -> str:
        login = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return run_wrangler([*arguments, "--binding", BINDING, "--remote"], home=login)


def publish(
    directory: Folder = None,
    local: Annotated[bool, typer.Option("--local", help="Publish to the running local stack.")] = False,
    remote: Annotated[bool, typer.Option("--remote", help="Publish to the deployed Worker.")] = False,
    note: Annotated[str, typer.Option(help="Why, for whoever looks at the live policy later.")] = "",
) -> None:
    """Check a policy seed and put it in force. An invalid one changes nothing."""
    if local == remote:
        raise typer.BadParameter(
            "say where: --local (the running local stack) or --remote (the deployed Worker)"
        )
    root = directory or STARTER
    try:
        if remote:
            published = publish_remote(root, note, say=_progress)
        else:
            published = publish_local(root, read_stack(), note, say=_progress)
    except SeedError as error:
        report(error)
        raise typer.Exit(INVALID) from None
    except (PublishError, StackError, NodeMissing, WranglerFailed) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(UNREACHABLE) from None
    for change in published.changes:
        typer.echo(f"  {change}")
    version = f"{published.bundle[:12]}, number {published.sequence}"
    if published.written:
        soon = "within 4 s, once KV shows it there: a minute and more" if remote else "within 4 s"
        typer.echo(f"Published {label(root)}: bundle {version}. A running gate uses it {soon}.")
    else:
        typer.echo(f"Nothing changed: bundle {version} is in force already.")


def _progress(text: str) -> None:
    typer.echo(text, err=True)


def _quiet(text: str) -> None:
    """For callers that show progress of their own."""


def publish_local(seed: Path, stack: Stack, note: str = "", *, say: Say = _quiet) -> Published:
    """Publish the seed in a folder to a local stack, whose servers stand in for what it marks with `local`.

    Raises SeedError (nothing is written then), PublishError, NodeMissing and WranglerFailed.
    """
    compiled = compile_folder(seed, StandIns(stack.provider, stack.sample))
    return publish_to(LocalStore(stack), compiled, note, say=say)


def publish_remote(seed: Path, note: str = "", *, say: Say = _quiet) -> Published:
    """Publish a seed to the Worker that wrangler.toml names. Raises as publish_local does."""
    compiled = compile_folder(seed)
    settings = tomllib.loads((PROJECT / "wrangler.toml").read_text("utf-8"))
    namespace = next(item for item in settings["kv_namespaces"] if item["binding"] == BINDING)
    if not namespace["id"].strip("0"):
        raise PublishError(
            "wrangler.toml names no KV namespace yet. Create one with "
            "`npx wrangler kv namespace create POLICY`, and write its id under [[kv_namespaces]]."
        )
    # KV may answer with a value that is a minute old. The clock keeps the number rising even then.
    return publish_to(RemoteStore(), compiled, note, least=int(time.time()), say=say)


def publish_to(
    store: Store, compiled: Compiled, note: str, *, least: int = 1, say: Say = _quiet
) -> Published:
    """Put a compiled seed in force in a store, under a number of at least `least`. Raises PublishError."""
    if len(note) > NOTE_LENGTH:
        raise PublishError(f"The note is longer than {NOTE_LENGTH} characters. Shorten it.")
    say(f"{summary(compiled.seed)}: valid. Reading what is in force ...")
    now = int(time.time())
    sequence, digest = _live_pointer(store, now)
    wanted = _Contents(compiled.bundle, compiled.shards)
    live = _live(store, digest, compiled.stored)
    changes = tuple(_changes(live or _Contents({}, {}), wanted))
    if live is not None and digest == compiled.sha256:
        return Published(sequence, digest, False, ())
    pointer = {
        "format": index.FORMAT,
        "sequence": max(sequence + 1, least),
        "bundle": compiled.sha256,
        "published_at": now,
        "published_by": _publisher(),
        "note": note,
    }
    text = index.canonical(pointer)
    load_pointer(text)
    # A shard has one content for ever, so those that the bundle in force names need not be written again.
    there = live.bundle["shards"].values() if live is not None else ()
    shards = {SHARD + digest: text for digest, text in compiled.stored.items() if digest not in there}
    say(f"Writing {counted(len(shards), 'shard')}, the bundle, then the pointer to it ...")
    # In this order: a pointer never names a bundle, nor a bundle a shard, that was not written before it.
    store.put({**shards, BUNDLE + compiled.sha256: compiled.text, POINTER: text})
    return Published(max(sequence + 1, least), compiled.sha256, True, changes)


def _live_pointer(store: Store, now: int) -> tuple[int, str]:
    """The sequence number and bundle in force; (0, "") when nothing has been published."""
    text = store.get(POINTER)
    if text is None:
        return 0, ""
    try:
        pointer = load_pointer(text.strip())
    except ValueError:
        return (
            now,
            "",
        )  # unreadable, and the gate says so too: replace it, under a higher number
    return pointer.sequence, pointer.bundle


@dataclass(frozen=True)
class _Contents:
    """A policy set as KV holds it."""

    bundle: dict[str, Any]
    shards: dict[str, str]  # texts by upstream

    def named(self) -> dict[str, dict[str, Any]]:
        """Everything that has a name, by what it is: in the order in which changes are told."""
        policies: dict[str, list[Any]] = {}
        zones: dict[str, Any] = {}
        for upstream, text in sorted(self.shards.items()):
            document = json.loads(text)
            zones |= document["zones"]
            for rule in index.rules(document):
                policies.setdefault(rule.id, [rule]).append(upstream)
        sections = {
            "role": self.bundle.get("roles", {}),
            "upstream": self.bundle.get("upstreams", {}),
            "issuer": self.bundle.get("issuers", {}),
        }
        return {"policy": policies, **sections, "time zone": zones}


def _live(store: Store, digest: str, known: Mapping[str, str]) -> _Contents | None:
    """The policy set in force, or None when it isn't there whole. `known`: shards that need not be read."""
    text = _stored(store, BUNDLE, digest) if digest else None
    if text is None:
        return None
    bundle: dict[str, Any] = json.loads(text)
    named: dict[str, str] = bundle["shards"]
    there = store.names(SHARD)
    if len(there) < LONGEST_LIST and not there.issuperset(SHARD + each for each in named.values()):
        return None
    shards = {upstream: known.get(each) or _stored(store, SHARD, each) for upstream, each in named.items()}
    whole = {upstream: text for upstream, text in shards.items() if text is not None}
    return _Contents(bundle, whole) if len(whole) == len(shards) else None


def _stored(store: Store, kind: str, digest: str) -> str | None:
    """The text that is stored under its SHA-256, or None when it isn't there, or isn't that text."""
    text = (store.get(kind + digest) or "").strip()
    return text if hashlib.sha256(text.encode("utf-8")).hexdigest() == digest else None


def _changes(before: _Contents, after: _Contents) -> Iterator[Change]:
    """Differences by name, policies first. Of time zones only what is known of one that both have."""
    old_names, new_names = before.named(), after.named()
    for noun, new in new_names.items():
        old = old_names[noun]
        for name in sorted(old.keys() | new.keys()):
            if name in old and name in new:
                if old[name] != new[name]:
                    members = _members(old[name], new[name]) if noun == "upstream" else ()
                    yield Change("changed", noun, name, members)
            elif noun != "time zone":
                yield Change("added" if name in new else "removed", noun, name)


def _members(old: dict[str, Any], new: dict[str, Any]) -> tuple[str, ...]:
    """The settings that differ. Of one that an older format didn't have, nothing is said."""
    return tuple(sorted(name for name in old.keys() & new.keys() if old[name] != new[name]))


def _publisher() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "unknown"
