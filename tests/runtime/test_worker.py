"""The whole Worker on the Python versions that Cloudflare runs: their null, event loop, proxies and WebCrypto."""

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from host import FREEZE, Gate

from airgate.audit.proof import prove
from airgate.audit.trusted import read_keys
from airgate.dev.signing import ALGORITHMS
from airgate.signing_key import SigningKey


def call(
    gate: Gate, path: str, method: str = "GET", *, token: str | None = "", **more: Any
) -> httpx.Response:
    """One request. A token of "" is a good one, None is none."""
    headers = dict(more.pop("headers", {}))
    if token is not None:
        headers["Authorization"] = f"Bearer {token or gate.token()}"
    return httpx.request(method, gate.origin + path, headers=headers, timeout=30, trust_env=False, **more)


def test_it_is_the_python_that_it_should_be(pyodide: str, gate: Gate) -> None:
    assert gate.wait()["python"].startswith({"pyodide-313": "3.13.", "pyodide-314": "3.14."}[pyodide])


def test_empty_stores_are_no_policy_until_one_is_published(start: Callable[[], Gate]) -> None:
    gate = start()
    answer = call(gate, "/ledger/v1/entries")
    assert (answer.status_code, answer.json()["code"]) == (503, "policy.unavailable")
    assert call(gate, "/-/health").status_code == 503
    gate.publish()
    deadline = time.monotonic() + 5
    while (status := call(gate, "/ledger/v1/entries").status_code) == 503 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert status == 200


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_every_algorithm_is_verified(gate: Gate, algorithm: str) -> None:
    token = gate.token(algorithm)
    assert call(gate, "/ledger/v1/entries", token=token).status_code == 200
    head, _, signature = token.rpartition(".")
    changed = ("A" if signature[0] != "A" else "B") + signature[1:]
    answer = call(gate, "/ledger/v1/entries", token=f"{head}.{changed}")
    assert (answer.status_code, answer.json()["code"]) == (401, "token.signature")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_signed_by_another_key_of_the_issuer_is_refused(gate: Gate, algorithm: str) -> None:
    other = "RS256" if algorithm != "RS256" else "PS256"
    # The header says `algorithm`, and names a key that is not for it.
    token = gate.token(algorithm, headers={"kid": f"local-{other.lower()}"})
    answer = call(gate, "/ledger/v1/entries", token=token)
    assert (answer.status_code, answer.json()["code"]) == (401, "token.key")


@pytest.mark.parametrize(
    ("claims", "headers", "status", "code"),
    [
        pytest.param({"exp": 1}, {}, 401, "token.expired", id="expired"),
        pytest.param({"aud": "https://other.example.com"}, {}, 401, "token.audience", id="another audience"),
        pytest.param({"iss": "https://other.example.com"}, {}, 401, "token.issuer", id="another issuer"),
        pytest.param({"nbf": 4_000_000_000}, {}, 401, "token.not_yet_valid", id="not valid yet"),
        pytest.param({"sub": None}, {}, 401, "token.claims", id="no subject"),
        pytest.param({}, {"typ": "JWT"}, 401, "token.type", id="not an access token"),
        pytest.param({}, {"kid": "unheard-of"}, 401, "token.key", id="a key nobody knows"),
        pytest.param({"groups": ["strangers"]}, {}, 403, "policy.no_match", id="no role"),
        pytest.param({"groups": ["writers"]}, {}, 403, "policy.no_match", id="a role for something else"),
    ],
)
def test_a_token_is_refused(
    gate: Gate, claims: dict[str, Any], headers: dict[str, Any], status: int, code: str
) -> None:
    before = len(gate.peers.reached)
    answer = call(gate, "/ledger/v1/entries", token=gate.token(headers=headers, **claims))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert len(gate.peers.reached) == before


@pytest.mark.parametrize(
    ("path", "token", "headers", "status", "code"),
    [
        pytest.param("/ledger/v1/entries", None, {}, 401, "token.missing", id="no token"),
        pytest.param("/unheard-of/x", None, {}, 401, "token.missing", id="no token, and no such upstream"),
        pytest.param("/unheard-of/x", "", {}, 404, "route.unknown_upstream", id="no such upstream"),
        pytest.param("/ledger/v1/entries", "nonsense", {}, 401, "token.malformed", id="not a token"),
        pytest.param("/ledger//entries", "", {}, 400, "route.path_ambiguous", id="an empty segment"),
        pytest.param("/ledger/a%2fb", "", {}, 400, "route.path_ambiguous", id="an encoded slash"),
        pytest.param("/ledger/a%00b", "", {}, 400, "route.path_ambiguous", id="a NUL"),
        pytest.param(
            "/ledger/v1/entries",
            "",
            {"Airgate-Role": "oncall"},
            403,
            "role.not_granted",
            id="a role not granted",
        ),
        pytest.param(
            "/ledger/v1/entries",
            "",
            {"Airgate-Role": "writer"},
            403,
            "policy.no_match",
            id="narrowed too far",
        ),
        pytest.param("/nowhere/v1", "", {}, 502, "upstream.unreachable", id="an upstream that is down"),
        pytest.param("/ledger/slow", "", {}, 504, "upstream.timeout", id="an upstream that is slow"),
    ],
)
def test_a_request_is_refused(
    gate: Gate, path: str, token: str | None, headers: dict[str, str], status: int, code: str
) -> None:
    answer = call(gate, path, token=token, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_large_body_goes_through_both_ways(gate: Gate) -> None:
    body = os.urandom(3_000_000)
    answer = call(gate, "/ledger/v1/entries?period=2026-10&x=%20", "POST", content=body)
    assert (answer.status_code, answer.content) == (200, body)
    reached = gate.peers.reached[-1]
    assert (reached["method"], reached["path"]) == ("POST", "/ledger/v1/entries?period=2026-10&x=%20")
    assert reached["body"] == body


def test_a_body_of_unknown_length_goes_through(gate: Gate) -> None:
    answer = call(gate, "/ledger/v1/entries", "PUT", content=iter([b"one,", b"two"]))
    assert (answer.status_code, answer.content) == (200, b"one,two")


def test_the_upstream_sees_the_caller_s_headers_and_none_of_the_gate_s(gate: Gate) -> None:
    sent = {
        "X-Custom": "kept",
        "Airgate-Dag-Id": "close",
        "X-Forwarded-For": "203.0.113.9",
        "X-Drop": "1",
        "Connection": "close, X-Drop",
    }
    assert call(gate, "/ledger/v1/entries", headers=sent).status_code == 200
    headers = gate.peers.reached[-1]["headers"]
    assert headers["x-custom"] == "kept"
    assert not {"authorization", "airgate-dag-id", "x-forwarded-for", "x-drop"} & set(headers)


def test_the_caller_sees_the_upstream_s_answer_and_only_the_gate_s_own_headers(gate: Gate) -> None:
    answer = call(gate, "/ledger/v1/missing")
    assert answer.status_code == 404
    assert answer.headers.get_list("set-cookie") == [
        "a=1; Path=/ledger",
        "b=2, still b; Path=/ledger",
    ]
    assert answer.headers.get_list("airgate-decision") == ["permit"]
    assert "airgate_policy" not in answer.headers
    assert answer.headers["airgate-policy"].startswith("read@")


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        pytest.param("/ledger/v1/empty", "GET", 204, id="no content"),
        pytest.param("/ledger/v1/entries", "HEAD", 200, id="HEAD"),
        pytest.param("/ledger/v1/entries", "DELETE", 200, id="DELETE without a body"),
        pytest.param("/ledger/v1/moved", "GET", 302, id="a redirect, not followed"),
    ],
)
def test_an_answer_without_a_body_is_passed_on(gate: Gate, path: str, method: str, status: int) -> None:
    before = len(gate.peers.reached)
    answer = call(gate, path, method)
    assert (answer.status_code, answer.content) == (status, b"")
    assert len(gate.peers.reached) == before + 1


def test_a_forwarded_call_is_one_decision_and_one_outcome_and_no_token(gate: Gate) -> None:
    token = gate.token()
    answer = call(gate, "/ledger/v1/entries", token=token, headers={"Airgate-Dag-Id": "close"})
    events = gate.events(answer.headers["airgate-request-id"], 2)
    assert [event["event"] for event in events] == ["decision", "outcome"]
    assert (events[0]["decision"], events[0]["permits"], events[0]["subject"]) == (
        "permit",
        ["read"],
        "finance-etl",
    )
    assert events[0]["workload"] == {"dag": {"value": "close", "attested": False}}
    assert (events[1]["result"], events[1]["status"]) == ("answered", 200)
    assert token.rpartition(".")[2] not in str(events)


def test_a_refusal_is_one_decision(gate: Gate) -> None:
    answer = call(gate, "/ledger/v1/entries", token=None)
    [event] = gate.events(answer.headers["airgate-request-id"], 1)
    assert (event["event"], event["decision"], event["reason"]) == ("decision", "deny", "token.missing")


def test_an_upstream_that_is_down_is_an_outcome(gate: Gate) -> None:
    answer = call(gate, "/nowhere/v1")
    events = gate.events(answer.headers["airgate-request-id"], 2)
    assert [event["event"] for event in events] == ["decision", "outcome"]
    assert events[1]["result"] == "unreachable"


def test_health_tells_a_permitted_caller_more(gate: Gate) -> None:
    assert call(gate, "/-/health", token=None).json() == {"status": "ok", "version": "of a test"}
    report = call(gate, "/-/health").json()
    assert report["status"] == "ok"
    assert (report["bundle"]["by"], report["view"]["signed"], report["warnings"]) == (
        "runtime tests",
        True,
        [],
    )
    assert report["issuers"]["company"]["keys"] == len(ALGORITHMS)


def test_the_log_is_a_chain_that_the_gate_signs_and_registers(gate: Gate, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: call(gate, "/ledger/v1/entries"), range(40)))
    deadline = time.monotonic() + 20
    while not _covered(gate.lines) and time.monotonic() < deadline:
        time.sleep(0.2)
    log = tmp_path / "audit.ndjson"
    log.write_text("".join([text for text in gate.texts if text.startswith('{"event":')]), encoding="utf-8")
    with prove([log], read_keys(gate.audit_keys)) as proof:
        assert [each for each in proof.findings if each.failure] == []
        assert proof.proved >= 80
    last = json.loads([line for line in gate.lines if line["event"] == "checkpoint"][-1]["document"])
    deadline = time.monotonic() + 5
    while True:
        [row] = gate.store.d1("SELECT number, document FROM chains")
        if json.loads(row["document"])["position"] >= last["position"] or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert json.loads(row["document"])["position"] >= last["position"]
    assert row["number"] == last["number"]


def _covered(lines: list[dict[str, Any]]) -> bool:
    """Whether a checkpoint covers every line that is none."""
    events = [line for line in lines if "position" in line]
    signed = [json.loads(one["document"])["position"] for one in events if one["event"] == "checkpoint"]
    return bool(signed) and signed[-1] >= max(
        one["position"] for one in events if one["event"] != "checkpoint"
    )


def test_first_requests_at_the_same_time_are_all_answered(start: Callable[[], Gate]) -> None:
    gate = start()
    gate.publish()
    tokens = [gate.token(ALGORITHMS[number % len(ALGORITHMS)]) for number in range(24)]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda token: call(gate, "/ledger/v1/entries", token=token), tokens))
    assert [answer.status_code for answer in answers] == [200] * 24
    ids = {answer.headers["airgate-request-id"] for answer in answers}
    assert len(ids) == 24
    for request_id in ids:
        assert [event["event"] for event in gate.events(request_id, 2)] == ["decision", "outcome"]


def test_a_published_policy_takes_effect_while_the_gate_runs(gate: Gate) -> None:
    def until(status: int) -> httpx.Response:
        deadline = time.monotonic() + 6
        while (answer := call(gate, "/ledger/v1/entries")).status_code != status:
            assert time.monotonic() < deadline, f"still {answer.status_code} after 6 s"
            time.sleep(0.2)
        return answer

    assert call(gate, "/ledger/v1/entries").status_code == 200
    sequence = gate.publish(FREEZE)
    refused = until(403)
    assert refused.json()["code"] == "policy.forbidden"
    assert refused.json()["contact"] == "change-board@example.com"
    assert gate.events(refused.headers["airgate-request-id"], 1)[0]["sequence"] == sequence
    gate.publish()
    until(200)


def until(gate: Gate, status: int, seconds: float = 6, **more: Any) -> httpx.Response:
    """The first answer with that status, or the last one within that time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = call(gate, "/ledger/v1/entries", **more)
        if answer.status_code == status or time.monotonic() > deadline:
            return answer
        time.sleep(0.2)


def test_what_is_revoked_is_refused_while_the_gate_runs_until_that_is_lifted(gate: Gate) -> None:
    assert call(gate, "/ledger/v1/entries").status_code == 200
    revocation = gate.store.act(gate.key, act="revoke", match={"subject": "finance-etl"})
    refused = until(gate, 403)
    assert refused.json()["code"] == "policy.revoked"
    (event,) = gate.events(refused.headers["airgate-request-id"], 1)
    assert event["detail"].startswith(revocation)
    gate.store.act(gate.key, act="lift", of=revocation)
    assert until(gate, 200).status_code == 200


def test_a_grant_lends_a_role_if_an_operator_has_signed_it(gate: Gate) -> None:
    """The runtime's own WebCrypto says whether."""
    assert call(gate, "/ledger/v1/entries").status_code == 200
    token = gate.token(sub="robot", groups=[])
    what = {
        "act": "grant",
        "from": int(time.time()),
        "to": {"issuer": "company", "subject": "robot"},
        "gives": {"role": "reader"},
    }
    forged = gate.store.act(replace(SigningKey.new("stranger", ["grant"]), kid=gate.key.kid), **what)
    assert until(gate, 200, 5, token=token).status_code == 403
    granted = gate.store.act(gate.key, **what)
    answer = until(gate, 200, token=token)
    assert answer.status_code == 200
    decision = gate.events(answer.headers["airgate-request-id"], 2)[0]
    assert (decision["grants"], decision["roles"]["granted"]) == ([granted], ["reader"])
    told = {line["id"]: line["result"] for line in gate.lines if line["event"] == "act"}
    assert (told[forged], told[granted]) == ("refused", "known")


def test_the_last_good_policy_stays_when_the_stores_are_empty(gate: Gate) -> None:
    assert call(gate, "/ledger/v1/entries").status_code == 200
    gate.store.clear()
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        assert call(gate, "/ledger/v1/entries").status_code == 200
        time.sleep(0.25)
    assert any(line["event"] == "bundle" and line["result"] == "refused" for line in gate.lines)
