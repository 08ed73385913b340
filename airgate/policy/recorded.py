"""A request as the audit log holds it, made into one that can be decided again.

The log holds who called and as what, never claims or the query, and a path only where the upstream opted in. What isn't
there is unknown, not absent.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airgate.engine import EVALUATION, EVALUATIONS, Caller, Fact, Identity
from airgate.policy.phrases import joined
from airgate.policy.request import Request, moment
from airgate.policy.words import quoted

# The gate's own pages are few, so the log needs no path for them.
_PAGES = {"health": "/-/health", "evaluation": EVALUATION, "evaluations": EVALUATIONS}

_CLASH = "credentials "  # how the detail begins when permits ask for credentials that exclude each other


class RecordError(Exception):
    """The log can't be used, or doesn't hold the request. The message says what to do."""


@dataclass(frozen=True)
class Recorded:
    """A decision event, as the gate wrote it."""

    event: dict[str, Any]
    questions: tuple[dict[str, Any], ...] = ()  # evaluation events: what was asked with the request

    @property
    def permit(self) -> bool:
        return bool(self.event["decision"] == "permit")

    @property
    def bundle(self) -> str | None:
        version: str | None = self.event.get("bundle")
        return version

    @property
    def decided(self) -> bool:
        """Whether policy was asked."""
        return "permits" in self.event and "subject" in self.event

    @property
    def permitted(self) -> bool:
        """What policy said, whatever came of it: a rate limit or a missing header can refuse a call after that."""
        event = self.event
        clash = event.get("reason") == "policy.obligation" and str(event.get("detail")).startswith(_CLASH)
        return bool(event["permits"]) and not event["forbids"] and not clash

    @property
    def path(self) -> str | None:
        """As the caller sent it, less the query. None: the log doesn't hold it."""
        path: str | None = self.event.get("path")
        page = _PAGES.get(self.event.get("page", ""))
        return page if path is None else f"/{self.event['upstream']}{path}"

    @property
    def lines(self) -> list[str]:
        """What was decided, and about whom, in words."""
        event = self.event
        words = [_decided(event)]
        words.append(f"{event.get('method')} on {event.get('upstream')}, at {event['time']}")
        if event.get("route"):
            words.append(f"route {event['route']}")
        if event.get("detail"):
            words.append(f"detail: {event['detail']}")
        if event.get("shadow"):
            words.append(f"in shadow: {joined(event['shadow'])}; with them enforced: {event.get('would')}")
        if "subject" in event:
            words.append(f"{event['subject']} of issuer {event['issuer']}, {event['kind']}")
            words.append(f"roles: {joined(event['roles']['granted']) or 'none'}")
            if event["roles"].get("lent"):
                words.append(f"of these lent by a temporary grant: {joined(event['roles']['lent'])}")
            if "actor" in event:
                words.append(f"{event['actor']} acts for it")
            if "jkt" in event:
                words.append(f"its token is bound to the key {event['jkt']}")
        words.append(f"policy bundle {event.get('bundle')}")
        return words

    @property
    def answers(self) -> list[str]:
        """What the questions that came with the request were answered."""
        return [
            f"Question {each['number']}: {_decided(each)}; {each['method']} on {each['upstream']}, "
            f"by {each['subject']} of issuer {each['issuer']}"
            for each in self.questions
        ]

    @property
    def lent(self) -> bool:
        """Whether it rests on a temporary grant: decided otherwise without it, or refused before for a role named."""
        roles = self.event["roles"]
        return bool(
            self.event.get("grants") or set(roles["tagged"] or ()).intersection(roles.get("lent", ()))
        )

    def caller(self) -> Caller:
        """The caller as the gate knew it then, of a request that policy was asked about; less roles lent to it."""
        event = self.event
        roles = event["roles"]
        lent = set(roles.get("lent", ()))
        workload = {
            name: Fact(
                tuple(fact["value"]) if isinstance(fact["value"], list) else fact["value"], fact["attested"]
            )
            for name, fact in event["workload"].items()
        }
        identity = Identity(
            event["issuer"],
            event["subject"],
            event["kind"],
            frozenset(roles["granted"]) - lent,
            {name: fact for name, fact in workload.items() if fact.attested},
            frozenset(roles.get("unknown", ())),
            jkt=event.get("jkt"),
            actor=event.get("actor"),
        )
        tagged = tuple(roles["tagged"]) if roles["tagged"] is not None else None
        return Caller(identity, tagged, frozenset(roles["effective"]) - lent, workload)

    def request(self, path: str) -> Request:
        """The request, at a path as the caller sent it; without a query there, the query is unknown."""
        return Request.read({"method": self.event["method"], "path": path}).recorded(
            moment(self.event["time"]), self.event.get("client"), self.event.get("country")
        )


def _decided(event: Mapping[str, Any]) -> str:
    by = joined(event.get("forbids") or event.get("permits") or [])
    reason = f" {event['reason']}" if event.get("reason") else ""
    return f"{event['decision']}{reason}" + (f" by {by}" if by else "")


def find(log: Path, request_id: str) -> Recorded:
    """The decision about a request. Raises RecordError."""
    try:
        lines = log.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{log}: can't be read: {error}") from None
    found = [event for event in _events(lines) if event.get("request_id") == request_id]
    for event in found:
        if event.get("event") == "decision":
            return Recorded(event, tuple(each for each in found if each.get("event") == "evaluation"))
    raise RecordError(f"{log}: holds no decision about the request {quoted(request_id)} ({len(lines)} lines)")


def _events(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:  # other things are printed too, and the last line may be half written
            continue
        if isinstance(event, dict):
            yield event
