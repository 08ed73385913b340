"""A request that was found, for a person to read, and as the `airgate policy explain` that repeats it."""

import json
import shlex
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from airgate.engine import NAMED, RESOURCE, SCOPE, SCOPES, Call, Decision, Denied, Fact, Mapping
from airgate.policy.callers import Callers
from airgate.policy.compile import Compiled
from airgate.policy.gate import Gate
from airgate.policy.phrases import joined, moment
from airgate.policy.request import InvalidRequest, Request
from airgate.policy.witness import Witness

_REASON = "it was made up to show what policy permits"
_FLAGS = {name: f"--{name.replace('_', '-')}" for name in NAMED}


@dataclass(frozen=True)
class Evidence:
    """A request, as one policy set decides it."""

    request: Witness
    call: Call
    decision: Decision
    gate: Gate

    @property
    def title(self) -> str:
        """`POST /ledger/v1/entries`"""
        if self.request.upstream.startswith(RESOURCE):
            kind = self.request.upstream.removeprefix(RESOURCE)
            return f"{self.request.method} on {kind} {self.request.segments[0]}"
        return f"{self.request.method} {self.request.url}"

    def description(self, by_roles: bool = True) -> dict[str, Any] | None:
        """As cases write it, so that the gate reads this very request; None: it can't be written like that.

        `by_roles`: by the names of roles if possible, instead of the claims that grant them.
        """
        mapping = self.gate.issuers[self.request.issuer].mapping
        ways = [_by_roles(self.request, self.call, mapping)] if by_roles else []
        for who in (*ways, _by_claims(self.request, self.call)):
            if who is None:
                continue
            said = _what(self.request, self.decision) | who
            if len(self.gate.issuers) > 1:
                said["issuer"] = self.request.issuer
            if self.request.subject != "somebody":
                said["subject"] = self.request.subject
            try:
                read = Request.read(said)
                if self.gate.identity(read) != self.call.caller.identity:
                    continue
                answer = self.gate.answer(read, now=self.call.now)
            except (InvalidRequest, Denied):
                continue
            if answer.decision is not None and answer.decision.policies == self.decision.policies:
                return said
        return None

    @property
    def decided(self) -> str:
        """`permitted by …`, `forbidden by …`, or why else it is denied."""
        policies = joined(self.decision.policies)
        if self.decision.permit:
            return f"permitted by {policies}"
        if self.decision.forbids:
            return f"forbidden by {policies}"
        if self.decision.permits:
            return f"denied, for {policies} ask for what can't be had together"
        return "denied, for no policy permits it"

    def lines(self) -> list[str]:
        """Who asks, and all that the answer depends on."""
        identity = self.call.caller.identity
        roles = joined(sorted(identity.granted)) or "none"
        lines = [f"by {identity.subject} of issuer {identity.issuer}, {identity.kind}; roles: {roles}"]
        if self.request.tag is not None:
            lines[0] += f"; acting as {joined(self.request.tag)}"
        if identity.unknown:
            lines.append(
                f"not known, for lack of a claim: whether it holds {joined(sorted(identity.unknown))}"
            )
        if identity.jkt is not None:
            lines.append("its token is bound to a key (DPoP)")
        if identity.actor is not None:
            lines.append(f"{identity.actor} acts for it")
        for path, values in sorted(identity.claims.items()):
            lines.append(f"claim {'.'.join(path)}: {joined(values) or 'empty'}")
        for name, fact in sorted(self.call.caller.workload.items()):
            value = fact.value if isinstance(fact.value, str) else joined(fact.value)
            lines.append(f"{name}: {value} ({'attested' if fact.attested else 'asserted by a header'})")
        for name, values in sorted(self.request.properties.items()):
            lines.append(f"property {name}: {joined(values)}")
        whence = [f"from {self.request.client}" if self.request.client else ""]
        whence += [f"in {self.request.country}" if self.request.country else ""]
        if self.request.now is not None:
            whence.insert(0, f"at {moment(self.request.now)}")
        if any(whence):
            lines.append(" ".join(filter(None, whence)))
        return lines

    def command(self, seed: str = "", by_roles: bool = True) -> str:
        """What repeats it; empty when the flags can't say it. `seed`: the folder, unless it's kv-seed."""
        said = self.description(by_roles)
        if said is None:
            return ""
        words = ["airgate", "policy", "explain"]
        if "resource" in said:
            resource = said["resource"]
            words += ["--action", said["action"], "--resource", resource["type"], "--id", resource["id"]]
            words += _pairs("--property", resource.get("properties", {}))
        else:
            words += [said["method"], said["path"]]
        for option, key in (("--issuer", "issuer"), ("--subject", "subject"), ("--kind", "kind")):
            if key in said:
                words += [option, said[key]]
        if said.get("dpop"):
            words.append("--dpop")
        if "actor" in said:
            words += ["--actor", said["actor"]]
        for role in said.get("roles", ()):
            words += ["--role", role]
        words += _pairs("--claim", said.get("claims", {}))
        for role in said.get("tag", ()):
            words += ["--tag", role]
        workload = said.get("workload", {})
        if "run" in workload:
            return ""
        for name, option in _FLAGS.items():
            if name in workload:
                words += [option, workload[name]]
        for tag in workload.get("tags", ()):
            words += ["--dag-tag", tag]
        if workload.get("attested"):
            words.append("--attested")
        for name, value in said.get("headers", {}).items():
            words += ["--header", f"{name}: {value}"]
        for option, key in (("--at", "at"), ("--from", "from"), ("--country", "country")):
            if key in said:
                words += [option, said[key]]
        if seed:
            words += ["--seed", seed]
        return shlex.join(words)


def _pairs(option: str, members: dict[str, Any]) -> list[str]:
    words = []
    for name, value in members.items():
        # A text that reads like JSON has to be written as JSON, or it would be a number or the like.
        words += [option, f"{name}={value if _plain(value) else json.dumps(value, ensure_ascii=False)}"]
    return words


def _plain(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        json.loads(value)
    except ValueError:
        return True
    return False


class Engine:
    """One policy set, to decide requests that were found. `since`: when, for those that don't say."""

    def __init__(self, compiled: Compiled, since: float) -> None:
        self._policies = compiled.engine
        self._callers = Callers.of(compiled.engine.bundle)
        self._gate = Gate(compiled.engine)
        self._since = since

    def evidence(self, request: Witness) -> Evidence | None:
        """None: the gate refuses the request before policy is asked."""
        call = request.call(self._callers, self._since)
        return None if call is None else Evidence(request, call, self._policies.decide(call), self._gate)


def _what(request: Witness, decision: Decision) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if request.upstream.startswith(RESOURCE):
        properties = {
            name: values[0] if len(values) == 1 else list(values)
            for name, values in request.properties.items()
        }
        kind = request.upstream.removeprefix(RESOURCE)
        said["action"] = request.method
        said["resource"] = {"type": kind, "id": request.segments[0], "properties": properties}
    else:
        said |= {"method": request.method, "path": request.url}
    headers = dict.fromkeys(decision.obligations.headers, "1")
    if decision.obligations.justification:
        headers["airgate-justification"] = _REASON
    if headers:
        said["headers"] = headers
    if request.now is not None:
        said["at"] = moment(request.now)
    if request.client is not None:
        said["from"] = request.client
    if request.country is not None:
        said["country"] = request.country
    return said


def _by_roles(request: Witness, call: Call, mapping: Mapping) -> dict[str, Any] | None:
    """The caller by the names that policies use. None: some of its context is attested, and some isn't."""
    caller = call.caller
    attested = {fact.attested for fact in caller.workload.values()}
    if len(attested) > 1:
        return None
    said: dict[str, Any] = {}
    if caller.identity.granted:
        said["roles"] = sorted(caller.identity.granted)
    if caller.identity.kind != mapping.kind_default:
        said["kind"] = caller.identity.kind
    if caller.identity.jkt is not None:
        said["dpop"] = True
    if caller.identity.actor is not None:
        said["actor"] = caller.identity.actor
    made = {grant.claim for grant in mapping.grants} | {path for _, path in mapping.attested}
    made |= {mapping.kind_claim, ("cnf",), ("act",)} | (SCOPES if SCOPE in made else frozenset())
    claims = deepcopy(request.claims)
    for path in filter(None, made):
        _remove(claims, path)
    if claims:
        said["claims"] = claims
    if request.tag is not None:
        said["tag"] = list(request.tag)
    return said | _workload(caller.workload, attested=True in attested)


def _by_claims(request: Witness, call: Call) -> dict[str, Any]:
    """The caller by the claims of its token."""
    # With no claim at all, empty groups would be made up; and every access token names its client.
    said: dict[str, Any] = {"claims": request.claims or {"client_id": request.subject}}
    if request.tag is not None:
        said["tag"] = list(request.tag)
    facts = {name: fact for name, fact in call.caller.workload.items() if not fact.attested}
    return said | _workload(facts, attested=False)


def _workload(facts: dict[str, Fact], attested: bool) -> dict[str, Any]:
    if not facts:
        return {}
    values: dict[str, Any] = {
        name: fact.value if isinstance(fact.value, str) else list(fact.value) for name, fact in facts.items()
    }
    return {"workload": values | {"attested": attested}}


def _remove(claims: dict[str, Any], path: tuple[str, ...]) -> None:
    """Take a claim away, and what would be left empty."""
    inner = claims.get(path[0])
    if len(path) > 1 and isinstance(inner, dict):
        _remove(inner, path[1:])
        if inner:
            return
    claims.pop(path[0], None)
