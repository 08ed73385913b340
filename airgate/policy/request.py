"""A request in a person's words, YAML or flags, made into what would arrive at the gate: headers, an address, a token.

What the gate makes of that is up to the gate's own code (`airgate.policy.gate`).
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from airgate.engine import EVALUATION, EVALUATIONS, METHODS, OWN, Target, parse_target
from airgate.policy.seed import Keys, nearest, quoted
from airgate.policy.words import several

_ORIGIN = "https://gate"
_COUNTRY = re.compile(r"[A-Z][A-Z0-9]")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:\d\d)")

UNKNOWN_QUERY = "?;"  # in this one no parameter has only one reading
PAGES = ["GET /-/health", "POST /-/token", f"POST {EVALUATION}", f"POST {EVALUATIONS}"]  # of the gate's own
_ASKED = ("GET /health", "HEAD /health", "POST /token", f"POST {EVALUATION}", f"POST {EVALUATIONS}")

# What a header may say of the task behind a request.
HEADERS = {
    "dag": "airgate-dag-id",
    "task": "airgate-task-id",
    "run": "airgate-run-id",
    "try": "airgate-try-number",
    "map_index": "airgate-map-index",
    "tags": "airgate-dag-tags",
    "environment": "airgate-environment",
}


@dataclass(frozen=True)
class Flaw:
    """One thing that is wrong with a description, at a key of it."""

    keys: Keys
    text: str


class InvalidRequest(Exception):
    """The description stands for no request. `flaws` says why."""

    def __init__(self, *flaws: Flaw) -> None:
        self.flaws = flaws
        super().__init__("\n".join(f"{'.'.join(map(str, flaw.keys))}: {flaw.text}" for flaw in flaws))


@dataclass(frozen=True)
class Request:
    """Who asks for what, when and from where. Names are not known to exist yet."""

    issuer: str | None  # None: the only one there is
    subject: str | None  # None: whoever a role is granted to by name, else "somebody"
    kind: str | None  # None: what the issuer's tokens are without a claim
    dpop: bool | None  # the token is bound to a key; None: if its issuer asks for that
    actor: str | None  # who acts for the subject; None: as the claims say
    roles: tuple[str, ...] | None  # None: as the claims say
    claims: Mapping[str, Any] | None  # None: none beside what roles, kind and context need
    tag: tuple[str, ...] | None  # Airgate-Role
    workload: Mapping[str, Any]  # by names of identity.WORKLOAD
    attested: frozenset[str]  # which of them stand in the token
    method: str  # or the action on a resource
    url: str  # empty: a resource is asked about
    resource: Mapping[str, Any]  # type, id, properties
    headers: Mapping[str, str]  # beside the gate's own; names in lower case
    body: int | None  # bytes; None: there is none
    at: float | None  # seconds since the epoch; None: not said
    client: str | None  # address
    country: str | None

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Request":
        """From a mapping as docs/testing-policy.md describes it, whose structure is right. Raises InvalidRequest."""
        reader = _Reader(data)
        request = cls(
            issuer=data.get("issuer"),
            subject=data.get("subject"),
            kind=data.get("kind"),
            dpop=data.get("dpop"),
            actor=data.get("actor"),
            roles=tuple(data["roles"]) if "roles" in data else None,
            claims=data.get("claims"),
            tag=_listed(data["tag"]) if "tag" in data else None,
            workload={name: value for name, value in data.get("workload", {}).items() if name != "attested"},
            attested=reader.attested(),
            method=reader.action() if "resource" in data else reader.method(),
            url="" if "resource" in data else reader.url(),
            resource=data.get("resource", {}),
            headers=reader.headers(),
            body=data.get("body"),
            at=reader.moment(),
            client=reader.client(),
            country=reader.country(),
        )
        if reader.flaws:
            raise InvalidRequest(*reader.flaws)
        return request

    def recorded(
        self, at: float, client: str | None, country: str | None, query: str | None = None
    ) -> "Request":
        """The same, at that time and from there; without a query, with that one, None meaning that it's unknown."""
        url = self.url if "?" in self.url else self.url + (UNKNOWN_QUERY if query is None else query)
        return replace(self, url=url, at=at, client=client, country=country)

    @property
    def sent(self) -> dict[str, str]:
        """The headers, but for the token's."""
        headers = dict(self.headers)
        if self.tag is not None:
            headers["airgate-role"] = ", ".join(self.tag)
        for name, value in self.workload.items():
            if name not in self.attested:
                headers[HEADERS[name]] = ", ".join(value) if isinstance(value, list) else str(value)
        if self.body is not None:
            headers["content-length"] = str(self.body)
        return headers

    @property
    def target(self) -> Target:
        """Where it goes, as the gate reads it; of a request with an address. Raises Denied."""
        target = parse_target(self.method, self.url)
        if target.upstream == "access":  # pages of the gate's own, under the addresses of AuthZEN
            page = target._replace(upstream=OWN, segments=("access", *target.segments))
            return page if is_page(page) else target
        return target


def moment(text: str) -> float:
    """An RFC 3339 time in seconds since the epoch. Raises ValueError."""
    if not _MOMENT.fullmatch(text):
        raise ValueError("not a date and time with an offset, such as 2026-03-02T09:30:00Z")
    return datetime.fromisoformat(text.upper()).timestamp()


def no_such(noun: str, name: str, known: Iterable[str]) -> str:
    """That there is none of that name, and which one was probably meant."""
    return f"{quoted(name)}: no such {noun}{nearest(name, known) or f'; known: {several(known)}'}"


def is_page(target: Target) -> bool:
    """Whether policy is asked about it though it's no upstream's."""
    return target.upstream == OWN and f"{target.method} /{'/'.join(target.segments)}" in _ASKED


def _listed(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@dataclass
class _Reader:
    """Turns texts into values, and keeps what is wrong with them."""

    data: Mapping[str, Any]
    flaws: list[Flaw] = field(default_factory=list)

    def _flaw(self, keys: Keys, text: str) -> None:
        self.flaws.append(Flaw(keys, text))

    def attested(self) -> frozenset[str]:
        workload = self.data.get("workload", {})
        said = workload.get("attested", False)
        names = workload.keys() - {"attested"}
        vouched = names if said is True else frozenset(said or ())
        for name in sorted(names - vouched - HEADERS.keys()):
            self._flaw(("workload", name), "only a token says this, no header can; say that it is attested")
        if isinstance(said, bool):
            return frozenset(vouched)
        for number, name in enumerate(said):
            if name not in workload:
                self._flaw(
                    ("workload", "attested", number),
                    f"{quoted(name)}: has no value here" + nearest(name, workload),
                )
        return frozenset(said)

    def action(self) -> str:
        for name in ("method", "path"):
            if name in self.data:
                self._flaw((name,), "stands beside a resource; a request has either an address or a resource")
        if "action" not in self.data:
            self._flaw(("action",), "is missing; a resource is asked about for an action, such as can_read")
        return str(self.data.get("action", ""))

    def method(self) -> str:
        if "action" in self.data:
            self._flaw(("action",), "stands without a resource; write the resource that it is about")
        method: str = self.data.get("method", "GET")
        if method not in METHODS:
            hint = f'; write "{method.upper()}"' if method.upper() in METHODS else nearest(method, METHODS)
            self._flaw(
                ("method",),
                f"{quoted(method)}: not a method of the gate{hint or '; known: ' + ', '.join(sorted(METHODS))}",
            )
        return method

    def url(self) -> str:
        if "path" not in self.data:
            self._flaw(("path",), 'is missing; write what is sent to the gate, such as "/ledger/v1/entries"')
            return ""
        path: str = self.data["path"]
        if path.startswith(("http://", "https://")):
            return path
        if not path.startswith("/"):
            hint = f"; write {quoted('/' + path)}" if path else ""
            self._flaw(
                ("path",), f"{quoted(path)}: a path is /UPSTREAM/…, or the whole address at the gate{hint}"
            )
        return _ORIGIN + path

    def headers(self) -> dict[str, str]:
        headers = {name.lower(): value for name, value in self.data.get("headers", {}).items()}
        own = {header: name for name, header in HEADERS.items()}
        for name in self.data.get("headers", {}):
            if name.lower() in own:
                self._flaw(("headers", name), f'write it as "workload: {{{own[name.lower()]}: …}}"')
            elif name.lower() == "airgate-role":
                self._flaw(("headers", name), 'write it as "tag"')
        return headers

    def moment(self) -> float | None:
        if "at" not in self.data:
            return None
        try:
            return moment(self.data["at"])
        except ValueError as error:
            self._flaw(("at",), f"{quoted(self.data['at'])}: {error}")
            return None

    def client(self) -> str | None:
        client: str | None = self.data.get("from")
        if client is not None:
            try:
                ipaddress.ip_address(client)
            except ValueError:
                self._flaw(("from",), f"{quoted(client)}: not an IP address, such as 198.51.100.7")
        return client

    def country(self) -> str | None:
        country: str | None = self.data.get("country")
        if country is not None and not _COUNTRY.fullmatch(country):
            hint = f"; write {country.upper()}" if _COUNTRY.fullmatch(country.upper()) else ""
            self._flaw(("country",), f"{quoted(country)}: not two capitals of ISO 3166-1, such as DE{hint}")
        return country
