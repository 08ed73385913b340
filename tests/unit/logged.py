"""Audit logs for tests: events that the gate's own code writes about decisions that its own engine has made."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.gate import Gate
from airgate.policy.request import Request, moment
from audit import Record, describe, fitted
from bundle import OWN
from chain import Chain
from identity import act
from model import Decision, Denied, Inbound, Reason
from pseudonym import PLAIN, Names

_NUMBERS = iter(range(10**9))
_CHAIN = Chain("c" * 32)


def event(request: Mapping[str, Any], compiled: Compiled, names: Names = PLAIN) -> str:
    """What the gate would have logged about a request (docs/testing-policy.md), which says `at`."""
    return call(request, compiled, names=names)[0]


def call(
    request: Mapping[str, Any], compiled: Compiled, status: int | None = None, *, took: float = 0.05,
    result: str = "answered", trace: str = "", size: int | None = None, names: Names = PLAIN,
    grants: tuple[str, ...] = (),
) -> list[str]:  # fmt: skip
    """The same, and the outcome behind it where there is one: `status`, or how it went otherwise.

    `took`: seconds that the upstream did.
    """
    asked = Request.read(request)
    answer = Gate(compiled.engine).answer(asked, obliged=False)
    headers = {} if asked.client is None else {"cf-connecting-ip": asked.client}
    if trace:
        headers["traceparent"] = f"00-{trace}-{'7' * 16}-01"
    record = Record(
        Inbound(f"{next(_NUMBERS):032x}", moment(request["at"]), asked.method, asked.url, headers, False)
    )
    record.grants = grants
    record.bundle, record.sequence, record.target = compiled.engine.bundle.version, 1, asked.target
    if asked.target.upstream == OWN:
        record.page = "health" if asked.target.segments == ("health",) else asked.target.segments[-1]
    if answer.call is not None:
        record.described, record.decision = describe(answer.call.caller, names), answer.decision
        record.country = asked.country if answer.shard.asks_country else None
        record.log_path = answer.upstream is not None and answer.upstream.log_path
    elif answer.identity is not None and answer.reason is Reason.ROUTE_UNKNOWN_UPSTREAM:
        record.described = describe(act(answer.identity, asked.sent), names)
    lines = [written(record, None if answer.reason is None else Denied(answer.reason, answer.detail))]
    if status is not None or result != "answered":
        sent = record.inbound.received_at + 0.002
        length = None if size is None else str(size)
        lines.append(link(record.ended(sent + took, result, status, sent, length=length)))
    return lines


def link(event: str) -> str:
    """Any event, as it stands in the log."""
    return _CHAIN.link(event)


def write(log: Path, events: Iterable[str]) -> Path:
    log.write_text("".join(f"{line}\n" for line in events), "utf-8")
    return log


def written(record: Record, denied: Denied | None) -> str:
    """The decision event about a request, as it stands in the log."""
    return _CHAIN.link(fitted(record.decided(denied, record.inbound.received_at)))


def decided(record: Record, decision: Decision) -> str:
    """The event of a request that policy was asked about."""
    record.decision = decision
    return written(
        record, None if decision.reason is None else Denied(decision.reason, decision.obligations.conflict)
    )


def seed(folder: Path, text: str) -> Compiled:
    """A seed of one file, compiled."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "seed.yaml").write_text(text, "utf-8")
    return compile_folder(folder)
