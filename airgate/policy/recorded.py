"""A request as the audit log holds it, made into one that can be decided again.

The log holds who called and as what, never claims, and a path or a value of the query only where the upstream opted in.
It may have a pseudonym for the caller, and of a line that was too long only a part. What isn't there is unknown, not
absent.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airgate.engine import EVALUATION, EVALUATIONS, Caller, Fact, Identity
from airgate.policy.lines import batches, parted
from airgate.policy.phrases import joined
from airgate.policy.request import Request, moment
from airgate.policy.words import quoted

# The gate's own pages are few, so the log needs no path for them.
_PAGES = {"health": "/-/health", "token": "/-/token", "evaluation": EVALUATION, "evaluations": EVALUATIONS}

_CLASH = "credentials "  # how the detail begins when permits ask for credentials that exclude each other
_PSEUDONYM = re.compile(r"pseudonym:[0-9a-f]{32}")

# What the gate writes of a query at most. Of what is as long, something may have been left out.
MOST_PARAMETERS, MOST_VALUES, LONGEST_VALUE = 32, 4, 256


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
    def exchanged(self) -> bool:
        """Whether it was made with a gate token, which may be narrower than what policy grants."""
        return isinstance(self.event.get("exchanged"), dict)

    @property
    def delegated(self) -> bool:
        """Whether an agent made it for somebody, both known to the gate: the log doesn't tell whose role is which."""
        return self.exchanged and bool(self.event["exchanged"].get("delegated"))

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
        return page if path is None or "path" in self.cut else f"/{self.event['upstream']}{path}"

    @property
    def cut(self) -> frozenset[str]:
        """Members that the log holds only a part of."""
        return frozenset(self.event.get("cut", ()))

    @property
    def unnamed(self) -> str:
        """Why it isn't known who called; empty where it is."""
        if _pseudonym(self.event["subject"]):
            return "the log holds a pseudonym of the subject"
        return "the log holds only the beginning of the subject" if "subject" in self.cut else ""

    @property
    def route(self) -> str | None:
        """The path pattern of the first policy that decided. None: there is none, or not all of it is in the log."""
        route: str | None = self.event.get("route")
        return None if "route" in self.cut else route

    @property
    def query(self) -> str | None:
        """As the caller sent it, with its `?`, though perhaps in another order. None: not all of it is in the log."""
        if self.event.get("schema") == 1 or "query" in self.cut:
            return None
        parameters: Mapping[str, list[str] | None] = self.event.get("query", {})
        pairs = []
        for name, values in parameters.items():
            if values is None or len(values) >= MOST_VALUES:
                return None
            pairs += [f"{name}={value}" for value in values]
        if len(parameters) >= MOST_PARAMETERS or any(len(pair) >= LONGEST_VALUE for pair in pairs):
            return None
        return "?" + "&".join(pairs) if pairs else ""

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
            if event.get("alone"):
                words.append(f"the {event['alone']} may not do it alone")
            if "jkt" in event:
                words.append(f"its token is bound to the key {event['jkt']}")
            if self.exchanged:
                words.append(f"a gate token for {event['exchanged'].get('upstream')}")
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

    def caller(self, roles_there_are: Iterable[str] = ()) -> Caller:
        """The caller as the gate knew it then, of a request that policy was asked about; less roles lent to it.

        What the log holds only a part of is left out, and so unknown to conditions. `roles_there_are`: those which the
        caller may have had, where the log doesn't hold all of its roles.
        """
        event = self.event
        roles = event["roles"]
        lent = set(roles.get("lent", ()))
        unknown = set(roles.get("unknown", ()))
        if "roles" in self.cut:
            unknown |= set(roles_there_are) - set(roles["granted"])
        subject: Any = event["subject"] if not self.unnamed else None  # to conditions that is unknown
        workload = {
            name: Fact(
                tuple(fact["value"]) if isinstance(fact["value"], list) else fact["value"], fact["attested"]
            )
            for name, fact in event["workload"].items()
            if "workload" not in self.cut and not (name == "triggered_by" and _pseudonym(fact["value"]))
        }
        identity = Identity(
            event["issuer"],
            subject,
            event["kind"],
            frozenset(roles["granted"]) - lent,
            {name: fact for name, fact in workload.items() if fact.attested},
            frozenset(unknown),
            jkt=event.get("jkt"),
            actor=event.get("actor"),
        )
        tagged = tuple(roles["tagged"]) if roles["tagged"] is not None else None
        return Caller(identity, tagged, frozenset(roles["effective"]) - lent, workload)

    def request(self, path: str) -> Request:
        """The request, at a path as the caller sent it; without a query there, with the one that the log holds."""
        client = None if "client" in self.cut else self.event.get("client")
        return Request.read({"method": self.event["method"], "path": path}).recorded(
            moment(self.event["time"]), client, self.event.get("country"), self.query
        )

    @property
    def unknown(self) -> list[str]:
        """What isn't known of a request that policy was asked about, and what follows from that, in sentences."""
        said = [
            "The log holds no claims, headers or body: conditions on claims are unknown here, and obligations are "
            "listed, not tried."
        ]
        if self.query is None:
            said.append("It doesn't hold all of the query: conditions on that are unknown here.")
        if self.unnamed:
            said.append(f"For the caller, {self.unnamed}: conditions on that are unknown here.")
        if self.cut:
            said.append(
                f"The line was too long for the log. It holds only a part of {joined(sorted(self.cut))}: conditions on "
                "what is missing are unknown here."
            )
        return said


def _pseudonym(value: str) -> bool:
    return _PSEUDONYM.fullmatch(value) is not None


def _decided(event: Mapping[str, Any]) -> str:
    by = joined(event.get("forbids") or event.get("permits") or [])
    reason = f" {event['reason']}" if event.get("reason") else ""
    return f"{event['decision']}{reason}" + (f" by {by}" if by else "")


def find(log: Path, request_id: str) -> Recorded:
    """The decision about a request. Raises RecordError."""
    wanted = json.dumps(request_id).encode()
    found: list[dict[str, Any]] = []
    count = 0
    for _, lines in batches([log]):
        count += len(lines)
        for _, line in lines:
            if wanted in line:
                found += (
                    event for event in map(_event, parted(line)) if event.get("request_id") == request_id
                )
    for event in found:
        if event.get("event") == "decision":
            return Recorded(event, tuple(each for each in found if each.get("event") == "evaluation"))
    raise RecordError(
        f"{log}: holds no decision about the request {quoted(request_id)} ({count:,} events looked at)"
    )


def _event(line: bytes) -> dict[str, Any]:
    """An event; empty when it is none: other things are printed too, and the last line may be half written."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}
