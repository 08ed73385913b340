"""Private keys as `cryptography` writes them, beside what the gate makes of them; and its JWS, read by PyJWT."""

import json
from base64 import b64encode
from hashlib import sha256
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from document import read_base64url
from signing import SigningKey, compact, public_info, public_jwk, read_secret, signing_input

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

KEYS = [
    pytest.param(rsa.generate_private_key(65537, 2048), "RS256", id="RSA of 2,048 bits"),
    pytest.param(rsa.generate_private_key(3, 3072), "RS256", id="RSA with e = 3"),
    pytest.param(ec.generate_private_key(ec.SECP256R1()), "ES256", id="P-256"),
    pytest.param(ed25519.Ed25519PrivateKey.generate(), "EdDSA", id="Ed25519"),
]


def pem(private: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    text: bytes = private.private_bytes(Encoding.PEM, form, NoEncryption())
    return text.decode("ascii")


def private_jwk(private: Any, algorithm: str) -> dict[str, str]:
    """As PyJWT has it, without what WebCrypto might take amiss."""
    jwk = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(private))
    return {name: value for name, value in jwk.items() if name != "key_ops"}


def signature(private: Any, signed: bytes) -> bytes:
    """What WebCrypto answers: for ECDSA r and s side by side."""
    if isinstance(private, rsa.RSAPrivateKey):
        return private.sign(signed, padding.PKCS1v15(), SHA256())
    if isinstance(private, ec.EllipticCurvePrivateKey):
        return b"".join(
            [
                number.to_bytes(32, "big")
                for number in decode_dss_signature(private.sign(signed, ec.ECDSA(SHA256())))
            ]
        )
    done: bytes = private.sign(signed)
    return done


@pytest.mark.parametrize(("private", "algorithm"), KEYS)
def test_pkcs8_and_jwk_give_the_same_key(private: Any, algorithm: str) -> None:
    expected = private_jwk(private, algorithm)
    for text in (pem(private), json.dumps(expected)):
        key = read_secret(text)
        assert (key.algorithm, key.jwk) == (algorithm, expected)
        public = private_jwk(private.public_key(), algorithm)
        assert key.public == {name: value for name, value in public.items() if name != "key_ops"}


@pytest.mark.parametrize(("private", "algorithm"), KEYS)
def test_public_info_and_fingerprint(private: Any, algorithm: str) -> None:
    info = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = read_secret(pem(private))
    assert public_info(key.public) == info
    assert key.fingerprint == "SHA256:" + b64encode(sha256(info).digest()).decode()


@pytest.mark.parametrize(("private", "algorithm"), KEYS)
def test_a_jws_is_believed_by_who_has_the_published_key(private: Any, algorithm: str) -> None:
    key = read_secret(pem(private))
    claims = {"sub": "\u00e9", "n": [1, 2]}
    signed = signing_input({"alg": algorithm, "kid": "one", "typ": "JWT"}, claims)
    text = compact(signed, signature(private, signed))
    published = jwt.PyJWK(public_jwk(key.public, algorithm, "one"))
    assert jwt.decode(text, published, [algorithm]) == claims
    assert jwt.get_unverified_header(text)["kid"] == "one"
    # And the private one is whole: it signs what its own public key verifies.
    again = jwt.PyJWK(key.jwk, algorithm)
    assert jwt.decode(jwt.encode(claims, again.key, algorithm), published, [algorithm]) == claims


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            pem(rsa.generate_private_key(65537, 2048), PrivateFormat.TraditionalOpenSSL), id="PKCS#1"
        ),
        pytest.param(
            pem(ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL), id="SEC 1"
        ),
        pytest.param(pem(ec.generate_private_key(ec.SECP384R1())), id="P-384"),
        pytest.param(pem(ec.generate_private_key(ec.SECP256K1())), id="secp256k1"),
        pytest.param(pem(rsa.generate_private_key(65537, 1024)), id="RSA of 1,024 bits"),
        pytest.param(
            ed25519.Ed25519PrivateKey.generate()
            .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
            .decode(),
            id="encrypted",
        ),
    ],
)
def test_other_keys_are_refused(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is for people
        read_secret(text)
    assert text.splitlines()[1] not in str(caught.value)


@settings(max_examples=50)
@given(st.one_of(st.integers(1, 40), st.integers(1, ORDER - 1), st.integers(ORDER - 40, ORDER - 1)))
def test_the_point_of_a_p256_key(scalar: int) -> None:
    private = ec.derive_private_key(scalar, ec.SECP256R1())
    key = read_secret(pem(private))
    numbers = private.public_key().public_numbers()
    assert [int.from_bytes(read_base64url(key.public[name]), "big") for name in ("x", "y")] == [
        numbers.x,
        numbers.y,
    ]


@settings(max_examples=50)
@given(st.binary(min_size=32, max_size=32))
def test_the_point_of_an_ed25519_key(seed: bytes) -> None:
    private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    key: SigningKey = read_secret(pem(private))
    assert read_base64url(key.public["x"]) == private.public_key().public_bytes_raw()
