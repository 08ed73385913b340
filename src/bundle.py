"""The policy bundle: issuers, roles, upstreams, and which shard holds the policies of each upstream.

The text comes from Workers KV and is treated as input like any other: bounded, and every member checked. A member that
this Worker does not know is an error, never ignored: it could have been a condition. Shards are in `shard.py`.
"""

import hashlib
import re
from typing import NamedTuple

import identity
import keys
from conditions import RESOURCE
from document import Reader, read_object
from tokens import Rules
from upstream import Upstream, load_upstream

FORMATS = (4, 5)  # of bundles and shards. The older one is read too: deploy first, then publish
LIMIT = 20_000_000  # bytes; a KV value holds 25 MiB
OWN = "-"  # the upstream that stands for the gate's own pages

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Issuer(NamedTuple):
    """An issuer whose tokens are accepted."""

    source: keys.Source
    rules: Rules
    mapping: identity.Mapping
    dpop: str = "optional"  # or "required": only tokens that are bound to a key (RFC 9449)
    strict: bool = False  # that a proof was used is known to all isolates, not only to the one it reached


class Pointer(NamedTuple):
    """Names the bundle in force. `sequence` only ever rises; a rollback is an old bundle under a new number."""

    sequence: int
    bundle: str  # SHA-256 of the bundle's bytes, in hex
    published_at: float
    gate: str = ""  # the gate that it is for
    by: str = ""  # who has published it
    of: int | None = None  # the number that it goes back to


class Bundle(NamedTuple):
    """A policy set, less the policies."""

    version: str  # the first 12 hex digits of its SHA-256
    issuers: dict[str, Issuer]  # by exact iss
    upstreams: dict[str, Upstream]
    hosts: dict[str, str]  # the upstream of each host that a proxy may ask about
    shards: dict[str, str]  # SHA-256 of the shard of each upstream that a policy names
    roles: frozenset[str]
    zones_until: (
        int | None
    )  # seconds since the epoch from which on a time zone is not known; None: none is used

    def rules(self, iss: str) -> Rules | None:
        """What an issuer's tokens must look like; None for one that is not known here."""
        issuer = self.issuers.get(iss)
        return None if issuer is None else issuer.rules


def read_format(reader: Reader) -> int:
    """The format that a document says it has, if it is one that is read here. Raises ValueError."""
    number = reader.whole("format", 1, 2**53)
    if number not in FORMATS:
        advice = "deploy the newer Worker first" if number > FORMATS[-1] else "publish again"
        read = " and ".join(map(str, FORMATS))
        raise ValueError(
            f"{reader.where}.format: {number} is not read by this Worker, which reads {read}; {advice}"
        )
    return number


def _among(reader: Reader, name: str, known: frozenset[str]) -> tuple[str, ...]:
    values = reader.some(name)
    if not known.issuperset(values):
        raise reader.wrong(name, "only " + ", ".join(sorted(known)))
    return values


def _grants(roles: Reader, issuers: frozenset[str]) -> dict[str, list[identity.Grant]]:
    grants: dict[str, list[identity.Grant]] = {issuer: [] for issuer in issuers}
    for role in roles.names():
        for reader in roles.items(role):
            by_issuer = grants[reader.one_of("issuer", *sorted(issuers))]
            if reader.has("subject"):
                by_issuer.append(identity.Grant(role, identity.SUBJECT, reader.text("subject")))
            elif reader.has("kind"):
                by_issuer.append(identity.Grant(role, identity.KIND, reader.one_of("kind", *identity.KINDS)))
            elif reader.has("scope"):
                by_issuer.append(identity.Grant(role, identity.SCOPE, reader.text("scope")))
            else:
                by_issuer.append(identity.Grant(role, reader.some("claim"), reader.text("value")))
            reader.done()
    return grants


def _required(reader: Reader) -> tuple[tuple[str, ...], frozenset[str]]:
    required = reader.some("claim"), frozenset(reader.some("any"))
    reader.done()
    return required


def _truncated(reader: Reader) -> tuple[tuple[str, ...], int]:
    truncated = reader.some("claim"), reader.whole("at", 1, 10_000)
    reader.done()
    return truncated


def _issuer(
    name: str,
    reader: Reader,
    grants: list[identity.Grant],
    claims: tuple[tuple[str, ...], ...],
) -> Issuer:
    source = keys.Source(reader.text("issuer"), None if reader.null("jwks_uri") else reader.text("jwks_uri"))
    fetched = "issuer" if source.jwks_uri is None else "jwks_uri"
    try:
        keys.fetchable(source.jwks_uri or source.issuer)
    except ValueError:
        raise reader.wrong(fetched, "an https address") from None
    rules = Rules(
        audiences=frozenset(reader.some("audiences")),
        algorithms=frozenset(_among(reader, "algorithms", keys.ALGORITHMS)),
        type=reader.one_of("type", "at+jwt", "any", "id_token"),
        max_lifetime=reader.whole("max_lifetime", 1, 90_000),
        clock_skew=reader.whole("clock_skew", 0, 300),
        authorized_parties=frozenset(reader.texts("authorized_parties")),
        require=tuple([_required(item) for item in reader.items("require")]),
    )
    dpop = reader.one_of("dpop", "optional", "required")
    strict = reader.one_of("dpop_replay", "isolate", "strict") == "strict"
    kind, attested = reader.within("kind"), reader.within("attested")
    values = kind.within("values")
    paths = []
    for field in attested.all_names():
        if field not in identity.WORKLOAD:
            raise attested.wrong(field, "only " + ", ".join(identity.WORKLOAD))
        paths.append((field, attested.some(field)))
    mapping = identity.Mapping(
        id=name,
        kind_claim=kind.some_or_null("claim"),
        kind_default=kind.one_of("default", *identity.KINDS),
        attested=tuple(paths),
        grants=tuple(grants),
        claims=claims,
        kind_values={name: values.one_of(name, *identity.KINDS) for name in values.all_names()},
        must_tag=reader.one_of("role_tag", "optional", "required") == "required",
        truncates=tuple([_truncated(item) for item in reader.items("truncates")]),
    )
    kind.done()
    reader.done()
    return Issuer(source, rules, mapping, dpop, strict)


def _hosts(upstreams: dict[str, Upstream]) -> dict[str, str]:
    whose: dict[str, str] = {}
    for name, upstream in upstreams.items():
        for host in upstream.hosts:
            if whose.setdefault(host, name) != name:
                raise ValueError(f"bundle.upstreams.{name}.hosts: {host!r:.80} is another upstream's")
    return whose


def _shards(reader: Reader, upstreams: dict[str, Upstream]) -> dict[str, str]:
    shards = {}
    for name in reader.all_names():
        if name not in upstreams and name != OWN and not name.startswith(RESOURCE):
            raise ValueError(f"{reader.where}.{name!r:.80}: no such upstream")
        shards[name] = load_digest(reader, name)
    return shards


def load_digest(reader: Reader, name: str) -> str:
    digest = reader.text(name)
    if _DIGEST.fullmatch(digest) is None:
        raise reader.wrong(name, "a SHA-256 in hex")
    return digest


def load_bundle(text: str) -> Bundle:
    """Read a bundle's JSON. ValueError says where it is wrong; nothing of a wrong bundle is used."""
    root = Reader(read_object(text, limit=LIMIT, depth=24), "bundle")
    read_format(root)  # 4 and 5 are read alike: what came with 5 is in no bundle of 4
    issuers, upstreams, roles = root.within("issuers"), root.within("upstreams"), root.within("roles")
    issuer_ids = frozenset(issuers.names())
    grants = _grants(roles, issuer_ids)
    claims = root.paths("claims")
    by_iss: dict[str, Issuer] = {}
    for name in issuers.names():
        issuer = _issuer(name, issuers.within(name), grants[name], claims)
        if issuer.source.issuer in by_iss:
            raise ValueError(f"bundle.issuers.{name}: another entry has the same issuer")
        by_iss[issuer.source.issuer] = issuer
    by_name = {name: load_upstream(upstreams.within(name)) for name in upstreams.names()}
    bundle = Bundle(
        version=hashlib.sha256(text.encode("utf-8")).hexdigest()[:12],
        issuers=by_iss,
        upstreams=by_name,
        hosts=_hosts(by_name),
        shards=_shards(root.within("shards"), by_name),
        roles=frozenset(roles.names()),
        zones_until=None if root.null("zones_until") else root.whole("zones_until", 0, 2**53),
    )
    root.done()
    return bundle


def pinned(text: str, digest: str, what: str) -> str:
    """The text, if it has that SHA-256. Raises ValueError."""
    if hashlib.sha256(text.encode("utf-8")).hexdigest() != digest:
        raise ValueError(f"{what} is not the one that was named: its hash is another")
    return text
