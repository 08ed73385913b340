"""What is on record: one decision for each request, before anything came of it, and never a secret."""

import asyncio
import json
import re
import secrets
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from airgate.dev.stack import Stack

Token = Callable[..., str]
ENTRIES = "/ledger/v1/entries"


def lines_of(stack: Stack, ids: set[str]) -> list[dict[str, Any]]:
    """The events of these requests, in the order they were written."""
    events = [json.loads(line) for line in stack.audit.read_text("utf-8").split("\n")[:-1]]
    return [event for event in events if event.get("request_id") in ids]


def test_two_hundred_requests_at_once_leave_one_decision_each(
    stack: Stack, token: Token, mint: Token, audit: Callable[..., Any]
) -> None:
    reader, seller = token("finance-etl"), token("sales-sync")
    assert httpx.get(stack.gate + ENTRIES, headers={"Authorization": f"Bearer {reader}"}).status_code == 200
    kinds = [
        ("GET", ENTRIES, lambda: reader, 200),
        ("GET", ENTRIES, mint, 200),
        ("GET", "/ledger/v1/reports/slow?ms=100", lambda: reader, 200),
        ("POST", "/ledger/v1/nowhere", lambda: reader, 403),
        ("GET", ENTRIES, lambda: seller, 403),
        ("GET", ENTRIES, lambda: "junk", 401),
        ("GET", "/nowhere", lambda: reader, 404),
        ("GET", "/ledger/%2e%2e%2f", lambda: reader, 400),
        ("PURGE", ENTRIES, lambda: reader, 400),
        ("GET", "/-/health", lambda: "none", 200),
    ]

    async def batch() -> list[tuple[int, httpx.Response]]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(
            base_url=stack.gate, timeout=60, limits=limits, trust_env=False
        ) as client:
            calls = [
                (status, client.request(method, path, headers={"Authorization": f"Bearer {make()}"}))
                for method, path, make, status in kinds * 20
            ]
            answers = await asyncio.gather(*(call for _, call in calls))
        return [(status, answer) for (status, _), answer in zip(calls, answers, strict=True)]

    answers = asyncio.run(batch())
    assert [answer.status_code for _, answer in answers] == [status for status, _ in answers]
    ids = {answer.headers["Airgate-Request-Id"] for _, answer in answers}
    assert len(ids) == 200
    for _, answer in answers:  # wait until all is written
        audit(answer, count=2 if "Airgate-Policy" in answer.headers else 1)
    events = lines_of(stack, ids)
    assert Counter(event["request_id"] for event in events if event["event"] == "decision") == dict.fromkeys(
        ids, 1
    )
    forwarded = {
        answer.headers["Airgate-Request-Id"] for _, answer in answers if "Airgate-Policy" in answer.headers
    }
    assert len(forwarded) == 60
    assert Counter(event["request_id"] for event in events if event["event"] == "outcome") == dict.fromkeys(
        forwarded, 1
    )
    last = {event["request_id"]: event["event"] for event in events}
    assert {last[request] for request in forwarded} == {"outcome"}


def test_the_decision_is_written_before_the_call_is_made(
    stack: Stack, token: Token, audit: Callable[..., Any]
) -> None:
    path = f"/v1/reports/{secrets.token_hex(8)}/slow"

    async def watch() -> list[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=stack.gate, timeout=30, trust_env=False) as client:
            bearer = {"Authorization": f"Bearer {token()}"}
            call = asyncio.create_task(client.get(f"/ledger{path}?ms=3000", headers=bearer))
            while path not in (written := stack.audit.read_text("utf-8")):
                assert not call.done(), "answered before anything was on record"
                await asyncio.sleep(0.05)
            assert not call.done()
            assert (await call).status_code == 200
            return [json.loads(line) for line in written.split("\n") if path in line]

    [decision] = asyncio.run(watch())
    assert (decision["event"], decision["decision"], decision["path"]) == ("decision", "permit", path)
    assert [event["event"] for event in audit(decision["request_id"], count=2)] == ["decision", "outcome"]


def test_a_caller_cant_choose_the_request_id(wire: Any, token: Token) -> None:
    answer = wire.call(
        ENTRIES, token=token(), headers={"Airgate-Request-Id": "chosen", "X-Request-Id": "chosen"}
    )
    assert re.fullmatch(r"[0-9a-f]{32}", answer.id)


def test_a_caller_cant_write_a_line_of_its_own(
    wire: Any, token: Token, mint: Token, audit: Callable[..., Any]
) -> None:
    forged = '"}\\n{"event":"decision","request_id":"forged","decision":"permit"}'
    wire.call(
        ENTRIES,
        token=token(),
        headers={"Airgate-Dag-Id": forged, "Airgate-Dag-Tags": forged, "Airgate-Role": forged},
    )
    wire.call(ENTRIES, token=mint(iss='https://x"}\n{"event":"decision","request_id":"forged"}'))
    wire.call(
        ENTRIES,
        token=mint(sub='s\n{"event":"decision","request_id":"forged"}'),
        headers={"CF-Connecting-IP": forged},
    )
    wire.call(ENTRIES, token=mint(headers={"kid": 'k\n{"event":"decision","request_id":"forged"}'}))
    answer = wire.call(ENTRIES, token=token())
    assert len(audit(answer.id, count=2)) == 2
    assert audit("forged", count=0) == []


def secrets_of(stack: Stack) -> list[str]:
    keys = json.loads(stack.provider_keys.read_text())["keys"]
    return [client["client_secret"] for client in stack.clients.values()] + [key["d"] for key in keys]


def test_no_secret_is_on_record(
    stack: Stack, wire: Any, lab: Any, token: Token, mint: Token, audit: Callable[..., Any]
) -> None:
    """Tokens and secrets in every place where one could stray; then all that was logged since the gates started."""
    good = token()
    secret = stack.clients["finance-etl"]["client_secret"]
    used = [
        good,
        token("oncall", "ES512"),
        mint(exp=1, iat=0),
        mint(aud="x"),
        mint(headers={"typ": "JWT"}),
        mint() + "x",
        mint() + ".x",
    ]
    for one in used:
        wire.call(ENTRIES, token=one)
        wire.call("/-/health", token=one)
        wire.call(f"{ENTRIES}?access_token={one}", token=good)
        wire.call(ENTRIES, headers={"Airgate-Token": one, "Authorization": f"Bearer {one}"})
        wire.call(ENTRIES, headers=[("Authorization", f"Bearer {one}"), ("Authorization", f"Bearer {good}")])
        wire.call(ENTRIES, token=good, headers={"Airgate-Role": one, "Cookie": f"t={one}"})
        wire.call(
            f"/warehouse/v1/tables/{one.rpartition('.')[2]}", token=good
        )  # an upstream whose paths aren't logged
        wire.call("/warehouse/v1/queries", "POST", token=token("feature-builder"), body=one.encode())
    wire.call(ENTRIES, headers={"Authorization": f"Basic {secret}", "X-Api-Key": secret})
    wire.call(ENTRIES, token=secret)
    after = wire.call(ENTRIES, token=good)
    assert len(audit(after.id, count=2)) == 2
    for log in (stack.log, stack.audit, lab.log, lab.audit):
        text = Path(log).read_text("utf-8")
        assert re.search(r"eyJ[\w-]{20}", text) is None  # how every JWT begins
        for one in used:
            assert one.rpartition(".")[2] not in text or len(one.rpartition(".")[2]) < 20
            assert one.split(".")[2] not in text
        assert not [value for value in secrets_of(stack) if value in text]
    assert after.id in stack.audit.read_text("utf-8")
    assert after.id in stack.log.read_text("utf-8")
