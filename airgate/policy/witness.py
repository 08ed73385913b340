"""A concrete request: what a token says, headers, an address. The gate's own code says what it makes of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from airgate.engine import (
    LISTS,
    LONGEST_VALUE,
    OWN,
    RESOURCE,
    SCOPE,
    Call,
    Caller,
    Denied,
    Target,
    act,
    identify,
    parse_target,
)
from airgate.policy.bounds import DEPUTY, MISSING, ONE, SEVERAL, THERE, UNREADABLE, Demands, Key
from airgate.policy.callers import ACTION, ACTOR, ID, METHOD, PLACES, SUBJECT, USED, Callers, Tokens

_ORIGIN = "https://gate"
_SAFE = "-._~!$'()*,:@"  # in a path or a query, beside letters and digits; what is left of RFC 3986's
_HEADERS = {
    "dag": "airgate-dag-id",
    "task": "airgate-task-id",
    "run": "airgate-run-id",
    "environment": "airgate-environment",
    "tags": "airgate-dag-tags",
}


class ContradictoryError(Exception):
    """Values that were taken to be independent don't go together in one request."""


@dataclass(frozen=True)
class Witness:
    """A request. Two policy sets may read the same one in different ways."""

    issuer: str
    subject: str
    claims: dict[str, Any]  # of the token, less the registered ones
    tag: tuple[str, ...] | None  # Airgate-Role
    workload: dict[str, str | tuple[str, ...]]  # what headers say of the task
    upstream: str
    method: str  # or action
    segments: tuple[str, ...]  # of a resource: its id alone
    query: str
    properties: dict[str, tuple[str, ...]]
    now: int | None  # seconds since the epoch; None: any time
    client: str | None
    country: str | None

    @property
    def url(self) -> str:
        """Empty for a resource."""
        if self.upstream.startswith(RESOURCE):
            return ""
        parts = list(self.segments)
        if self.upstream != OWN or parts[:1] != ["access"]:
            parts.insert(0, self.upstream)
        # One slash at the end means nothing: behind an empty segment there have to be two.
        slash = "/" if parts[-1:] == [""] else ""
        return "/" + "/".join(quote(part, safe=_SAFE) for part in parts) + slash + self.query

    @property
    def headers(self) -> dict[str, str]:
        headers = {} if self.tag is None else {"airgate-role": ", ".join(self.tag)}
        for name, value in self.workload.items():
            headers[_HEADERS[name]] = value if isinstance(value, str) else ",".join(value)
        return headers

    def target(self) -> Target:
        """Raises Denied."""
        if self.upstream.startswith(RESOURCE):
            return Target(self.method, self.upstream, self.segments, "", "", self.properties)
        target = parse_target(self.method, _ORIGIN + self.url)
        if target.upstream == "access" and self.upstream == OWN:
            return target._replace(upstream=OWN, segments=("access", *target.segments))
        return target

    def caller(self, tokens: Tokens) -> Caller:
        """Raises Denied."""
        claims = self.claims | {"iss": tokens.url, "sub": self.subject}
        return act(identify(claims, self.subject, tokens.mapping), self.headers)

    def call(self, callers: Callers, since: float = 0) -> Call | None:
        """What the gate decides. None when it refuses the request before policy is asked."""
        tokens = callers.tokens.get(self.issuer)
        if tokens is None:
            return None
        try:
            caller, target = self.caller(tokens), self.target()
        except Denied:
            return None
        unbound, untagged = caller.identity.jkt is None, caller.tagged is None
        if (tokens.bound and unbound) or (tokens.mapping.must_tag and untagged):
            return None
        if target.upstream != self.upstream or target.odd & ~callers.odd(self.upstream):
            return None
        return Call(caller, target, since if self.now is None else self.now, self.client, self.country)


@dataclass
class Draft:
    """A request that meets demands on its attributes. `meet`: a value for an attribute."""

    store: dict[Key, Demands]
    meet: Callable[[Key], Any]
    tokens: Tokens
    upstream: str
    reads: frozenset[str]  # the names of all conditions that could matter
    claims: dict[str, Any] = field(default_factory=dict)

    def request(self, tag: tuple[str, ...] | None = None) -> Witness:
        """Raises ContradictoryError."""
        self.claims = {}
        workload: dict[str, str | tuple[str, ...]] = {}
        query: list[str] = []
        properties: dict[str, tuple[str, ...]] = {}
        keys = {*self.store, *(self.tokens.claim(path) for path in self.tokens.groups)}
        for key in sorted(keys, key=lambda key: (len(key), key)):
            if key[0] in ("claim", "groups"):
                self._claim(key)
            elif key in PLACES:
                state, value = self.meet(key)
                if state != MISSING:
                    self._put(PLACES[key], value)
            elif key[0] in ("claimed", "header"):
                state, value = self.meet(key)
                if state == THERE and key[0] == "header":
                    workload[key[1]] = value
                elif state == THERE:
                    self._put(key[2:], list(value) if key[1] in LISTS else value)
            elif key[0] == "kind" and (kind := self.meet(key)):
                self._put(key[1:], kind)
            elif key[0] == "query":
                state, value = self.meet(key)
                name = quote(key[1], safe=_SAFE)
                if state == ONE:
                    query.append(f"{name}={quote(value, safe=_SAFE)}")
                elif state == SEVERAL:
                    query += [f"{name}=1", f"{name}=2"]
            elif key[0] == "property":
                state, value = self.meet(key)
                if state == THERE:
                    properties[key[1]] = value
        if "act" in self.claims and ACTOR not in self.store:  # or it would name nobody
            self._put(PLACES[ACTOR], DEPUTY)
        of_resource = self.upstream.startswith(RESOURCE)
        return Witness(
            issuer=self.tokens.mapping.id,
            subject=self.meet(SUBJECT),
            claims=self.claims,
            tag=tag,
            workload=workload,
            upstream=self.upstream,
            method=self.meet(ACTION if of_resource else METHOD),
            segments=(self.meet(ID),) if of_resource else self.meet(("path",)),
            query="?" + "&".join(query) if query else "",
            properties=properties,
            now=self.meet(("now",)) if self.reads & {"when.time", "when.dates"} else None,
            client=self._stated("client") if "when.ip" in self.reads else None,
            country=self._stated("country") if "when.country" in self.reads else None,
        )

    def unused(self) -> tuple[frozenset[str], frozenset[str]]:
        """The roles that have to be in use, and those that must not be."""
        used, unused = self.meet(USED) if USED in self.store else (frozenset(), frozenset())
        return used, unused

    def _stated(self, name: str) -> str | None:
        state, value = self.meet((name,))
        return value if state == THERE else None

    def _claim(self, key: Key) -> None:
        state, values = self.meet(key)
        if state == UNREADABLE:  # to conditions, and roles can be granted by it all the same
            self._put(key[1:], [*values, "x" * (LONGEST_VALUE + 1)])
        elif state == THERE and key[1:] == SCOPE and all(value and " " not in value for value in values):
            self._put(SCOPE, " ".join(values))
        elif state == THERE:
            self._put(key[1:], values[0] if len(values) == 1 and key[0] == "claim" else list(values))

    def _put(self, path: tuple[str, ...], value: Any) -> None:
        claims = self.claims
        for name in path[:-1]:
            inner = claims.setdefault(name, {})
            if not isinstance(inner, dict):
                raise ContradictoryError
            claims = inner
        if claims.setdefault(path[-1], value) != value:
            raise ContradictoryError
