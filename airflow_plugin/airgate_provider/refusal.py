"""A refusal by the gate (RFC 9457), told apart from an answer of the upstream, and put into a sentence for a person."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from airgate_provider.errors import GateBusy, GateDenied

TYPE = "urn:airgate:reason:"
LONGEST_PROBLEM = 64 * 1024
WITHOUT_BODY = "it did not say why, an answer to HEAD has no room for it"
DEFAULT_WAIT = 5.0  # seconds, when a retryable refusal does not say how long
LONGEST_WAIT = 3600.0

# A new token, or a new proof, may be accepted where the last one was not.
STALE = frozenset({"token.expired", "token.key", "token.lifetime", "token.revoked", "token.signature"})
UNPROVEN = frozenset({"token.proof_invalid", "token.proof_replayed"})


@dataclass(frozen=True)
class Refusal:
    """What the gate said, and about which request."""

    method: str
    url: str
    status: int
    code: str
    title: str
    detail: str
    request_id: str
    policy: str
    contact: str
    retryable: bool
    retry_after: float

    def sentence(self) -> str:
        """What a person needs, to do something about it: one line that says why, then what to give to whom."""
        why = self.title if not self.detail else f"{self.title} ({self.detail})"
        lines = [f"The gate refused {self.method} {self._target()}: {why}."]
        rows = {
            "code": self.code,
            "policy": self.policy,
            "request id": self.request_id,
            "ask": self.contact,
            "retry after": f"{self.retry_after:.0f} s" if self.retryable else "",
            "explain": self.explain(),
        }
        return "\n".join(lines + [f"  {name:<12}{value}" for name, value in rows.items() if value])

    def explain(self) -> str:
        """The command that says which policies looked at the request, and what it would take."""
        return (
            f"airgate policy explain --request-id {self.request_id} --path {shlex.quote(self._target())}"
            if self.request_id
            else ""
        )

    @property
    def stale(self) -> bool:
        """Whether a new token may be accepted. An answer to HEAD has no code."""
        return self.code in STALE or (not self.code and self.status == 401)

    def error(self) -> GateDenied | GateBusy:
        """What a task raises: it fails at once, or is tried again no sooner than the gate says."""
        if self.retryable:
            return GateBusy(self.sentence(), self.retry_after, self.request_id)
        return GateDenied(self.sentence(), self.request_id)

    def _target(self) -> str:
        parts = urlsplit(self.url)
        return parts.path or "/"


def is_refusal(status: int, headers: Mapping[str, str]) -> bool:
    """Whether an answer is the gate's own, before its body is read. Names as `headers` looks them up.

    The gate says so in Airgate-Error, which it lets no upstream set. From a gate that does not send it yet, only what
    it refused before or by its decision counts: an upstream's answer carries Airgate-Decision: permit, whatever else it
    copies.
    """
    if status < 400 or not headers.get("Airgate-Request-Id"):
        return False
    said = headers.get("Airgate-Error")
    if said is not None:
        return said == "gate"
    media_type = headers.get("Content-Type", "").partition(";")[0].strip()
    return headers.get("Airgate-Decision") != "permit" and media_type == "application/problem+json"


def read(method: str, url: str, status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """The refusal in an answer that is_refusal(). What its body doesn't tell is left out, or the headers do."""
    problem = _problem(body) if method != "HEAD" else {"title": WITHOUT_BODY}  # RFC 9110 §9.3.2
    retryable = problem.get("retryable", "Retry-After" in headers) is True
    return Refusal(
        method=method,
        url=url,
        status=status,
        code=_line(problem.get("code")),
        title=_line(problem.get("title")) or "it did not say why",
        detail=_line(problem.get("detail")),
        request_id=_line(headers.get("Airgate-Request-Id")),
        policy=_line(headers.get("Airgate-Policy")),
        contact=_line(problem.get("contact")),
        retryable=retryable,
        retry_after=_seconds(problem.get("retry_after"), headers.get("Retry-After")),
    )


def _problem(body: bytes) -> dict[str, Any]:
    """The problem document; empty when it is none of the gate's, such as one that was cut off on the way."""
    try:
        problem = json.loads(body[:LONGEST_PROBLEM])
    except ValueError:
        return {}
    ours = isinstance(problem, dict) and str(problem.get("type", "")).startswith(TYPE)
    return problem if ours else {}


def _seconds(*said: Any) -> float:
    """The longest of what was said, within bounds: waiting too long is the lesser mistake."""
    found = []
    for value in said:
        try:
            found.append(float(value))
        except (TypeError, ValueError):
            continue
    wait = max((value for value in found if value >= 0), default=DEFAULT_WAIT)
    return min(wait, LONGEST_WAIT)


def _line(value: Any) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(character if character.isprintable() else " " for character in text)[:500]
