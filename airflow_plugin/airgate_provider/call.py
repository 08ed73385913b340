"""One task's calls through the gate: what is added to a request, and what is read from an answer.

Shared by the hook that waits (requests) and the one that doesn't (aiohttp): neither I/O nor Airflow's context in here.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from airgate_provider.identity import Token
from airgate_provider.settings import Settings
from airgate_provider.workload import PLAIN_IN_LIST, Calls, Workload, encode, traceparent

ROLE, JUSTIFICATION = "Airgate-Role", "Airgate-Justification"
IDEMPOTENCY_KEY = "Idempotency-Key"
THE_DAGS = (ROLE, JUSTIFICATION, "traceparent", IDEMPOTENCY_KEY)  # its own values stay

_calls = Calls()


@dataclass(frozen=True)
class Call:
    """What goes with every request of a task. Empty `roles`: those of the connection."""

    settings: Settings
    workload: Workload | None = None
    roles: tuple[str, ...] = ()
    justification: str = ""
    number: int | None = None  # which of the task's calls this is, where that can't be counted

    def context(self) -> dict[str, str]:
        """What the gate is told of the caller beside the token.

        Nothing of the connection's extra is in here but what the form names. An attested token names the task itself,
        and what it says counts: to assert the same beside it would only hide that a gate does not read it.
        """
        headers = {}
        if self.workload is not None and self.settings.identity != "attested":
            headers = self.workload.headers()
        if self.settings.environment:
            headers["Airgate-Environment"] = encode(self.settings.environment, PLAIN_IN_LIST)
        if roles := self.roles or self.settings.roles:
            headers[ROLE] = ", ".join(roles)
        if self.justification:
            headers[JUSTIFICATION] = encode(self.justification)
        return headers

    def headers(self, method: str, url: str, body: Any, given: Mapping[str, str]) -> dict[str, str]:
        """What to add to a request, without the token. `given` are the DAG's own headers.

        Who calls is not the DAG's to say; under which roles, why, and as which request is.
        """
        headers = self.context()
        headers["traceparent"] = traceparent(self.workload)
        if self.workload is not None:
            number = self.number or _calls.number(self.workload, method, url, body)
            headers[IDEMPOTENCY_KEY] = self.workload.idempotency_key(number)
        own = {name.lower() for name in given}
        return {
            name: value for name, value in headers.items() if name not in THE_DAGS or name.lower() not in own
        }

    def goes_to_gate(self, url: str) -> bool:
        """Whether an address is the gate's own. Elsewhere, after a redirect, nothing of ours may go."""
        return _origin(url) == _origin(self.settings.gate)

    def numbered(self, number: int) -> Call:
        """The same for one certain call of the task."""
        return replace(self, number=number)


def credential(token: Token, method: str, url: str, given: Mapping[str, str]) -> dict[str, str]:
    """The token's headers. Where the DAG has an Authorization of its own, that stays, and the token goes beside it."""
    bound = token.key is not None
    proof = {"DPoP": token.key.proof(method, url, token.value)} if token.key is not None else {}
    if _has(given, "Authorization"):
        return {"Airgate-Token": token.value, **proof}
    return {"Authorization": f"{'DPoP' if bound else 'Bearer'} {token.value}", **proof}


def strip(headers: MutableMapping[str, Any]) -> None:
    """Take everything out that is meant for the gate alone."""
    for name in list(headers):
        lower = name.lower()
        if lower.startswith("airgate-") or lower in ("authorization", "dpop", "cookie"):
            del headers[name]


def _has(given: Mapping[str, str], name: str) -> bool:
    return any(each.lower() == name.lower() for each in given)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return (
        parts.scheme.lower(),
        (parts.hostname or "").lower(),
        parts.port or (443 if parts.scheme.lower() == "https" else 80),
    )
