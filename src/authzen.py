"""What other gateways and applications may ask of policy, and how they are answered.

OpenID AuthZEN, Authorization API 1.0. A question names a subject, and nobody proves it. So a caller asks about itself
unless policy lets it ask about any subject, and of what a question says about a subject only that counts which policy
trusts the asker to know. The rest is unknown: permits don't match by it, forbids do.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import identity
from bundle import Issuer
from conditions import FLAGS, RESOURCE
from document import NAME, Reader, Work, read_object
from forward import fits, parse_target
from model import ANSWERS, Caller, Decision, Denied, Fact, Identity, Reason, Target
from obligations import Obligations
from upstream import Upstream

LIMIT = 65_536  # bytes of a body
DEPTH = 16
WORK = Work(strings=8_192, names=4_096, structure=16_384, escapes=8_192)
MOST = 50  # evaluations in one request
LONGEST = 1024  # characters of an id, a type, a name
MOST_VALUES = 100  # in one property, or roles of one subject

EVALUATION = "/access/v1/evaluation"
EVALUATIONS = "/access/v1/evaluations"
CONFIGURATION = "/.well-known/authzen-configuration"

SEMANTICS = ("execute_all", "deny_on_first_deny", "permit_on_first_permit")
SINGLE = ""  # instead of one of them: a single evaluation, answered by a single decision

ROUTE = "route"  # the resource type by which API gateways ask about a call
ABOUT = ("self", "any")
TRUST = frozenset({"roles", "claims", "workload", "client"})

_UNTOLD = frozenset({"subject.dpop"})
# A query in which no parameter has one reading: what a path alone does not tell.
_UNKNOWN_QUERY = "?;"
_KINDS = {**{kind: kind for kind in identity.KINDS}, "user": "human"}
_ABSOLUTE = re.compile(r"(https?)://([^/?#@]*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]*[a-z0-9_-])\.?(?::([0-9]{0,8}))?")
_PORTS = {"http": "80", "https": "443"}
_COUNTRY = re.compile(r"[A-Z]{2}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")


class Asking(NamedTuple):
    """What policy lets a caller ask."""

    about: str  # self | any
    trust: frozenset[str]  # what of a question counts: some of TRUST


class Question(NamedTuple):
    """One evaluation, ready for `conditions.Call`. The time is the gate's own."""

    target: Target  # its upstream: one of the bundle's, "-", "resource:TYPE", or a name that nothing has
    caller: Caller
    client: str | None
    country: str | None


class Invalid(NamedTuple):
    """An evaluation that cannot be made: answered as denied, with this as the error."""

    status: int
    message: str


def asking(obligations: Obligations) -> Asking:
    """What the obligations of the asker's own permits let it ask. Raises Denied `policy.obligation`.

    One permit that says `any` is enough; what counts is what every such permit trusts. None that says anything: self.
    """
    each = [_asking(json.loads(value)) for name, value in obligations.others if name == "asking"]
    widest = [one for one in each if one.about == "any"]
    trusted = [one.trust for one in widest or each]
    return Asking("any" if widest else "self", frozenset.intersection(*trusted) if trusted else frozenset())


def _asking(value: Any) -> Asking:
    try:
        reader = Reader(value, "asking")
        about, trust = reader.one_of("about", *ABOUT), frozenset(reader.texts("trust"))
        reader.done()
    except ValueError as error:
        raise Denied(Reason.POLICY_OBLIGATION, str(error)) from None
    if not trust <= TRUST:  # a newer policy: what this gate cannot honour, it does not guess
        raise Denied(Reason.POLICY_OBLIGATION, "asking.trust: not known to this version")
    return Asking(about, trust)


def echo(request_id: str | None) -> str | None:
    """The X-Request-ID to answer with: the asker's own, when it is harmless in a header and in a log."""
    return request_id if request_id is not None and _REQUEST_ID.fullmatch(request_id) else None


def _wrong(what: str) -> Denied:
    """Fit to be shown: it tells of the question only."""
    return Denied(Reason.REQUEST_BODY_INVALID, what, what)


def refuse_other_media(content_type: str | None) -> None:
    """A question is `application/json` (§ HTTPS JSON binding). Raises Denied `request.body_invalid`."""
    if (content_type or "").partition(";")[0].strip(" \t").lower() != "application/json":
        raise _wrong("Content-Type: expected application/json")


def configuration(origin: str) -> dict[str, Any]:
    """The metadata document of the decision point at an origin, such as `https://gate.example.com`."""
    return {
        "policy_decision_point": origin,
        "access_evaluation_endpoint": origin + EVALUATION,
        "access_evaluations_endpoint": origin + EVALUATIONS,
    }


class _Terms(NamedTuple):
    """Under which a request's questions are read."""

    asker: Caller
    asking: Asking
    issuers: dict[str, Issuer]  # by the name policy gives them
    client: str | None  # the asker's own
    country: str | None
    upstreams: Mapping[str, Upstream]
    gate: str  # its own host, and port where it has one


def questions(
    body: bytes,
    batch: bool,
    asker: Caller,
    asking: Asking,
    issuers: Mapping[str, Issuer],
    own_client: str | None,
    own_country: str | None,
    upstreams: Mapping[str, Upstream] | None = None,
    gate: str = "",
) -> tuple[list[Question | Invalid], str]:
    """Read a request to either endpoint; `batch`: to the one for several. Returns the questions and their semantics.

    `issuers` by exact iss; `upstreams` by name, for gateways that say an upstream's host instead; `gate`: this gate's
    own authority, at which a path begins with the upstream's name. Raises Denied: `request.body_invalid` with a hint
    at what is wrong; `policy.no_match` for a question about another subject by a caller that may only ask about itself.
    """
    by_name = {issuer.mapping.id: issuer for issuer in issuers.values()}
    terms = _Terms(asker, asking, by_name, own_client, own_country, upstreams or {}, gate)
    try:
        request = Reader(read_object(body, limit=LIMIT, depth=DEPTH, work=WORK), "request")
        several = request.array("evaluations") if batch and request.has("evaluations") else []
        semantics = _semantics(request) if batch else SEMANTICS[0]
        if not several:
            return [_question(request, terms)], SINGLE
        if len(several) > MOST:
            raise request.wrong("evaluations", f"at most {MOST}")
        for name in ("subject", "action", "resource", "context"):
            if request.has(name):
                _entity(request, name)
    except ValueError as error:
        raise _wrong(str(error)[:200]) from None
    return [_item(item, number, request, terms) for number, item in enumerate(several)], semantics


def _semantics(request: Reader) -> str:
    if not request.has("options"):
        return SEMANTICS[0]
    options = request.within("options")
    name = "evaluations_semantic"
    return options.one_of(name, *SEMANTICS) if options.has(name) else SEMANTICS[0]


def _item(item: Any, number: int, request: Reader, terms: _Terms) -> Question | Invalid:
    """One of several, with what it leaves out taken whole from the request."""
    where = f"evaluations[{number}]"
    try:
        own = Reader(item, where)
        defaults = {name: request.value(name) for name in _ENTITIES if request.has(name)}
        return _question(Reader(defaults | {name: own.value(name) for name in own.all_names()}, where), terms)
    except ValueError as error:
        return Invalid(400, str(error)[:200])


_ENTITIES: dict[str, tuple[str, ...]] = {
    "subject": ("type", "id"),
    "action": ("name",),
    "resource": ("type", "id"),
    "context": (),
}


def _entity(request: Reader, name: str) -> Reader:
    """A subject, action, resource or context, of the right types. Members that are not known are not looked at."""
    entity = request.within(name)
    for member in _ENTITIES[name]:
        _text(entity, member)
    if name != "context":
        _properties(entity)
    return entity


def _properties(entity: Reader) -> Reader:
    return (
        entity.within("properties") if entity.has("properties") else Reader({}, f"{entity.where}.properties")
    )


def _text(reader: Reader, name: str, longest: int = LONGEST) -> str:
    text = reader.text(name)
    if not 0 < len(text) <= longest:
        raise reader.wrong(name, f"1 to {longest} characters")
    return text


def _question(request: Reader, terms: _Terms) -> Question | Invalid:
    """Raises ValueError for what is not a question at all, and Denied for one that may not be asked."""
    subject, action, resource = [_entity(request, name) for name in ("subject", "action", "resource")]
    context = _entity(request, "context") if request.has("context") else Reader({}, "context")
    known = terms.asker.identity
    properties = _properties(subject)
    issuer = _text(properties, "issuer") if properties.has("issuer") else known.issuer
    itself = (issuer, subject.text("id")) == (known.issuer, known.subject)
    if not itself and terms.asking.about != "any":
        raise Denied(Reason.POLICY_NO_MATCH, f"{subject.where}: about another than the caller itself")
    who = known if itself else _identity(subject, properties, issuer, terms)
    workload = terms.asker.workload if itself else who.attested
    if "workload" in terms.asking.trust and context.has("workload"):
        workload = _workload(context.within("workload")) | who.attested
    caller = terms.asker if itself else Caller(who, None, who.granted, {})
    client, country = _whence(context, _properties(resource), itself, terms)
    target = _target(action.text("name"), resource, terms)
    if isinstance(target, Invalid):
        return target
    return Question(target, caller._replace(workload=workload), client, country)


def _identity(subject: Reader, properties: Reader, issuer: str, terms: _Terms) -> Identity:
    """Another than the asker: what the role map says of the subject, and what the asker is trusted to say."""
    known = terms.issuers.get(issuer)
    if known is None:
        raise properties.wrong("issuer", "the name of an issuer in policy")
    name, trust = subject.text("id"), terms.asking.trust
    claims: dict[str, Any] = {}
    if "claims" in trust and properties.has("claims"):
        held = properties.within("claims")
        claims = {claim: held.value(claim) for claim in held.all_names()}
        for claim, expected in (("sub", name), ("iss", known.source.issuer)):
            if claims.get(claim, expected) != expected:
                raise held.wrong(claim, "what the question says of the subject")
    kind = _KINDS.get(subject.text("type"))
    mapping = known.mapping
    said = mapping if kind is None else mapping._replace(kind_default=kind)
    # The asker's word counts where the gate would read the kind from a claim, and nobody tells the claims.
    if mapping.kind_claim is not None and not claims:
        # It grants nothing, though: roles by kind are as unknown as those by any claim.
        by_claim = [
            grant._replace(claim=mapping.kind_claim) if grant.claim == identity.KIND else grant
            for grant in mapping.grants
        ]
        mapping = said._replace(grants=tuple(by_claim))
    try:
        # Without claims, every role that a claim could grant is unknown; those granted to the subject by name are not.
        who = identity.identify(claims, name, mapping)
        claimed = identity.identify(claims, name, said).kind
    except Denied as refused:
        raise ValueError(f"{properties.where}.claims: {refused.detail}") from None
    if kind not in (None, claimed):
        raise subject.wrong("type", f"{claimed}, which the claims say")
    # Nobody has proved here to hold a key, and only claims say whether somebody acts for the subject.
    who = who._replace(jkt=None, untold=_UNTOLD if claims else frozenset(FLAGS))
    if "roles" in trust and properties.has("roles"):
        roles = properties.texts("roles")
        if len(roles) > MOST_VALUES or not all([NAME.fullmatch(role) for role in roles]):
            raise properties.wrong("roles", f"at most {MOST_VALUES} names of roles")
        who = who._replace(granted=who.granted.union(roles), unknown=frozenset())
    return who


def _workload(said: Reader) -> dict[str, Fact]:
    """What the asker says of the task behind the call: asserted, as a header of it would be."""
    workload: dict[str, Fact] = {}
    for field in ("dag", "task", "run", "environment"):
        if said.has(field):
            text = _text(said, field, identity.LONGEST)
            if not text.isprintable():
                raise said.wrong(field, "printable characters")
            workload[field] = Fact(text, False)
    if said.has("tags"):
        tags = said.texts("tags")
        if len(tags) > identity.MOST_TAGS or not all([0 < len(tag) <= identity.LONGEST for tag in tags]):
            raise said.wrong("tags", f"at most {identity.MOST_TAGS}, of 1 to {identity.LONGEST} characters")
        workload["tags"] = Fact(tags, False)
    return workload


def _whence(
    context: Reader, properties: Reader, itself: bool, terms: _Terms
) -> tuple[str | None, str | None]:
    """The client's address and country: as the asker says, if it is trusted to; its own only if it is the client."""
    if "client" in terms.asking.trust:
        said = {_address(reader) for reader in (context, properties) if reader.has("ip")}
        if len(said) > 1:
            raise context.wrong("ip", f"the same as {properties.where}.ip")
        country = None
        if context.has("country"):
            country = context.text("country")
            if _COUNTRY.fullmatch(country) is None:
                raise context.wrong("country", "two capital letters (ISO 3166-1)")
        if said or country is not None:
            return next(iter(said), None), country
    return (terms.client, terms.country) if itself else (None, None)


def _address(reader: Reader) -> str:
    text = reader.text("ip")
    try:
        if "%" in text:  # a zone, which only the machine that wrote it can read
            raise ValueError(text)
        ipaddress.ip_address(text)
    except ValueError:
        raise reader.wrong("ip", "an IP address") from None
    return text


def _target(action: str, resource: Reader, terms: _Terms) -> Target | Invalid:
    kind, name = resource.text("type"), resource.text("id")
    properties = _properties(resource)
    if kind == ROUTE:
        try:
            return _route(action, name, properties, terms)
        except Denied as refused:
            why = f": {refused.detail}" if refused.detail else ""
            return Invalid(400, f"{ANSWERS[refused.reason].title} ({refused.reason}){why}")
    held = {member: _values(properties.value(member)) for member in properties.all_names()}
    known = {member: values for member, values in held.items() if values is not None}
    return Target(action, RESOURCE + kind, (name,), "", "", known)


def _values(value: Any) -> tuple[str, ...] | None:
    """A property as conditions compare it: whole numbers, true and false as JSON writes them. None: not comparable."""
    values = value if isinstance(value, list) else [value]
    if len(values) > MOST_VALUES or not all([isinstance(item, str | int) for item in values]):
        return None
    return tuple([json.dumps(item) if isinstance(item, bool) else str(item) for item in values])


def _route(method: str, name: str, properties: Reader, terms: _Terms) -> Target:
    """The call that a gateway asks about. Raises Denied when its address has none, or more than one, reading."""
    path, uri, host = [
        properties.text(member) if properties.has(member) else None for member in ("path", "uri", "hostname")
    ]
    absolute = _ABSOLUTE.match(uri) if uri is not None else None
    address = uri[absolute.end() :] if uri is not None and absolute is not None else uri
    if address is None:
        address = path if path is not None else name
    elif path not in (None, address, address.partition("?")[0]):
        raise Denied(Reason.ROUTE_PATH_AMBIGUOUS, "path and uri are not the same")
    if not address.startswith("/") or address.startswith("//"):
        raise Denied(Reason.ROUTE_MALFORMED, "a path begins with one slash")
    if path is None and uri is None and "{" in name:
        # A forbid may cover some of the paths that a template stands for, so that no answer would hold for all.
        raise Denied(
            Reason.ROUTE_PATH_AMBIGUOUS, "a template stands for many paths: send properties.path, or uri"
        )
    scheme = absolute[1].lower() if absolute is not None else ""
    if absolute is not None:
        if host is not None and _authority(host, scheme) != _authority(absolute[2], scheme):
            raise Denied(Reason.ROUTE_PATH_AMBIGUOUS, "hostname and uri are not the same")
        host = absolute[2]
    if host is None or _authority(host, scheme) == (_authority(terms.gate, scheme) or ()):
        target = parse_target(method, "https://gate" + address)
    else:
        target = _at_upstream(method, address, host, scheme, terms.upstreams)
    if target.upstream.startswith(RESOURCE):
        raise Denied(Reason.ROUTE_MALFORMED, "no upstream has such a name")
    fits(target, terms.upstreams.get(target.upstream))
    if absolute is None and "?" not in address:
        target = target._replace(query=_UNKNOWN_QUERY)
    return target


def _authority(text: str, scheme: str) -> tuple[str, int | None] | None:
    """Host and port (RFC 3986 §3.2). No port: that of the scheme, None where that is not told."""
    read = _AUTHORITY.fullmatch(text.lower())
    if read is None:
        return None
    port = read[2] or _PORTS.get(scheme)
    return read[1], int(port) if port else None


def _at_upstream(
    method: str, address: str, host: str, scheme: str, upstreams: Mapping[str, Upstream]
) -> Target:
    """The call as the gate would get it, when `host` is an upstream's own.

    Raises Denied for any other host: whoever can send one would choose between two readings of the path.
    """
    asked = _authority(host, scheme)
    found: dict[str, str] = {}  # the base's path, by the upstream's name
    for name, upstream in upstreams.items():
        of, _, rest = upstream.base.partition("://")
        authority, slash, below = rest.partition("/")
        based = _authority(authority, of)
        if asked is not None and based is not None and asked[0] == based[0] and asked[1] in (None, based[1]):
            found[name] = slash + below
    if not found:
        raise Denied(Reason.ROUTE_MALFORMED, "neither an upstream nor the gate has this host")
    target = parse_target(method, "https://gate/-" + address)
    fitting = [name for name, base in found.items() if f"{target.path}/".startswith(f"{base}/")]
    longest = max([len(found[name]) for name in fitting], default=0)
    best = [name for name in fitting if len(found[name]) == longest]
    if len(best) != 1:
        raise Denied(
            Reason.ROUTE_PATH_AMBIGUOUS if best else Reason.ROUTE_MALFORMED,
            f"{'several upstreams have' if best else 'no upstream has'} this address: say it as the gate does",
        )
    base = found[best[0]]
    return target._replace(
        upstream=best[0], segments=target.segments[base.count("/") :], path=target.path[len(base) :]
    )


def answer(
    asked: list[Question | Invalid], semantics: str, asking: Asking, decide: Callable[[Question], Decision]
) -> dict[str, Any]:
    """The document that answers: a decision, or the decisions as far as the semantics let them be made."""
    documents: list[dict[str, Any]] = []
    for one in asked:
        document = _failed(one) if isinstance(one, Invalid) else _decided(decide(one), asking)
        documents.append(document)
        if semantics == ("permit_on_first_permit" if document["decision"] else "deny_on_first_deny"):
            break
    return documents[0] if semantics == SINGLE else {"evaluations": documents}


def _failed(invalid: Invalid) -> dict[str, Any]:
    return {"decision": False, "context": {"error": invalid._asdict()}}


def _decided(decision: Decision, asking: Asking) -> dict[str, Any]:
    """One decision. Which policies decided is told only to those who may ask about any subject."""
    context: dict[str, Any] = {}
    if decision.reason is not None:
        context["reason"] = str(decision.reason)
    if asking.about == "any" and decision.policies:
        context["policies"] = list(decision.policies)
    if decision.permit and (obligations := decision.obligations.documents()):
        context["obligations"] = obligations
    return {"decision": decision.permit, "context": context} if context else {"decision": decision.permit}
