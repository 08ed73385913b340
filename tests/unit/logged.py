"""Audit logs for tests: events that the gate's own code writes about decisions that its own engine has made."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.gate import Gate
from airgate.policy.request import Request, moment
from audit import Record, describe
from bundle import OWN
from model import Decision, Denied, Inbound

_NUMBERS = iter(range(10**9))


def event(request: Mapping[str, Any], compiled: Compiled) -> str:
    """What the gate would have logged about a request (docs/testing-policy.md), which says `at`."""
    asked = Request.read(request)
    answer = Gate(compiled.engine).answer(asked, obliged=False)
    headers = {} if asked.client is None else {"cf-connecting-ip": asked.client}
    record = Record(
        Inbound(f"{next(_NUMBERS):032x}", moment(request["at"]), asked.method, asked.url, headers, False)
    )
    record.bundle, record.sequence, record.target = compiled.engine.bundle.version, 1, asked.target
    if asked.target.upstream == OWN:
        record.page = "health" if asked.target.segments == ("health",) else asked.target.segments[-1]
    if answer.call is not None:
        record.described, record.decision = describe(answer.call.caller), answer.decision
        record.country = asked.country if answer.shard.asks_country else None
        record.log_path = answer.upstream is not None and answer.upstream.log_path
    return record.decided(None if answer.reason is None else Denied(answer.reason, answer.detail))


def write(log: Path, events: Iterable[str]) -> Path:
    log.write_text("".join(f"{line}\n" for line in events), "utf-8")
    return log


def decided(record: Record, decision: Decision) -> str:
    """The event of a request that policy was asked about."""
    record.decision = decision
    return record.decided(
        None if decision.reason is None else Denied(decision.reason, decision.obligations.conflict)
    )


def seed(folder: Path, text: str) -> Compiled:
    """A seed of one file, compiled."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "seed.yaml").write_text(text, "utf-8")
    return compile_folder(folder)
