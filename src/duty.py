"""What the gate does about obligations before it lets a call through.

One that it cannot honour refuses the call: an obligation is part of the permit, not advice beside it.
"""

import hashlib
import json
from typing import Protocol

import audit
from model import Caller, Denied, Reason, Target
from obligations import Limit, Obligations

JUSTIFICATION = "airgate-justification"
SHORTEST, LONGEST = 10, 500  # characters of a justification

# What a permit lets an AuthZEN caller ask, and what tokens may be exchanged for: authzen.py and exchange.py read them.
_ANSWERED_ELSEWHERE = frozenset({"asking", "exchange"})


class Counter(Protocol):
    """The rate-limiting bindings."""

    async def allow(self, binding: str, key: str) -> bool:
        """Raises LookupError when there is no binding of that name."""


async def honour(
    asked: Obligations, caller: Caller, target: Target, record: audit.Record, counter: Counter
) -> None:
    """Do what the permits of a call ask for. Raises Denied when that, or the caller's part of it, cannot be done."""
    headers = record.inbound.headers
    for name, _ in asked.others:
        if name not in _ANSWERED_ELSEWHERE:
            raise Denied(Reason.POLICY_OBLIGATION, f"{name:.80}: not known to this version")
    hops = [name.strip(" \t") for name in headers.get("connection", "").lower().split(",")]
    for name in asked.headers:
        if not headers.get(name, "").strip(" \t") or name in hops:  # what Connection names goes no further
            raise Denied(Reason.REQUEST_HEADER_REQUIRED, name, f"send the header {name}")
    if asked.justification:
        record.justification = _justification(headers.get(JUSTIFICATION, ""))
    if asked.max_body is not None and record.inbound.has_body:
        _fitting(headers.get("content-length"), asked.max_body)
    # Last, so that a call refused for another reason does not count.
    await count(asked.limits, caller, target, counter)


def _justification(text: str) -> str:
    text = text.strip(" ")
    if not SHORTEST <= len(text) <= LONGEST or not text.isprintable():
        hint = f"send Airgate-Justification: {SHORTEST} to {LONGEST} printable characters that say why"
        raise Denied(Reason.REQUEST_JUSTIFICATION_REQUIRED, f"{len(text)} characters", hint)
    return text


def _fitting(declared: str | None, most: int) -> None:
    """The runtime holds a body to its declared length (RFC 9112 §6.3), so nobody has to count what flows by."""
    if declared is None or not (declared.isascii() and declared.isdigit()) or len(declared) > 15:
        raise Denied(Reason.REQUEST_LENGTH_REQUIRED, hint="send Content-Length")
    if int(declared) > most:
        raise Denied(Reason.REQUEST_BODY_TOO_LARGE, f"{declared} bytes", f"at most {most} bytes")


async def count(limits: tuple[Limit, ...], caller: Caller, target: Target, counter: Counter) -> None:
    """Count the call under every limit. Raises Denied `limit.rate` at the first that is used up."""
    for limit in limits:
        try:
            allowed = await counter.allow(limit.binding, _key(limit, caller, target))
        except LookupError:
            raise Denied(Reason.POLICY_OBLIGATION, f"no rate-limiting binding {limit.binding}") from None
        if not allowed:
            by = ", ".join(limit.by)
            detail = f"more than {limit.limit} in {limit.per} s by {by}"
            raise Denied(Reason.LIMIT_RATE, detail, retry_after=limit.per)


def _key(limit: Limit, caller: Caller, target: Target) -> str:
    """Whose calls are counted together. Hashed: keys of the bindings are short, and names need not leave the gate."""
    identity = caller.identity
    facts = [target.upstream, limit.policy, limit.per, *limit.by]
    for name in limit.by:
        if name == "subject":
            facts += [identity.issuer, identity.subject]
        elif name == "role":
            facts.append(",".join(sorted(caller.effective)))
        elif name != "policy":
            fact = caller.workload.get(name)
            facts.append("" if fact is None else str(fact.value))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
