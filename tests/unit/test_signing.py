"""Private keys out of secrets: which can be read, what becomes of them, and that no error says what they are."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import ABSENT, b64, number, without

from document import read_base64url
from signing import (
    LIMIT,
    SigningKey,
    base64url,
    compact,
    public_info,
    public_jwk,
    read_private,
    read_secret,
    signing_input,
)

# RFC 8037 §A.1, RFC 7515 §A.3.1, and an RSA key of the tests' own.
ED25519 = {
    "kty": "OKP",
    "crv": "Ed25519",
    "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}
P256 = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
}
_P = int(
    "ce898e728ba3311eda27e4ec444b9ef432c501dfeee6b5c9791d2c3d32d0d5c2a33ed7b50c849e09bfa4ba41e94aa637"
    "658a9867260c3be6d3fb4ded1112e949fd003fb4de8bb9d8023f7fd85f11782cbc1d08ba2e98e839a697531e987cb417"
    "054f9bdebe3fc936a2254722d81b5c8c9844bed17bbf72a8a382bfcc01cd58b5",
    16,
)
_Q = int(
    "c472a1fdb544776cbec0df240c2550baf185273ccc7b03f713ee900ea1d70a2cc2c4200dee514dcfd5fc0f8cebe75414"
    "7406965b637a9c70980f59a973d56c83472a166e35b6cb33336ec5d69bce6872569d1e0575e29b66531f66a64b1fa1ae"
    "39c7631862c46a7bdb8156bba1aedd6ba10373066f68df95b7d3b14cdd76fa69",
    16,
)


def rsa(p: int = _P, q: int = _Q, e: int = 65537) -> dict[str, str]:
    d = pow(e, -1, (p - 1) * (q - 1))
    members = {
        "n": p * q,
        "e": e,
        "d": d,
        "p": p,
        "q": q,
        "dp": d % (p - 1),
        "dq": d % (q - 1),
        "qi": pow(q, -1, p),
    }
    return {"kty": "RSA"} | {name: number(value) for name, value in members.items()}


RSA = rsa()
NUMBERS = ("n", "e", "d", "p", "q", "dp", "dq", "qi")
PRIVATE_NAMES = {"d", "p", "q", "dp", "dq", "qi"}


def der(tag: int, *contents: bytes) -> bytes:
    data = b"".join(contents)
    if len(data) < 128:
        return bytes([tag, len(data)]) + data
    size = len(data).to_bytes((len(data).bit_length() + 7) // 8, "big")
    return bytes([tag, 128 + len(size)]) + size + data


def integer(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


OF_RSA = der(6, bytes.fromhex("2a864886f70d010101")) + der(5)
OF_P256 = der(6, bytes.fromhex("2a8648ce3d0201")) + der(6, bytes.fromhex("2a8648ce3d030107"))
OF_ED25519 = der(6, bytes.fromhex("2b6570"))


def pkcs8(algorithm: bytes, secret: bytes, version: int = 0, after: bytes = b"") -> bytes:
    return der(0x30, integer(version), der(0x30, algorithm), der(4, secret), after)


def pem(data: bytes, label: str = "PRIVATE KEY") -> str:
    text = b64encode(data).decode()
    lines = "\n".join(text[start : start + 64] for start in range(0, len(text), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"


def rsa_der(jwk: dict[str, str] = RSA, version: int = 0, after: bytes = b"") -> bytes:
    return der(
        0x30,
        integer(version),
        *[integer(int.from_bytes(read_base64url(jwk[name]), "big")) for name in NUMBERS],
        after,
    )


D256, POINT = read_base64url(P256["d"]), b"\4" + read_base64url(P256["x"]) + read_base64url(P256["y"])
SEED = read_base64url(ED25519["d"])


def ec_der(d: bytes = D256, version: int = 1, after: bytes = b"") -> bytes:
    return der(0x30, integer(version), der(4, d), after)


CURVE = der(0xA0, der(6, bytes.fromhex("2a8648ce3d030107")))
WITH_POINT = der(0xA1, der(3, b"\0" + POINT))

RSA_PEM = pem(pkcs8(OF_RSA, rsa_der()))
P256_PEM = pem(pkcs8(OF_P256, ec_der(after=WITH_POINT)))
ED25519_PEM = pem(pkcs8(OF_ED25519, der(4, SEED)))


def account(**changes: Any) -> dict[str, Any]:
    """A service account as Google hands it out, with changes."""
    members = {
        "type": "service_account",
        "project_id": "example",
        "private_key_id": "k1",
        "private_key": RSA_PEM,
        "client_email": "gate@example.com",
        "client_id": "1",
        "token_uri": "https://oauth2.example.com/token",
    }
    return without(members, **changes)


READ = [
    pytest.param(RSA_PEM, "RS256", RSA, id="RSA, PKCS#8"),
    pytest.param(P256_PEM, "ES256", P256, id="P-256, PKCS#8 with the public key"),
    pytest.param(pem(pkcs8(OF_P256, ec_der())), "ES256", P256, id="P-256, PKCS#8 without it"),
    pytest.param(
        pem(pkcs8(OF_P256, ec_der(after=CURVE + WITH_POINT))), "ES256", P256, id="P-256, its curve said twice"
    ),
    pytest.param(ED25519_PEM, "EdDSA", ED25519, id="Ed25519, PKCS#8"),
    pytest.param(
        pem(pkcs8(OF_ED25519, der(4, SEED), 1, der(0x81, b"\0" + read_base64url(ED25519["x"])))),
        "EdDSA",
        ED25519,
        id="Ed25519, PKCS#8 version 2 with the public key",
    ),
    pytest.param(
        pem(pkcs8(OF_ED25519, der(4, SEED), 0, der(0xA0, b""))), "EdDSA", ED25519, id="PKCS#8 with attributes"
    ),
    pytest.param(f"\n  {ED25519_PEM}\n", "EdDSA", ED25519, id="white space around it"),
    pytest.param(ED25519_PEM.replace("\n", "\r\n"), "EdDSA", ED25519, id="lines of Windows"),
    pytest.param(json.dumps(RSA), "RS256", RSA, id="RSA, a JWK"),
    pytest.param(json.dumps(P256), "ES256", P256, id="P-256, a JWK"),
    pytest.param(json.dumps(ED25519), "EdDSA", ED25519, id="Ed25519, a JWK"),
    pytest.param(json.dumps({**ED25519, "alg": "EdDSA", "use": "sig"}), "EdDSA", ED25519, id="a JWK with its use"),
    pytest.param(json.dumps({**ED25519, "alg": "Ed25519"}), "EdDSA", ED25519, id="a JWK with RFC 9864's name"),
    pytest.param(json.dumps({**P256, "key_ops": ["sign", "verify"]}), "ES256", P256, id="a JWK with operations"),
    pytest.param(json.dumps({**RSA, "n": b64(b"\0" + read_base64url(RSA["n"]))}), "RS256", RSA, id="a zero before n"),
    pytest.param(json.dumps(account()), "RS256", RSA, id="a service account"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "algorithm", "jwk"), READ)
def test_a_key_is_read(text: str, algorithm: str, jwk: dict[str, str]) -> None:
    key = read_secret(text)
    assert key.algorithm == algorithm
    assert key.jwk == jwk  # WebCrypto takes no alg, use or key_ops that it doesn't know
    assert key.public == {name: value for name, value in jwk.items() if name not in PRIVATE_NAMES}
    assert key.handles == {}


def changed(data: bytes, place: int, octet: int) -> bytes:
    return data[:place] + bytes([octet]) + data[place + 1 :]


GOOD = pkcs8(OF_ED25519, der(4, SEED))
VERSION = 4  # where that stands in it: both that there are will do
OTHER_POINT = der(0xA1, der(3, b"\0\4" + bytes(64)))
WRONG = [
    pytest.param("", id="nothing"),
    pytest.param("hunter2", id="a password"),
    pytest.param("[]", id="a list"),
    pytest.param("{", id="not JSON"),
    pytest.param("{}", id="an empty object"),
    pytest.param('{"kty":"OKP"' + " " * LIMIT, id="too long"),
    pytest.param('{"kty":' + "[" * 99 + "]" * 99 + "}", id="nested deeply"),
    pytest.param(json.dumps({**ED25519, "kty": ["OKP"]}), id="kty is a list"),
    pytest.param(json.dumps({**ED25519, "kty": "oct", "k": "c2VjcmV0"}), id="a shared secret"),
    pytest.param(json.dumps({**ED25519, "crv": "X25519"}), id="X25519"),
    pytest.param(json.dumps({**P256, "crv": "P-384"}), id="P-384"),
    pytest.param(json.dumps({**P256, "crv": None}), id="no curve"),
    pytest.param(json.dumps({**ED25519, "use": "enc"}), id="for encryption"),
    pytest.param(json.dumps({**ED25519, "key_ops": ["verify"]}), id="for verifying"),
    pytest.param(json.dumps({**ED25519, "key_ops": "sign"}), id="key_ops is a string"),
    pytest.param(json.dumps({**ED25519, "alg": "ES256"}), id="alg of another key"),
    pytest.param(json.dumps({**RSA, "alg": "PS256"}), id="PS256"),
    pytest.param(json.dumps({**RSA, "alg": "RS512"}), id="RS512"),
    pytest.param(json.dumps({**ED25519, "alg": ["EdDSA"]}), id="alg is a list"),
    pytest.param(json.dumps({**ED25519, "kid": 1}), id="kid is a number"),
    pytest.param(json.dumps({**ED25519, "kid": ""}), id="kid is empty"),
    pytest.param(json.dumps({**ED25519, "kid": "k" * 257}), id="kid is long"),
    pytest.param(json.dumps(without(ED25519, d=ABSENT)), id="a public key"),
    pytest.param(json.dumps({**ED25519, "d": 1}), id="d is a number"),
    pytest.param(json.dumps({**ED25519, "d": ED25519["d"] + "="}), id="d is padded"),
    pytest.param(json.dumps({**ED25519, "d": b64(SEED + b"\0")}), id="d is long"),
    pytest.param(json.dumps({**ED25519, "d": b64(SEED[:31])}), id="d is short"),
    pytest.param(json.dumps(without(ED25519, x=ABSENT)), id="no public key"),
    pytest.param(json.dumps({**ED25519, "x": b64(bytes(31) + b"\1")}), id="another public key, which gives d away"),
    pytest.param(json.dumps({**P256, "y": P256["x"]}), id="a point that is not on the curve"),
    pytest.param(json.dumps({**P256, "d": b64(b"\0" * 31 + b"\1")}), id="another private key"),
    pytest.param(json.dumps({**P256, "d": b64(bytes(32))}), id="d is zero"),
    pytest.param(json.dumps({**P256, "d": b64(b"\xff" * 32)}), id="d is past the order"),
    *[pytest.param(json.dumps(without(RSA, **{name: ABSENT})), id=f"RSA without {name}") for name in NUMBERS],
    *[pytest.param(json.dumps({**RSA, name: number(3)}), id=f"RSA with another {name}") for name in NUMBERS],
    pytest.param(json.dumps({**RSA, "p": RSA["q"], "q": RSA["p"]}), id="RSA with p and q exchanged"),
    pytest.param(json.dumps({**RSA, "oth": []}), id="RSA of three primes"),
    pytest.param(json.dumps({**RSA, "n": "A" * 5000}), id="RSA with a number that is too long"),
    pytest.param(json.dumps(rsa(2**127 - 1, 2**521 - 1)), id="RSA of 648 bits"),
    pytest.param(pem(pkcs8(OF_RSA, rsa_der(version=1))), id="PKCS#8 of three primes"),
    pytest.param(pem(pkcs8(OF_RSA, rsa_der(after=integer(1)))), id="PKCS#8 with a number too many"),
    pytest.param(pem(pkcs8(OF_RSA, rsa_der({**RSA, "n": "AA"}))), id="PKCS#8 with n of zero"),
    pytest.param(pem(pkcs8(OF_RSA[:-2], rsa_der())), id="PKCS#8 without parameters"),
    pytest.param(pem(pkcs8(der(6, bytes.fromhex("2a864886f70d01010a")), rsa_der())), id="PKCS#8 for PSS only"),
    pytest.param(pem(pkcs8(OF_P256[:-3] + b"\3\1\6", ec_der())), id="PKCS#8 of another curve"),
    pytest.param(pem(pkcs8(OF_P256, ec_der(version=0))), id="PKCS#8 of EC, version 0"),
    pytest.param(pem(pkcs8(OF_P256, ec_der(D256 + b"\0"))), id="PKCS#8 of EC with a long d"),
    pytest.param(pem(pkcs8(OF_P256, ec_der(after=der(0xA0, der(6, b"\x2b"))))), id="PKCS#8 of EC, two curves"),
    pytest.param(pem(pkcs8(OF_P256, ec_der(after=OTHER_POINT))), id="PKCS#8 of EC with another point"),
    pytest.param(pem(pkcs8(OF_P256, ec_der(after=der(5)))), id="PKCS#8 of EC with more"),
    pytest.param(pem(pkcs8(OF_ED25519, der(4, SEED[:31]))), id="PKCS#8 of Ed25519 with a short d"),
    pytest.param(pem(pkcs8(OF_ED25519 + der(5), der(4, SEED))), id="PKCS#8 of Ed25519 with parameters"),
    pytest.param(pem(pkcs8(OF_ED25519, der(4, SEED) + b"\0")), id="PKCS#8 with an octet after the key"),
    pytest.param(pem(pkcs8(der(6, bytes.fromhex("2b656e")), der(4, SEED))), id="PKCS#8 of X25519"),
    pytest.param(pem(pkcs8(OF_ED25519, der(4, SEED), 2)), id="PKCS#8 of version 2"),
    pytest.param(pem(pkcs8(OF_ED25519, der(4, SEED), 0, der(5))), id="PKCS#8 with something else behind it"),
    pytest.param(pem(GOOD + b"\0"), id="an octet behind it all"),
    pytest.param(pem(GOOD[:-1]), id="the last octet is missing"),
    pytest.param(pem(b""), id="no octets"),
    pytest.param(pem(b"\x30\x80" + GOOD[2:] + b"\0\0"), id="an indefinite length"),
    pytest.param(pem(b"\x30\x81" + GOOD[1:]), id="a length that is not minimal"),
    pytest.param(pem(b"\x30\x82\0" + GOOD[1:]), id="a length that is much too long"),
    pytest.param(pem(b"\x30\x84\0\0\0" + GOOD[1:]), id="a length of four octets"),
    pytest.param(pem(b"\x30\x82"), id="a length that is cut off"),
    pytest.param(pem(b"\x30"), id="a tag alone"),
    pytest.param(pem(der(0x30, b"\2\2\0\0", GOOD[5:])), id="a number that is not minimal"),
    pytest.param(pem(der(0x30, b"\2\1\xff", GOOD[5:])), id="a negative number"),
    pytest.param(pem(der(0x30, b"\2\0", GOOD[5:])), id="an empty number"),
    pytest.param(pem(GOOD, "RSA PRIVATE KEY"), id="PKCS#1"),
    pytest.param(pem(GOOD, "EC PRIVATE KEY"), id="SEC 1"),
    pytest.param(pem(GOOD, "ENCRYPTED PRIVATE KEY"), id="an encrypted key"),
    pytest.param(pem(GOOD, "PUBLIC KEY"), id="labelled as public"),
    pytest.param(ED25519_PEM * 2, id="two keys"),
    pytest.param(ED25519_PEM.replace("END PRIVATE", "END PUBLIC"), id="two labels"),
    pytest.param(ED25519_PEM.replace("\n", "\\n"), id="line breaks written as two characters"),
    pytest.param(ED25519_PEM[:40], id="cut off"),
    pytest.param(ED25519_PEM.replace("MC4", "M=C4"), id="padding in the middle"),
    pytest.param(json.dumps(account(private_key=ABSENT)), id="a service account without a key"),
    pytest.param(json.dumps(account(private_key=1)), id="a service account whose key is a number"),
    pytest.param(json.dumps(account(private_key=json.dumps(RSA))), id="a service account whose key is a JWK"),
    pytest.param(json.dumps(account(client_email=ABSENT)), id="a service account without a name"),
    pytest.param(json.dumps(account(client_email="a" * 321)), id="a service account with a long name"),
    pytest.param(json.dumps(account(private_key_id=7)), id="a service account whose key's id is a number"),
    pytest.param(json.dumps(account(token_uri="http://oauth2.example.com/token")), id="tokens over plain http"),
    pytest.param(json.dumps(account(token_uri=[])), id="token_uri is a list"),
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_key_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is for people
        read_secret(text)
    said = str(caught.value)
    assert type(caught.value) is ValueError  # others quote what they could not read
    assert said.isascii()
    assert said.isprintable()
    kept = re.findall(r"[A-Za-z0-9_\-+/=.:@]{9,}", text)
    assert not [
        word for word in kept if word in said and word not in ("token_uri", "client_email", "private_key")
    ]


@given(place=st.integers(0, len(GOOD) - 1), octet=st.integers(0, 255))
def test_one_octet_of_a_key_makes_another_key_or_none(place: int, octet: int) -> None:
    try:
        key = read_secret(pem(changed(GOOD, place, octet)))
    except ValueError as error:
        assert type(error) is ValueError  # noqa: PT017 - either is right
    else:
        assert (key.jwk == ED25519) is (GOOD[place] == octet or place == VERSION)


@given(st.binary(max_size=200))
def test_any_octets_are_a_key_or_a_value_error(data: bytes) -> None:
    for text in (
        pem(data),
        pem(pkcs8(OF_RSA, data)),
        pem(pkcs8(OF_P256, data)),
        pem(pkcs8(OF_ED25519, data)),
    ):
        try:
            read_secret(text)
        except ValueError as error:
            assert type(error) is ValueError  # noqa: PT017 - either is right


def test_a_service_account_says_more_than_its_key() -> None:
    key = read_secret(json.dumps(account()))
    assert (key.kid, key.issuer) == ("k1", "gate@example.com")
    assert key.token_url == "https://oauth2.example.com/token"
    alone = read_secret(json.dumps(account(private_key_id=ABSENT, token_uri=ABSENT)))
    assert (alone.kid, alone.token_url) == (None, None)


def test_a_jwk_keeps_its_id() -> None:
    assert read_secret(json.dumps({**P256, "kid": "one"})).kid == "one"
    assert read_secret(json.dumps(P256)).kid is None


def test_a_private_key_that_is_no_object() -> None:
    with pytest.raises(ValueError, match="not an object"):
        read_private(["kty"])


@pytest.mark.parametrize("text", [RSA_PEM, P256_PEM, ED25519_PEM], ids=["RSA", "P-256", "Ed25519"])
def test_nothing_private_is_shown(text: str) -> None:
    key = read_secret(text)
    key.kid = "one"
    secrets = [value for name, value in key.jwk.items() if name in PRIVATE_NAMES]
    for shown in (repr(key), str(key), json.dumps(public_jwk(key.public, key.algorithm, key.kid))):
        assert not [secret for secret in secrets if secret in shown]


def test_a_public_key_says_what_it_is_for() -> None:
    key = read_private({**P256, "kid": "one"})
    public = {name: P256[name] for name in ("kty", "crv", "x", "y")}
    assert public_jwk(key.public, key.algorithm, key.kid) == {
        **public,
        "kid": "one",
        "alg": "ES256",
        "use": "sig",
    }
    assert public_jwk(key.public, key.algorithm, None) == {**public, "alg": "ES256", "use": "sig"}


def test_thumbprints() -> None:
    # RFC 8037 §A.3
    assert read_private(ED25519).thumbprint == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


RSA_NUMBERS = der(0x30, integer(_P * _Q), integer(65537))
INFO = [
    pytest.param(RSA, der(0x30, der(0x30, OF_RSA), der(3, b"\0", RSA_NUMBERS)), id="RSA"),
    pytest.param(P256, der(0x30, der(0x30, OF_P256), der(3, b"\0" + POINT)), id="P-256"),
    # RFC 8410 §10.1 has this shape.
    pytest.param(ED25519, bytes.fromhex("302a300506032b6570032100") + read_base64url(ED25519["x"]), id="Ed25519"),
]  # fmt: skip


@pytest.mark.parametrize(("jwk", "info"), INFO)
def test_the_public_key_s_info_and_fingerprint(jwk: dict[str, str], info: bytes) -> None:
    key = read_private(jwk)
    assert public_info(key.public) == info
    assert key.fingerprint == "SHA256:" + b64encode(sha256(info).digest()).decode()


def test_a_compact_jws() -> None:
    signed = signing_input({"alg": "EdDSA"}, {"sub": "é"})
    header, claims = signed.decode("ascii").split(".")
    assert read_base64url(header) == b'{"alg":"EdDSA"}'
    assert json.loads(read_base64url(claims)) == {"sub": "é"}
    assert compact(signed, b"\xff" * 64) == f"{header}.{claims}.{b64(bytes([255] * 64))}"


@given(st.binary(max_size=100))
def test_base64url_is_canonical(data: bytes) -> None:
    assert read_base64url(base64url(data)) == data


def test_keys_of_their_own() -> None:
    """What the runtime keeps with one key is not another's."""
    one, two = read_private(ED25519), read_private(ED25519)
    assert isinstance(one, SigningKey)
    one.handles["EdDSA"] = "imported"
    assert two.handles == {}
