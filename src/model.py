"""The gate's vocabulary: what is passed from stage to stage, and why a request can be refused.

Everything here is a plain immutable value. Nothing here knows of JavaScript, I/O or clocks.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

from obligations import NOTHING, Limit, Obligations


class Reason(StrEnum):
    """Why a request was refused. Stable: callers, tests and log queries match on these strings."""

    TOKEN_MISSING = "token.missing"
    TOKEN_MALFORMED = "token.malformed"
    TOKEN_ALGORITHM = "token.algorithm"
    TOKEN_ISSUER = "token.issuer"
    TOKEN_KEY = "token.key"
    TOKEN_SIGNATURE = "token.signature"
    TOKEN_TYPE = "token.type"
    TOKEN_CLAIMS = "token.claims"
    TOKEN_INCOMPLETE = "token.incomplete"
    TOKEN_AUDIENCE = "token.audience"
    TOKEN_EXPIRED = "token.expired"
    TOKEN_NOT_YET_VALID = "token.not_yet_valid"
    TOKEN_LIFETIME = "token.lifetime"
    TOKEN_SCHEME = "token.scheme"
    TOKEN_UNBOUND = "token.unbound"
    TOKEN_PROOF_MISSING = "token.proof_missing"
    TOKEN_PROOF_INVALID = "token.proof_invalid"
    TOKEN_PROOF_REPLAYED = "token.proof_replayed"
    TOKEN_REVOKED = "token.revoked"
    TOKEN_SESSION_ENDED = "token.session_ended"
    TOKEN_SESSION_SUPERSEDED = "token.session_superseded"
    ROLE_REQUIRED = "role.required"
    ROLE_MALFORMED = "role.malformed"
    ROLE_NOT_GRANTED = "role.not_granted"
    POLICY_FORBIDDEN = "policy.forbidden"
    POLICY_NO_MATCH = "policy.no_match"
    POLICY_OBLIGATION = "policy.obligation"
    POLICY_REVOKED = "policy.revoked"
    POLICY_UNAVAILABLE = "policy.unavailable"
    EXCHANGE_GRANT_TYPE = "exchange.grant_type"
    EXCHANGE_TARGET = "exchange.target"
    EXCHANGE_SCOPE = "exchange.scope"
    EXCHANGE_REFUSED = "exchange.refused"
    ROUTE_MALFORMED = "route.malformed"
    ROUTE_PATH_AMBIGUOUS = "route.path_ambiguous"
    ROUTE_UNKNOWN_UPSTREAM = "route.unknown_upstream"
    REQUEST_METHOD = "request.method"
    REQUEST_BODY_NOT_ALLOWED = "request.body_not_allowed"
    REQUEST_HEADER_INVALID = "request.header_invalid"
    REQUEST_HEADER_REQUIRED = "request.header_required"
    REQUEST_JUSTIFICATION_REQUIRED = "request.justification_required"
    REQUEST_LENGTH_REQUIRED = "request.length_required"
    REQUEST_BODY_TOO_LARGE = "request.body_too_large"
    REQUEST_BODY_INVALID = "request.body_invalid"
    REQUEST_UPGRADE = "request.upgrade"
    REQUEST_GRPC = "request.grpc"
    LIMIT_RATE = "limit.rate"
    LIMIT_PROOFS = "limit.proofs"
    ISSUER_UNAVAILABLE = "issuer.unavailable"
    STATE_STALE = "state.stale"
    STATE_UNAVAILABLE = "state.unavailable"
    UPSTREAM_UNREACHABLE = "upstream.unreachable"
    UPSTREAM_TIMEOUT = "upstream.timeout"
    UPSTREAM_CIRCUIT_OPEN = "upstream.circuit_open"
    UPSTREAM_OVERLOADED = "upstream.overloaded"
    UPSTREAM_CREDENTIAL = "upstream.credential"
    PROXY_UNKNOWN = "proxy.unknown"
    INTERNAL = "internal"


class Answer(NamedTuple):
    """What the caller is told for a reason: dull on purpose. The full story is in the audit log."""

    status: int
    title: str
    retry_after: int | None = None  # seconds; None: trying again changes nothing


ANSWERS: dict[Reason, Answer] = {
    Reason.TOKEN_MISSING: Answer(401, "A bearer token is required"),
    Reason.TOKEN_MALFORMED: Answer(401, "The token cannot be read"),
    Reason.TOKEN_ALGORITHM: Answer(401, "The token's algorithm is not accepted"),
    Reason.TOKEN_ISSUER: Answer(401, "The token's issuer is not known here"),
    Reason.TOKEN_KEY: Answer(401, "The token's key is not known here"),
    Reason.TOKEN_SIGNATURE: Answer(401, "The token's signature is wrong"),
    Reason.TOKEN_TYPE: Answer(401, "This type of token is not accepted"),
    Reason.TOKEN_CLAIMS: Answer(401, "The token's claims are not acceptable"),
    Reason.TOKEN_INCOMPLETE: Answer(
        401, "The token does not hold all that it should: its issuer left groups out"
    ),
    Reason.TOKEN_AUDIENCE: Answer(401, "The token is not meant for this gate"),
    Reason.TOKEN_EXPIRED: Answer(401, "The token has expired"),
    Reason.TOKEN_NOT_YET_VALID: Answer(401, "The token is not valid yet"),
    Reason.TOKEN_LIFETIME: Answer(401, "The token lives longer than is accepted"),
    Reason.TOKEN_SCHEME: Answer(401, "The token is presented under the wrong scheme"),
    Reason.TOKEN_UNBOUND: Answer(401, "A token that is bound to the caller's key is required"),
    Reason.TOKEN_PROOF_MISSING: Answer(401, "The token is bound to a key: a DPoP proof is required"),
    Reason.TOKEN_PROOF_INVALID: Answer(401, "The DPoP proof is not acceptable"),
    Reason.TOKEN_PROOF_REPLAYED: Answer(401, "The DPoP proof has been used before"),
    Reason.TOKEN_REVOKED: Answer(401, "The token has been revoked"),
    Reason.TOKEN_SESSION_ENDED: Answer(401, "The task that the token was for has ended"),
    Reason.TOKEN_SESSION_SUPERSEDED: Answer(401, "The token is of an earlier try of its task"),
    Reason.ROLE_REQUIRED: Answer(403, "A role tag is required"),
    Reason.ROLE_MALFORMED: Answer(403, "The role tag cannot be read"),
    Reason.ROLE_NOT_GRANTED: Answer(403, "The role tag names a role that the token does not grant"),
    Reason.POLICY_FORBIDDEN: Answer(403, "A policy forbids this call"),
    Reason.POLICY_NO_MATCH: Answer(403, "No policy permits this call"),
    Reason.POLICY_OBLIGATION: Answer(403, "Policy asks for something that this gate cannot do"),
    Reason.POLICY_REVOKED: Answer(403, "Access has been revoked"),
    Reason.POLICY_UNAVAILABLE: Answer(503, "The gate has no policy to decide by", 5),
    Reason.EXCHANGE_GRANT_TYPE: Answer(400, "Only tokens are exchanged here"),
    Reason.EXCHANGE_TARGET: Answer(400, "No token is given for this target"),
    Reason.EXCHANGE_SCOPE: Answer(400, "No token is given for these roles"),
    Reason.EXCHANGE_REFUSED: Answer(400, "These tokens are not exchanged"),
    Reason.ROUTE_MALFORMED: Answer(400, "The address cannot be read"),
    Reason.ROUTE_PATH_AMBIGUOUS: Answer(400, "The path can be read in more than one way"),
    Reason.ROUTE_UNKNOWN_UPSTREAM: Answer(404, "No such upstream"),
    Reason.REQUEST_METHOD: Answer(400, "The method is not supported"),
    Reason.REQUEST_BODY_NOT_ALLOWED: Answer(400, "This method takes no body"),
    Reason.REQUEST_HEADER_INVALID: Answer(400, "An Airgate header cannot be read"),
    Reason.REQUEST_HEADER_REQUIRED: Answer(400, "Policy asks for a header that is not there"),
    Reason.REQUEST_JUSTIFICATION_REQUIRED: Answer(400, "Policy asks why: send Airgate-Justification"),
    Reason.REQUEST_LENGTH_REQUIRED: Answer(411, "The length of the body must be declared"),
    Reason.REQUEST_BODY_TOO_LARGE: Answer(413, "The body is larger than policy allows"),
    Reason.REQUEST_BODY_INVALID: Answer(400, "The body cannot be read"),
    Reason.REQUEST_UPGRADE: Answer(501, "The gate does not pass on WebSocket or other upgrades"),
    Reason.REQUEST_GRPC: Answer(501, "The gate does not pass on gRPC"),
    Reason.LIMIT_RATE: Answer(429, "Too many calls", 60),
    Reason.LIMIT_PROOFS: Answer(429, "Too many DPoP proofs", 60),
    Reason.ISSUER_UNAVAILABLE: Answer(503, "The issuer's keys cannot be had at the moment", 5),
    Reason.STATE_STALE: Answer(503, "The gate cannot tell at the moment what has been revoked", 5),
    Reason.STATE_UNAVAILABLE: Answer(
        503, "The gate cannot write down at the moment what it must remember", 5
    ),
    Reason.UPSTREAM_UNREACHABLE: Answer(502, "The upstream cannot be reached", 5),
    Reason.UPSTREAM_TIMEOUT: Answer(504, "The upstream did not answer in time", 5),
    Reason.UPSTREAM_CIRCUIT_OPEN: Answer(503, "The upstream fails; calls are held back for a while", 10),
    Reason.UPSTREAM_OVERLOADED: Answer(503, "Too many calls wait for the upstream", 1),
    Reason.UPSTREAM_CREDENTIAL: Answer(503, "The gate has no credential for the upstream at the moment", 5),
    Reason.PROXY_UNKNOWN: Answer(403, "Only a proxy that is known here may ask this"),
    Reason.INTERNAL: Answer(503, "The gate could not handle the request", 5),
}


class Denied(Exception):
    """The one way to refuse a request: raised anywhere, caught in `gateway.handle`.

    `detail` is for the audit log only and never reaches the caller; it must not hold a token or a secret.
    `hint` is what the caller, who is known and permitted by then, has to do. `retry_after`: seconds, where more is
    known than the reason alone says.
    """

    def __init__(
        self, reason: Reason, detail: str = "", hint: str = "", retry_after: int | None = None
    ) -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail
        self.hint = hint
        self.retry_after = retry_after


class Inbound(NamedTuple):
    """A request as it arrived."""

    request_id: str
    received_at: float  # seconds since the epoch
    method: str
    url: str  # raw, as the runtime hands it over
    headers: dict[str, str]  # names in lower case; repeated ones joined with ", "
    has_body: bool


# What a path may have in it only where its upstream says what that means.
ENCODED_SLASH, EMPTY_SEGMENT = 1, 2


class Target(NamedTuple):
    """Where a request wants to go: parsed once; the same object is authorised and forwarded."""

    method: str
    upstream: str
    segments: tuple[str, ...]  # percent-decoded, what policy sees; one trailing slash is left out
    path: str  # canonical and encoded, what the upstream sees
    query: str  # with its "?", or empty
    properties: dict[str, tuple[str, ...]] = {}  # noqa: RUF012  of an AuthZEN resource; a request has none
    odd: int = 0  # ENCODED_SLASH, EMPTY_SEGMENT


class Fact(NamedTuple):
    """A value of the workload context. Attested: it stands in the signed token, not in a header."""

    value: str | tuple[str, ...]
    attested: bool


class Identity(NamedTuple):
    """Who a verified token names."""

    issuer: str  # the issuer's id in the policy set
    subject: str
    kind: str  # workload | human | agent
    granted: frozenset[str]  # every role that the token grants
    attested: dict[str, Fact]  # workload context from the token's claims
    unknown: frozenset[str] = frozenset()  # roles that a claim could grant which the token does not carry
    claims: dict[tuple[str, ...], tuple[str, ...]] = {}  # noqa: RUF012  those that policies ask for, by their path
    jkt: str | None = (
        None  # thumbprint of the key that the token is bound to, and the caller has shown to hold
    )
    actor: str | None = None  # who acts for the subject, where that is somebody else: the call is delegated
    must_tag: bool = False  # it has to say, in every request, which roles it acts under
    untold: frozenset[str] = (
        frozenset()
    )  # conditions on it that nobody can answer, where its token is not at hand
    token_id: str | None = None  # the token's `jti`, where it has one
    session: str | None = None  # the token's `sid`: what it was for, which may end before the token does
    exchanged: "Exchanged | None" = None  # of a gate token: what it may be used for at most
    actor_issuer: str | None = (
        None  # the `iss` of the actor's name: somebody of another issuer may have the same
    )


class Exchanged(NamedTuple):
    """By how much a gate token is narrower than the tokens that it was got for (gatetoken.py)."""

    upstream: str  # the only one that it is for
    roles: frozenset[str]  # the only ones that it may act under; in a delegated call both parties have them
    workload: dict[str, Fact]  # the context that was asserted for it: headers change nothing of it any more
    parents: tuple[str, ...]  # ids of the tokens that it comes from
    # Who has to be permitted alone as well, in a delegated call: `subject` and `actor`, each as its own token has it.
    alone: "tuple[tuple[str, Caller], ...]" = ()


class Lent(NamedTuple):
    """What grants lend to an identity for a time."""

    roles: frozenset[str]  # beside those that its token grants
    policies: frozenset[
        tuple[str, str]
    ]  # ids of permits that apply to it, and the role that they are lent to or ""
    grants: tuple[str, ...]  # ids of the acts
    own: Identity  # as its token alone has it


class Caller(NamedTuple):
    """An identity as it acts in one request: under these roles, for this task."""

    identity: Identity
    tagged: tuple[str, ...] | None  # the roles named by Airgate-Role; None: no tag
    effective: frozenset[str]  # the roles a permit may use
    workload: dict[str, Fact]
    lent: Lent | None = None  # None: nothing; the identity's roles hold what is


class Decision(NamedTuple):
    """What policy says of one request, with everything that explains it."""

    permit: bool
    reason: Reason | None  # None when permitted
    permits: tuple[str, ...] = ()  # ids of the permits that matched
    forbids: tuple[str, ...] = ()  # ids of the forbids that matched
    route: str | None = None  # the path pattern of the first policy that decided
    owner: str | None = None  # whom to ask
    shadow: tuple[str, ...] = ()  # ids of the policies in shadow that matched
    would: bool = False  # what the answer would be, were those enforced
    obligations: Obligations = NOTHING  # of the permits that matched, merged
    bundle: str = ""  # version of the bundle that decided
    alone: str = ""  # subject or actor: whom policy refuses it alone, and so the one for the other as well
    # Of a delegated call: whose limits are counted for whom, instead of all of them for the caller.
    apart: tuple[tuple[Caller, tuple[Limit, ...]], ...] = ()

    @property
    def policies(self) -> tuple[str, ...]:
        """The ids of the policies that decided."""
        return self.forbids or self.permits

    @property
    def detail(self) -> str:
        """What the audit log says beside the reason."""
        return self.obligations.conflict or (f"to the {self.alone} alone" if self.alone else "")


class Outbound(NamedTuple):
    """The call to the upstream."""

    method: str
    url: str
    headers: dict[str, str]
    timeout: float  # seconds until the answer's headers must be here
    total_timeout: float | None = None  # seconds until all of it must be here
    via: str | None = None  # the binding that leads there; None: the public network


class UpstreamAnswer(NamedTuple):
    """An upstream's answer as far as the core needs it; `native` is the runtime's own object."""

    status: int
    native: Any
    body: Any = None  # its stream, the runtime's own as well


class Refusal(NamedTuple):
    """An answer that the gate writes itself."""

    status: int
    headers: dict[str, str]
    body: str


class Relay(NamedTuple):
    """An upstream's answer to be passed on, with the gate's own headers set."""

    answer: UpstreamAnswer
    headers: dict[str, str]
    passed: Callable[
        [str, str], str | None
    ]  # a header that concerns the gate, as callers see it; None: not at all
