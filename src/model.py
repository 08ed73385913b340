"""The gate's vocabulary: what is passed from stage to stage, and why a request can be refused.

Everything here is a plain immutable value. Nothing here knows of JavaScript, I/O or clocks.
"""

from enum import StrEnum
from typing import Any, NamedTuple


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
    TOKEN_AUDIENCE = "token.audience"
    TOKEN_EXPIRED = "token.expired"
    TOKEN_NOT_YET_VALID = "token.not_yet_valid"
    TOKEN_LIFETIME = "token.lifetime"
    ROLE_MALFORMED = "role.malformed"
    ROLE_NOT_GRANTED = "role.not_granted"
    POLICY_FORBIDDEN = "policy.forbidden"
    POLICY_NO_MATCH = "policy.no_match"
    POLICY_UNAVAILABLE = "policy.unavailable"
    ROUTE_MALFORMED = "route.malformed"
    ROUTE_PATH_AMBIGUOUS = "route.path_ambiguous"
    ROUTE_UNKNOWN_UPSTREAM = "route.unknown_upstream"
    REQUEST_METHOD = "request.method"
    REQUEST_BODY_NOT_ALLOWED = "request.body_not_allowed"
    REQUEST_HEADER_INVALID = "request.header_invalid"
    ISSUER_UNAVAILABLE = "issuer.unavailable"
    UPSTREAM_UNREACHABLE = "upstream.unreachable"
    UPSTREAM_TIMEOUT = "upstream.timeout"
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
    Reason.TOKEN_AUDIENCE: Answer(401, "The token is not meant for this gate"),
    Reason.TOKEN_EXPIRED: Answer(401, "The token has expired"),
    Reason.TOKEN_NOT_YET_VALID: Answer(401, "The token is not valid yet"),
    Reason.TOKEN_LIFETIME: Answer(401, "The token lives longer than is accepted"),
    Reason.ROLE_MALFORMED: Answer(403, "The role tag cannot be read"),
    Reason.ROLE_NOT_GRANTED: Answer(403, "The role tag names a role that the token does not grant"),
    Reason.POLICY_FORBIDDEN: Answer(403, "A policy forbids this call"),
    Reason.POLICY_NO_MATCH: Answer(403, "No policy permits this call"),
    Reason.POLICY_UNAVAILABLE: Answer(503, "The gate has no policy to decide by", 5),
    Reason.ROUTE_MALFORMED: Answer(400, "The address cannot be read"),
    Reason.ROUTE_PATH_AMBIGUOUS: Answer(400, "The path can be read in more than one way"),
    Reason.ROUTE_UNKNOWN_UPSTREAM: Answer(404, "No such upstream"),
    Reason.REQUEST_METHOD: Answer(400, "The method is not supported"),
    Reason.REQUEST_BODY_NOT_ALLOWED: Answer(400, "This method takes no body"),
    Reason.REQUEST_HEADER_INVALID: Answer(400, "An Airgate header cannot be read"),
    Reason.ISSUER_UNAVAILABLE: Answer(503, "The issuer's keys cannot be had at the moment", 5),
    Reason.UPSTREAM_UNREACHABLE: Answer(502, "The upstream cannot be reached", 5),
    Reason.UPSTREAM_TIMEOUT: Answer(504, "The upstream did not answer in time", 5),
    Reason.INTERNAL: Answer(503, "The gate could not handle the request", 5),
}


class Denied(Exception):
    """The one way to refuse a request: raised anywhere, caught in `gateway.handle`.

    `detail` is for the audit log only and never reaches the caller; it must not hold a token or a secret.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


class Inbound(NamedTuple):
    """A request as it arrived."""

    request_id: str
    received_at: float  # seconds since the epoch
    method: str
    url: str  # raw, as the runtime hands it over
    headers: dict[str, str]  # names in lower case; repeated ones joined with ", "
    has_body: bool


class Target(NamedTuple):
    """Where a request wants to go: parsed once; the same object is authorised and forwarded."""

    method: str
    upstream: str
    segments: tuple[str, ...]  # percent-decoded, what policy sees; one trailing slash is left out
    path: str  # canonical and encoded, what the upstream sees
    query: str  # with its "?", or empty


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


class Caller(NamedTuple):
    """An identity as it acts in one request: under these roles, for this task."""

    identity: Identity
    tagged: tuple[str, ...] | None  # the roles named by Airgate-Role; None: no tag
    effective: frozenset[str]  # the roles a permit may use
    workload: dict[str, Fact]


class Decision(NamedTuple):
    """What policy says of one request."""

    permit: bool
    reason: Reason | None  # None when permitted
    policies: tuple[str, ...]  # ids of the permits, or of the forbids, that decided
    route: str | None  # the path pattern of the first of them
    owner: str | None  # whom to ask
    shadow: tuple[str, ...] = ()  # ids of shadow policies that would have matched


class Outbound(NamedTuple):
    """The call to the upstream."""

    method: str
    url: str
    headers: dict[str, str]
    timeout: float  # seconds until the answer's headers must be here


class UpstreamAnswer(NamedTuple):
    """An upstream's answer as far as the core needs it; `native` is the runtime's own object."""

    status: int
    native: Any


class Refusal(NamedTuple):
    """An answer that the gate writes itself."""

    status: int
    headers: dict[str, str]
    body: str


class Relay(NamedTuple):
    """An upstream's answer to be passed on, with the gate's own headers set."""

    answer: UpstreamAnswer
    headers: dict[str, str]
