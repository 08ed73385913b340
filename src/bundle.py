"""The policy bundle: issuers, roles, upstreams and policies as the command compiled them, read whole or not at all.

The text comes from Workers KV and is treated as input like any other: bounded, and every member checked. A member that
this Worker does not know is an error, never ignored: it could have been a condition.
"""

import hashlib
import re
from typing import Any, NamedTuple

import identity
import keys
from document import read_object
from model import Caller, Decision, Target
from policy import METHODS, Choice, Glob, Index, Policy, Workload, decide
from tokens import Rules

FORMAT = 1
LIMIT = 20_000_000  # bytes; a KV value holds 25 MiB
POINTER_LIMIT = 4096
OWN = "-"  # the upstream that stands for the gate's own pages

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_BASE = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(?:/[A-Za-z0-9._~\-]+)*")
# Segments with or without "*", or {name}; the last may be "**". "/" alone: the upstream's root.
_PATH = re.compile(r"(?=/)(?:/|(?:/(?:\{[A-Za-z0-9_]+\}|(?:(?!\*\*)[^/{}?#%;])+))*(?:/\*\*|/)?)")


class Upstream(NamedTuple):
    """Something that tasks call. `base` has no trailing slash."""

    base: str
    owner: str
    timeout: float  # seconds until the answer's headers must be here
    log_path: bool  # whether the audit log may hold full paths


class Issuer(NamedTuple):
    """An issuer whose tokens are accepted."""

    source: keys.Source
    rules: Rules
    mapping: identity.Mapping


class Pointer(NamedTuple):
    """Names the bundle in force. `sequence` only ever rises; a rollback is an old bundle under a new number."""

    sequence: int
    bundle: str  # SHA-256 of the bundle's bytes, in hex
    published_at: float


class Bundle(NamedTuple):
    """A whole policy set, ready to decide by."""

    version: str  # the first 12 hex digits of its SHA-256
    issuers: dict[str, Issuer]  # by exact iss
    upstreams: dict[str, Upstream]
    policies: tuple[Policy, ...]
    lookup: Index

    def decide(self, caller: Caller, target: Target) -> Decision:
        decision = decide(self.lookup.candidates(target), caller)
        if decision.owner is None and (upstream := self.upstreams.get(target.upstream)) is not None:
            return decision._replace(owner=upstream.owner)
        return decision


class _Reader:
    """A JSON object being taken apart: says where it stands, knows what it has been asked for, refuses the rest."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"{where}: not an object")
        self._members = value
        self._left = set(value)
        self.where = where

    def _take(self, name: str) -> Any:
        if name not in self._members:
            raise ValueError(f"{self.where}.{name}: missing")
        self._left.discard(name)
        return self._members[name]

    def wrong(self, name: str, expected: str) -> ValueError:
        return ValueError(f"{self.where}.{name}: expected {expected}")

    def one_of(self, name: str, *choices: str) -> str:
        value = self._take(name)
        if value not in choices or not isinstance(value, str):
            raise self.wrong(name, " or ".join(choices))
        return value

    def text(self, name: str) -> str:
        value = self._take(name)
        if not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def number(self, name: str, least: float, most: float) -> float:
        value = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.wrong(name, f"a number from {least} to {most}")
        return value

    def whole(self, name: str, least: int, most: int) -> int:
        value = self.number(name, least, most)
        if not isinstance(value, int):
            raise self.wrong(name, "a whole number")
        return value

    def flag(self, name: str) -> bool:
        value = self._take(name)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._take(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(name, "a list of strings")
        return tuple(value)

    def some(self, name: str) -> tuple[str, ...]:
        value = self.texts(name)
        if not value:
            raise self.wrong(name, "at least one")
        return value

    def some_or_null(self, name: str) -> tuple[str, ...] | None:
        return None if self.null(name) else self.some(name)

    def null(self, name: str) -> bool:
        if self._members.get(name, False) is None:
            self._left.discard(name)
            return True
        return False

    def within(self, name: str) -> "_Reader":
        return _Reader(self._take(name), f"{self.where}.{name}")

    def has(self, name: str) -> bool:
        return name in self._members

    def names(self) -> list[str]:
        for name in self._members:
            if _NAME.fullmatch(name) is None:
                raise ValueError(f"{self.where}.{name!r:.80}: not a name")
        return list(self._members)

    def items(self, name: str) -> list["_Reader"]:
        value = self._take(name)
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        return [_Reader(item, f"{self.where}.{name}[{number}]") for number, item in enumerate(value)]

    def done(self) -> None:
        if self._left:
            raise ValueError(f"{self.where}.{min(self._left)}: not known to this version")


def _choice(reader: _Reader) -> Choice:
    choice = Choice(*(frozenset(reader.texts(name)) for name in ("any", "all", "none")))
    reader.done()
    return choice


def _among(reader: _Reader, name: str, known: frozenset[str]) -> tuple[str, ...]:
    values = reader.some(name)
    if not known.issuperset(values):
        raise reader.wrong(name, "only " + ", ".join(sorted(known)))
    return values


def _among_or_null(reader: _Reader, name: str, known: frozenset[str]) -> frozenset[str] | None:
    return None if reader.null(name) else frozenset(_among(reader, name, known))


def _grants(roles: _Reader, issuers: frozenset[str]) -> dict[str, list[identity.Grant]]:
    grants: dict[str, list[identity.Grant]] = {issuer: [] for issuer in issuers}
    for role in roles.names():
        for reader in roles.items(role):
            by_issuer = grants[reader.one_of("issuer", *sorted(issuers))]
            if reader.has("subject"):
                by_issuer.append(identity.Grant(role, None, reader.text("subject")))
            else:
                by_issuer.append(identity.Grant(role, reader.some("claim"), reader.text("value")))
            reader.done()
    return grants


def _issuer(name: str, reader: _Reader, grants: list[identity.Grant]) -> Issuer:
    source = keys.Source(reader.text("issuer"), None if reader.null("jwks_uri") else reader.text("jwks_uri"))
    fetched = "issuer" if source.jwks_uri is None else "jwks_uri"
    try:
        keys.fetchable(source.jwks_uri or source.issuer)
    except ValueError:
        raise reader.wrong(fetched, "an https address") from None
    rules = Rules(
        audiences=frozenset(reader.some("audiences")),
        algorithms=frozenset(_among(reader, "algorithms", keys.ALGORITHMS)),
        type=reader.one_of("type", "at+jwt", "any"),
        max_lifetime=reader.whole("max_lifetime", 1, 86_400),
        clock_skew=reader.whole("clock_skew", 0, 300),
    )
    kind, attested = reader.within("kind"), reader.within("attested")
    paths = []
    for field in attested.names():
        if field not in identity.WORKLOAD:
            raise attested.wrong(field, "only " + ", ".join(identity.WORKLOAD))
        paths.append((field, attested.some(field)))
    mapping = identity.Mapping(
        id=name,
        kind_claim=kind.some_or_null("claim"),
        kind_default=kind.one_of("default", *identity.KINDS),
        attested=tuple(paths),
        grants=tuple(grants),
    )
    kind.done()
    reader.done()
    return Issuer(source, rules, mapping)


def _upstream(reader: _Reader) -> Upstream:
    base = reader.text("base")
    try:
        keys.fetchable(base)
    except ValueError:
        raise reader.wrong("base", "an https address") from None
    if _BASE.fullmatch(base) is None or "/." in base:
        raise reader.wrong("base", "an address without user, query, fragment or trailing slash")
    upstream = Upstream(
        base, reader.text("owner"), reader.number("timeout", 0.01, 3600), reader.flag("log_path")
    )
    reader.done()
    return upstream


def _workload(reader: _Reader) -> Workload:
    names = []
    for name in ("dag", "task"):
        if (patterns := reader.some_or_null(name)) is not None:
            names.append((name, tuple(Glob(pattern) for pattern in patterns)))
    tags = None if reader.null("tags") else _choice(reader.within("tags"))
    workload = Workload(tuple(names), tags, reader.flag("attested"))
    reader.done()
    return workload


def _policy(reader: _Reader, issuers: frozenset[str], upstreams: frozenset[str]) -> Policy:
    reader.text("description")
    subject, target = reader.within("subject"), reader.within("target")
    paths = target.some("paths")
    for path in paths:
        if _PATH.fullmatch(path) is None:
            raise target.wrong(
                "paths", "patterns of segments, with {name} as a whole one and ** only as the last"
            )
    policy = Policy(
        id=reader.text("id"),
        owner=reader.text("owner"),
        forbids=reader.one_of("effect", "permit", "forbid") == "forbid",
        shadow=reader.one_of("mode", "enforce", "shadow") == "shadow",
        issuers=_among_or_null(subject, "issuers", issuers),
        ids=None if (ids := subject.some_or_null("ids")) is None else frozenset(ids),
        kinds=_among_or_null(subject, "kinds", frozenset(identity.KINDS)),
        roles=_choice(subject.within("roles")),
        workload=None if reader.null("workload") else _workload(reader.within("workload")),
        upstreams=_among(target, "upstreams", upstreams | {OWN}),
        methods=_among(target, "methods", METHODS | {"*"}),
        paths=paths,
    )
    for part in (subject, target, reader):
        part.done()
    return policy


def load_bundle(text: str) -> Bundle:
    """Read a bundle's JSON. ValueError says where it is wrong; nothing of a wrong bundle is used."""
    root = _Reader(read_object(text, limit=LIMIT, depth=24), "bundle")
    root.number("format", FORMAT, FORMAT)
    issuers, upstreams = root.within("issuers"), root.within("upstreams")
    issuer_ids = frozenset(issuers.names())
    grants = _grants(root.within("roles"), issuer_ids)
    by_iss: dict[str, Issuer] = {}
    for name in issuers.names():
        issuer = _issuer(name, issuers.within(name), grants[name])
        if issuer.source.issuer in by_iss:
            raise ValueError(f"bundle.issuers.{name}: another entry has the same issuer")
        by_iss[issuer.source.issuer] = issuer
    by_name = {name: _upstream(upstreams.within(name)) for name in upstreams.names()}
    policies = tuple(_policy(reader, issuer_ids, frozenset(by_name)) for reader in root.items("policies"))
    if len({policy.id for policy in policies}) != len(policies):
        raise ValueError("bundle.policies: an id appears twice")
    root.done()
    version = hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]
    return Bundle(version, by_iss, by_name, policies, Index(policies))


def load_pinned(text: str, digest: str) -> Bundle:
    """The bundle that a pointer names: its bytes must have that SHA-256. Raises ValueError."""
    if hashlib.sha256(text.encode("utf-8")).hexdigest() != digest:
        raise ValueError("the bundle is not the one that the pointer names")
    return load_bundle(text)


def load_pointer(text: str) -> Pointer:
    """Read the pointer's JSON. Raises ValueError."""
    reader = _Reader(read_object(text, limit=POINTER_LIMIT), "pointer")
    reader.number("format", FORMAT, FORMAT)
    digest = reader.text("bundle")
    if re.fullmatch(r"[0-9a-f]{64}", digest) is None:
        raise reader.wrong("bundle", "a SHA-256 in hex")
    pointer = Pointer(reader.whole("sequence", 1, 2**53), digest, reader.number("published_at", 0, 2**53))
    reader.text("published_by")
    reader.text("note")
    reader.done()
    return pointer
