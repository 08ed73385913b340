"""Which tokens the gate believes: every row is a real request to the running gate."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from airgate.dev.signing import ALGORITHMS
from airgate.dev.stack import Stack

Mint = Callable[..., str]
READ = "/ledger/v1/entries"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    header, claims, signature = token.split(".")
    return json.loads(unb64(header)), json.loads(unb64(claims)), unb64(signature)


def joined(header: Mapping[str, Any], claims: Mapping[str, Any] | bytes, signature: bytes) -> str:
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return ".".join(map(b64, (json.dumps(header).encode(), payload, signature)))


def with_header(mint: Mint, **changes: Any) -> str:
    """A token whose header was changed after it was signed."""
    header, claims, signature = parts(mint())
    return joined({**header, **changes}, claims, signature)


def with_claims(mint: Mint, **changes: Any) -> str:
    """A token whose claims were changed after it was signed."""
    header, claims, signature = parts(mint())
    return joined(header, {**claims, **changes}, signature)


def with_signature(mint: Mint, change: Callable[[bytes], bytes], alg: str = "RS256") -> str:
    header, claims, signature = parts(mint(alg=alg))
    return joined(header, claims, change(signature))


def flipped(signature: bytes) -> bytes:
    return signature[:-1] + bytes([signature[-1] ^ 1])


def in_der(signature: bytes) -> bytes:
    half = len(signature) // 2
    return encode_dss_signature(
        int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    )


def confused(mint: Mint, stack: Stack) -> str:
    """HS256 whose secret is the provider's public RS256 key, as text that anyone can fetch."""
    keys = jwt.PyJWKSet.from_json(stack.provider_keys.read_text())
    pem = keys["local-rs256"].key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header, claims, _ = parts(mint())
    unsigned = joined({**header, "alg": "HS256"}, claims, b"").rstrip(".")
    return f"{unsigned}.{b64(hmac.digest(pem, unsigned.encode(), hashlib.sha256))}"


def of_a_stranger(mint: Mint, **header: Any) -> str:
    """Truly signed, under the provider's kid, by a key that isn't the provider's."""
    key = rsa.generate_private_key(65537, 2048)
    return jwt.encode(parts(mint())[1], key, "RS256", {"kid": "local-rs256", "typ": "at+jwt", **header})


def with_own_key_inside(mint: Mint) -> str:
    public = json.loads(
        jwt.algorithms.RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048).public_key())
    )
    return of_a_stranger(mint, jwk=public)


def twice(mint: Mint) -> str:
    """`groups` stands in the payload twice. Readers disagree on which one counts."""
    header, claims, signature = parts(mint())
    text = json.dumps(claims).replace('"groups":', '"groups": ["oncall"], "groups":')
    return joined(header, text.encode(), signature)


def soon(seconds: float) -> float:
    return int(time.time()) + seconds


REFUSED: dict[str, tuple[Callable[[Mint], str], str]] = {
    "claims changed after signing": (lambda m: with_claims(m, groups=["oncall"]), "token.signature"),
    "signature with one bit flipped": (lambda m: with_signature(m, flipped), "token.signature"),
    "signature of another token": (lambda m: joined(*parts(m())[:2], parts(m())[2]), "token.signature"),
    "signature cut short": (lambda m: with_signature(m, lambda s: s[:-1]), "token.signature"),
    "ECDSA signature of zeros": (
        lambda m: with_signature(m, lambda s: bytes(64), "ES256"),
        "token.signature",
    ),
    "ECDSA signature in DER": (lambda m: with_signature(m, in_der, "ES256"), "token.signature"),
    "EdDSA signature a byte long": (
        lambda m: with_signature(m, lambda s: s + b"x", "EdDSA"),
        "token.signature",
    ),
    "a stranger's key under the provider's kid": (of_a_stranger, "token.signature"),
    "a key brought along in the header": (with_own_key_inside, "token.malformed"),
    "an address of keys in the header": (
        lambda m: m(headers={"jku": "https://e.example"}),
        "token.malformed",
    ),
    "a critical extension": (lambda m: m(headers={"crit": ["exp"], "exp": 1}), "token.malformed"),
    "alg none, no signature": (lambda m: joined({"alg": "none"}, parts(m())[1], b""), "token.malformed"),
    "alg none, signature left on": (lambda m: with_header(m, alg="none"), "token.algorithm"),
    "alg nOnE": (lambda m: with_header(m, alg="nOnE"), "token.algorithm"),
    "no alg": (lambda m: with_header(m, alg=None), "token.algorithm"),
    "alg rs256 in lower case": (lambda m: with_header(m, alg="rs256"), "token.algorithm"),
    "alg RS512, not on the issuer's list": (lambda m: with_header(m, alg="RS512"), "token.algorithm"),
    "alg PS256 with the RS256 key": (lambda m: with_header(m, alg="PS256"), "token.key"),
    "alg and kid of PS256 on an RS256 signature": (
        lambda m: with_header(m, alg="PS256", kid="local-ps256"),
        "token.signature",
    ),
    "alg and kid of ES256 on an RS256 signature": (
        lambda m: with_header(m, alg="ES256", kid="local-es256"),
        "token.signature",
    ),
    "kid of another key": (lambda m: m(headers={"kid": "local-es256"}), "token.key"),
    "kid that nobody has": (lambda m: m(headers={"kid": "no-such-key"}), "token.key"),
    "kid that walks through folders": (lambda m: m(headers={"kid": "../../local-rs256"}), "token.key"),
    "kid longer than 256": (lambda m: m(headers={"kid": "k" * 257}), "token.malformed"),
    "kid that is a number": (lambda m: with_header(m, kid=1), "token.malformed"),
    "typ JWT, as ID tokens have": (lambda m: m(headers={"typ": "JWT"}), "token.type"),
    "no typ": (lambda m: m(headers={"typ": None}), "token.type"),
    "typ dpop+jwt": (lambda m: m(headers={"typ": "dpop+jwt"}), "token.type"),
    "wrong aud": (lambda m: m(aud="https://other.example.com"), "token.audience"),
    "aud with a slash more": (lambda m: m(aud="https://gate.example.com/"), "token.audience"),
    "aud that holds a number": (lambda m: m(aud=["https://gate.example.com", 1]), "token.audience"),
    "no aud": (lambda m: m(aud=None), "token.audience"),
    "wrong iss": (lambda m: m(iss="https://login.example.org"), "token.issuer"),
    "iss with a slash more": (lambda m: m(iss=parts(m())[1]["iss"] + "/"), "token.issuer"),
    "no iss": (lambda m: m(iss=None), "token.issuer"),
    "expired past the clock skew": (lambda m: m(iat=soon(-300), exp=soon(-62)), "token.expired"),
    "no exp": (lambda m: m(exp=None), "token.claims"),
    "exp that is text": (lambda m: m(exp=str(soon(60))), "token.claims"),
    "exp that is true": (lambda m: m(exp=True), "token.claims"),
    "exp past all reckoning": (lambda m: m(exp=2**60), "token.claims"),
    "nbf in the future": (lambda m: m(nbf=soon(90)), "token.not_yet_valid"),
    "iat in the future": (lambda m: m(iat=soon(90), exp=soon(180)), "token.not_yet_valid"),
    "lives a minute longer than an hour": (lambda m: m(exp=soon(3660)), "token.lifetime"),
    "no sub": (lambda m: m(sub=None), "token.claims"),
    "no client_id": (lambda m: m(client_id=None), "token.claims"),
    "no jti": (lambda m: m(jti=None), "token.claims"),
    "no iat": (lambda m: m(iat=None), "token.claims"),
    "a kind of caller that doesn't exist": (lambda m: m(airgate_kind="root"), "token.claims"),
    "groups that are numbers": (lambda m: m(groups=[1]), "token.claims"),
    "more groups than can be whole": (lambda m: m(groups=["g"] * 1001), "token.malformed"),
    "a claim that stands there twice": (twice, "token.malformed"),
    "NaN for exp": (lambda m: m(exp=float("nan")), "token.malformed"),
    "nesting over 16 levels": (lambda m: m(deep=json.loads("[" * 20 + "]" * 20)), "token.malformed"),
    "longer than 8 KB": (lambda m: m(padding="x" * 8000), "token.malformed"),
    "padding after the signature": (lambda m: m() + "==", "token.malformed"),
    "another spelling of the last character": (lambda m: respelled(m()), "token.malformed"),
    "five parts": (lambda m: m() + ".AAAA.AAAA", "token.malformed"),
    "two parts": (lambda m: m().rpartition(".")[0], "token.malformed"),
    "a newline's worth of white space inside": (lambda m: m().replace(".", " ."), "token.malformed"),
    "junk": (lambda m: "junk", "token.malformed"),
    "junk in three parts": (lambda m: "YQ.YQ.YQ", "token.malformed"),
    "claims that are a list": (lambda m: joined(parts(m())[0], b"[]", b"x"), "token.malformed"),
    "claims in UTF-16": (lambda m: joined(parts(m())[0], "{}".encode("utf-16"), b"x"), "token.malformed"),
    "for others as well, by a client that nobody vouches for": (
        lambda m: m(aud=["https://a.example", "https://gate.example.com"]),
        "token.audience",
    ),
}

ACCEPTED: dict[str, Callable[[Mint], str]] = {
    "expired, but within the clock skew": lambda m: m(iat=soon(-300), exp=soon(-30)),
    "nbf in the future, but within the clock skew": lambda m: m(nbf=soon(30)),
    "lives an hour": lambda m: m(iat=soon(0), exp=soon(3600)),
    "without a kid, where one key only fits": lambda m: m(headers={"kid": None}),
    "typ in its long form and upper case": lambda m: m(headers={"typ": "application/AT+JWT"}),
    "just below 8 KB": lambda m: m(padding="x" * 5300),
}


def respelled(token: str) -> str:
    """The same signature bytes, in base64url whose unused last bits aren't zero."""
    assert len(token.rpartition(".")[2]) % 4 == 2
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = token[:-1] + alphabet[alphabet.index(token[-1]) + 1]
    assert unb64(other.rpartition(".")[2]) == unb64(token.rpartition(".")[2])
    return other


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_providers_own_tokens_are_believed(wire: Any, token: Callable[..., str], algorithm: str) -> None:
    answer = wire.call(READ, token=token("finance-etl", algorithm))
    assert (answer.status, answer.headers["Airgate-Decision"]) == (200, "permit")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_tokens_under_each_of_the_providers_keys_are_believed(wire: Any, mint: Mint, algorithm: str) -> None:
    assert wire.call(READ, token=mint(alg=algorithm)).status == 200


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_algorithm_lets_a_changed_signature_pass(wire: Any, mint: Mint, algorithm: str) -> None:
    good = mint(alg=algorithm)
    assert wire.call(READ, token=good).status == 200  # a token seen before must not vouch for its likeness
    header, claims, signature = parts(good)
    bad = wire.call(READ, token=".".join([*good.split(".")[:2], b64(flipped(signature))]))
    assert (bad.status, bad.code) == (401, "token.signature")
    foreign = wire.call(READ, token=joined(header, {**claims, "sub": "root"}, signature))
    assert (foreign.status, foreign.code) == (401, "token.signature")


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(wire: Any, mint: Mint, case: str) -> None:
    assert wire.call(READ, token=ACCEPTED[case](mint)).status == 200


@pytest.mark.parametrize("case", REFUSED)
def test_refused(wire: Any, mint: Mint, audit: Callable[..., Any], case: str) -> None:
    make, code = REFUSED[case]
    answer = wire.call(READ, token=make(mint))
    assert (answer.status, answer.code) == (401, code)
    assert answer.headers["WWW-Authenticate"].startswith(
        'Bearer realm="airgate", error="invalid_token", resource_metadata="http'
    )
    assert set(answer.json()) == {"type", "title", "status", "code", "request_id", "retryable"}
    [decision] = audit(answer.id)
    assert (decision["decision"], decision["reason"], "subject" in decision) == ("deny", code, False)


def test_the_public_key_is_no_secret_to_sign_with(wire: Any, mint: Mint, stack: Stack) -> None:
    answer = wire.call(READ, token=confused(mint, stack))
    assert (answer.status, answer.code) == (401, "token.algorithm")


Headers = Callable[[str], list[tuple[str, str]]]
WHERE: dict[str, tuple[Headers, int, str]] = {
    "in Authorization": (lambda t: [("Authorization", f"Bearer {t}")], 200, ""),
    "in Authorization, scheme in lower case": (lambda t: [("Authorization", f"bearer {t}")], 200, ""),
    "in Airgate-Token": (lambda t: [("Airgate-Token", t)], 200, ""),
    "in Airgate-Token beside somebody else's Authorization": (
        lambda t: [("Airgate-Token", t), ("Authorization", "Basic eDp5")],
        200,
        "",
    ),
    "in Authorization beside junk in Airgate-Token": (
        lambda t: [("Airgate-Token", "junk"), ("Authorization", f"Bearer {t}")],
        401,
        "token.malformed",
    ),
    "in Authorization beside an empty Airgate-Token": (
        lambda t: [("Airgate-Token", ""), ("Authorization", f"Bearer {t}")],
        401,
        "token.malformed",
    ),
    "in the first of two Authorization headers": (
        lambda t: [("Authorization", f"Bearer {t}"), ("Authorization", "Bearer x.y.z")],
        401,
        "token.malformed",
    ),
    "in both of two Authorization headers": (
        lambda t: [("Authorization", f"Bearer {t}"), ("authorization", f"Bearer {t}")],
        401,
        "token.malformed",
    ),
    "in both of two Airgate-Token headers": (lambda t: [("Airgate-Token", t)] * 2, 401, "token.malformed"),
    "under the scheme Basic": (lambda t: [("Authorization", f"Basic {t}")], 401, "token.missing"),
    "without a scheme": (lambda t: [("Authorization", t)], 401, "token.missing"),
    "behind a scheme alone": (lambda t: [("Authorization", "Bearer"), ("X-Token", t)], 401, "token.missing"),
    "in a cookie": (lambda t: [("Cookie", f"access_token={t}")], 401, "token.missing"),
    "in a header of a similar name": (lambda t: [("Airgate_Token", t)], 401, "token.missing"),
    "in Proxy-Authorization": (lambda t: [("Proxy-Authorization", f"Bearer {t}")], 401, "token.missing"),
}


@pytest.mark.parametrize("place", WHERE)
def test_a_token_counts_only_in_its_place(wire: Any, token: Callable[..., str], place: str) -> None:
    headers, status, code = WHERE[place]
    answer = wire.call(READ, headers=headers(token()))
    assert (answer.status, answer.code) == (status, code)


def test_a_token_in_the_address_is_no_token(wire: Any, token: Callable[..., str]) -> None:
    answer = wire.call(f"{READ}?access_token={token()}")
    assert (answer.status, answer.code) == (401, "token.missing")


def test_made_up_key_ids_cost_the_known_ones_nothing(wire: Any, mint: Mint) -> None:
    for number in range(50):
        assert wire.call(READ, token=mint(headers={"kid": f"made-up-{number}"})).code == "token.key"
    assert wire.call(READ, token=mint()).status == 200
