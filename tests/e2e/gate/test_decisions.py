"""Who may do what, under the starter set of policies, and what a stranger can learn: nothing."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

Token = Callable[..., str]
FINANCE_DAG = {"Airgate-Dag-Id": "finance_close"}
ENTRIES = "/ledger/v1/entries"
PAYROLL = "/warehouse/v1/tables/payroll_2026"


class Case(NamedTuple):
    client: str
    method: str
    path: str
    headers: dict[str, str] | list[tuple[str, str]]
    status: int
    said: str  # the refusal's code, or the policy that permitted


READ, WRITE, DEFAULT = "finance-data-read", "finance-data-publish", "policy.no_match"
CASES: dict[str, Case] = {
    "a reader reads": Case("finance-etl", "GET", ENTRIES, {}, 200, READ),
    "a finance DAG writes": Case("finance-etl", "POST", ENTRIES, FINANCE_DAG, 200, WRITE),
    "another DAG doesn't write": Case(
        "finance-etl", "POST", ENTRIES, {"Airgate-Dag-Id": "sales_sync"}, 403, DEFAULT
    ),
    "a DAG with finance_ in the middle doesn't write": Case(
        "finance-etl", "POST", ENTRIES, {"Airgate-Dag-Id": "not_finance_close"}, 403, DEFAULT
    ),
    "a DAG in other letters doesn't write": Case(
        "finance-etl", "POST", ENTRIES, {"Airgate-Dag-Id": "FINANCE_close"}, 403, DEFAULT
    ),
    "no DAG doesn't write": Case("finance-etl", "POST", ENTRIES, {}, 403, DEFAULT),
    "an empty DAG is refused": Case(
        "finance-etl", "POST", ENTRIES, {"Airgate-Dag-Id": ""}, 400, "request.header_invalid"
    ),
    "an endless DAG is refused": Case(
        "finance-etl",
        "POST",
        ENTRIES,
        {"Airgate-Dag-Id": "finance_" + "a" * 250},
        400,
        "request.header_invalid",
    ),
    "a DAG with a tab in it is refused": Case(
        "finance-etl", "POST", ENTRIES, {"Airgate-Dag-Id": "finance_\ta"}, 400, "request.header_invalid"
    ),
    "65 DAG tags are refused": Case(
        "finance-etl", "GET", ENTRIES, {"Airgate-Dag-Tags": ",".join("a" * 65)}, 400, "request.header_invalid"
    ),
    "a tag keeps the role it names": Case(
        "finance-etl", "POST", ENTRIES, {**FINANCE_DAG, "Airgate-Role": "finance-publisher"}, 200, WRITE
    ),
    "a tag drops the roles it doesn't name": Case(
        "finance-etl", "POST", ENTRIES, {**FINANCE_DAG, "Airgate-Role": "finance-reader"}, 403, DEFAULT
    ),
    "a tag may name several roles": Case(
        "finance-etl",
        "POST",
        ENTRIES,
        {**FINANCE_DAG, "Airgate-Role": "finance-reader, finance-publisher"},
        200,
        WRITE,
    ),
    "a role that isn't granted is refused": Case(
        "finance-etl", "GET", ENTRIES, {"Airgate-Role": "oncall"}, 403, "role.not_granted"
    ),
    "a role that isn't granted is refused beside one that is": Case(
        "finance-etl", "GET", ENTRIES, {"Airgate-Role": "finance-reader, oncall"}, 403, "role.not_granted"
    ),
    "a role that isn't granted is refused in a second tag": Case(
        "finance-etl",
        "GET",
        ENTRIES,
        [("Airgate-Role", "finance-reader"), ("airgate-role", "oncall")],
        403,
        "role.not_granted",
    ),
    "a group is not a role": Case(
        "finance-etl", "GET", ENTRIES, {"Airgate-Role": "finance-readers"}, 403, "role.not_granted"
    ),
    "an empty tag is refused": Case(
        "finance-etl", "GET", ENTRIES, {"Airgate-Role": ""}, 403, "role.malformed"
    ),
    "a tag with a hole is refused": Case(
        "finance-etl", "GET", ENTRIES, {"Airgate-Role": "finance-reader,,"}, 403, "role.malformed"
    ),
    "a tag in capitals is refused": Case(
        "finance-etl", "GET", ENTRIES, {"Airgate-Role": "Finance-Reader"}, 403, "role.malformed"
    ),
    "a star for a tag is refused": Case(
        "finance-etl", "GET", ENTRIES, {"Airgate-Role": "*"}, 403, "role.malformed"
    ),
    "33 roles in a tag are refused": Case(
        "finance-etl",
        "GET",
        ENTRIES,
        {"Airgate-Role": ",".join(["finance-reader"] * 33)},
        403,
        "role.malformed",
    ),
    "the wrong role doesn't read": Case("sales-sync", "GET", ENTRIES, {}, 403, DEFAULT),
    "an agent reads": Case("assistant", "GET", ENTRIES, {}, 200, READ),
    "an agent's write is forbidden": Case("assistant", "POST", ENTRIES, FINANCE_DAG, 403, "policy.forbidden"),
    "an agent's delete is forbidden anywhere in the ledger": Case(
        "assistant", "DELETE", "/ledger/any/thing", {}, 403, "policy.forbidden"
    ),
    "an agent can't tag itself out of a forbid": Case(
        "assistant", "POST", ENTRIES, {**FINANCE_DAG, "Airgate-Role": "assistant"}, 403, "policy.forbidden"
    ),
    "a human acknowledges": Case(
        "oncall", "POST", "/pager/v1/incidents/7/acknowledge", {}, 200, "oncall-incidents"
    ),
    "payroll is closed to data science": Case("feature-builder", "GET", PAYROLL, {}, 403, "policy.forbidden"),
    "payroll is closed below, too": Case(
        "feature-builder", "GET", PAYROLL + "/rows", {}, 403, "policy.forbidden"
    ),
    "payroll is closed in another spelling": Case(
        "feature-builder", "GET", "/warehouse/v1/tables/%70ayroll%5F2026", {}, 403, "policy.forbidden"
    ),
    "payroll is closed with a slash after it": Case(
        "feature-builder", "GET", PAYROLL + "/", {}, 403, "policy.forbidden"
    ),
    "payroll is open to finance": Case("finance-etl", "GET", PAYROLL, {}, 200, "warehouse-tables-read"),
    "a prefix ends where its segment ends": Case(
        "finance-etl", "GET", "/ledger/v1/entriesx", {}, 403, DEFAULT
    ),
    "one segment is one segment": Case("finance-etl", "GET", ENTRIES + "/1/2", {}, 403, DEFAULT),
    "two stars cover only what is below": Case(
        "finance-etl", "GET", "/ledger/v1/reportsx/a", {}, 403, DEFAULT
    ),
    "the query is no path": Case("finance-etl", "GET", "/ledger/v1/secrets?/v1/reports/x", {}, 403, DEFAULT),
    "capitals are other paths": Case("finance-etl", "GET", "/ledger/V1/entries", {}, 403, DEFAULT),
    "another method is another call": Case("finance-etl", "DELETE", ENTRIES + "/1", {}, 403, DEFAULT),
    "a header can't change the method": Case(
        "finance-etl",
        "GET",
        "/ledger/v1/entries/1/reversal",
        {"X-HTTP-Method-Override": "POST", **FINANCE_DAG},
        403,
        DEFAULT,
    ),
    "a header can't change the path": Case(
        "finance-etl",
        "GET",
        "/ledger/v1/secrets",
        {"X-Original-URL": ENTRIES, "X-Forwarded-Uri": ENTRIES},
        403,
        DEFAULT,
    ),
    "no user agent is above policy": Case(
        "sales-sync", "GET", ENTRIES, {"User-Agent": "kube-probe/1.30 GoogleHC/1.0"}, 403, DEFAULT
    ),
    "an unknown upstream isn't there": Case(
        "finance-etl", "GET", "/nowhere/x", {}, 404, "route.unknown_upstream"
    ),
    "names that programs have aren't upstreams": Case(
        "finance-etl", "GET", "/__class__/x", {}, 404, "route.unknown_upstream"
    ),
    "the gate has no other pages": Case("oncall", "GET", "/-/nothing", {}, 404, "route.unknown_upstream"),
}


@pytest.mark.parametrize("case", CASES)
def test_decision(wire: Any, token: Token, audit: Callable[..., Any], case: str) -> None:
    client, method, path, headers, status, said = CASES[case]
    answer = wire.call(path, method, token=token(client), headers=headers)
    policy = (answer.headers["Airgate-Policy"] or "").partition("@")[0]
    assert (answer.status, answer.code or policy) == (status, said)
    decision = audit(answer.id)[0]
    assert (decision["decision"], decision["reason"]) == (("deny", said) if answer.code else ("permit", None))
    assert (decision["method"], decision.get("subject", client)) == (method, client)


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if case.status >= 400])
def test_no_refusal_reaches_an_upstream(
    wire: Any, token: Token, audit: Callable[..., Any], case: str
) -> None:
    client, method, path, headers, *_ = CASES[case]
    answer = wire.call(path, method, token=token(client), headers=headers)
    after = wire.call(ENTRIES, token=token("finance-etl"))
    assert len(audit(after.id, count=2)) == 2  # so the lines of the request before it are there as well
    assert [event["event"] for event in audit(answer.id)] == ["decision"]


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PATHS = (
    "/", "/ledger", "/ledger/", ENTRIES, ENTRIES + "?a=1", "/ledger/no/such", "/%6cedger/x", "/nowhere", "/nowhere/x",
    "/-", "/-/", "/-/unknown", "/-/health/x", "/-/HEALTH", "/favicon.ico", "/.well-known/openid-configuration",
)  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_stranger_learns_nothing_from_where_he_knocks(wire: Any, method: str) -> None:
    seen = set()
    for path in PATHS:
        answer = wire.call(
            path, method, headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
        )
        assert answer.status == 401, path
        shown = answer.body.decode().replace(answer.id, "ID")
        assert shown == "" or answer.json()["code"] == "token.missing"
        headers = sorted(
            (name.lower(), value.replace(answer.id, "ID")) for name, value in answer.headers.items()
        )
        seen.add((shown, tuple(headers)))
    [(body, headers)] = seen
    assert (body == "") == (method == "HEAD")
    assert dict(headers)["www-authenticate"].startswith(
        'Bearer realm="airgate", resource_metadata="http://gate.example.com/'
    )
    assert "error" not in dict(headers)["www-authenticate"]
    assert not [name for name, _ in headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/ledger/x", "/nowhere/x", "/-/unknown"])
def test_a_bad_token_learns_nothing_from_where_it_knocks(wire: Any, mint: Token, path: str) -> None:
    assert wire.call(path, token=mint(exp=1, iat=0)).code == "token.expired"


def test_a_stranger_learns_one_word_about_health(wire: Any, token: Token) -> None:
    for answer in (
        wire.call("/-/health"),
        wire.call("/-/health", token=token("finance-etl")),
        wire.call("/-/health", token="x"),
    ):
        assert (answer.status, answer.json()) == (200, {"status": "ok"})


def test_an_operator_sees_what_is_in_force(wire: Any, token: Token) -> None:
    wire.call(ENTRIES, token=token("finance-etl"))  # so that there are keys
    details = wire.call("/-/health", token=token("oncall")).json()
    assert details["status"] == "ok"
    assert details["bundle"]["sequence"] == 1
    assert (details["bundle"]["error"], details["issuers"]["company"]["error"]) == (None, None)
    assert (details["issuers"]["company"]["keys"], details["issuers"]["company"]["age"] < 600) == (6, True)


def test_a_refused_caller_is_told_whom_to_ask_and_a_stranger_is_not(wire: Any, token: Token) -> None:
    assert wire.call(ENTRIES, token=token("sales-sync")).json()["contact"] == "finance-data@example.com"
    assert "contact" not in wire.call(ENTRIES).json()
