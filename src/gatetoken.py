"""Gate tokens: what the gate signs at /-/token (exchange.py), and how one is read back.

A gate token holds the claims of the tokens that it was got for, as far as policy reads them, and by how much it is
narrower. So who it names, and in which roles, is worked out from today's policy whenever it is used, and then narrowed:
nothing in it grants anything. It is a JWT (RFC 9068) by the keys of the gate's assertions; the type, which is part of
what is signed, keeps the two apart.
"""

import json
import math
from base64 import urlsafe_b64encode
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

import dpop
import identity
import tokens
from assertion import AssertionKeys, Sign
from bundle import Bundle, Issuer
from claims import SCOPES, Path, at
from document import Reader
from keys import Fetch, Key, Keyring, Last, Source, Verify
from model import Caller, Denied, Exchanged, Fact, Identity, Reason
from signing import base64url, compact
from tokens import Rules, Unverified
from verified import Seen

TYPE = "at+jwt"
LIFE = 600  # seconds, at most
AHEAD = 60.0  # seconds by which another isolate's clock may be ahead
MOST_PARENTS = 3  # gate tokens that one comes from, one by way of the other

_ALGORITHMS = frozenset({"ES256", "EdDSA"})
# Claims that are kept whether policy reads them or not: who it is, what ends with it, and what would refuse it.
_ALWAYS: tuple[Path, ...] = (
    *[(name,) for name in ("iss", "sub", "jti", "sid", "cnf", "hasgroups")],
    ("act", "iss"),
    ("act", "sub"),
)


class Own(Keyring):
    """The gate's own public keys. They are here, so none is ever fetched."""

    def __init__(self, keys: AssertionKeys) -> None:
        super().__init__(Source(keys.issuer, None))
        self.keys = list(keys.public)
        self.fetched_at = math.inf

    @property
    def issuer(self) -> str:
        return self.source.issuer

    async def find(
        self, kid: str | None, algorithm: str, fetch: Fetch, now: float, last: Last | None = None
    ) -> Key:
        raise Denied(Reason.TOKEN_KEY, f"kid {kid!r:.80} is not the gate's")


class Content(NamedTuple):
    """What a gate token says."""

    token_id: str
    client: str  # whoever asked for it
    issued: int  # seconds since the epoch, as the next
    expires: int
    upstream: str
    roles: tuple[str, ...]  # sorted
    workload: dict[str, Fact]  # as it was asserted
    subject: dict[str, Any]  # claims, as `pruned`
    actor: dict[str, Any] | None  # as well; None: nobody acts for the subject
    most: tuple[str, ...] | None  # the roles that the subject may use at most; None: all that it is granted
    parents: tuple[str, ...]  # ids of the gate tokens that it comes from, the first one first
    jkt: str | None  # thumbprint of the key that it is bound to
    reads: str  # see `fingerprint`


def paths(issuer: Issuer) -> tuple[Path, ...]:
    """The claims that policy reads of an issuer's tokens, shorter paths first."""
    mapping = issuer.mapping
    read = {grant.claim for grant in mapping.grants if grant.claim}
    read |= {path for _, path in mapping.attested} | {*mapping.claims}
    read |= {path for path, _ in mapping.truncates} | {path for path, _ in issuer.rules.require}
    if mapping.kind_claim is not None:
        read.add(mapping.kind_claim)
    return tuple(sorted(read, key=lambda path: (len(path), path)))


_known: dict[
    str, tuple[Issuer, tuple[Path, ...], str]
] = {}  # by the issuer's id; a bundle's are the same objects


def _reads(issuer: Issuer) -> tuple[tuple[Path, ...], str]:
    name = issuer.mapping.id
    known = _known.get(name)
    if known is None or known[0] is not issuer:
        if len(_known) >= 256:
            _known.clear()
        read = paths(issuer)
        text = json.dumps(read).encode("utf-8", "surrogatepass")
        known = _known[name] = issuer, read, sha256(text).hexdigest()[:16]
    return known[1:]


def fingerprint(subject: Issuer, actor: Issuer | None) -> str:
    """Which claims policy reads. A claim that was not kept can't be told from one that the token never had, so a token
    is of no use to a policy that reads others than the one under which it was made.
    """
    return _reads(subject)[1] + (_reads(actor)[1] if actor is not None else "")


def pruned(claims: dict[str, Any], issuer: Issuer) -> dict[str, Any]:
    """What policy reads of an issuer's verified claims. `identify` makes the same of it as of all of them."""
    read = _reads(issuer)[0]
    # Of these it counts that they are there, if only as null. Grants take scopes from the first, all else from either.
    here = ("may_act",) if SCOPES.isdisjoint(read) else ("may_act", "scope", "scp")
    kept: dict[str, Any] = {name: claims[name] for name in here if name in claims}
    whole: set[Path] = {(name,) for name in kept}
    for path in (*_ALWAYS, *read):
        if any([path[:length] in whole for length in range(1, len(path) + 1)]):
            continue  # a part of what is kept already
        if (value := at(claims, path)) is not None:
            _put(kept, path, value)
            whole.add(path)
    elsewhere = claims.get("_claim_names")
    if isinstance(elsewhere, dict):
        kept["_claim_names"] = dict.fromkeys(elsewhere, "")
    return kept


def _put(members: dict[str, Any], path: Path, value: Any) -> None:
    *names, last = path
    for name in names:
        members = members.setdefault(name, {})
    members[last] = value


# What is signed.


async def mint(content: Content, keys: AssertionKeys, issuers: dict[str, Issuer], sign: Sign) -> str:
    """The signed token. Raises Denied `exchange.refused` for one that is too long, and what `sign` raises."""
    text = json.dumps(_claims(content, keys.issuer, issuers), separators=(",", ":"), ensure_ascii=False)
    signed = _head(keys.key.algorithm, keys.key.kid or "") + urlsafe_b64encode(text.encode("utf-8")).rstrip(
        b"="
    )
    token = compact(signed, await sign(keys.key, signed))
    try:
        tokens.parse(token)
    except Denied as refused:
        raise Denied(
            Reason.EXCHANGE_REFUSED, f"what policy reads of it is too much: {refused.detail}"
        ) from None
    return token


@lru_cache(8)
def _head(algorithm: str, kid: str) -> bytes:
    header = {"alg": algorithm, "kid": kid, "typ": TYPE}
    return base64url(json.dumps(header, separators=(",", ":")).encode("ascii")).encode("ascii") + b"."


def _claims(content: Content, own: str, issuers: dict[str, Issuer]) -> dict[str, Any]:
    subject, actor = content.subject, content.actor
    claims: dict[str, Any] = {
        "iss": own,
        "aud": audience(own, content.upstream),
        "sub": subject["sub"],
        "client_id": content.client,
        "iat": content.issued,
        "exp": content.expires,
        "jti": content.token_id,
        "scope": " ".join(content.roles),
    }
    # RFC 8693 §4.1: earlier actors are nested, and have no part in what is allowed.
    acting = {}
    if "act" in subject:  # whom its issuer names, by a name of its own unless it says whose
        acting = {"act": {"iss": subject["iss"], **subject["act"]}}
    if actor is not None:
        acting = {"act": {"iss": actor["iss"], "sub": actor["sub"], **acting}}
    claims |= acting
    if content.jkt is not None:
        claims["cnf"] = {"jkt": content.jkt}
    workload = {
        name: fact.value if isinstance(fact.value, str) else list(fact.value)
        for name, fact in content.workload.items()
    }
    claims["airgate"] = {
        "issuer": issuers[subject["iss"]].mapping.id,
        "upstream": content.upstream,
        "subject": subject,
        "actor": actor,
        "most": None if content.most is None else list(content.most),
        "workload": workload,
        "parents": list(content.parents),
        "reads": content.reads,
    }
    return claims


def audience(own: str, upstream: str) -> str:
    """The resource that an upstream is at this gate (RFC 8707). `own`: the gate's address, as issuer."""
    return f"{own.rstrip('/')}/{upstream}"


def rules(own: Own | None, bundle: Bundle, iss: str) -> Rules | None:
    """As `Bundle.rules`, of gate tokens too: what tells that a text is a token for this gate."""
    if own is None or iss != own.issuer:
        return bundle.rules(iss)
    audiences = frozenset([audience(iss, name) for name in bundle.upstreams])
    return Rules(audiences, _ALGORITHMS, "at+jwt", LIFE, 0)


# And read back.


async def recognise(
    token: str,
    unverified: Unverified,
    own: Own,
    bundle: Bundle,
    fetch: Fetch,
    verify: Verify,
    now: float,
) -> Seen:
    """The identity that a gate token proves, under the bundle in force. Raises Denied `token.*`."""
    key = await own.verify(unverified, _ALGORITHMS, fetch, verify, now)
    content = read(unverified, own.issuer)
    if now >= content.expires:
        raise Denied(Reason.TOKEN_EXPIRED, f"{now - content.expires:.0f} s ago")
    if content.issued > now + AHEAD:
        raise Denied(Reason.TOKEN_NOT_YET_VALID, f"issued in {content.issued - now:.0f} s")
    parties = [party(claims, bundle) for claims in (content.subject, content.actor) if claims is not None]
    (subject, issuer), acting = parties[0], parties[1:]
    actor, its = acting[0] if acting else (None, None)
    if content.reads != fingerprint(issuer, its):
        raise Denied(Reason.TOKEN_CLAIMS, "policy reads other claims by now: exchange the token again")
    who = compose(subject, actor, content)
    bound = None
    if content.jkt is not None:
        strict = any([issuer.strict for _, issuer in parties])
        whose = (
            content.actor or content.subject
        )  # who sends the proofs, and whose share of the memory they take
        bound = dpop.binding(content.jkt, whose["iss"], whose["sub"], token, strict)
    for one, of in parties:
        if one.jkt not in (None, content.jkt):
            raise Denied(Reason.TOKEN_CLAIMS, "bound to another key than what it was got for")
        if bound is None and of.dpop == "required":
            raise Denied(Reason.TOKEN_UNBOUND)
    return Seen(token, who, content.expires, key, own, bound)


def read(token: Unverified, own: str) -> Content:
    """What a gate token says whose signature is right. Raises Denied `token.type`, `token.claims`, `token.audience`.

    A member that is not known here is refused: a newer Worker could have meant it as a limit.
    """
    if token.type != TYPE:
        raise Denied(Reason.TOKEN_TYPE, f"typ {token.type!r:.40} of the gate's own: not one that it takes")
    try:
        content = _read(token.claims, own)
    except ValueError as error:
        raise Denied(Reason.TOKEN_CLAIMS, str(error)) from None
    if token.claims["aud"] != audience(own, content.upstream):
        raise Denied(Reason.TOKEN_AUDIENCE, "aud is not that of its upstream")
    return content


def _read(claims: dict[str, Any], own: str) -> Content:
    root = Reader(claims, "token")
    root.one_of("iss", own)
    root.text("aud"), root.text("sub")
    if root.has("act"):
        root.value("act")
    jkt = None
    if root.has("cnf"):
        root.value("cnf")
        jkt = dpop.confirmed(claims)
    scope = root.text("scope")
    issued, expires = root.whole("iat", 0, tokens.MAX_TIME), root.whole("exp", 0, tokens.MAX_TIME)
    if not 0 < expires - issued <= LIFE:
        raise root.wrong("exp", f"up to {LIFE} s after iat")
    inner = root.within("airgate")
    inner.text("issuer")
    said = inner.within("workload")
    content = Content(
        root.text("jti"),
        root.text("client_id"),
        issued,
        expires,
        inner.text("upstream"),
        tuple(scope.split(" ")) if scope else (),
        {name: Fact(_fact(said, name), False) for name in said.all_names()},
        _claimed(inner, "subject"),
        None if inner.null("actor") else _claimed(inner, "actor"),
        None if inner.null("most") else inner.texts("most"),
        inner.texts("parents"),
        jkt,
        inner.text("reads"),
    )
    if content.subject["sub"] != claims["sub"]:
        raise root.wrong("sub", "the subject's")
    inner.done()
    root.done()
    return content


def _claimed(reader: Reader, name: str) -> dict[str, Any]:
    party = reader.within(name)
    party.text("iss"), party.text("sub")
    claims: dict[str, Any] = reader.value(name)
    return claims


def _fact(reader: Reader, name: str) -> str | tuple[str, ...]:
    if name not in identity.WORKLOAD:
        raise reader.wrong(name, "only what headers may say")
    return reader.texts(name) if name in identity.LISTS else reader.text(name)


def party(claims: dict[str, Any], bundle: Bundle) -> tuple[Identity, Issuer]:
    """Whom embedded claims name under the bundle in force. Raises Denied."""
    issuer = bundle.issuers.get(claims["iss"])
    if issuer is None:
        raise Denied(Reason.TOKEN_ISSUER, f"of what it was got for, {claims['iss']!r:.200}")
    tokens.refuse_others(claims, issuer.rules)
    return identity.identify(claims, claims["sub"], issuer.mapping), issuer


def compose(subject: Identity, actor: Identity | None, content: Content) -> Identity:
    """Who a gate token names: the subject, or an agent that acts for it. Both are given as their own tokens have them.

    Permits see the roles that both have, forbids those that either has: an agent that lacks a role must not get around
    what is forbidden to those who have it.
    """
    roles, parents = frozenset(content.roles), content.parents
    parents += tuple([party.token_id for party in (subject, actor) if party and party.token_id])
    if actor is None:
        exchanged = Exchanged(content.upstream, roles, content.workload, parents)
        return subject._replace(token_id=content.token_id, exchanged=exchanged)
    most = subject.granted if content.most is None else subject.granted.intersection(content.most)
    alone = (
        ("subject", Caller(subject, None, most, content.workload | subject.attested)),
        ("actor", Caller(actor, None, actor.granted, content.workload | actor.attested)),
    )
    granted = subject.granted | actor.granted
    return Identity(
        subject.issuer,
        subject.subject,
        "agent",
        granted,
        subject.attested or actor.attested,
        (subject.unknown | actor.unknown) - granted,
        subject.claims,
        subject.jkt or actor.jkt,
        actor.subject,
        token_id=content.token_id,
        session=subject.session,
        exchanged=Exchanged(content.upstream, roles & most & actor.granted, content.workload, parents, alone),
        actor_issuer=content.actor["iss"] if content.actor is not None else None,
    )
