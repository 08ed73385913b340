"""A week of a gate's audit log: its own engine decides by kv-seed, and its own code writes the lines."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import audit
from access import act_id
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.gate import Gate
from airgate.policy.request import Request
from airgate.policy.seed import STARTER
from bundle import OWN
from chain import Chain
from model import Denied, Inbound, Reason
from pseudonym import PLAIN

START = 1_794_787_200.0  # 2026-11-16T00:00:00Z, a Monday
DAY = 86_400.0


@dataclass(frozen=True)
class Habit:
    """What somebody calls again and again."""

    request: dict[str, Any]
    hours: tuple[int, int]
    weight: int
    milliseconds: int  # that the upstream usually takes


def _habit(
    subject: str,
    role: str,
    method: str,
    path: str,
    weight: int,
    *,
    kind: str = "workload",
    dag: str | None = None,
    tags: list[str] | None = None,
    hours: tuple[int, int] = (0, 24),
    milliseconds: int = 40,
    **more: Any,
) -> Habit:
    workload: dict[str, Any] = (
        {} if dag is None else {"dag": dag, "task": "call", "run": "scheduled__2026-11-16"}
    )
    if tags is not None:
        workload["tags"] = tags
    request = {
        "issuer": "company",
        "subject": subject,
        "kind": kind,
        "roles": [role],
        "method": method,
        "path": path,
        "from": "198.51.100.7",
        **({"workload": workload} if workload else {}),
        **more,
    }
    return Habit(request, hours, weight, milliseconds)


HABITS = (
    _habit(
        "finance-etl", "finance-publisher", "POST", "/ledger/v1/entries", 26, dag="finance_close", tags=["finance"],
        hours=(1, 6), milliseconds=64,
    ),
    _habit(
        "finance-etl", "finance-publisher", "GET", "/ledger/v1/entries/{id}", 30, dag="finance_close", hours=(1, 6)
    ),
    _habit("finance-etl", "finance-publisher", "POST", "/ledger/v1/entries", 4, dag="finance_adhoc", hours=(9, 18)),
    _habit(
        "finance-etl", "finance-publisher", "DELETE", "/ledger/v1/entries/{id}", 2, dag="finance_adhoc", hours=(9, 18)
    ),
    _habit(
        "revenue-report", "finance-reader", "GET", "/ledger/v1/reports/{id}", 18, dag="revenue_report", hours=(5, 9)
    ),
    _habit(
        "sales-sync", "sales-reader", "GET", "/crm/v1/accounts/{id}", 40, dag="sales_sync", hours=(20, 24),
        milliseconds=120,
    ),
    _habit("sales-sync", "sales-reader", "POST", "/ledger/v1/entries", 3, dag="sales_sync", hours=(20, 24)),
    _habit(
        "feature-builder", "data-scientist", "POST", "/warehouse/v1/queries", 16, dag="features_daily", hours=(3, 14),
        milliseconds=1400,
    ),
    _habit(
        "feature-builder", "data-scientist", "PUT", "/featurestore/v2/features/{id}", 14, dag="features_daily",
        hours=(3, 14),
    ),
    _habit(
        "feature-builder", "data-scientist", "GET", "/warehouse/v1/tables/payroll_2026", 3, dag="features_daily",
        hours=(3, 14),
    ),
    _habit(
        "alice@example.com", "oncall", "POST", "/pager/v1/incidents/{id}/acknowledge", 4, kind="human", hours=(7, 19)
    ),
    _habit("assistant", "assistant", "GET", "/crm/v1/accounts/{id}", 9, kind="agent", hours=(8, 18)),
)  # fmt: skip


class Isolate:
    """One isolate that writes a chain."""

    def __init__(self, name: str, location: str, now: float) -> None:
        self.chain = Chain(name)
        self.worker = audit.worker(location, "3f2a1bc4d5e6, 2026-11-15T18:00:00Z, reads 3 to 4")
        keys = {"audit": "audit-2026", "trusted": ["release"], "assertion": []}
        version = "3f2a1bc4d5e6, 2026-11-15T18:00:00Z, reads 3 to 4"
        self.lines = [self.link(audit.opening_event(now, "production", location, version, keys, PLAIN))]

    def link(self, event: str) -> str:
        return self.chain.link(audit.fitted(event))

    def write(self, event: str) -> None:
        self.lines.append(self.link(event))


def lines(calls: int = 2500, seed: int = 7) -> list[str]:
    """The lines of two isolates, one after the other; without a signature, for nothing here checks any."""
    draw = random.Random(seed)
    compiled = compile_folder(STARTER)
    isolates = [
        Isolate(f"{number:032x}", place, START + 60) for number, place in ((0xA1, "FRA"), (0xB2, "AMS"))
    ]
    for isolate in isolates:
        for event in _control(compiled):
            isolate.write(event)
    for now, habit in sorted(_calls(draw, calls), key=lambda one: one[0]):
        for event in _call(habit, now, compiled, draw, isolate := draw.choice(isolates)):
            isolate.write(event)
    return [line for isolate in isolates for line in isolate.lines]


def _control(compiled: Compiled) -> Iterator[str]:
    version = compiled.engine.bundle.version
    yield audit.bundle_event(START + 61, "loaded", "", version, 41, "release pipeline")
    yield audit.keys_event(
        START + 70, "trusted", None, ["kid-of-the-new-release-key"], ["kid-of-the-old-release-key"]
    )
    until = int(START + 2 * DAY + 22 * 3600)
    for act, at in (
        (
            {
                "act": "revoke", "gate": "production", "at": int(START + 2 * DAY), "until": until,
                "by": "security team", "reason": "token found in a public notebook",
                "match": {"issuer": "company", "subject": "sales-sync"},
            },
            START + 2 * DAY,
        ),
        (
            {
                "act": "grant", "gate": "production", "at": int(START + 3 * DAY), "from": int(START + 3 * DAY),
                "until": int(START + 4 * DAY), "by": "alice@example.com", "reason": "month-end close, ticket FIN-2291",
                "to": {"issuer": "company", "subject": "finance-etl"}, "gives": {"role": "finance-reader"},
            },
            START + 3 * DAY,
        ),
    ):  # fmt: skip
        yield audit.act_event(at, "known", act_id(json.dumps(act)), "signed by release", json.dumps(act))
    yield audit.bundle_event(START + 4.4 * DAY, "loaded", "", version, 42, "release pipeline", 40)


def _calls(draw: random.Random, number: int) -> Iterator[tuple[float, Habit | None]]:
    weights = [habit.weight for habit in HABITS]
    for habit in draw.choices(HABITS, weights, k=number):
        day = draw.randrange(7)
        if day > 4 and habit.hours[0] >= 7:
            day = draw.randrange(5)
        begin, end = habit.hours
        yield START + day * DAY + (begin + draw.random() * (end - begin)) * 3600, habit
    for _ in range(number // 40):  # strangers, and tokens that are over
        yield START + draw.random() * 7 * DAY, None


def _call(
    habit: Habit | None, now: float, compiled: Compiled, draw: random.Random, isolate: Isolate
) -> Iterator[str]:
    request_id, taken = f"{draw.getrandbits(128):032x}", draw.choice((0, 1, 1, 1, 2, 2, 3, 9)) / 1000
    if habit is None:
        inbound = Inbound(request_id, now, "GET", "/", {"cf-connecting-ip": "203.0.113.9"}, False)
        record = audit.Record(inbound, isolate.worker)
        reason = draw.choice(
            (Reason.TOKEN_MISSING, Reason.TOKEN_EXPIRED, Reason.TOKEN_EXPIRED, Reason.TOKEN_SIGNATURE)
        )
        yield record.decided(Denied(reason), now + taken)
        return
    path = habit.request["path"].replace("{id}", str(draw.randrange(1000, 9999)))
    asked = Request.read({**habit.request, "path": path, "at": "2026-11-16T10:00:00Z"})
    answer = Gate(compiled.engine).answer(replace(asked, at=now), obliged=False)
    inbound = Inbound(request_id, now, asked.method, asked.url, {"cf-connecting-ip": "198.51.100.7"}, False)
    record = audit.Record(inbound, isolate.worker)
    record.bundle, record.sequence, record.target = compiled.engine.bundle.version, 41, asked.target
    assert answer.call is not None
    assert asked.target.upstream != OWN
    record.described, record.decision = audit.describe(answer.call.caller), answer.decision
    record.log_path = answer.upstream is not None and answer.upstream.log_path
    revoked = habit.request["subject"] == "sales-sync" and 2 * DAY <= now - START < 2 * DAY + 22 * 3600
    denied = Denied(answer.reason, answer.detail) if answer.reason is not None else None
    if revoked:
        record.decision, denied = None, Denied(Reason.POLICY_REVOKED)
    yield record.decided(denied, now + taken)
    if denied is not None or draw.random() < 0.002:  # a call that was cut off has no outcome
        return
    seconds = habit.milliseconds / 1000 * draw.lognormvariate(0, 0.45)
    if draw.random() < 0.01:
        yield record.ended(now + 15, "timeout", None, now, "no headers within 15 s")
    else:
        status = draw.choices((200, 201, 404, 500), (88, 8, 3, 1))[0]
        yield record.ended(now + seconds, "answered", status, now, "", str(draw.randrange(200, 90_000)))
