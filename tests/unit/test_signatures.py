"""Tokens that are truly signed, by PyJWT and by hand, through the whole gate with a real verifier.

test_must_reject.py asks what the gate itself refuses; this, that it and a verifier together take the right ones. What
Wycheproof has no cases for is here too: ES384, ES512, Ed25519, and salts of PSS.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA512, HashAlgorithm
from verifier import verify
from world import CLAIMS, HEADER, JWKS_URI, World, b64, bearing, document, inbound, jwks, run

import gateway
from airgate.dev.signing import ALGORITHMS, new_keys, sign
from document import read_base64url
from keys import Key
from model import Reason
from state import State

SECRET = frozenset({"d", "p", "q", "dp", "dq", "qi"})


class Real(World):
    """A world in which a signature is good if it is one."""

    async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
        return await verify(key, algorithm, given, signed)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An issuer's private keys, one for each algorithm."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    path.write_text(json.dumps(new_keys()), encoding="utf-8")
    return path


def private(file: Path, algorithm: str) -> Any:
    """The issuer's key for an algorithm."""
    members = json.loads(file.read_text("utf-8"))["keys"]
    return jwt.PyJWK(next(jwk for jwk in members if jwk["alg"] == algorithm)).key


def asked(file: Path, credential: str) -> Reason | None:
    """Why a gate that accepts every algorithm refuses a token; None: the call went through."""
    bundle = document()
    bundle["issuers"]["company"]["algorithms"] = list(ALGORITHMS)
    world = Real(bundle)
    members = json.loads(file.read_text("utf-8"))["keys"]
    public = [{name: value for name, value in jwk.items() if name not in SECRET} for jwk in members]
    world.pages[JWKS_URI] = jwks(*public)
    run(gateway.handle(inbound(**bearing(credential)), State(), world))
    reason = world.lines("decision")[-1]["reason"]
    return None if reason is None else Reason(reason)


def in_parts(file: Path, algorithm: str) -> tuple[str, bytes]:
    """What is signed of a good token, and its signature."""
    signed, _, last = sign(file, CLAIMS, algorithm=algorithm).rpartition(".")
    return signed, read_base64url(last)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_token_of_every_algorithm_is_accepted(file: Path, algorithm: str) -> None:
    assert asked(file, sign(file, CLAIMS, algorithm=algorithm)) is None


def in_der(signature: bytes) -> bytes:
    half = len(signature) // 2
    r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
    return encode_dss_signature(r, s)


CHANGES: list[Any] = [
    pytest.param(lambda s: bytes([s[0] ^ 1]) + s[1:], id="the first bit changed"),
    pytest.param(lambda s: s[:-1] + bytes([s[-1] ^ 1]), id="the last bit changed"),
    pytest.param(lambda s: s[:-1], id="a byte shorter"),
    pytest.param(lambda s: s + b"\0", id="a byte longer"),
    pytest.param(lambda s: b"\0" + s, id="a zero before it"),
    pytest.param(lambda s: s[len(s) // 2 :] + s[: len(s) // 2], id="its halves exchanged"),
    pytest.param(lambda s: bytes(len(s)), id="zeros"),
    pytest.param(lambda s: b"\xff" * len(s), id="ones"),
    pytest.param(in_der, id="its halves in DER"),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_changed_signature_is_refused(file: Path, algorithm: str, change: Callable[[bytes], bytes]) -> None:
    signed, signature = in_parts(file, algorithm)
    assert asked(file, f"{signed}.{b64(change(signature))}") is Reason.TOKEN_SIGNATURE


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_changed_claims_are_refused(file: Path, algorithm: str) -> None:
    _, signature = in_parts(file, algorithm)
    header = {**HEADER, "alg": algorithm, "kid": f"local-{algorithm.lower()}"}
    claims = {**CLAIMS, "sub": "root"}
    signed = ".".join(b64(json.dumps(part).encode()) for part in (header, claims))
    assert asked(file, f"{signed}.{b64(signature)}") is Reason.TOKEN_SIGNATURE


STRANGERS = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_strangers_key_is_refused(file: Path, algorithm: str) -> None:
    header = {"kid": f"local-{algorithm.lower()}", "typ": "at+jwt"}
    token = jwt.encode(CLAIMS, STRANGERS[algorithm](), algorithm, header)
    assert asked(file, token) is Reason.TOKEN_SIGNATURE


def padded(file: Path, algorithm: str, padding_: padding.AsymmetricPadding, digest: HashAlgorithm) -> str:
    """A token whose header says one RSA algorithm, signed with this padding and hash."""
    header = {**HEADER, "alg": algorithm, "kid": f"local-{algorithm.lower()}"}
    signed = ".".join(b64(json.dumps(part).encode()) for part in (header, CLAIMS))
    key = private(file, algorithm)
    return f"{signed}.{b64(key.sign(signed.encode(), padding_, digest))}"


def pss(salt: int, digest: HashAlgorithm) -> padding.PSS:
    return padding.PSS(padding.MGF1(digest), salt)


@pytest.mark.parametrize("salt", [0, 1, 20, 31, 33, 64, 222])
def test_a_salt_of_pss_that_is_not_as_long_as_the_hash_is_refused(file: Path, salt: int) -> None:
    """Row "signature: PSS salt" of the tokens that must be rejected (RFC 7518 §3.5)."""
    assert asked(file, padded(file, "PS256", pss(salt, SHA256()), SHA256())) is Reason.TOKEN_SIGNATURE
    assert asked(file, padded(file, "PS256", pss(32, SHA256()), SHA256())) is None


@pytest.mark.parametrize(
    ("algorithm", "padding_", "digest"),
    [
        pytest.param("RS256", padding.PKCS1v15(), SHA1(), id="RS256 with SHA-1"),
        pytest.param("RS256", padding.PKCS1v15(), SHA512(), id="RS256 with SHA-512"),
        pytest.param("RS256", pss(32, SHA256()), SHA256(), id="RS256 with the padding of PS256"),
        pytest.param("PS256", padding.PKCS1v15(), SHA256(), id="PS256 with the padding of RS256"),
        pytest.param("PS256", pss(64, SHA512()), SHA512(), id="PS256 with SHA-512"),
        pytest.param(
            "PS256", padding.PSS(padding.MGF1(SHA1()), 32), SHA256(), id="PS256 with SHA-1 in its mask"
        ),
    ],
)
def test_another_padding_or_hash_is_refused(
    file: Path, algorithm: str, padding_: padding.AsymmetricPadding, digest: HashAlgorithm
) -> None:
    assert asked(file, padded(file, algorithm, padding_, digest)) is Reason.TOKEN_SIGNATURE
