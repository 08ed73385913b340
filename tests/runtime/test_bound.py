"""Proofs of bound tokens (RFC 9449), verified by the WebCrypto of the Python versions that Cloudflare runs."""

import hashlib
import json
import time
from base64 import urlsafe_b64encode
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from host import Gate

from dpop import thumbprint

READ = "/ledger/v1/entries"
KEYS: list[tuple[str, Any]] = [
    ("ES256", ec.generate_private_key(ec.SECP256R1())),
    ("ES384", ec.generate_private_key(ec.SECP384R1())),
    ("ES512", ec.generate_private_key(ec.SECP521R1())),
    ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
    ("RS256", rsa.generate_private_key(65537, 2048)),
    ("PS256", rsa.generate_private_key(65537, 2048)),
]


@pytest.mark.parametrize(("algorithm", "private"), KEYS, ids=[row[0] for row in KEYS])
def test_a_proof_by_every_algorithm_is_verified_and_good_for_one_call(
    gate: Gate, algorithm: str, private: Any
) -> None:
    jwk = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key()))
    jwk = {name: value for name, value in jwk.items() if name != "key_ops"}
    token = gate.token(cnf={"jkt": thumbprint(jwk)})

    def call(jti: str, scheme: str = "DPoP", **changes: str) -> tuple[int, str]:
        digest = urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
        claims = {
            "jti": jti,
            "htm": "GET",
            "htu": gate.origin + READ,
            "iat": time.time(),
            "ath": digest,
            **changes,
        }
        proof = jwt.encode(claims, private, algorithm, {"typ": "dpop+jwt", "jwk": jwk})
        if jti == "forged":
            proof = proof[:-8] + "AAAAAAAA"
        headers = {"Authorization": f"{scheme} {token}", "DPoP": proof}
        answer = httpx.get(gate.origin + READ, headers=headers, timeout=30, trust_env=False)
        return answer.status_code, answer.json()["code"] if answer.status_code == 401 else ""

    assert call("a") == (200, "")
    assert call("a") == (401, "token.proof_replayed")
    assert call("b") == (200, "")
    assert call("forged") == (401, "token.proof_invalid")
    assert call("c", htm="POST") == (401, "token.proof_invalid")
    assert call("d", "Bearer") == (401, "token.scheme")
