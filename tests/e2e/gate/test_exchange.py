"""Token exchange at the running gate: real tokens, signed by WebCrypto, and verified by it and by PyJWT."""

import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from typer.testing import CliRunner

from airgate import keys
from airgate.dev.stack import Stack
from airgate.dev.token import ProofKey, fetch_token
from airgate.engine import act_id
from airgate.environment import LOCAL_GATE
from airgate.policy.index import canonical

ISSUER = "https://gate.example.com"
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE = "urn:ietf:params:oauth:token-type:access_token"
TOKEN = "/-/token"
ENTRIES = "/lab/v1/entries"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SEED = """
policies:
  - id: exchange
    description: Whoever reads finance may exchange its token for the lab
    owner: lab@example.com
    effect: permit
    subject: {roles: {any: [finance-reader]}}
    target: {upstream: "-", methods: [POST], paths: [/token]}
    exchange: {upstreams: [lab], lifetime: 2m}
  - id: agents-in-the-lab
    description: Agents may read the lab for whoever may
    owner: lab@example.com
    effect: permit
    subject: {kind: agent}
    target: {upstream: lab, methods: [GET], paths: ["/v1/**"]}
  - id: agents-exchange
    description: Agents may act for people
    owner: lab@example.com
    effect: permit
    subject: {kind: agent, delegated: true}
    target: {upstream: "-", methods: [POST], paths: [/token]}
    exchange: {upstreams: [lab], roles: [finance-reader], lifetime: 60s}
  - id: no-agent-writes
    description: No agent writes, whoever stands behind it
    owner: lab@example.com
    effect: forbid
    subject: {kind: agent}
    target: {upstream: lab, methods: [POST, PUT, PATCH, DELETE], paths: ["/**"]}
"""


@pytest.fixture(scope="module", params=["ES256", "EdDSA"])
def secret(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The keys that the gate signs with, made by the command."""
    file = tmp_path_factory.mktemp("keys") / "assertion-keys.json"
    made = ["assertion", "new", "--issuer", ISSUER, "--algorithm", request.param, "--out", str(file)]
    assert CliRunner().invoke(keys.app, made).exit_code == 0
    return file.read_text("utf-8")


@pytest.fixture(scope="module")
def exchanging(
    stack: Stack,
    start_gate: Callable[..., Any],
    publish: Callable[..., Any],
    lab_seed: Path,
    secret: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """A gate that signs tokens, with the lab's policy and what may be exchanged for it."""
    seed = tmp_path_factory.mktemp("exchange") / "kv-seed"
    shutil.copytree(lab_seed, seed)
    (seed / "exchange.yaml").write_text(SEED, encoding="utf-8")
    gate = start_gate(
        None,
        {
            "ASSERTION_KEYS": secret,
            "TRUSTED_KEYS": stack.trusted,
            "VIEW_REFRESH": "0.3",
            "VIEW_WAIT": "1.5",
            "VIEW_STALE": "10",
        },
    )
    publish(seed, gate)
    gate.wait()
    return gate


def ask(gate: Any, subject: str, headers: Mapping[str, str] | None = None, **changes: str) -> Any:
    form = {
        "grant_type": GRANT,
        "subject_token": subject,
        "subject_token_type": TYPE,
        "resource": f"{ISSUER}/lab",
    }
    if "actor_token" in changes:
        form["actor_token_type"] = TYPE
    body = urlencode({**form, **changes}).encode("ascii")
    return gate.call(TOKEN, "POST", headers={**FORM, **(headers or {})}, body=body)


def given(answer: Any) -> str:
    assert answer.status == 200, answer.body
    text: str = answer.json()["access_token"]
    return text


def test_a_token_is_exchanged_used_and_on_record(exchanging: Any, mint: Callable[..., str]) -> None:
    subject = mint()
    answer = ask(exchanging, subject, {"Airgate-Dag-Id": "close"}, scope="finance-reader")
    text = given(answer)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json().keys() == {"access_token", "issued_token_type", "token_type", "expires_in", "scope"}
    call = exchanging.call(ENTRIES, token=text, headers={"Airgate-Dag-Id": "other"})
    assert call.status == 200
    assert text not in str(call.json())
    [exchange] = exchanging.events(answer)
    decision, _ = exchanging.events(call, count=2)
    claims = jwt.decode(text, options={"verify_signature": False})
    assert exchange["issued"] == {
        "token_id": claims["jti"],
        "upstream": "lab",
        "roles": ["finance-reader"],
        "expires_in": 120,
    }
    assert (decision["token_id"], decision["subject"]) == (claims["jti"], "finance-etl")
    assert decision["exchanged"] == {
        "upstream": "lab",
        "parents": [exchange["token_id"]],
        "delegated": False,
    }
    assert decision["workload"] == {"dag": {"value": "close", "attested": False}}
    assert decision["roles"]["effective"] == ["finance-reader"]


def test_an_upstream_verifies_it_by_the_gates_own_keys(exchanging: Any, mint: Callable[..., str]) -> None:
    text = given(ask(exchanging, mint()))
    metadata = exchanging.call("/.well-known/oauth-authorization-server").json()
    assert metadata["token_endpoint"] == f"{ISSUER}/-/token"
    published = jwt.PyJWKSet.from_dict(exchanging.call("/-/jwks.json").json())
    read = jwt.decode_complete(
        text,
        published[jwt.get_unverified_header(text)["kid"]].key,
        algorithms=["ES256", "EdDSA"],
        issuer=metadata["issuer"],
        audience=f"{ISSUER}/lab",
        options={"require": ["iss", "aud", "sub", "client_id", "iat", "exp", "jti", "scope"]},
    )
    assert read["header"]["typ"] == "at+jwt"
    assert read["payload"]["exp"] - read["payload"]["iat"] == 120


def test_an_agent_acts_for_somebody_and_never_writes(exchanging: Any, mint: Callable[..., str]) -> None:
    person = mint(
        sub="ada", client_id="portal", airgate_kind="human", groups=["finance-readers", "finance-publishers"]
    )
    agent = mint(sub="assistant", client_id="assistant", airgate_kind="agent", groups=["finance-readers"])
    text = given(ask(exchanging, person, actor_token=agent))
    claims = jwt.decode(text, options={"verify_signature": False})
    assert (claims["sub"], claims["act"]["sub"], claims["scope"]) == ("ada", "assistant", "finance-reader")
    read = exchanging.call(ENTRIES, token=text)
    assert read.status == 200
    decision, _ = exchanging.events(read, count=2)
    assert (decision["kind"], decision["actor"], decision["subject"]) == ("agent", "assistant", "ada")
    write = exchanging.call(ENTRIES, "POST", token=text, body=b"{}")
    assert (write.status, write.code) == (403, "policy.forbidden")
    assert exchanging.call(ENTRIES, "POST", token=person, body=b"{}").status == 200


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type", "exchange.grant_type"),
        ({"resource": f"{ISSUER}/ledger"}, "invalid_target", "exchange.target"),
        ({"resource": f"{ISSUER}/nowhere"}, "invalid_target", "exchange.target"),
        ({"scope": "oncall"}, "invalid_scope", "exchange.scope"),
        ({"subject_token": "x.y.z"}, "invalid_request", "token.malformed"),
        (
            {"subject_token_type": TYPE.replace("access", "refresh")},
            "invalid_request",
            "request.body_invalid",
        ),
        ({"padding": "x" * 30_000}, "invalid_request", "request.body_too_large"),
    ],
)
def test_errors(
    exchanging: Any, mint: Callable[..., str], changes: dict[str, str], error: str, reason: str
) -> None:
    answer = ask(exchanging, mint(), **changes)
    assert (answer.status, answer.json()) == (400, {"error": error, "request_id": answer.id})
    assert answer.headers["Content-Type"] == "application/json"
    [decision] = exchanging.events(answer)
    assert (decision["decision"], decision["reason"], decision["page"]) == ("deny", reason, "token")


def test_who_may_not_exchange(exchanging: Any, mint: Callable[..., str]) -> None:
    answer = ask(exchanging, mint(groups=["sales-readers"]))
    assert (answer.status, answer.json()["error"]) == (400, "unauthorized_client")


def test_it_is_for_one_upstream_and_for_no_page_of_the_gate(
    exchanging: Any, mint: Callable[..., str]
) -> None:
    text = given(ask(exchanging, mint()))
    for path in ("/hostile/v1", "/impatient/v1", "/nowhere"):
        assert exchanging.call(path, token=text).code == "token.audience"
    assert "bundle" not in exchanging.call("/-/health", token=text).json()


def test_altered_and_foreign_tokens(exchanging: Any, mint: Callable[..., str]) -> None:
    text = given(ask(exchanging, mint()))
    head, payload, signature = text.split(".")
    claims = jwt.decode(text, options={"verify_signature": False})
    claims["scope"] = "oncall"
    other = jwt.utils.base64url_encode(json.dumps(claims).encode()).decode()
    assert exchanging.call(ENTRIES, token=f"{head}.{other}.{signature}").code == "token.signature"
    assert exchanging.call(ENTRIES, token=mint(iss=ISSUER, aud=f"{ISSUER}/lab")).code == "token.algorithm"
    swapped = ("A" if signature[5] != "A" else "B").join((signature[:5], signature[6:]))
    assert exchanging.call(ENTRIES, token=f"{head}.{payload}.{swapped}").code == "token.signature"


def test_a_bound_token_keeps_its_key(exchanging: Any, stack: Stack) -> None:
    key = ProofKey()
    bound = fetch_token(stack, "finance-etl", bound_to=key)
    here = {"Host": exchanging.url.removeprefix("http://")}

    def send(path: str, method: str, headers: Mapping[str, str], body: bytes = b"") -> Any:
        lines = {**here, **headers, **({"Content-Length": str(len(body))} if body else {})}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return exchanging.send(f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode() + body, method)

    form = {"grant_type": GRANT, "subject_token": bound, "subject_token_type": TYPE, "audience": "lab"}
    body = urlencode(form).encode()
    assert send(TOKEN, "POST", FORM, body).json()["error"] == "invalid_dpop_proof"
    proof = key.proof("POST", exchanging.url + TOKEN)
    other = ProofKey().proof("POST", exchanging.url + TOKEN)
    assert send(TOKEN, "POST", {**FORM, "DPoP": other}, body).json()["error"] == "invalid_dpop_proof"
    answer = send(TOKEN, "POST", {**FORM, "DPoP": proof}, body)
    assert answer.json()["token_type"] == "DPoP"
    text = given(answer)
    shown = key.proof("GET", exchanging.url + ENTRIES, text)
    assert send(ENTRIES, "GET", {"Authorization": f"DPoP {text}", "DPoP": shown}).status == 200
    assert (
        send(ENTRIES, "GET", {"Authorization": f"DPoP {text}", "DPoP": shown}).code == "token.proof_replayed"
    )
    assert send(ENTRIES, "GET", {"Authorization": f"Bearer {text}"}).code == "token.scheme"


def revoke(gate: Any, **match: str) -> None:
    """Add a revocation to the gate's D1, which needs no signature."""
    now = int(time.time())
    act = {
        "act": "revoke",
        "gate": LOCAL_GATE,
        "at": now,
        "until": now + 600,
        "by": "x",
        "reason": "x",
        "match": match,
    }
    text = canonical(act)
    [file] = (Path(gate.state) / "v3/d1").glob("*/*.sqlite")
    with closing(sqlite3.connect(file, timeout=10)) as database, database:
        database.execute(
            "INSERT INTO acts (id, act, until, document, key, signature) VALUES (?, 'revoke', ?, ?, '', '')",
            (act_id(text), now + 600, text),
        )


def test_what_is_revoked_takes_the_gate_token_along(exchanging: Any, mint: Callable[..., str]) -> None:
    subject = mint(sub=f"revoked-{time.time_ns()}")
    text, kept = given(ask(exchanging, subject)), given(ask(exchanging, mint()))
    assert exchanging.call(ENTRIES, token=text).status == 200
    revoke(exchanging, token_id=jwt.decode(subject, options={"verify_signature": False})["jti"])
    deadline = time.monotonic() + 10
    while exchanging.call(ENTRIES, token=text).code != "token.revoked":
        assert time.monotonic() < deadline, "the revocation is not in force"
        time.sleep(0.1)
    assert ask(exchanging, subject).json()["error"] == "invalid_request"
    assert exchanging.call(ENTRIES, token=kept).status == 200


def test_many_at_once(exchanging: Any, mint: Callable[..., str]) -> None:
    """Each with its own tokens: nothing of one request is in another's."""
    subjects = {f"task-{number}": mint(sub=f"task-{number}") for number in range(40)}

    def one(name: str) -> tuple[str, str, int]:
        text = given(ask(exchanging, subjects[name]))
        claims = jwt.decode(text, options={"verify_signature": False})
        return name, claims["sub"], exchanging.call(ENTRIES, token=text).status

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, subjects))
    assert found == [(name, name, 200) for name in subjects]
