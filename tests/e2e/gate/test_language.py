"""The policy language through the running gate: what the runtime has a part in, and shards in KV."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airgate.dev.stack import Stack
from airgate.engine import BUNDLE, SHARD
from airgate.environment import LocalEnvironment
from airgate.policy.ledger import append, draft, read_ledger
from airgate.signing_key import SigningKey

NOW = datetime.now(UTC)
PAST, FUTURE = (
    (NOW - timedelta(days=1)).isoformat(timespec="seconds"),
    (NOW + timedelta(days=1)).isoformat(timespec="seconds"),
)
TODAY = NOW.strftime("%a").lower()
ANOTHER_DAY = (NOW + timedelta(days=3)).strftime("%a").lower()

HEAD = """
issuers:
  company:
    issuer: https://login.example.com
    local: provider
    audiences: [https://gate.example.com]
    algorithms: [RS256]
    kind: {claim: airgate_kind}
roles:
  reader: {description: Reads, granted_to: [{issuer: company, claim: groups, value: finance-readers}]}
  contractor: {description: From outside, granted_to: [{issuer: company, claim: groups, value: contractors}]}
  unclaimed: {description: Of another claim, granted_to: [{issuer: company, claim: teams, value: x}]}
upstreams:
  lab: {base: "https://lab.example.com", local: sample, owner: lab@example.com, log_path: true}
  spare: {base: "https://spare.example.com", local: sample, owner: spare@example.com}
policies:
"""


def permit(name: str, rest: str = "", *, subject: str = "", target: str = "", effect: str = "permit") -> str:
    """A policy on /NAME and below it, in one line each for what differs."""
    return f"""
  - id: {name}
    description: For the test of the same name
    owner: lab@example.com
    effect: {effect}
    subject: {{roles: {{any: [reader]}}{subject}}}
    target: {{upstream: lab, methods: ["*"], paths: ["/{name}/**"]{target}}}
    {rest}"""


POLICIES = [
    permit("open"),
    permit("now", f'when: {{dates: {{from: "{PAST}", until: "{FUTURE}"}}}}'),
    permit("over", f'when: {{dates: {{until: "{PAST}"}}}}'),
    permit("early", f'when: {{dates: {{from: "{FUTURE}"}}}}'),
    permit("today", f"when: {{time: {{zone: Etc/UTC, days: [{TODAY}]}}}}"),
    permit("another-day", f"when: {{time: {{zone: Etc/UTC, days: [{ANOTHER_DAY}]}}}}"),
    permit("office", 'when: {ip: ["198.51.100.0/24", "2001:db8::/32"]}'),
    permit("csv", target=", query: [{parameter: format, any: [csv]}]"),
    permit("claimed", subject=", claims: [{claim: department, any: [finance]}]"),
    permit("stage", "workload: {environment: [staging], attested: false}"),
    permit("why", "obligations: {require: {justification: true}}"),
    permit("header", "obligations: {require: {headers: [X-Change-Id]}}"),
    permit("small", "obligations: {max_body: 10B}"),
    permit("slow", "obligations: {rate_limit: {limit: 5, per: 10s, by: [subject, dag]}}"),
    permit("strange", "obligations: {watermark: blue}"),
    permit("closed"),
    """
  - id: own-records
    description: Everybody's own
    owner: lab@example.com
    effect: permit
    subject: {roles: {any: [reader]}}
    target: {upstream: lab, methods: [GET], paths: ["/people/{person}/records"]}
    when: {equals: [resource.person, subject.id]}
  - id: no-unclaimed
    description: A role that no token here can tell
    owner: lab@example.com
    effect: forbid
    subject: {roles: {any: [unclaimed]}}
    target: {upstream: lab, methods: ["*"], paths: ["/closed/**"]}
  - id: spare-open
    description: Another upstream, another shard
    owner: spare@example.com
    effect: permit
    subject: {roles: {any: [reader]}}
    target: {upstream: spare, methods: [GET], paths: ["/**"]}
""",
]

OFFICE = {"CF-Connecting-IP": "198.51.100.7"}


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    (folder / "seed.yaml").write_text(HEAD + "".join(POLICIES), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def lab(start_gate: Callable[..., Any], publish: Callable[..., Any], seed: Path) -> Any:
    gate = start_gate()
    publish(seed, gate)
    gate.wait()
    return gate


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        pytest.param("/lab/open/x", {}, 200, "", id="no condition"),
        pytest.param("/lab/now/x", {}, 200, "", id="between two dates"),
        pytest.param("/lab/over/x", {}, 403, "policy.no_match", id="after the last date"),
        pytest.param("/lab/early/x", {}, 403, "policy.no_match", id="before the first date"),
        pytest.param("/lab/today/x", {}, 200, "", id="on a day of the window"),
        pytest.param("/lab/another-day/x", {}, 403, "policy.no_match", id="on another day"),
        pytest.param("/lab/office/x", {}, 403, "policy.no_match", id="an address that nobody tells"),
        pytest.param("/lab/office/x", OFFICE, 200, "", id="an address in the range"),
        pytest.param("/lab/office/x", {"CF-Connecting-IP": "2001:db8::1"}, 200, "", id="IPv6 in the range"),
        pytest.param(
            "/lab/office/x", {"CF-Connecting-IP": "::ffff:198.51.100.7"}, 200, "", id="IPv4 in IPv6's clothes"
        ),
        pytest.param(
            "/lab/office/x",
            {"CF-Connecting-IP": "198.51.101.0"},
            403,
            "policy.no_match",
            id="the one behind it",
        ),
        pytest.param(
            "/lab/office/x",
            {"X-Forwarded-For": "198.51.100.7"},
            403,
            "policy.no_match",
            id="a claimed address",
        ),
        pytest.param("/lab/csv/x?format=csv", {}, 200, "", id="the parameter"),
        pytest.param("/lab/csv/x?format=%63sv&page=2", {}, 200, "", id="the parameter, encoded"),
        pytest.param("/lab/csv/x", {}, 403, "policy.no_match", id="no parameter"),
        pytest.param("/lab/csv/x?format=csv&format=raw", {}, 403, "policy.no_match", id="two parameters"),
        pytest.param("/lab/csv/x?Format=csv", {}, 403, "policy.no_match", id="another letter case"),
        pytest.param("/lab/csv/x?a=1;format=csv", {}, 403, "policy.no_match", id="another separator"),
        pytest.param("/lab/claimed/x", {}, 403, "policy.no_match", id="a claim that is not there"),
        pytest.param("/lab/stage/x", {}, 403, "policy.no_match", id="no environment"),
        pytest.param("/lab/stage/x", {"Airgate-Environment": "staging"}, 200, "", id="the environment"),
        pytest.param(
            "/lab/stage/x", {"Airgate-Environment": "prod"}, 403, "policy.no_match", id="another environment"
        ),
        pytest.param("/lab/people/finance-etl/records", {}, 200, "", id="one's own"),
        pytest.param("/lab/people/%66inance-etl/records", {}, 200, "", id="one's own, encoded"),
        pytest.param("/lab/people/cfo/records", {}, 403, "policy.no_match", id="another's"),
        pytest.param("/lab/why/x", {}, 400, "request.justification_required", id="no reason"),
        pytest.param("/lab/why/x", {"Airgate-Justification": "month-end close"}, 200, "", id="a reason"),
        pytest.param("/lab/header/x", {}, 400, "request.header_required", id="no header"),
        pytest.param("/lab/header/x", {"X-Change-Id": "C-7"}, 200, "", id="the header"),
        pytest.param("/lab/strange/x", {}, 403, "policy.obligation", id="an obligation that nobody knows"),
        pytest.param(
            "/lab/closed/x", {}, 403, "policy.forbidden", id="a forbid on a role that nobody can tell"
        ),
    ],
)
def test_a_condition(
    lab: Any, token: Callable[..., str], path: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = lab.call(path, token=token(), headers=headers)
    assert (answer.status, answer.code) == (status, code)
    decision = lab.events(answer)[0]
    assert decision["decision"] == ("permit" if status == 200 else "deny")
    assert decision["reason"] == (code or None)


def test_a_claim_is_read_from_the_token(lab: Any, mint: Callable[..., str]) -> None:
    for department, status in (
        ("finance", 200),
        (["it", "finance"], 200),
        ("sales", 403),
        ({"finance": 1}, 403),
    ):
        assert lab.call("/lab/claimed/x", token=mint(department=department)).status == status


def test_a_token_that_carries_the_claim_is_not_stopped_by_a_forbid_on_its_roles(
    lab: Any, mint: Callable[..., str]
) -> None:
    assert lab.call("/lab/closed/x", token=mint(teams=["y"])).status == 200
    assert lab.call("/lab/closed/x", token=mint(teams=["x"])).code == "policy.forbidden"


def test_a_body_is_held_to_the_limit(lab: Any, token: Callable[..., str]) -> None:
    assert lab.call("/lab/small/x", "POST", token=token(), body=b"0123456789").status == 200
    assert lab.call("/lab/small/x", token=token()).status == 200
    refused = lab.call("/lab/small/x", "POST", token=token(), body=b"0123456789a")
    assert (refused.status, refused.code, refused.json()["detail"]) == (
        413,
        "request.body_too_large",
        "at most 10 bytes",
    )
    request = (
        f"POST /lab/small/x HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {token()}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    )
    undeclared = lab.send(request.encode(), "POST")
    assert (undeclared.status, undeclared.code) == (411, "request.length_required")


def test_a_rate_limit_counts_each_dag_of_a_subject(lab: Any, token: Callable[..., str]) -> None:
    def calls(dag: str) -> list[int]:
        return [
            lab.call("/lab/slow/x", token=token(), headers={"Airgate-Dag-Id": dag}).status for _ in range(12)
        ]

    statuses = calls("one")
    assert statuses[0] == 200
    assert set(statuses) == {200, 429}
    assert 5 <= statuses.count(200) <= 10  # a new period may have begun
    assert calls("two")[0] == 200
    refused = next(
        answer
        for _ in range(12)
        if (answer := lab.call("/lab/slow/x", token=token(), headers={"Airgate-Dag-Id": "one"})).status == 429
    )
    assert refused.code == "limit.rate"
    assert refused.json()["retryable"] is True
    assert int(refused.headers["Retry-After"]) > 0
    assert lab.events(refused)[0]["reason"] == "limit.rate"
    assert len(lab.events(refused)) == 1


def test_shards_come_and_go_with_their_bundle(
    stack: Stack, lab: Any, seed: Path, tmp_path: Path, publish: Callable[..., Any], token: Callable[..., str]
) -> None:
    """An upstream's policies in force are replaced whole or not at all, and a broken shard closes its upstream only."""
    env = LocalEnvironment(replace(stack, state=lab.state))
    assert lab.call("/lab/open/x", token=token()).status == 200
    text = (seed / "seed.yaml").read_text(encoding="utf-8")
    (tmp_path / "seed.yaml").write_text(text.replace("id: open\n", "id: opened\n"), encoding="utf-8")
    in_force = read_ledger(env).entries[0]
    bundle = json.loads(env.kv_get(BUNDLE + in_force.bundle) or "")
    publish(tmp_path, lab)

    def policies() -> list[str]:
        return list(lab.events(lab.call("/lab/open/x", token=token()))[0]["permits"])

    end = time.monotonic() + 5
    while policies() != ["opened"]:
        assert time.monotonic() < end
        time.sleep(0.1)

    # The next bundle's shard for an upstream in use is damaged: all of that bundle is refused.
    newest = read_ledger(env).entries[0]
    current = json.loads(env.kv_get(BUNDLE + newest.bundle) or "")
    assert current["shards"]["lab"] != bundle["shards"]["lab"]
    assert current["shards"]["spare"] == bundle["shards"]["spare"]
    env.kv_put({SHARD + bundle["shards"]["lab"]: "damaged"})
    number, members = newest.number + 1, in_force.document
    for name in ("format", "gate", "sequence", "published_by"):
        del members[name]
    assert append(env, newest.number, number, draft(env, number, SigningKey.read(stack.signing_key), members))
    time.sleep(2.5)
    lab.call("/lab/open/x", token=token())
    time.sleep(1)
    assert policies() == ["opened"]

    # A shard that nobody asked for until now, damaged as well: its upstream is closed, and nothing else.
    env.kv_put({SHARD + bundle["shards"]["spare"]: "damaged"})
    refused = lab.call("/spare/x", token=token())
    assert (refused.status, refused.code, refused.json()["retryable"]) == (503, "policy.unavailable", True)
    assert policies() == ["opened"]
    assert lab.call("/spare/x").code == "token.missing"
