"""Bound tokens at the running gate (RFC 9449): a real provider binds them, real keys prove them, WebCrypto verifies."""

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from airgate.dev.stack import Stack
from airgate.dev.token import ProofKey, fetch_token
from airgate.node import PROJECT
from airgate.policy.seed import STARTER
from dpop import thumbprint

Audit = Callable[..., list[dict[str, Any]]]
READ = "/ledger/v1/entries"
ALGS = 'DPoP algs="ES256 ES384 ES512 Ed25519 EdDSA PS256 RS256"'


@pytest.fixture(scope="module")
def key() -> ProofKey:
    return ProofKey()


@pytest.fixture(scope="module")
def bound(stack: Stack, key: ProofKey) -> str:
    """A token of finance-etl that the provider has bound to the key."""
    return fetch_token(stack, "finance-etl", bound_to=key)


@pytest.fixture
def headers(gate: httpx.Client, key: ProofKey, bound: str) -> dict[str, str]:
    """Those of a good GET of READ, with a new proof."""
    return {"Authorization": f"DPoP {bound}", "DPoP": key.proof("GET", str(gate.base_url.join(READ)), bound)}


def refused(answer: httpx.Response, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (401, code)


def test_the_provider_binds_a_token_to_the_proofs_key(stack: Stack, bound: str) -> None:
    claims = jwt.decode(bound, options={"verify_signature": False})
    assert list(claims["cnf"]) == ["jkt"]
    metadata = httpx.get(stack.provider + "/.well-known/openid-configuration").json()
    assert "ES256" in metadata["dpop_signing_alg_values_supported"]


def test_a_proven_call_arrives_without_token_and_proof(
    gate: httpx.Client, headers: Mapping[str, str], bound: str, audit: Audit
) -> None:
    answer = gate.get(READ + "?limit=1", headers=headers)
    assert answer.status_code == 200
    seen = answer.json()["headers"]
    assert "dpop" not in seen
    assert bound not in str(seen)
    decision, _ = audit(answer, count=2)
    jkt = jwt.decode(bound, options={"verify_signature": False})["cnf"]["jkt"]
    assert (decision["decision"], decision["subject"], decision["jkt"]) == ("permit", "finance-etl", jkt)
    assert bound not in str(decision)
    assert headers["DPoP"] not in str(decision)


def test_a_body_goes_along(gate: httpx.Client, key: ProofKey, bound: str) -> None:
    proof = key.proof("POST", str(gate.base_url.join(READ)), bound)
    answer = gate.post(
        READ,
        content=b"hello",
        headers={"Authorization": f"DPoP {bound}", "DPoP": proof, "Airgate-Dag-Id": "finance_x"},
    )
    assert (answer.status_code, answer.json()["body"]) == (200, "hello")


def test_a_captured_request_cannot_be_sent_again(
    gate: httpx.Client, headers: Mapping[str, str], audit: Audit
) -> None:
    assert gate.get(READ, headers=headers).status_code == 200
    for _ in range(3):
        answer = gate.get(READ, headers=headers)
        refused(answer, "token.proof_replayed")
        assert answer.headers["WWW-Authenticate"].startswith(
            f'{ALGS}, error="invalid_dpop_proof", resource_metadata='
        )
    [decision] = audit(answer)
    assert (decision["decision"], decision["reason"], decision["subject"]) == (
        "deny",
        "token.proof_replayed",
        "finance-etl",
    )


def test_of_many_at_once_with_one_proof_one_is_forwarded(wire: Any, headers: Mapping[str, str]) -> None:
    replies: list[Any] = []
    own = {**headers, "Host": wire.url.removeprefix("http://")}

    def call() -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in own.items())
        replies.append(wire.send(f"GET {READ} HTTP/1.1\r\n{lines}\r\n".encode()))

    callers = [threading.Thread(target=call) for _ in range(16)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert sorted(reply.status for reply in replies) == [200, *[401] * 15]
    assert {reply.code for reply in replies} == {"", "token.proof_replayed"}


def test_a_proof_is_for_its_host(wire: Any, headers: Mapping[str, str], key: ProofKey, bound: str) -> None:
    assert wire.call(READ, headers=headers).code == "token.proof_invalid"  # Host is gate.example.com
    there = key.proof("GET", "http://GATE.example.com:80/x/../ledger/v1/entri%65s", bound)
    assert wire.call(READ + "?q=1", headers=plain(there, bound)).status == 200


def test_two_headers_are_none(wire: Any, key: ProofKey, bound: str) -> None:
    def proof() -> tuple[str, str]:
        return "DPoP", key.proof("GET", "http://gate.example.com" + READ, bound)

    credential = ("Authorization", f"DPoP {bound}")
    assert wire.call(READ, headers=[credential, proof(), proof()]).code == "token.proof_invalid"
    assert wire.call(READ, headers=[credential, proof(), ("DPoP", "")]).code == "token.proof_invalid"
    bearer = ("Authorization", f"Bearer {bound}")
    assert wire.call(READ, headers=[bearer, credential, proof()]).code == "token.malformed"
    assert wire.call(READ, headers=[credential, proof()]).status == 200


Made = Callable[[ProofKey, str, str], Mapping[str, str]]


def plain(proof: str, bound: str) -> dict[str, str]:
    return {"Authorization": f"DPoP {bound}", "DPoP": proof}


REFUSED: list[tuple[str, Made, str]] = [
    ("no proof", lambda k, b, u: {"Authorization": f"DPoP {b}"}, "token.proof_missing"),
    ("Bearer", lambda k, b, u: {"Authorization": f"Bearer {b}"}, "token.scheme"),
    (
        "Bearer with a good proof",
        lambda k, b, u: {**plain(k.proof("GET", u, b), b), "Authorization": f"Bearer {b}"},
        "token.scheme",
    ),
    (
        "both schemes",
        lambda k, b, u: {**plain(k.proof("GET", u, b), b), "Authorization": f"DPoP {b}, Bearer {b}"},
        "token.malformed",
    ),
    (
        "two proofs",
        lambda k, b, u: plain(f"{k.proof('GET', u, b)}, {k.proof('GET', u, b)}", b),
        "token.proof_invalid",
    ),
    ("Airgate-Token without a proof", lambda k, b, u: {"Airgate-Token": b}, "token.proof_missing"),
    ("another method", lambda k, b, u: plain(k.proof("POST", u, b), b), "token.proof_invalid"),
    ("another path", lambda k, b, u: plain(k.proof("GET", u + "/1", b), b), "token.proof_invalid"),
    (
        "another scheme in htu",
        lambda k, b, u: plain(k.proof("GET", u.replace("http:", "https:"), b), b),
        "token.proof_invalid",
    ),
    ("another key", lambda k, b, u: plain(ProofKey().proof("GET", u, b), b), "token.proof_invalid"),
    ("another token's", lambda k, b, u: plain(k.proof("GET", u, b + "x"), b), "token.proof_invalid"),
    ("no token's", lambda k, b, u: plain(k.proof("GET", u), b), "token.proof_invalid"),
    (
        "an old one",
        lambda k, b, u: plain(k.proof("GET", u, b, iat=int(time.time()) - 70), b),
        "token.proof_invalid",
    ),
    (
        "one from the future",
        lambda k, b, u: plain(k.proof("GET", u, b, iat=int(time.time()) + 60), b),
        "token.proof_invalid",
    ),
    ("without jti", lambda k, b, u: plain(k.proof("GET", u, b, jti=None), b), "token.proof_invalid"),
]


@pytest.mark.parametrize(("make", "code"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_refused(gate: httpx.Client, key: ProofKey, bound: str, make: Made, code: str, audit: Audit) -> None:
    answer = gate.get(READ, headers=make(key, bound, str(gate.base_url.join(READ))))
    refused(answer, code)
    [decision] = audit(answer)
    assert decision["reason"] == code


def test_a_signature_by_somebody_else_is_refused(gate: httpx.Client, key: ProofKey, bound: str) -> None:
    forger, url = ProofKey(), str(gate.base_url.join(READ))
    forger.jwk = key.jwk
    forged = forger.proof("GET", url, bound, jti="forged")
    refused(gate.get(READ, headers=plain(forged, bound)), "token.proof_invalid")
    # And it has not used the true one up.
    true = key.proof("GET", url, bound, jti="forged")
    assert gate.get(READ, headers=plain(true, bound)).status_code == 200


def test_a_token_in_a_header_of_its_own(gate: httpx.Client, headers: Mapping[str, str], bound: str) -> None:
    own = {"Airgate-Token": bound, "DPoP": headers["DPoP"], "Authorization": "Basic eDp5"}
    assert gate.get(READ, headers=own).status_code == 200


def test_an_unbound_token_is_no_dpop_token(
    gate: httpx.Client, key: ProofKey, token: Callable[..., str]
) -> None:
    unbound, url = token(), str(gate.base_url.join(READ))
    refused(gate.get(READ, headers={"Authorization": f"DPoP {unbound}"}), "token.scheme")
    refused(gate.get(READ, headers=plain(key.proof("GET", url, unbound), unbound)), "token.scheme")
    beside = {"Authorization": f"Bearer {unbound}", "DPoP": key.proof("GET", url, unbound)}
    refused(gate.get(READ, headers=beside), "token.proof_invalid")
    assert gate.get(READ, headers={"Authorization": f"Bearer {unbound}"}).status_code == 200


@pytest.mark.parametrize(
    "confirmation",
    [{"x5t#S256": "A" * 43}, {"jkt": "short"}, {}, "key"],
    ids=["a certificate", "short", "empty", "text"],
)
def test_a_token_bound_in_a_way_that_cannot_be_checked(
    gate: httpx.Client, mint: Callable[..., str], confirmation: Any
) -> None:
    token = mint(cnf=confirmation)
    refused(gate.get(READ, headers={"Authorization": f"Bearer {token}"}), "token.claims")


@pytest.mark.parametrize(
    ("algorithm", "private"),
    [
        pytest.param("ES256", ec.generate_private_key(ec.SECP256R1()), id="ES256"),
        pytest.param("ES384", ec.generate_private_key(ec.SECP384R1()), id="ES384"),
        pytest.param("ES512", ec.generate_private_key(ec.SECP521R1()), id="ES512"),
        pytest.param("EdDSA", ed25519.Ed25519PrivateKey.generate(), id="EdDSA"),
        pytest.param("RS256", rsa.generate_private_key(65537, 2048), id="RS256"),
        pytest.param("PS256", rsa.generate_private_key(65537, 2048), id="PS256"),
    ],
)
def test_every_algorithm_is_verified_at_the_edge(
    gate: httpx.Client, mint: Callable[..., str], algorithm: str, private: Any
) -> None:
    jwk = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key()))
    jwk = {name: value for name, value in jwk.items() if name != "key_ops"}
    ours = ProofKey()
    ours.jwk = jwk
    token = mint(cnf={"jkt": thumbprint(jwk)})
    claims = jwt.decode(
        ours.proof("GET", str(gate.base_url.join(READ)), token), options={"verify_signature": False}
    )
    for jti, expected in (("a", 200), ("b", 200), ("b", 401)):
        proof = jwt.encode({**claims, "jti": jti}, private, algorithm, {"typ": "dpop+jwt", "jwk": jwk})
        assert gate.get(READ, headers=plain(proof, token)).status_code == expected
    broken = proof[:-8] + ("A" * 8 if proof[-8:] != "A" * 8 else "B" * 8)
    refused(gate.get(READ, headers=plain(broken, token)), "token.proof_invalid")


def airgate(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "airgate", "token", "--dir", str(stack.directory), *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("whole", [False, True], ids=["by its path", "by its address"])
def test_the_token_command_prints_the_headers_of_a_call(
    stack: Stack, gate: httpx.Client, whole: bool
) -> None:
    url = (stack.gate if whole else "") + READ + "?limit=1"
    done = airgate(stack, "--client", "finance-etl", "--dpop", "get", url)
    assert (done.returncode, done.stderr) == (0, "")
    headers = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert list(headers) == ["Authorization", "DPoP"]
    assert gate.get(READ, headers=headers).status_code == 200
    refused(gate.get(READ, headers=headers), "token.proof_replayed")


def test_the_token_command_says_what_an_address_is(stack: Stack) -> None:
    done = airgate(stack, "--client", "finance-etl", "--dpop", "GET", "ledger/v1/entries")
    assert done.returncode == 1
    assert "/ledger/v1/entries" in done.stderr


@pytest.fixture(scope="module")
def strict(
    start_gate: Callable[..., Any], publish: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The address of a gate that takes bound tokens only."""
    seed: Path = tmp_path_factory.mktemp("strict") / "kv-seed"
    shutil.copytree(STARTER, seed)
    company = seed / "issuers" / "company.yaml"
    company.write_text(
        company.read_text("utf-8").replace("clock_skew: 60s", "clock_skew: 60s\n    dpop: required")
    )
    gate = start_gate()
    publish(seed, gate)
    gate.wait()
    return str(gate.url)


def test_an_issuer_may_have_to_bind_its_tokens(
    strict: str, key: ProofKey, bound: str, token: Callable[..., str]
) -> None:
    unbound = token()
    with httpx.Client(base_url=strict, trust_env=False) as client:
        answer = client.get(READ, headers={"Authorization": f"Bearer {unbound}"})
        refused(answer, "token.unbound")
        assert answer.headers["WWW-Authenticate"].startswith(
            f'{ALGS}, error="invalid_token", resource_metadata='
        )
        headers = plain(key.proof("GET", strict + READ, bound), bound)
        assert client.get(READ, headers=headers).status_code == 200


@pytest.fixture(scope="module")
def isolates(
    stack: Stack,
    start_gate: Callable[..., Any],
    publish: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Any, Any]:
    """Two isolates of a gate whose policy says `dpop_replay: strict`, on the same stores."""
    seed = tmp_path_factory.mktemp("seed") / "kv-seed"
    shutil.copytree(STARTER, seed)
    issuer = seed / "issuers" / "company.yaml"
    issuer.write_text(issuer.read_text("utf-8").rstrip() + "\n    dpop_replay: strict\n", encoding="utf-8")
    secrets = {"TRUSTED_KEYS": stack.trusted}
    one = start_gate(None, secrets)
    publish(seed, one)
    another = start_gate(one.state, secrets)
    for gate in (one, another):
        gate.wait()
        assert gate.call("/-/health").json()["status"] == "ok"
    return one, another


def test_where_policy_is_strict_a_proof_is_used_up_for_all_isolates(
    isolates: tuple[Any, Any], key: ProofKey, bound: str
) -> None:
    one, another = isolates
    proof = key.proof("GET", "http://gate.example.com" + READ, bound)
    assert one.call(READ, headers=plain(proof, bound)).status == 200
    answer = another.call(READ, headers=plain(proof, bound))
    assert answer.code == "token.proof_replayed"
    [decision] = another.events(answer)
    assert decision["detail"] == "at another isolate"
    fresh = key.proof("GET", "http://gate.example.com" + READ, bound)
    assert another.call(READ, headers=plain(fresh, bound)).status == 200


def test_where_policy_is_strict_no_proof_counts_without_d1(
    isolates: tuple[Any, Any], key: ProofKey, bound: str
) -> None:
    one, _ = isolates
    [file] = (Path(one.state) / "v3/d1").glob("*/*.sqlite")
    with closing(sqlite3.connect(file, timeout=10)) as database:
        database.execute("ALTER TABLE proofs RENAME TO away")
        database.commit()
        answer = one.call(
            READ, headers=plain(key.proof("GET", "http://gate.example.com" + READ, bound), bound)
        )
        assert (answer.status, answer.code) == (503, "state.unavailable")
        database.execute("ALTER TABLE away RENAME TO proofs")
        database.commit()
    proof = key.proof("GET", "http://gate.example.com" + READ, bound)
    assert one.call(READ, headers=plain(proof, bound)).status == 200
