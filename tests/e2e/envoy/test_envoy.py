"""The real Envoy before an API, asking the real gate, with the configuration that docs/envoy.md shows."""

import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from typing import Any

import httpx
import jwt
import pytest

from airgate.dev.envoy import Envoy
from airgate.dev.stack import Stack
from airgate.dev.token import ProofKey, fetch_token
from forward import parse_target

LEDGER, LAB = "ledger.internal.example.com", "lab.internal.example.com"
READ = "/v1/entries"
Token = Callable[..., str]


def bearer(token: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **{k.replace("_", "-"): v for k, v in headers.items()}}


@pytest.fixture
def nothing_forwarded(envoy: Envoy) -> Iterator[None]:
    """That a test's requests do not reach the API."""
    before = envoy.counter("cluster.ledger.upstream_rq_total")
    yield
    assert envoy.counter("cluster.ledger.upstream_rq_total") == before


def raw(envoy: Envoy, path: str, headers: Sequence[tuple[str, str]] = (), host: str = LAB) -> tuple[int, Any]:
    """Status and document of a GET whose path and headers are sent as they are."""
    connection = HTTPConnection("127.0.0.1", envoy.port("clients"), timeout=30)
    try:
        connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
        for name, value in (("Host", host), *headers):
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read()
        is_json = "json" in (answer.getheader("content-type") or "")
        return answer.status, json.loads(body) if is_json else None
    finally:
        connection.close()


# What passes


def test_a_permitted_request_arrives_with_the_callers_name_and_without_its_token(
    client: httpx.Client, token: Token
) -> None:
    answer = client.get(
        READ + "?limit=1&limit=2", headers=bearer(token(), Airgate_Dag_Id="finance_close", X_One="1")
    )
    assert answer.status_code == 200
    seen = answer.json()
    assert (seen["method"], seen["path"], seen["query"]) == ("GET", READ, "limit=1&limit=2")
    headers = seen["headers"]
    assert (headers["host"], headers["x-one"]) == (LEDGER, "1")
    own = {name: value for name, value in headers.items() if name.startswith("airgate")}
    assert own.pop("airgate-assertion").count(".") == 2
    assert own.pop("airgate-policy").startswith("finance-data-read@")
    assert own == {
        "airgate-decision": "permit",
        "airgate-issuer": "company",
        "airgate-request-id": answer.headers["Airgate-Request-Id"],
        "airgate-roles": "finance-publisher,finance-reader",
        "airgate-subject": "finance-etl",
    }
    assert not {"authorization", "dpop"} & headers.keys()
    assert answer.headers["Airgate-Policy"] == headers["airgate-policy"]


def test_a_check_is_on_record_as_its_clients_request(client: httpx.Client, asked: Any, token: Token) -> None:
    answer = client.get(READ, headers=bearer(token(), Airgate_Role="finance-reader"))
    assert answer.json()["headers"]["airgate-roles"] == "finance-reader"
    [decision] = asked.events(answer)
    assert (decision["event"], decision["decision"], decision["page"]) == ("decision", "permit", "authz")
    assert (decision["upstream"], decision["method"], decision["path"]) == ("ledger", "GET", READ)
    assert (decision["subject"], decision["client"]) == ("finance-etl", "127.0.0.1")


def test_a_body_goes_to_the_api_only(client: httpx.Client, token: Token) -> None:
    body = b"x" * 3_000_000  # more than Envoy would hold for a gate that wants it
    answer = client.post(READ, content=body, headers=bearer(token(), Airgate_Dag_Id="finance_close"))
    assert (answer.status_code, answer.json()["body_bytes"]) == (200, len(body))


def test_an_assertion_can_be_verified_by_the_api(client: httpx.Client, asked: Any, token: Token) -> None:
    answer = client.get(READ, headers=bearer(token(), Airgate_Dag_Id="finance_close"))
    text = answer.json()["headers"]["airgate-assertion"]
    keys = jwt.PyJWKSet.from_dict(httpx.get(f"{asked.url}/-/jwks.json", trust_env=False).json())
    key = keys[jwt.get_unverified_header(text)["kid"]]
    claims = jwt.decode(text, key, ["ES256"], audience="ledger", issuer="https://gate.example.com")
    assert (claims["sub"], claims["jti"]) == ("finance-etl", answer.headers["Airgate-Request-Id"])
    assert claims["exp"] - claims["iat"] <= 60


def test_a_proof_is_for_the_address_that_the_client_called(client: httpx.Client, stack: Stack) -> None:
    key = ProofKey()
    bound = fetch_token(stack, "finance-etl", bound_to=key)

    def ask(url: str) -> httpx.Response:
        proof = key.proof("GET", url, bound)
        return client.get(READ, headers={"Authorization": f"DPoP {bound}", "DPoP": proof})

    answer = ask(f"http://{LEDGER}{READ}")
    assert answer.status_code == 200
    assert "dpop" not in answer.json()["headers"]
    for other in (f"https://{LEDGER}{READ}", f"https://gate.example.com{READ}", f"http://{LEDGER}/v1"):
        assert ask(other).json()["code"] == "token.proof_invalid"


def test_obligations_of_the_callers_are_honoured(client: httpx.Client, token: Token) -> None:
    caller = bearer(token("sales-sync"), Host=LAB)
    assert client.get("/why", headers=caller).json()["code"] == "request.justification_required"
    answer = client.get("/why", headers={**caller, "Airgate-Justification": "the quarter ends"})
    assert answer.status_code == 200
    assert "airgate-justification" not in answer.json()["headers"]


# What doesn't


@pytest.mark.usefixtures("nothing_forwarded")
def test_a_refusal_reaches_the_client_as_the_gate_wrote_it(
    client: httpx.Client, asked: Any, token: Token
) -> None:
    answer = client.post(READ, headers=bearer(token("sales-sync")), content=b"x")
    assert (answer.status_code, answer.headers["Content-Type"]) == (403, "application/problem+json")
    problem = answer.json()
    assert (problem["code"], problem["status"]) == ("policy.no_match", 403)
    assert problem["contact"] == "finance-data@example.com"
    assert problem["request_id"] == answer.headers["Airgate-Request-Id"]
    assert answer.headers["Airgate-Decision"] == "deny"
    [decision] = asked.events(answer)
    assert (decision["decision"], decision["subject"]) == ("deny", "sales-sync")


@pytest.mark.usefixtures("nothing_forwarded")
def test_a_missing_token(client: httpx.Client) -> None:
    answer = client.get(READ)
    assert (answer.status_code, answer.json()["code"]) == (401, "token.missing")
    challenge = answer.headers["WWW-Authenticate"]
    assert "Bearer" in challenge
    assert "://gate.example.com/.well-known/oauth-protected-resource" in challenge


@pytest.mark.usefixtures("nothing_forwarded")
def test_an_unknown_host_never_gets_to_an_api(client: httpx.Client, token: Token) -> None:
    """Or a client would choose by whose policies it is judged."""
    for host in ("other.internal.example.com", f"{LEDGER}:8080", f"{LEDGER}.", "gate.example.com"):
        assert client.get(READ, headers={**bearer(token()), "Host": host}).status_code == 404


def test_too_many_calls(client: httpx.Client, token: Token) -> None:
    caller = bearer(token("sales-sync"), Host=LAB)
    answers = [client.get("/slowly", headers=caller) for _ in range(12)]  # of which 10 fit into two periods
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["code"] == "limit.rate"
    assert refused.headers["Retry-After"] == str(refused.json()["retry_after"])


def test_an_obligation_that_a_check_cannot_honour(client: httpx.Client, token: Token) -> None:
    answer = client.post("/small", headers=bearer(token("sales-sync"), Host=LAB), content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (403, "policy.obligation")
    assert "max_body" in answer.json()["detail"]


# Failures


@pytest.mark.parametrize("kind", ["nobody listens", "nobody answers", "it answers 503"])
def test_without_the_gate_nothing_passes(
    before: Callable[..., Envoy], broken_edge: Envoy, token: Token, kind: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if kind == "nobody listens":
            silent.close()
        elif kind == "it answers 503":
            port = broken_edge.port("edge")
        alone = before(port)
        url = f"http://127.0.0.1:{alone.port('clients')}{READ}"
        headers = {**bearer(token()), "Host": LEDGER}
        answer = httpx.get(url, headers=headers, timeout=30, trust_env=False)
    assert (answer.status_code, answer.content) == (503, b"")
    assert alone.counter("cluster.ledger.upstream_rq_total") == 0
    alone.stop()


def test_an_envoy_without_the_secret_gets_nothing(
    before: Callable[..., Envoy], edge: Envoy, token: Token
) -> None:
    poor = before(edge.port("edge"), {})
    url = f"http://127.0.0.1:{poor.port('clients')}{READ}"
    answer = httpx.get(url, headers={**bearer(token()), "Host": LEDGER}, timeout=30, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (403, "proxy.unknown")
    poor.stop()


@pytest.mark.parametrize("which", ["old", "new", None])
def test_both_secrets_are_good_while_proxies_change_over(asked: Any, token: Token, which: str | None) -> None:
    headers = {
        **bearer(token()),
        "X-Original-Host": LEDGER,
        "X-Original-Proto": "https",
        "Airgate-Client": "198.51.100.7",
        **({"Airgate-Proxy": asked.secrets[which]} if which else {}),
    }
    answer = httpx.get(f"{asked.url}/-/authz/envoy{READ}", headers=headers, trust_env=False)
    assert answer.status_code == (200 if which else 403)
    health = httpx.get(f"{asked.url}/-/health", headers=headers, trust_env=False)
    assert health.status_code == (403 if which else 200)  # no page but a check has an answer for a proxy


def test_a_change_of_policy_counts_at_once(client: httpx.Client, asked: Any, token: Token) -> None:
    def permitted() -> bool:
        return client.get("/changed", headers=bearer(token(), Host=LAB)).status_code == 200

    file = asked.seed / "lab.yaml"
    text = file.read_text("utf-8")
    assert permitted()
    try:
        file.write_text(text.replace("roles: {any: [finance-reader]}", "roles: {any: [oncall]}"), "utf-8")
        asked.publish()
        until(lambda: not permitted())
    finally:
        file.write_text(text, "utf-8")
        asked.publish()
    until(permitted)


def until(true: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


# Attacks


FORGED = {
    "Airgate-Subject": "admin",
    "Airgate-Issuer": "other",
    "Airgate-Roles": "admin",
    "Airgate-Policy": "none@1",
    "Airgate-Decision": "permit",
    "Airgate-Assertion": "a.b.c",
    "Airgate-Request-Id": "1",
    "Airgate-Proxy": "x" * 64,
    "Airgate-Client": "198.51.100.7",
    "Airgate.Subject": "admin",
    "AIRGATE~ROLES": "admin",
    "Airgate-Request.Id": "1",
    "X-Original-Host": LEDGER,
    "X-Original-Method": "GET",
    "X-Original-Proto": "https",
    "X-Original-URL": "/admin",
    "X-Original-URI": "/admin",
    "X-Rewrite-URL": "/admin",
    "X-HTTP-Method": "DELETE",
    "X-HTTP-Method-Override": "DELETE",
    "X-Method-Override": "DELETE",
    "X-Forwarded-Proto": "https",
    "X-Envoy-Auth-Headers-To-Remove": "host",
    "CF-Connecting-IP": "198.51.100.7",
}


def test_a_forged_header_changes_nothing(envoy: Envoy, token: Token) -> None:
    """Neither what is decided (alone each, and all together) nor what the API is told."""
    caller = [("Authorization", f"Bearer {token()}")]
    for forged in [[pair] for pair in FORGED.items()] + [list(FORGED.items())]:
        assert raw(envoy, "/inside", caller + forged)[0] == 403  # forbidden from here, and only from here
        status, seen = raw(envoy, "/v1", caller + forged)
        assert (status, seen["method"], seen["path"]) == (200, "GET", "/v1"), forged
        own = {name: value for name, value in seen["headers"].items() if name.startswith(("airgate", "x-"))}
        assert own.pop("airgate-policy").startswith("lab-open@")
        assert len(own.pop("airgate-request-id")) == 32
        assert own.pop("x-forwarded-proto") == "http"
        for plain in ("x-forwarded-for", "x-request-id", "x-envoy-expected-rq-timeout-ms"):
            own.pop(plain)
        for harmless in ("x-envoy-external-address", "x-envoy-auth-headers-to-remove"):
            own.pop(harmless, None)
        assert own == {
            "airgate-decision": "permit",
            "airgate-issuer": "company",
            "airgate-roles": "finance-publisher,finance-reader",
            "airgate-subject": "finance-etl",
        }, forged


@pytest.mark.parametrize("name", ["Airgate_Subject", "airgate_proxy", "AIRGATE_ASSERTION", "X_Original_Host"])
def test_a_name_with_an_underscore_is_refused(envoy: Envoy, token: Token, name: str) -> None:
    status, _ = raw(envoy, "/v1", [("Authorization", f"Bearer {token()}"), (name, "admin")])
    assert status == 400


def test_nobody_but_the_token_says_who_calls(envoy: Envoy, token: Token) -> None:
    for headers in (
        [*FORGED.items()],
        [("Airgate-Subject", "finance-etl"), ("Airgate-Roles", "finance-reader")],
    ):
        assert raw(envoy, READ, headers, LEDGER)[0] == 401
    poor = [("Authorization", f"Bearer {token('sales-sync')}"), *FORGED.items()]
    assert raw(envoy, READ, poor, LEDGER)[0] == 403


HOSTILE = [
    "/a/../b", "/a/%2e%2e/b", "/a/.%2E/b", "/a/./b", "/a/%2e", "/a/..", "/..", "/../../b",
    "//a", "/a//b", "/a/", "/a//", "//", "//..//a", "/a/../../..//b",
    "/a\\b", "/a/..\\b", "\\a", "/a%5cb", "/a/%5c..%5cb",
    "/a%2fb", "/a%2Fb", "/..%2fb", "/a/%2e%2e%2fb", "/%2f",
    "/a;x=1/b", "/a/..;/b", "/a;/../b", "/%3b", "/a%3Bx",
    "/%2541", "/a/%252e%252e/b", "/%25", "/a%2", "/%zz",
    "/a/%00", "/a%00/b", "/a%0ab", "/a%0d%0aX-A:%20b", "/%7f", "/a%09",
    "/%61%2d%7E%5F", "/a%c3%a4", "/a%C3%A4", "/%ff", "/%c0%ae%c0%ae/b", "/%e2%80%ae",
    "/.../a", "/a/%20/b", "/a/.%20", "/:a", "/a:b@c", "/@x/y", "/a,b", "/a|b", "/a^b", "/a{b}", "/a\"b",
    "/a?x=../..", "/a?x=%2e%2e%2f", "/a?x#y", "/a#b", "/a%23b", "/a?", "/?", "/??", "/a?b?c",
    "/../../-/health", "/..%2f..%2f-/health", "/%2e%2e/%2e%2e/-/health", "/..;/..;/-/health", "/..\\..\\-/health",
    "/../nginx", "/../../../.well-known/authzen-configuration",
    "*", "http://evil.example.com/a", f"http://{LAB}/a/../b", f"http://{LEDGER}/a", "a", "?a",
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE)
def test_the_path_that_was_decided_is_the_path_that_arrives(
    envoy: Envoy, asked: Any, token: Token, path: str
) -> None:
    """Or nothing does. The caller may do anything in the lab."""
    status, seen = raw(envoy, path, [("Authorization", f"Bearer {token()}")])
    if seen is None or "path" not in seen:
        assert 400 <= status < 500
        return
    assert seen["headers"]["host"] == LAB
    request_id = seen["headers"]["airgate-request-id"]
    answer = httpx.Response(200, headers={"Airgate-Request-Id": request_id})
    [decision] = asked.events(answer)
    query = f"?{seen['query']}" if seen["query"] else ""
    arrived = parse_target("GET", f"https://gate/lab{seen['path']}{query}")
    assert (decision["upstream"], decision["path"]) == ("lab", arrived.path)


@pytest.mark.parametrize(
    "path", [path for path in HOSTILE if "-/" in path or ".w" in path or "nginx" in path]
)
def test_no_path_leads_to_a_page_of_the_gate_that_anybody_may_see(envoy: Envoy, path: str) -> None:
    """Its 200 would be a permit."""
    assert raw(envoy, path)[0] in (400, 401, 403, 404)


def test_two_of_a_header_that_there_is_one_of(envoy: Envoy, token: Token) -> None:
    good = ("Authorization", f"Bearer {token()}")
    assert raw(envoy, "/v1", [good, ("Authorization", "Bearer x")])[0] == 401
    assert raw(envoy, "/v1", [good, ("Host", LEDGER)])[0] in (400, 404)
    assert raw(envoy, "/v1", [good, ("Airgate-Dag-Id", "a"), ("Airgate-Dag-Id", "b")])[0] == 400
