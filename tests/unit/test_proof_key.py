"""Proofs by real keys, as `airgate token --dpop` makes them: what the gate reads and a real verifier believes."""

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_dpop import HOST, RFC_PROOF, RFC_TOKEN
from world import CLAIMS, NOW

import dpop
from airgate.dev.token import ProofKey
from model import Denied, Reason

URL = HOST + "/ledger/v1/entries"
TOKEN = "a.b.c"
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # the order of P-256 (SEC 2 §2.4.2)


def bound_to(jwk: dict[str, Any]) -> dpop.Binding:
    members = {name: jwk[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in jwk}
    return dpop.binding(dpop.thumbprint(members), CLAIMS["iss"], CLAIMS["sub"], TOKEN)


def verified(proof: dpop.Proof) -> bool:
    """What WebCrypto does at the edge: a signature by a minimal JWK, r and s side by side."""
    key = jwt.PyJWK(proof.key.jwk, proof.algorithm).key
    return jwt.get_algorithm_by_name(proof.algorithm).verify(proof.signed, key, proof.signature)


def believed(text: str, bound: dpop.Binding, now: float | None = None) -> dpop.Proof | None:
    """A proof of a GET of URL, if it is one: now, or at another time."""
    try:
        proof = dpop.read(bound, "dpop", {"dpop": text}, "GET", URL, now or time.time())
    except Denied as refused:
        if refused.reason is not Reason.TOKEN_PROOF_INVALID:
            raise
        return None
    return proof if verified(proof) else None


def test_the_rfcs_own_example_is_signed_by_its_key() -> None:
    jkt = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
    bound = dpop.binding(jkt, CLAIMS["iss"], CLAIMS["sub"], RFC_TOKEN)
    headers = {"dpop": RFC_PROOF}
    resource = "https://resource.example.org/protectedresource"
    assert verified(dpop.read(bound, "dpop", headers, "GET", resource, 1_562_262_618))


def test_the_commands_proofs_are_believed_once_each() -> None:
    key, replays = ProofKey(), dpop.Replays()
    bound = bound_to(key.jwk)
    for _ in range(3):
        proof = believed(key.proof("GET", URL + "?q=1#x", TOKEN), bound)
        assert proof is not None
        replays.claim(proof, time.time())
        bound.keep(proof)
    with pytest.raises(Denied):
        replays.claim(proof, time.time())


@pytest.mark.parametrize(
    ("method", "url", "token", "changes"),
    [
        pytest.param("POST", URL, TOKEN, {}, id="for another method"),
        pytest.param("GET", URL + "/1", TOKEN, {}, id="for another path"),
        pytest.param("GET", URL, "a.b.d", {}, id="beside another token"),
        pytest.param("GET", URL, None, {}, id="beside no token, as for a token endpoint"),
        pytest.param("GET", URL, TOKEN, {"jti": None}, id="without jti"),
        pytest.param("GET", URL, TOKEN, {"iat": 1}, id="long ago"),
    ],
)
def test_the_commands_other_proofs_are_not(
    method: str, url: str, token: str | None, changes: dict[str, Any]
) -> None:
    key = ProofKey()
    assert believed(key.proof(method, url, token, **changes), bound_to(key.jwk)) is None


def test_another_keys_proof_is_not_believed() -> None:
    key, other = ProofKey(), ProofKey()
    assert believed(other.proof("GET", URL, TOKEN), bound_to(key.jwk)) is None


def test_another_keys_signature_under_the_right_key_is_not_believed() -> None:
    key, other = ProofKey(), ProofKey()
    other.jwk = key.jwk
    assert believed(other.proof("GET", URL, TOKEN), bound_to(key.jwk)) is None


KEYS = [
    pytest.param("ES256", ec.generate_private_key(ec.SECP256R1()), id="ES256"),
    pytest.param("ES384", ec.generate_private_key(ec.SECP384R1()), id="ES384"),
    pytest.param("ES512", ec.generate_private_key(ec.SECP521R1()), id="ES512"),
    pytest.param("EdDSA", ed25519.Ed25519PrivateKey.generate(), id="EdDSA"),
    pytest.param("RS256", rsa.generate_private_key(65537, 2048), id="RS256"),
    pytest.param("PS256", rsa.generate_private_key(65537, 2048), id="PS256"),
]


@pytest.mark.parametrize(("algorithm", "private"), KEYS)
def test_a_real_proof_by_every_algorithm(algorithm: str, private: Any) -> None:
    jwk = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key()))
    jwk = {name: value for name, value in jwk.items() if name != "key_ops"}
    bound = bound_to(jwk)
    claims = {"jti": "1", "htm": "GET", "htu": URL, "iat": time.time(), "ath": bound.ath}
    text = jwt.encode(claims, private, algorithm, {"typ": "dpop+jwt", "jwk": jwk})
    assert believed(text, bound) is not None
    assert believed(text[:-8] + ("A" * 8 if text[-8:] != "A" * 8 else "B" * 8), bound) is None


# Outside of what is generated, so that hypothesis can show a failure again.
KEY = ProofKey()
BOUND = bound_to(KEY.jwk)
GOOD = KEY.proof("GET", URL, TOKEN, iat=NOW)


@settings(max_examples=200)
@given(place=st.integers(0, len(GOOD) - 1), put=st.sampled_from("ABCQgwxyz019-_."), keep=st.booleans())
def test_no_proof_that_was_tampered_with_is_believed(place: int, put: str, keep: bool) -> None:
    text = GOOD[:place] + put + GOOD[place + 1 :]
    assume(text != GOOD)
    bound = bound_to(KEY.jwk)
    good = believed(GOOD, bound, NOW)
    assert good is not None
    if keep:
        bound.keep(good)
    assert believed(text, bound, NOW) is None


def test_a_signature_in_its_other_form_is_no_other_proof() -> None:
    """For r and s, r and n - s verify as well: what is remembered must not hang on a signature's bytes."""
    replays, good = dpop.Replays(), believed(GOOD, BOUND, NOW)
    assert good is not None
    s = int.from_bytes(good.signature[32:], "big")
    mirrored = good._replace(signature=good.signature[:32] + (N - s).to_bytes(32, "big"))
    assert verified(mirrored)
    replays.claim(good, NOW)
    with pytest.raises(Denied) as caught:
        replays.claim(mirrored, NOW)
    assert caught.value.reason is Reason.TOKEN_PROOF_REPLAYED
