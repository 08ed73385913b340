"""What is said of a token, and of a signature, away from any provider: `airgate.issuer.verdict` and `.signature`."""

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from world import ABSENT, NOW, run, without

from airgate.engine import Bundle, Denied, Keyring, Reason, load_bundle, read_key
from airgate.issuer.signature import verify
from airgate.issuer.verdict import STEPS, Verdict, judge, recognise
from airgate.policy.compile import compile_folder

RSA = rsa.generate_private_key(65537, 2048)
TENANT = "11111111-2222-3333-4444-555555555555"
SEED = """\
issuers:
  plain: {issuer: https://login.example.com, audiences: [https://gate.example.com], algorithms: [RS256], type: any,
          jwks_uri: https://login.example.com/keys, kind: {claim: kind}, attested: {dag: dag},
          require: [{claim: [org, id], any: [7]}], truncates: [{claim: groups, at: 3}]}
  bound: {issuer: https://bound.example.com, audiences: [https://gate.example.com], algorithms: [RS256], type: any,
          jwks_uri: https://bound.example.com/keys, dpop: required,
          kind: {claim: idtyp, values: {app: workload, user: human}}}
  entra: {issuer: "https://login.microsoftonline.com/TENANT/v2.0", audiences: [a], algorithms: [RS256]}
roles:
  reader: {description: d, granted_to: [{issuer: plain, claim: groups, value: readers}]}
""".replace("TENANT", TENANT)
CLAIMS: dict[str, Any] = {
    "iss": "https://login.example.com",
    "aud": "https://gate.example.com",
    "sub": "etl",
    "org": {"id": "7"},
    "groups": ["readers"],
    "iat": NOW - 10,
    "exp": NOW + 290,
}


def jwk(private: Any, **members: Any) -> dict[str, Any]:
    public = private.public_key()
    names: dict[type, Any] = {
        rsa.RSAPrivateKey: RSAAlgorithm,
        ec.EllipticCurvePrivateKey: ECAlgorithm,
        ed25519.Ed25519PrivateKey: OKPAlgorithm,
    }
    of = next(algorithm for kind, algorithm in names.items() if isinstance(private, kind))
    numbers = {name: value for name, value in of.to_jwk(public, as_dict=True).items() if name != "key_ops"}
    return {**numbers, **members}


async def fetch(url: str, timeout: float, limit: int) -> bytes:
    return json.dumps({"keys": [jwk(RSA, kid="one")]}).encode()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder: Path = tmp_path_factory.mktemp("seed")
    (folder / "seed.yaml").write_text(SEED)
    return load_bundle(compile_folder(folder, now=NOW).text)


def said(bundle: Bundle, token: str) -> Verdict:
    verdict, unverified = recognise(token, bundle)
    if unverified is not None and verdict.issuer is not None:
        keyring = Keyring(verdict.issuer.source)
        run(keyring.refresh(fetch, NOW))
        judge(verdict, unverified, verdict.issuer, keyring, NOW)
    return verdict


def minted(algorithm: str = "RS256", key: Any = RSA, **claims: Any) -> str:
    return jwt.encode(without(CLAIMS, **claims), key, algorithm, {"kid": "one"})


SAYS = [
    # changes to the claims; step, reason, what to do
    ({"aud": "x"}, "audience", Reason.TOKEN_AUDIENCE, "The token is for x; the gate is https://gate.example.com."),
    ({"aud": ABSENT}, "audience", Reason.TOKEN_AUDIENCE, "The token is for null;"),
    ({"org": {"id": 8}}, "claims", Reason.TOKEN_CLAIMS, "org.id: 8; required: 7."),
    ({"org": ABSENT}, "claims", Reason.TOKEN_CLAIMS, "org.id: not there; required: 7."),
    ({"exp": ABSENT}, "claims", Reason.TOKEN_CLAIMS, "It has the claims aud, groups"),
    ({"exp": NOW + 7200}, "claims", Reason.TOKEN_LIFETIME, "It lives 2 h; max_lifetime is 1 h."),
    ({"iat": ABSENT, "exp": NOW + 7200}, "claims", Reason.TOKEN_LIFETIME, "It lives 2 h; max_lifetime is 1 h."),
    ({"groups": ["a", "b", "c"]}, "roles", Reason.TOKEN_INCOMPLETE, "Grant by something short instead"),
    ({"kind": "robot"}, "roles", Reason.TOKEN_CLAIMS, 'The claim kind is "robot"'),
    ({"iss": "https://bound.example.com", "idtyp": "it"}, "roles", Reason.TOKEN_CLAIMS, '"it"; it has to be app, user'),
    ({"dag": ["a"]}, "roles", Reason.TOKEN_CLAIMS, ""),
    ({"iss": "https://bound.example.com"}, "binding", Reason.TOKEN_UNBOUND, "ask for its token with a DPoP proof"),
    ({"iss": "https://Login.example.com"}, "issuer", Reason.TOKEN_ISSUER, "by a slash at the end, or by capitals"),
    ({"iss": f"https://sts.windows.net/{TENANT}/"}, "issuer", Reason.TOKEN_ISSUER, "airgate issuer add entra-v1"),
    ({"iss": "https://login.exmple.com"}, "issuer", Reason.TOKEN_ISSUER, 'did you mean "https://login.example.com"?'),
    ({"exp": ABSENT, "\x1b[2J": 1}, "claims", Reason.TOKEN_CLAIMS, r'It has the claims "\u001b[2J", aud'),
    ({"iat": None, "exp": NOW + 7200}, "claims", Reason.TOKEN_CLAIMS, "It has the claims aud, exp, groups, iat"),
    ({"org": {"id": None}}, "claims", Reason.TOKEN_CLAIMS, "org.id: not there; required: 7."),
    ({"iss": "\x1b[2J"}, "issuer", Reason.TOKEN_ISSUER, "Policy has: "),
]  # fmt: skip


@pytest.mark.parametrize(
    ("claims", "step", "reason", "to_do"), SAYS, ids=[f"{row[1]} {row[0]}" for row in SAYS]
)
def test_a_refusal_says_where_why_and_what_to_do(
    bundle: Bundle, claims: dict[str, Any], step: str, reason: Reason, to_do: str
) -> None:
    verdict = said(bundle, minted(**claims))
    assert (verdict.refused_at, verdict.reason) == (step, reason)
    assert to_do in verdict.to_do
    assert list(verdict.passed) == list(STEPS[: STEPS.index(step)])
    assert "\x1b" not in verdict.detail + verdict.to_do


def test_an_algorithm_that_is_a_shared_secret(bundle: Bundle) -> None:
    verdict = said(bundle, minted("HS512", "s" * 64))
    assert (verdict.refused_at, verdict.reason) == ("algorithm", Reason.TOKEN_ALGORITHM)
    assert "HS* means a secret shared with the provider" in verdict.to_do


@pytest.mark.parametrize(
    ("token", "to_do"),
    [
        ("a.b.c.d.e", "Five parts: an encrypted token."),
        ("opaque", "An opaque token"),
        ("a.b.c", ""),
        ("", "An opaque"),
    ],
)
def test_a_text_that_is_no_token(bundle: Bundle, token: str, to_do: str) -> None:
    verdict = said(bundle, token)
    assert (verdict.refused_at, verdict.reason) == ("form", Reason.TOKEN_MALFORMED)
    assert verdict.to_do.startswith(to_do)
    assert verdict.passed == {}


ROLES = [
    ({}, "workload; roles: reader"),
    ({"kind": "human", "dag": "close"}, "human; roles: reader; attested: dag close"),
    ({"groups": ["x"]}, "workload; roles: none. Grants to plain look at groups"),
    ({"groups": ABSENT},
     "workload; roles: none; not known, for the claim isn't there: reader. Grants to plain look at groups"),
]  # fmt: skip


@pytest.mark.parametrize(("claims", "roles"), ROLES, ids=[row[1] for row in ROLES])
def test_a_token_that_is_accepted_says_what_it_grants(
    bundle: Bundle, claims: dict[str, Any], roles: str
) -> None:
    verdict = said(bundle, minted(**claims))
    assert (verdict.refused_at, list(verdict.passed)) == ("", list(STEPS))
    assert verdict.passed["roles"] == roles


def test_an_issuer_without_grants_is_said_to_have_none(bundle: Bundle) -> None:
    bound = {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}
    verdict = said(bundle, minted(iss="https://bound.example.com", cnf=bound))
    assert verdict.refused_at == ""
    assert verdict.passed["roles"].endswith("No role is granted to bound yet")
    assert "every call brings a proof (DPoP)" in verdict.passed["binding"]


def test_keys_that_cannot_be_had(bundle: Bundle) -> None:
    async def fails(url: str, timeout: float, limit: int) -> bytes:
        raise OSError("answered 500")

    verdict, unverified = recognise(minted(), bundle)
    assert unverified is not None
    assert verdict.issuer is not None
    keyring = Keyring(verdict.issuer.source)
    run(keyring.refresh(fails, NOW))
    judge(verdict, unverified, verdict.issuer, keyring, NOW)
    assert (verdict.refused_at, verdict.reason) == ("key", Reason.ISSUER_UNAVAILABLE)
    assert verdict.to_do == "Keys for RS256: none."


SIGNERS = {
    "RS256": RSA,
    "PS256": RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_a_signature_holds_for_what_was_signed_and_nothing_else(algorithm: str) -> None:
    signer = jwt.get_algorithm_by_name(algorithm)
    signature = signer.sign(b"signed", SIGNERS[algorithm])
    key = read_key(jwk(SIGNERS[algorithm]))
    assert run(verify(key, algorithm, signature, b"signed"))
    assert not run(verify(key, algorithm, signature, b"other"))
    assert not run(verify(key, algorithm, signature[:-1] + bytes([signature[-1] ^ 1]), b"signed"))


def test_a_salt_of_another_length_does_not_hold() -> None:
    signature = RSA.sign(b"signed", padding.PSS(padding.MGF1(SHA256()), 20), SHA256())
    assert not run(verify(read_key(jwk(RSA)), "PS256", signature, b"signed"))


def test_a_key_that_the_library_will_not_have_is_refused() -> None:
    key = read_key(jwk(SIGNERS["ES256"]))
    key.jwk["y"] = key.jwk["x"]  # not on the curve; `keys` lets none of these through
    with pytest.raises(Denied) as caught:
        run(verify(key, "ES256", b"\x01" * 64, b"signed"))
    assert caught.value.reason is Reason.TOKEN_KEY
