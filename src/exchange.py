"""Token exchange (RFC 8693) at /-/token: somebody's token for one of the gate's own that may do less.

No client is registered or proves who it is: whoever brings tokens acts as what they say, as with any call. The tokens
are verified by the code that verifies every other, and policy says who may exchange what. What was wrong is in the
audit log; the answer says as much as RFC 6749 asks for.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

import admission
import audit
import dpop
import duty
import gatetoken
import oauth
import tokens
from assertion import Sign
from bundle import OWN, Bundle, Issuer
from document import NAME, Reader
from gatetoken import Content
from identity import MOST_ROLES, act, asserted
from model import ANSWERS, Caller, Denied, Reason, Refusal, Target
from obligations import Obligations
from shard import Shard
from state import State
from verified import Seen

PAGE = "token"
LIMIT = 20_480  # bytes of a request: two tokens of 8,192 characters fit
MOST_PARAMETERS = 32
MOST_ESCAPES = 512  # percent-encoded octets: tokens and names need none
LONGEST = 300  # seconds that a gate token lives, where the permit says nothing

_TYPE = "urn:ietf:params:oauth:token-type:"
ACCESS_TOKEN, JWT = f"{_TYPE}access_token", f"{_TYPE}jwt"
_FORM = re.compile(r'application/x-www-form-urlencoded(?:;charset="?utf-8"?)?', re.IGNORECASE)
_STRAY = re.compile(r"%(?![0-9A-Fa-f]{2})")  # stands for nothing


class Ports(admission.Ports, duty.Counter, Protocol):
    """What an exchange needs of the outside world."""

    @property
    def sign(self) -> Sign: ...
    async def body(self, limit: int) -> bytes:
        """The request's body. Raises Denied `request.body_too_large`."""


class Request(NamedTuple):
    """What is asked for."""

    subject: str  # the token
    actor: str | None
    resource: str | None
    audience: str | None
    scope: tuple[str, ...] | None  # None: all that can be had
    type: str  # ACCESS_TOKEN or JWT, which here are the same


class Terms(NamedTuple):
    """What policy lets a caller exchange its token for."""

    roles: frozenset[str] | None  # None: all that it has
    lifetime: int  # seconds
    bound: bool  # to a key


# What is asked.


def _wrong(what: str) -> Denied:
    return Denied(Reason.REQUEST_BODY_INVALID, what)


def read(content_type: str | None, body: bytes) -> Request:
    """The request in a form (RFC 8693 §2.1). Raises Denied `request.body_invalid`, `exchange.*`."""
    if _FORM.fullmatch((content_type or "").replace(" ", "")) is None:
        raise _wrong("not application/x-www-form-urlencoded")
    form = _form(body)
    grant = form.get("grant_type")
    if grant is None:
        raise _wrong("grant_type is missing")
    if grant != oauth.GRANT:
        raise Denied(Reason.EXCHANGE_GRANT_TYPE, "grant_type is not token-exchange")
    subject, actor = _token(form, "subject_token"), _token(form, "actor_token")
    if subject is None:
        raise _wrong("subject_token is missing")
    return Request(
        subject,
        actor,
        form.get("resource"),
        form.get("audience"),
        _scope(form["scope"]) if "scope" in form else None,
        _kind(form, "requested_token_type") if "requested_token_type" in form else ACCESS_TOKEN,
    )


def _form(body: bytes) -> dict[str, str]:
    """The parameters that have a value (RFC 6749 §3.2, appendix B). Raises Denied."""
    if body.count(b"%") > MOST_ESCAPES:
        raise _wrong(f"more than {MOST_ESCAPES} percent-encoded octets")
    try:
        parts = body.decode("ascii").split("&")
        if len(parts) > MOST_PARAMETERS:
            raise _wrong(f"more than {MOST_PARAMETERS} parameters")
        pairs = [_pair(part) for part in parts if part]
    except ValueError:
        raise _wrong("not a form in UTF-8") from None
    form = dict(pairs)
    if len(form) < len(pairs):
        raise _wrong("a parameter appears twice")
    return {name: value for name, value in form.items() if value}


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return _decoded(name), _decoded(value)


def _decoded(text: str) -> str:
    if _STRAY.search(text) is not None:
        raise ValueError("a percent sign that stands for nothing")
    text = unquote_to_bytes(text.replace("+", " ")).decode("utf-8") if "%" in text or "+" in text else text
    if not text.isprintable():
        raise ValueError("a control character")
    return text


def _token(form: dict[str, str], name: str) -> str | None:
    token = form.get(name)
    if (token is None) != (f"{name}_type" not in form):  # RFC 8693 §2.1
        raise _wrong(f"{name} without {name}_type, or the other way round")
    if token is not None:
        _kind(form, f"{name}_type")
    return token


def _kind(form: dict[str, str], name: str) -> str:
    kind = form[name]
    if kind not in (ACCESS_TOKEN, JWT):  # what it is instead may be a secret in the wrong place
        raise _wrong(f"{name} is neither access_token nor jwt")
    return kind


def _scope(text: str) -> tuple[str, ...]:
    roles = text.split(" ")
    if len(roles) > MOST_ROLES or not all([NAME.fullmatch(role) for role in roles]):
        raise Denied(Reason.EXCHANGE_SCOPE, f"not up to {MOST_ROLES} names of roles, with a space between")
    return tuple(sorted({*roles}))


# Who asks, and may.


class _Party(NamedTuple):
    """Somebody whose token has been brought."""

    seen: Seen
    claims: dict[str, Any]  # of its own issuer's token, pruned
    issuer: Issuer
    client: str  # its client's id; where the token names none, its subject
    client_id: str | None
    expires: int
    former: Content | None  # what the token says, where it is a gate token


async def answer(record: audit.Record, target: Target, state: State, ports: Ports) -> Refusal:
    """The token that is asked for. Raises Denied."""
    inbound = record.inbound
    request = read(inbound.headers.get("content-type"), await ports.body(LIMIT))
    bundle, subject, actor, shard, jkt = await _known(record, request, state, ports)
    keys = state.assertion_keys(ports)
    draft = _draft(record, subject, actor)
    caller = _caller(record, request, subject, actor, draft, bundle, state)
    admission.refuse_revoked(caller, state, ports)
    asking, exchanged = caller, caller.identity.exchanged
    if exchanged is not None:  # both together ask for it; each alone is asked about whenever it is used
        asking = caller._replace(identity=caller.identity._replace(exchanged=exchanged._replace(alone=())))
    decision = admission.decide(record, bundle, asking, target, shard, ports)
    if decision.reason is not None:
        raise Denied(decision.reason, decision.detail)
    await duty.honour(decision.obligations, caller, target, record, ports)
    upstream = _upstream(request, draft, keys.issuer)
    terms = permitted(decision.obligations, upstream if upstream in bundle.upstreams else None)
    if terms.bound and jkt is None:
        raise Denied(Reason.TOKEN_PROOF_MISSING, "policy asks for a token that is bound to a key")
    now = int(ports.now())
    ends = [party.expires for party in (subject, actor) if party is not None]
    expires = min(now + terms.lifetime, now + gatetoken.LIFE, *ends)
    if expires <= now:
        raise Denied(Reason.TOKEN_EXPIRED, "what is left of it is a clock's skew")
    content = draft._replace(
        issued=now,
        expires=expires,
        upstream=upstream,
        roles=_roles(request.scope, caller.effective, terms.roles),
        jkt=jkt,
    )
    token = await gatetoken.mint(content, keys, bundle.issuers, ports.sign)
    record.issued = audit.issued(
        content.token_id, upstream, content.roles, expires - now, _acting(record, actor)
    )
    document = {
        "access_token": token,
        "issued_token_type": request.type,
        "token_type": "Bearer" if jkt is None else "DPoP",
        "expires_in": expires - now,
        "scope": " ".join(content.roles),
    }
    headers = {"content-type": "application/json", "cache-control": "no-store", **record.headers()}
    return Refusal(200, headers, json.dumps(document) + "\n")


def _acting(record: audit.Record, actor: _Party | None) -> str | None:
    if actor is None:
        return None
    return record.names.of(actor.seen.identity.issuer, actor.seen.identity.subject)


async def _known(
    record: audit.Record, request: Request, state: State, ports: Ports
) -> tuple[Bundle, _Party, _Party | None, Shard, str | None]:
    """Whose tokens these are, the policies for this page, and the key that is shown: all by the bundle in force.

    Nothing is waited for between that and the decision. Raises Denied.
    """
    bundle, now = state.bundle, ports.now()  # the body may have taken its time
    if bundle is None or not state.fresh(now):
        bundle = await state.current(ports)
    jkt, proven = None, False
    shown = [("subject_token", request.subject), ("actor_token", request.actor)]
    while True:
        record.bundle, record.sequence, record.described = bundle.version, state.sequence, ""
        seen = [
            (text, await _seen(name, text, record, bundle, state, ports, now)) for name, text in shown if text
        ]
        shard = state.held(bundle, OWN) or await state.shard(bundle, OWN, ports)
        if (newer := state.bundle or bundle) is bundle:
            parties = [_party(text, one, bundle, state, ports) for text, one in seen]
            subject, actor = parties[0], parties[1] if len(parties) > 1 else None
            if not proven:  # the same tokens again: the proof has been used up
                jkt, proven = await _bound(record, subject, actor, state, ports), True
            if (newer := state.bundle or bundle) is bundle:
                return bundle, subject, actor, shard, jkt
        bundle = newer  # another policy came into force meanwhile: it decides, as in admission.admit


async def _seen(
    name: str, token: str, record: audit.Record, bundle: Bundle, state: State, ports: Ports, now: float
) -> Seen:
    try:
        if len(token) > tokens.MAX_TOKEN:
            raise Denied(Reason.TOKEN_MALFORMED, f"longer than {tokens.MAX_TOKEN} characters")
        seen = await admission.recognise(token, bundle, state, ports, now)
    except Denied as refused:
        raise Denied(refused.reason, f"{name}: {refused.detail}", retry_after=refused.retry_after) from None
    if not record.described:
        _, record.described = state.verified.acts(seen, {})
    return seen


def _party(token: str, seen: Seen, bundle: Bundle, state: State, ports: Ports) -> _Party:
    unverified = tokens.parse(token)
    claims, own = unverified.claims, state.own(ports)
    if own is not None and unverified.issuer == own.issuer:
        former = gatetoken.read(unverified, own.issuer)
        issuer = bundle.issuers[former.subject["iss"]]
        return _Party(seen, former.subject, issuer, former.client, None, former.expires, former)
    issuer = bundle.issuers[unverified.issuer]
    client = claims.get("client_id", claims.get("azp"))
    if not isinstance(client, str) or not 0 < len(client) <= tokens.MAX_TEXT:
        client = None
    pruned = gatetoken.pruned(claims, issuer)
    return _Party(seen, pruned, issuer, client or claims["sub"], client, int(claims["exp"]), None)


def _draft(record: audit.Record, subject: _Party, actor: _Party | None) -> Content:
    """What the token will say, as far as that doesn't depend on policy. Raises Denied `exchange.refused`."""
    former = subject.former
    acting = former.actor if former is not None else None
    if actor is not None:
        _refuse_actor(subject, actor)
        acting = actor.claims
    if former is None:
        workload = {
            name: fact
            for name, fact in asserted(record.inbound.headers).items()
            if name not in subject.seen.identity.attested
        }
        reads = gatetoken.fingerprint(subject.issuer, actor.issuer if actor is not None else None)
        return Content(
            record.inbound.request_id, (actor or subject).client, 0, 0, "", (), workload, subject.claims, acting,
            None, (), None, reads,
        )  # fmt: skip
    if len(former.parents) >= gatetoken.MOST_PARENTS:
        raise Denied(Reason.EXCHANGE_REFUSED, f"exchanged more than {gatetoken.MOST_PARENTS} times already")
    content = former._replace(
        token_id=record.inbound.request_id, parents=(*former.parents, former.token_id), actor=acting
    )
    if actor is not None:
        content = content._replace(
            client=actor.client,
            most=former.roles,
            reads=gatetoken.fingerprint(subject.issuer, actor.issuer),
        )
    return content


def _refuse_actor(subject: _Party, actor: _Party) -> None:
    """Who may act for somebody at all, whatever policy says. Raises Denied `exchange.refused`."""
    if actor.former is not None:
        raise Denied(Reason.EXCHANGE_REFUSED, "actor_token is a gate token: bring the actor's own")
    if actor.seen.identity.actor is not None:
        raise Denied(Reason.EXCHANGE_REFUSED, "somebody acts for the actor already")
    if subject.former is not None and subject.former.actor is not None:
        raise Denied(Reason.EXCHANGE_REFUSED, "somebody acts for the subject already")
    if "may_act" not in subject.claims:
        return
    # RFC 8693 §4.4. Without `iss` the name is one of the subject's own issuer.
    named = subject.claims["may_act"]
    known = {name: actor.claims.get(name) for name in ("iss", "sub")} | {"client_id": actor.client_id}
    if (
        not isinstance(named, dict)
        or named.keys().isdisjoint(("sub", "client_id"))
        or any(
            [
                not isinstance(value, str) or known.get(name) != value
                for name, value in ({"iss": subject.claims["iss"]} | named).items()
            ]
        )
    ):
        raise Denied(Reason.EXCHANGE_REFUSED, "may_act names another than the actor")


def _caller(
    record: audit.Record,
    request: Request,
    subject: _Party,
    actor: _Party | None,
    draft: Content,
    bundle: Bundle,
    state: State,
) -> Caller:
    """As what the exchange is asked for: the subject, or the actor for it. Raises Denied."""
    headers, who = record.inbound.headers, subject.seen.identity
    # A gate token has its roles named already.
    must_tag = who.must_tag and subject.former is None
    must_tag = must_tag or (actor is not None and actor.seen.identity.must_tag)
    if must_tag and "airgate-role" not in headers:
        if request.scope is None:
            raise Denied(Reason.ROLE_REQUIRED)
        headers = {**headers, "airgate-role": ",".join(request.scope)}
    if actor is None:
        caller = admission.acting(record, subject.seen, headers, state)
    else:
        if subject.former is not None:
            who, _ = gatetoken.party(subject.claims, bundle)
        # All that both may, and for this page: what is asked for is less.
        most = sorted(who.granted if draft.most is None else draft.most)
        both = gatetoken.compose(who, actor.seen.identity, draft._replace(upstream=OWN, roles=tuple(most)))
        caller = act(both._replace(token_id=None), headers)
        record.described = audit.describe(caller, record.names)
    return caller


async def _bound(
    record: audit.Record, subject: _Party, actor: _Party | None, state: State, ports: Ports
) -> str | None:
    """The key that the token will be bound to: the one that the parties' tokens are, or one that is shown here.

    Raises Denied `token.proof_*`, `limit.proofs` and `state.unavailable`.
    """
    inbound, requester = record.inbound, actor or subject
    parties = [party for party in (subject, actor) if party is not None]
    needed = {party.seen.binding.jkt for party in parties if party.seen.binding is not None}
    whose = dpop.owner(requester.claims["iss"], requester.claims["sub"])
    found = dpop.read_any(inbound.headers, whose, inbound.method, inbound.url, ports.now())
    if found is None:
        if needed:
            raise Denied(Reason.TOKEN_PROOF_MISSING)
        return None
    proof, jkt = found
    if needed - {jkt}:
        raise Denied(Reason.TOKEN_PROOF_INVALID, "by another key than the one that a token is bound to")
    strict = any([party.issuer.strict for party in parties])
    await admission.use_up(proof, strict, state, ports)
    return jkt


# What may be had.


def permitted(asked: Obligations, upstream: str | None) -> Terms:
    """On what terms the matching permits let a token for an upstream be had. Raises Denied.

    One permit that names the upstream is enough; of several the strictest of each counts. None: there is no such
    upstream, which is told like one that is not permitted.
    """
    each = [
        terms
        for name, value in asked.others
        if name == "exchange" and (terms := _terms(json.loads(value), upstream)) is not None
    ]
    if not each:
        raise Denied(Reason.EXCHANGE_TARGET, "no permit names this upstream")
    roles = [terms.roles for terms in each if terms.roles is not None]
    return Terms(
        frozenset.intersection(*roles) if roles else None,
        min([terms.lifetime for terms in each]),
        any([terms.bound for terms in each]),
    )


def _terms(value: Any, upstream: str | None) -> Terms | None:
    try:
        reader = Reader(value, "exchange")
        upstreams = reader.texts("upstreams")
        roles = None if reader.null("roles") else frozenset(reader.texts("roles"))
        lifetime = reader.whole("lifetime", 1, gatetoken.LIFE)
        terms = Terms(roles, lifetime, reader.flag("bound"))
        reader.done()
    except ValueError as error:
        raise Denied(Reason.POLICY_OBLIGATION, str(error)) from None
    return terms if upstream in upstreams else None


def _upstream(request: Request, draft: Content, own: str) -> str:
    """The upstream that the token is to be for, which need not be one. Raises Denied `exchange.target`."""
    named = set[str]()
    if request.audience is not None:
        named.add(request.audience)
    if request.resource is not None:
        prefix = gatetoken.audience(own, "")
        if not request.resource.startswith(prefix):
            raise Denied(Reason.EXCHANGE_TARGET, "resource is not at this gate")
        named.add(request.resource.removeprefix(prefix))
    if draft.upstream:
        named.add(draft.upstream)
    if len(named) != 1:
        raise Denied(Reason.EXCHANGE_TARGET, "no target" if not named else "more than one target")
    return named.pop()


def _roles(
    scope: Iterable[str] | None, effective: frozenset[str], most: frozenset[str] | None
) -> tuple[str, ...]:
    """The roles that the token will have. Raises Denied `exchange.scope`."""
    roles = effective if most is None else effective & most
    if scope is None:
        if effective and not roles:
            raise Denied(Reason.EXCHANGE_SCOPE, "none of the caller's roles may be had")
        return tuple(sorted(roles))
    if not roles.issuperset(scope):
        raise Denied(Reason.EXCHANGE_SCOPE, f"{', '.join(sorted({*scope} - roles))[:200]}: not to be had")
    return tuple(sorted(scope))


# How it is refused.

_ERRORS = {
    Reason.EXCHANGE_GRANT_TYPE: "unsupported_grant_type",
    Reason.EXCHANGE_TARGET: "invalid_target",
    Reason.EXCHANGE_SCOPE: "invalid_scope",
    Reason.ROLE_NOT_GRANTED: "invalid_scope",
    Reason.ROLE_REQUIRED: "invalid_scope",
    Reason.ROLE_MALFORMED: "invalid_scope",
    Reason.TOKEN_PROOF_MISSING: "invalid_dpop_proof",
    Reason.TOKEN_PROOF_INVALID: "invalid_dpop_proof",
    Reason.TOKEN_PROOF_REPLAYED: "invalid_dpop_proof",
    Reason.POLICY_FORBIDDEN: "unauthorized_client",
    Reason.POLICY_NO_MATCH: "unauthorized_client",
    Reason.POLICY_OBLIGATION: "unauthorized_client",
    Reason.POLICY_REVOKED: "unauthorized_client",
}


def refused(denied: Denied, page: Refusal) -> Refusal:
    """A refusal as RFC 6749 §5.2 and RFC 8693 §2.2.2 have it. `page`: as any other caller would be told.

    Whatever is wrong with a token is `invalid_request`: which check failed is for the audit log.
    """
    status = ANSWERS[denied.reason].status
    later = status == 429 or status >= 500
    error = "temporarily_unavailable" if later else _ERRORS.get(denied.reason, "invalid_request")
    headers = {
        name: value
        for name, value in page.headers.items()
        if name not in ("content-type", "www-authenticate", "airgate-policy")
    }
    document = {"error": error, "request_id": page.headers["airgate-request-id"]}
    headers = {"content-type": "application/json", **headers}
    return Refusal(status if later else 400, headers, json.dumps(document) + "\n")
