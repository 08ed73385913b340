"""DPoP: every check of a proof by one that differs in nothing else, and the memory of proofs. RFC 9449, 7638, 3986."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from language import examples
from world import (
    ABSENT,
    CLAIMS,
    ED25519,
    ISSUER,
    NOW,
    P256,
    P384,
    P521,
    RSA,
    World,
    b64,
    compact,
    number,
    run,
    signature,
    token,
    without,
)

import dpop
from dpop import (
    FORGET,
    FUTURE,
    MAX_JTI,
    MAX_PROOF,
    MOST,
    PAST,
    SHARE,
    SLOT,
    TIMEOUT,
    Binding,
    Proof,
    Replays,
    claim_everywhere,
    forget,
)
from model import Denied, Reason
from tokens import parse

URL = "https://gate.example.com/ledger/v1/entries"
SIZE = {"ES256": 64, "ES384": 96, "ES512": 132, "EdDSA": 64, "Ed25519": 64, "RS256": 256, "PS256": 256}
HEADER: dict[str, Any] = {"typ": "dpop+jwt", "alg": "ES256", "jwk": P256}


def bound_to(jwk: dict[str, Any] = P256, **claims: Any) -> Binding:
    """What is held of a token that is bound to that key."""
    jkt = dpop.thumbprint(jwk)
    text = token(cnf={"jkt": jkt}, **claims)
    said = parse(text).claims
    return dpop.binding(jkt, said["iss"], said["sub"], text)


def claimed(**changes: Any) -> dict[str, Any]:
    claims = {"jti": "a-1", "htm": "POST", "htu": URL, "iat": NOW, "ath": bound_to().ath}
    return without(claims, **changes)


def proof(header: dict[str, Any] | bytes | None = None, claims: dict[str, Any] | bytes | None = None) -> str:
    """A good proof of a POST to URL beside the token of bound_to(), with these changes, or of these bytes."""
    head = header if isinstance(header, bytes) else without(HEADER, **(header or {}))
    body = claims if isinstance(claims, bytes) else claimed(**(claims or {}))
    size = SIZE.get(str(head.get("alg")), 64) if isinstance(head, dict) else 64
    signed = compact(head, body).rpartition(".")[0]
    return f"{signed}.{b64(fill(signed.encode(), size))}"


def fill(signed: bytes, size: int) -> bytes:
    """What stands for a signature here: as long as that of its algorithm, in range, and another for every text."""
    half = b"\0" + signature(signed, None)
    return (half.ljust(size, b"s")[: size // 2] + half.ljust(size, b"r"))[:size]


def read(
    text: str | None,
    bound: Binding | None = None,
    *,
    scheme: str = "dpop",
    method: str = "POST",
    url: str = URL,
) -> Proof:
    headers = {} if text is None else {"dpop": text}
    return dpop.read(bound or bound_to(), scheme, headers, method, url, NOW)


def refusal(work: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[Reason, str]:
    with pytest.raises(Denied) as caught:
        work(*arguments, **named)
    return caught.value.reason, caught.value.detail


def test_a_good_proof_is_read() -> None:
    text, bound = proof(), bound_to()
    got = read(text, bound)
    signed, _, last = text.rpartition(".")
    assert (got.algorithm, got.signed, b64(got.signature)) == ("ES256", signed.encode(), last)
    assert (got.key.jwk, got.owner, got.until) == (P256, bound.owner, NOW + PAST)


@pytest.mark.parametrize("scheme", ["dpop", ""], ids=["under the scheme DPoP", "beside Airgate-Token"])
def test_where_a_proof_counts(scheme: str) -> None:
    assert read(proof(), scheme=scheme).key.jwk == P256


ACCEPTED = [
    pytest.param({}, {"iat": NOW - PAST}, id="iat: as old as it may be"),
    pytest.param({}, {"iat": NOW + FUTURE}, id="iat: of a clock as far ahead as it may be"),
    pytest.param({}, {"iat": NOW - 0.25}, id="iat: with a fraction"),
    pytest.param({}, {"exp": NOW + 1, "nbf": NOW + FUTURE}, id="exp and nbf that hold"),
    pytest.param({}, {"nbf": 0}, id="nbf: the epoch"),
    pytest.param({}, {"nonce": "n", "aud": "x", "more": [1]}, id="claims that nobody asked for"),
    pytest.param({}, {"jti": "j" * MAX_JTI}, id="jti: as long as it may be"),
    pytest.param({}, {"jti": "\u00fc \n"}, id="jti: any characters"),
    pytest.param({}, {"more": ["x"] * 54}, id="as many names and values as there may be"),
    pytest.param({}, {"more": [{}] * 37}, id="as many objects and lists as there may be"),
    pytest.param({"kid": "one", "x5t": "abc"}, {}, id="header: parameters that change nothing"),
    pytest.param({"jwk": {**P256, "kid": "one", "use": "sig", "alg": "ES256"}}, {}, id="jwk: says what it is for"),
    pytest.param({"jwk": dict(reversed(P256.items()))}, {}, id="jwk: its members in another order"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "claims"), ACCEPTED)
def test_accepted(header: dict[str, Any], claims: dict[str, Any]) -> None:
    assert read(proof(header, claims)).key.jwk == P256


@pytest.mark.parametrize(
    ("algorithm", "jwk", "known_as"),
    [
        pytest.param("ES256", P256, "ES256", id="ES256"),
        pytest.param("ES384", P384, "ES384", id="ES384"),
        pytest.param("ES512", P521, "ES512", id="ES512"),
        pytest.param("EdDSA", ED25519, "EdDSA", id="EdDSA"),
        pytest.param("Ed25519", ED25519, "EdDSA", id="Ed25519, which is EdDSA by RFC 9864's name"),
        pytest.param("RS256", RSA, "RS256", id="RS256"),
        pytest.param("PS256", RSA, "PS256", id="PS256"),
    ],
)
def test_every_algorithm(algorithm: str, jwk: dict[str, Any], known_as: str) -> None:
    assert algorithm in dpop.ALGORITHMS
    bound = bound_to(jwk)
    got = read(proof({"alg": algorithm, "jwk": jwk}, {"ath": bound.ath}), bound)
    assert (got.algorithm, got.key.jwk, len(got.signature)) == (known_as, jwk, SIZE[algorithm])
    assert set(dpop.ALGORITHMS) == set(SIZE)


def of_length(length: int) -> str:
    start = proof().rpartition(".")[0] + "."
    return start + "A" * (length - len(start))


def last_of(text: str, last: str) -> str:
    return f"{text.rpartition('.')[0]}.{last}"


GOOD = proof()
FIRST, MIDDLE, LAST = GOOD.split(".")
NESTED = b'{"jti":' + b"[" * 4 + b"]" * 4 + b"}"
OTHER = {**P256, "y": number(2**256 - 2**224 + 2**192 + 2**96 - 1 - int.from_bytes(
    bytes.fromhex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"), "big"), 32)}  # fmt: skip

# The numbers are those of the checks in RFC 9449 §4.3.
REFUSED = [
    pytest.param(f"{GOOD}, {GOOD}", "three parts", id="1: two headers"),
    pytest.param(f"{GOOD},", "three parts", id="1: a header and an empty one"),
    pytest.param("", "three parts", id="2: an empty header"),
    pytest.param(f"{FIRST}.{MIDDLE}", "three parts", id="2: two parts"),
    pytest.param(f"{GOOD}.{LAST}", "three parts", id="2: four parts"),
    pytest.param(f"{FIRST}..{LAST}", "three parts", id="2: an empty part"),
    pytest.param(f"{GOOD}=", "three parts", id="2: padded"),
    pytest.param(f" {GOOD}", "three parts", id="2: a space before it"),
    pytest.param(f"{GOOD}\n", "three parts", id="2: a line feed after it"),
    pytest.param("\u00e9" + GOOD, "three parts", id="2: a letter outside of ASCII"),
    pytest.param(of_length(MAX_PROOF + 1), "longer than", id="2: longer than a proof may be"),
    pytest.param(last_of(GOOD, LAST[:84]), "another length", id="2: a shorter signature"),
    pytest.param(last_of(GOOD, LAST[:-1] + "B"), "canonical", id="2: a signature in another spelling"),
    pytest.param(last_of(GOOD, LAST + "AAA"), "canonical", id="2: a signature of no possible length"),
    pytest.param(f"{FIRST[:-1]}.{MIDDLE}.{LAST}", "", id="2: a header cut off"),
    pytest.param(proof(b"[]"), "not an object", id="2: a header that is a list"),
    pytest.param(proof(b"\xff"), "utf-8", id="2: a header that is not UTF-8"),
    pytest.param(proof(b"{" + json.dumps(HEADER).encode()[1:-1] + b',"alg":"ES256"}'), "twice", id="2: alg twice"),
    pytest.param(proof(None, b"[]"), "not an object", id="2: claims that are a list"),
    pytest.param(proof(None, b"{" + json.dumps(claimed()).encode()[1:-1] + b',"jti":"b"}'), "twice", id="2: jti twice"),
    pytest.param(proof(None, json.dumps(claimed()).replace("1800000000.0", "NaN").encode()), "NaN", id="2: iat NaN"),
    pytest.param(proof(None, NESTED), "nested", id="2: nested deeply"),
    pytest.param(proof(None, {"more": ["x"] * 55}), "more than 64", id="2: one value too many"),
    pytest.param(proof({"more": ["x"] * 64}), "more than 64", id="2: too many in the header"),
    pytest.param(proof(None, {"more": [{}] * 38}), "more members", id="2: one object too many"),
    pytest.param(proof(None, {"jti": ABSENT}), "jti", id="3: no jti"),
    pytest.param(proof(None, {"jti": ""}), "jti", id="3: an empty jti"),
    pytest.param(proof(None, {"jti": 7}), "jti", id="3: a number as jti"),
    pytest.param(proof(None, {"jti": "j" * (MAX_JTI + 1)}), "jti", id="3: a jti that is too long"),
    pytest.param(proof(None, {"htm": ABSENT}), "htm", id="3: no htm"),
    pytest.param(proof(None, {"htu": ABSENT}), "htu is missing", id="3: no htu"),
    pytest.param(proof(None, {"htu": [URL]}), "htu is missing", id="3: a list as htu"),
    pytest.param(proof(None, {"iat": ABSENT}), "iat is missing", id="3: no iat"),
    pytest.param(proof(None, {"iat": None}), "iat is missing", id="3: null as iat"),
    pytest.param(proof(None, {"iat": str(NOW)}), "NumericDate", id="3: a string as iat"),
    pytest.param(proof(None, {"iat": True}), "NumericDate", id="3: true as iat"),
    pytest.param(proof(None, {"iat": -1}), "NumericDate", id="3: an iat before the epoch"),
    pytest.param(proof(None, {"iat": 2**53}), "NumericDate", id="3: an iat past all time"),
    pytest.param(proof({"typ": ABSENT}), "typ", id="4: no typ"),
    pytest.param(proof({"typ": "jwt"}), "typ", id="4: typ jwt"),
    pytest.param(proof({"typ": "at+jwt"}), "typ", id="4: an access token's typ"),
    pytest.param(proof({"typ": "DPoP+JWT"}), "typ", id="4: typ in other letters"),
    pytest.param(proof({"typ": ["dpop+jwt"]}), "typ", id="4: a list as typ"),
    pytest.param(proof({"alg": ABSENT}), "alg", id="5: no alg"),
    pytest.param(proof({"alg": "none"}), "alg", id="5: alg none"),
    pytest.param(proof({"alg": "HS256"}), "alg", id="5: alg HS256"),
    pytest.param(proof({"alg": "RS512"}), "alg", id="5: an algorithm that is not accepted"),
    pytest.param(proof({"alg": "es256"}), "alg", id="5: alg in other letters"),
    pytest.param(proof({"alg": ["ES256"]}), "alg", id="5: a list as alg"),
    pytest.param(proof({"alg": "ES384"}), "not the key's", id="5: another curve's algorithm"),
    pytest.param(proof({"alg": "EdDSA"}), "not the key's", id="5: an algorithm of another kind of key"),
    pytest.param(proof({"crit": ["b64"], "b64": False}), "never accepted", id="5: crit and b64"),
    pytest.param(proof({"jku": "https://evil.example/keys"}), "never accepted", id="6: jku"),
    pytest.param(proof({"x5u": "https://evil.example/x"}), "never accepted", id="6: x5u"),
    pytest.param(proof({"x5c": ["MII"]}), "never accepted", id="6: x5c"),
    pytest.param(proof({"zip": "DEF"}), "never accepted", id="6: zip"),
    pytest.param(proof({"enc": "A256GCM"}), "never accepted", id="6: enc"),
    pytest.param(proof({"jwk": ABSENT}), "not an object", id="6: no jwk"),
    pytest.param(proof({"jwk": None}), "not an object", id="6: null as jwk"),
    pytest.param(proof({"jwk": [P256]}), "not an object", id="6: a list as jwk"),
    pytest.param(proof({"jwk": {}}), "not supported", id="6: an empty jwk"),
    pytest.param(proof({"jwk": without(P256, y=ABSENT)}), "y is missing", id="6: half a point"),
    pytest.param(proof({"jwk": {**P256, "y": P256["x"]}}), "not on its curve", id="6: a point off the curve"),
    pytest.param(proof({"jwk": {**P256, "crv": "P-384"}}), "", id="6: another curve's name"),
    pytest.param(proof({"jwk": {**P256, "crv": "secp256k1"}}), "not supported", id="6: a curve that is not accepted"),
    pytest.param(proof({"jwk": {**P256, "use": "enc"}}), "not for verifying", id="6: a key for encrypting"),
    pytest.param(proof({"jwk": {**P256, "key_ops": ["sign"]}}), "not for verifying", id="6: a key for signing only"),
    pytest.param(proof({"jwk": {**P256, "alg": "ES384"}}), "does not fit", id="6: a key whose alg is not its own"),
    pytest.param(proof({"alg": "EdDSA", "jwk": {**ED25519, "x": b64(bytes(32))}}), "small order", id="6: small order"),
    pytest.param(proof({"alg": "RS256", "jwk": {**RSA, "n": number(2**1023 + 1)}}), "too short", id="6: 1,024 bits"),
    pytest.param(proof({"alg": "HS256", "jwk": {"kty": "oct", "k": "QUFB"}}), "alg", id="7: a shared secret"),
    pytest.param(proof({"jwk": {"kty": "oct", "k": "QUFB"}}), "not supported", id="7: a secret as jwk"),
    *[
        pytest.param(proof({"jwk": {**P256, member: "AQ"}}), "private", id=f"7: a private key's {member}")
        for member in ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
    ],
    pytest.param(proof(None, {"htm": "GET"}), "htm", id="8: another method"),
    pytest.param(proof(None, {"htm": "post"}), "htm", id="8: the method in other letters"),
    pytest.param(proof(None, {"htm": ["POST"]}), "htm", id="8: a list as htm"),
    pytest.param(proof(None, {"iat": NOW - PAST - 0.5}), "s ago", id="11: too old"),
    pytest.param(proof(None, {"iat": NOW + FUTURE + 0.5}), "s ago", id="11: from the future"),
    pytest.param(proof(None, {"exp": NOW}), "exp or nbf", id="11: past its own end"),
    pytest.param(proof(None, {"exp": "soon"}), "exp is not", id="11: a string as exp"),
    pytest.param(proof(None, {"nbf": NOW + FUTURE + 0.5}), "exp or nbf", id="11: before its own beginning"),
    pytest.param(proof(None, {"ath": ABSENT}), "ath", id="12: no ath"),
    pytest.param(proof(None, {"ath": bound_to(jti="2").ath}), "ath", id="12: another token's ath"),
    pytest.param(proof(None, {"ath": bound_to().ath + "="}), "ath", id="12: a padded ath"),
    pytest.param(proof(None, {"ath": [bound_to().ath]}), "ath", id="12: a list as ath"),
    pytest.param(proof({"jwk": OTHER}), "another key", id="12: by another key, the same point's mirror image"),
    pytest.param(proof({"alg": "EdDSA", "jwk": ED25519}), "another key", id="12: by another kind of key"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "why"), REFUSED)
def test_refused(text: str, why: str) -> None:
    reason, detail = refusal(read, text)
    assert reason is Reason.TOKEN_PROOF_INVALID
    assert why in detail
    assert LAST not in detail


@pytest.mark.parametrize(("text", "why"), REFUSED)
def test_refused_after_a_good_one_too(text: str, why: str) -> None:
    """What is kept of a proof that was believed lets nothing through, and nothing that was refused takes its place."""
    bound = bound_to()
    first = read(GOOD, bound)
    bound.keep(first)
    assert refusal(read, text, bound)[0] is Reason.TOKEN_PROOF_INVALID
    assert read(GOOD, bound) == first


def test_the_longest_proof_is_looked_into() -> None:
    assert "longer" not in refusal(read, of_length(MAX_PROOF))[1]


def test_a_key_is_read_once_for_all_proofs_with_the_same_header() -> None:
    bound = bound_to()
    first = read(proof(None, {"jti": "a"}), bound)
    assert read(proof(None, {"jti": "b"}), bound).key is not first.key  # nobody has said that it is believed
    bound.keep(first)
    assert read(proof(None, {"jti": "c"}), bound) == first._replace(
        signed=compact(HEADER, claimed(jti="c")).rpartition(".")[0].encode(),
        signature=read(proof(None, {"jti": "c"})).signature,
        use=read(proof(None, {"jti": "c"})).use,
    )
    other = read(proof({"kid": "x"}, {"jti": "d"}), bound)
    assert other.key is not first.key
    bound.keep(other)
    assert read(proof({"kid": "x"}, {"jti": "e"}), bound).key is other.key


@pytest.mark.parametrize(
    ("scheme", "text", "reason"),
    [
        pytest.param("bearer", GOOD, Reason.TOKEN_SCHEME, id="Bearer, with a proof"),
        pytest.param("bearer", None, Reason.TOKEN_SCHEME, id="Bearer, without a proof"),
        pytest.param("dpop", None, Reason.TOKEN_PROOF_MISSING, id="DPoP, without a proof"),
        pytest.param("", None, Reason.TOKEN_PROOF_MISSING, id="Airgate-Token, without a proof"),
    ],
)
def test_a_bound_token_needs_its_scheme_and_its_proof(scheme: str, text: str | None, reason: Reason) -> None:
    assert refusal(read, text, scheme=scheme)[0] is reason


@pytest.mark.parametrize(
    ("scheme", "headers", "reason"),
    [
        pytest.param("bearer", {}, None, id="Bearer"),
        pytest.param("", {}, None, id="Airgate-Token"),
        pytest.param("dpop", {}, Reason.TOKEN_SCHEME, id="DPoP"),
        pytest.param("dpop", {"dpop": GOOD}, Reason.TOKEN_SCHEME, id="DPoP, with a proof"),
        pytest.param("bearer", {"dpop": GOOD}, Reason.TOKEN_PROOF_INVALID, id="Bearer, with a proof"),
        pytest.param("", {"dpop": ""}, Reason.TOKEN_PROOF_INVALID, id="Airgate-Token, with an empty proof"),
    ],
)
def test_a_token_that_is_bound_to_no_key(scheme: str, headers: dict[str, str], reason: Reason | None) -> None:
    if reason is None:
        dpop.refuse_unbound(scheme, headers)
    else:
        assert refusal(dpop.refuse_unbound, scheme, headers)[0] is reason


JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"  # of RFC 9449 §6.1


def test_a_token_is_bound_by_its_thumbprint() -> None:
    assert dpop.confirmed({**CLAIMS, "cnf": {"jkt": JKT}}) == JKT
    assert dpop.confirmed(CLAIMS) is None
    bound = dpop.binding(JKT, "https://login.example.com", "etl", "abc")
    # base64url of SHA-256("abc"), FIPS 180-4's first example.
    assert (bound.jkt, bound.ath) == (JKT, "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0")


@pytest.mark.parametrize(
    "confirmation",
    [
        pytest.param(None, id="null"),
        pytest.param({}, id="nothing in it"),
        pytest.param(JKT, id="a string"),
        pytest.param([{"jkt": JKT}], id="a list"),
        pytest.param({"x5t#S256": JKT}, id="a certificate, RFC 8705"),
        pytest.param({"jwk": P256}, id="a whole key, RFC 7800"),
        pytest.param({"kid": "one"}, id="a key's id, RFC 7800"),
        pytest.param({"jkt": JKT, "x5t#S256": JKT}, id="a key and a certificate"),
        pytest.param({"jkt": None}, id="jkt null"),
        pytest.param({"jkt": [JKT]}, id="jkt a list"),
        pytest.param({"jkt": JKT[:-1]}, id="jkt too short"),
        pytest.param({"jkt": JKT + "A"}, id="jkt too long"),
        pytest.param({"jkt": JKT[:-1] + "="}, id="jkt with padding"),
        pytest.param({"jkt": JKT + "\n"}, id="jkt with a line feed"),
    ],
)
def test_a_token_that_is_bound_in_another_way_is_no_bearer_token(confirmation: Any) -> None:
    assert refusal(dpop.confirmed, {**CLAIMS, "cnf": confirmation})[0] is Reason.TOKEN_CLAIMS


def test_a_subject_has_one_share_whatever_its_tokens_and_keys() -> None:
    owner = bound_to().owner
    assert bound_to(ED25519, jti="2").owner == owner
    assert bound_to(sub="other").owner != owner
    assert bound_to(iss="https://other.example.com").owner != owner


@pytest.mark.parametrize(
    ("jwk", "expected"),
    [
        pytest.param(ED25519, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", id="RFC 8037 appendix A.3"),
        pytest.param(
            {
                "kty": "RSA",
                "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPe"
                "bWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMi"
                "cAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3X"
                "PksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
                "e": "AQAB",
            },
            "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
            id="RFC 7638 section 3.1",
        ),
    ],
)
def test_thumbprints(jwk: dict[str, str], expected: str) -> None:
    assert dpop.thumbprint(jwk) == expected


# RFC 9449 §7.1, figure 14: the token and the proof beside it. Its signature is verified in test_proof_key.py.
RFC_TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
RFC_PROOF = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0Rsc"
    "EJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In"
    "19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZW"
    "N0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ"
    "9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)


def test_the_rfcs_own_example() -> None:
    bound = dpop.binding(JKT, "https://server.example.com", "someone", RFC_TOKEN)
    resource = "https://resource.example.org/protectedresource"
    got = dpop.read(bound, "dpop", {"dpop": RFC_PROOF}, "GET", resource, 1_562_262_618)
    assert (got.algorithm, got.until) == ("ES256", 1_562_262_678)


ESCAPED = "https://gate.example.com/ledger/v1/a~b/%C3%BC%2F-"
SAME = [
    pytest.param(URL, URL, id="as it is"),
    pytest.param(URL + "?q=1", URL, id="a query in the request"),
    pytest.param(URL, URL + "?q=1", id="a query in the proof"),
    pytest.param(URL, URL + "#x?y", id="a fragment in the proof"),
    pytest.param(URL, URL + "?\n\x00", id="a query of strange characters in the proof"),
    pytest.param(URL, "HTTPS://Gate.Example.COM/ledger/v1/entries", id="scheme and host in other letters"),
    pytest.param(URL, "https://gate.example.com:443/ledger/v1/entries", id="https's own port"),
    pytest.param(URL, "https://gate.example.com:/ledger/v1/entries", id="an empty port"),
    pytest.param(URL, "https://gate.example.com:00443/ledger/v1/entries", id="a port with zeros before it"),
    pytest.param("http://gate/x", "http://gate:80/x", id="http's own port"),
    pytest.param("http://127.0.0.1:8787/x", "http://127.0.0.1:8787/x", id="another port in both"),
    pytest.param("http://[2001:DB8::1]/x", "http://[2001:db8::1]/x", id="an IPv6 address in other letters"),
    pytest.param("https://gate", "https://gate/", id="no path at all"),
    pytest.param("https://gate/", "https://gate?x", id="no path, but a query"),
    pytest.param(ESCAPED, "https://gate.example.com/ledger/v1/a%7Eb/%c3%bc%2f%2D", id="other escapes"),
    pytest.param(URL, "https://gate.example.com/x/../ledger/./v1/entries", id="dot segments in the proof"),
    pytest.param(URL + "/", URL + "/x/..", id="dot segments at the end of it"),
    pytest.param(URL, "https://gate.example.com/%2e%2E/ledger/v1/entries", id="escaped dot segments in it"),
]


@pytest.mark.parametrize(("url", "htu"), SAME)
def test_one_address_in_several_spellings(url: str, htu: str) -> None:
    assert read(proof(None, {"htu": htu}), url=url).until


HOST = "https://gate.example.com"
DIFFERENT = [
    pytest.param(URL, "http://gate.example.com/ledger/v1/entries", id="another scheme"),
    pytest.param(URL, "https://evil.example.com/ledger/v1/entries", id="another host"),
    pytest.param(URL, "https://gate.example.com./ledger/v1/entries", id="a dot after the host"),
    pytest.param(URL, "https://gate.example.com.evil.example/ledger/v1/entries", id="the host and more"),
    pytest.param(URL, "https://gate.example.com:8443/ledger/v1/entries", id="another port"),
    pytest.param(URL, "https://gate.example.com:80/ledger/v1/entries", id="the other scheme's port"),
    pytest.param("http://gate/x", "https://gate:80/x", id="https on http's port"),
    pytest.param(URL, HOST + "/ledger/v1/entries/", id="a slash at the end"),
    pytest.param(URL + "/", HOST + "/ledger/v1/entries", id="no slash at the end"),
    pytest.param(URL, HOST + "/ledger/v1", id="the path above"),
    pytest.param(URL, HOST + "/ledger//v1/entries", id="a slash twice"),
    pytest.param(URL, HOST + "/Ledger/v1/entries", id="the path in other letters"),
    pytest.param(URL, HOST + "/ledger%2Fv1/entries", id="a slash that is escaped"),
    pytest.param(HOST + "/ledger2Fv1", HOST + "/ledger%2Fv1", id="a slash that is escaped, and its digits"),
    pytest.param(URL, HOST + "/ledger/v1/entries%00", id="more behind an escaped zero"),
    pytest.param(URL, HOST + "/ledger/v1/entries%", id="half an escape"),
    pytest.param(URL, HOST + "/ledger/v1/%2565ntries", id="an escaped escape"),
    pytest.param(URL, HOST + "/ledger/v1/entries\n", id="a line feed"),
    pytest.param(URL, "https://user@gate.example.com/ledger/v1/entries", id="a user"),
    pytest.param(URL, "https://gate.example.com\\@evil.example/ledger/v1/entries", id="a backslash"),
    pytest.param(URL, " https://gate.example.com/ledger/v1/entries", id="a space before it"),
    pytest.param(URL, "https://gate.example.com:+443/ledger/v1/entries", id="a sign before the port"),
    pytest.param(URL, "https://gate.example.com:\u0664\u0664\u0663/ledger/v1/entries", id="a port in other digits"),
    pytest.param(URL, "https://gate.example.com:000443/ledger/v1/entries", id="a port that is too long"),
    pytest.param(URL, "http\u017f://gate.example.com/ledger/v1/entries", id="a long s in the scheme"),
    pytest.param(URL, "https://gate.example.com\u212a/ledger/v1/entries", id="a kelvin sign in the host"),
    pytest.param(URL, "//gate.example.com/ledger/v1/entries", id="no scheme"),
    pytest.param(URL, "/ledger/v1/entries", id="a path only"),
    pytest.param(URL, "", id="nothing"),
    pytest.param(URL, "urn:airgate:x", id="a URN"),
    pytest.param(HOST + "/" + "%41" * 513, HOST + "/" + "%41" * 513, id="more escapes than are looked at"),
    pytest.param(URL, "https:///ledger/v1/entries", id="no host"),
    pytest.param("ftp://gate/x", "https://gate/x", id="a request that has no http address"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "htu"), DIFFERENT)
def test_different_addresses(url: str, htu: str) -> None:
    reason, detail = refusal(read, proof(None, {"htu": htu}), url=url)
    assert reason is Reason.TOKEN_PROOF_INVALID
    assert detail.startswith("htu")


def test_an_origin_may_be_told_but_no_path() -> None:
    detail = refusal(read, proof(None, {"htu": "http://gate.example.com/ledger/v1/entries"}))[1]
    assert "http://gate.example.com:80" in detail
    assert "entries" not in detail
    for elsewhere in (HOST, "http://evil.example.com"):
        assert refusal(read, proof(None, {"htu": elsewhere + "/secret"}))[1] == "htu is another address"


def remove_dot_segments(path: str) -> str:
    """RFC 3986 §5.2.4, word for word, for paths that begin with a slash."""
    output = ""
    while path:
        if path.startswith("/./"):
            path = path[2:]
        elif path == "/.":
            path = "/"
        elif path.startswith("/../"):
            path, output = path[3:], output.rpartition("/")[0]
        elif path == "/..":
            path, output = "/", output.rpartition("/")[0]
        else:
            slash = path.find("/", 1)
            end = len(path) if slash < 0 else slash
            output, path = output + path[:end], path[end:]
    return output


@given(st.lists(st.sampled_from(["", ".", "..", "...", ".a", "a", "b."]), min_size=1, max_size=8))
def test_dot_segments_are_removed_as_rfc_3986_says(segments: list[str]) -> None:
    path = "/" + "/".join(segments)
    resolved = remove_dot_segments(path)
    assert read(proof(None, {"htu": HOST + path}), url=HOST + resolved).until
    if resolved != path:
        assert refusal(read, proof(None, {"htu": HOST + path + "x"}), url=HOST + resolved)


def attempt(text: str, bound: Binding) -> Proof | None:
    try:
        return read(text, bound)
    except Denied as refused:
        if refused.reason is not Reason.TOKEN_PROOF_INVALID:
            raise
    return None


def believed(text: str, bound: Binding) -> Proof | None:
    """The proof, if all that this module checks is right and the signature is; None when it is refused."""
    got = attempt(text, bound)
    return got if got is not None and got.signature == fill(got.signed, len(got.signature)) else None


ALPHABET = "ABCabc019-_.=, \n\x00\u00e9"


@settings(max_examples=examples(400))
@given(
    place=st.integers(0, len(GOOD)),
    removed=st.integers(0, 3),
    put=st.text(ALPHABET, max_size=3),
    warm=st.booleans(),
)
@example(place=len(FIRST) - 1, removed=1, put="Q", warm=True)
def test_no_mutation_of_a_good_proof_is_believed(place: int, removed: int, put: str, warm: bool) -> None:
    text = GOOD[:place] + put + GOOD[place + removed :]
    assume(text != GOOD)
    bound = bound_to()
    if warm:
        bound.keep(read(GOOD, bound))
    assert believed(text, bound) is None


ANY = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        7,
        NOW,
        1e300,
        2**60,
        "",
        "x",
        URL,
        "POST",
        "ES256",
        "AQ",
        [],
        ["POST"],
        {},
        {"a": [{}]},
        P256,
    ]
)


@settings(max_examples=examples(300))
@given(
    header=st.dictionaries(st.sampled_from([*HEADER, "kid", "crit"]), ANY, max_size=2),
    jwk=st.dictionaries(st.sampled_from([*P256, "n", "e", "use", "key_ops", "alg", "kid"]), ANY, max_size=2),
    claims=st.dictionaries(st.sampled_from([*claimed(), "exp", "nbf"]), ANY, max_size=2),
)
def test_whatever_a_proof_says_it_is_read_or_refused(
    header: dict[str, Any], jwk: dict[str, Any], claims: dict[str, Any]
) -> None:
    text = proof({"jwk": {**P256, **jwk}, **header}, claims)
    got = attempt(text, bound_to())
    if got is None:
        return
    assert (got.key.jwk, got.algorithm) == (P256, "ES256")
    said = claimed(**claims)
    assert (said["htm"], said["ath"]) == ("POST", bound_to().ath)
    assert NOW - PAST <= said["iat"] <= NOW + FUTURE


@settings(max_examples=examples(100))
@given(
    st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]{1,80}\.[A-Za-z0-9_-]{1,80}\.[A-Za-z0-9_-]{1,90}")
)
def test_whatever_comes_as_a_proof_is_refused(text: str) -> None:
    assert refusal(read, text)[0] is Reason.TOKEN_PROOF_INVALID


@given(st.text(max_size=60) | st.text("htps:/.%2eEfF[]@?#09-_~\\", max_size=60), st.booleans())
def test_whatever_stands_in_htu_is_the_address_or_is_refused(text: str, behind: bool) -> None:
    htu = URL + text if behind else text
    assume(not any("\ud800" <= character <= "\udfff" for character in htu))
    if believed(proof(None, {"htu": htu}), bound_to()) is not None:
        path = htu.partition("#")[0].partition("?")[0]
        assert path == URL or "/." in path or "%2" in path


def test_a_long_address_is_compared_in_linear_time() -> None:
    """As long as a proof can hold it, and of what could be tried in several ways."""
    for piece in ("/..", "/a/..", "%2e", "/%2e%2e", "]:", ":0", "h", "/."):
        htu = HOST + piece * (2500 // len(piece))
        text = proof(None, {"htu": htu})
        assert len(text) < MAX_PROOF
        assert refusal(read, text)[1].startswith("htu")


OWNER = bytes(8)
READ = read(GOOD)


def used(jti: str | int, until: float = NOW + PAST, owner: bytes = OWNER) -> Proof:
    return READ._replace(owner=owner, use=f"{jti}".encode(), until=until)


def claim(replays: Replays, proof: Proof, now: float = NOW) -> Reason | None:
    try:
        replays.claim(proof, now)
    except Denied as refused:
        return refused.reason
    return None


def test_a_proof_is_used_once() -> None:
    replays = Replays()
    assert claim(replays, used(1)) is None
    assert claim(replays, used(1)) is Reason.TOKEN_PROOF_REPLAYED
    assert claim(replays, used(1, until=NOW + 1)) is Reason.TOKEN_PROOF_REPLAYED  # its jti under another iat
    assert claim(replays, used(1, owner=b"b")) is Reason.TOKEN_PROOF_REPLAYED
    assert claim(replays, used(2)) is None
    assert len(replays) == 2


def test_two_proofs_are_the_same_use_by_key_and_jti() -> None:
    use = read(GOOD).use
    assert read(proof({"kid": "x"}, {"iat": NOW - 9})).use == use
    assert read(proof(None, {"jti": "a-2"})).use != use
    other = bound_to(ED25519)
    assert read(proof({"alg": "EdDSA", "jwk": ED25519}, {"ath": other.ath}), other).use != use


@pytest.mark.parametrize("fraction", [0.0, 0.5, 9.99])
def test_a_proof_is_remembered_for_as_long_as_it_holds_and_not_much_longer(fraction: float) -> None:
    replays, until = Replays(), NOW + fraction
    assert claim(replays, used(1, until)) is None
    # A request that came in time may be a little late when its turn comes.
    for now in (until, until + 1, until + SLOT):
        assert claim(replays, used(1, until), now) is Reason.TOKEN_PROOF_REPLAYED
    assert claim(replays, used(2, until + PAST), until + 2 * SLOT) is None
    assert len(replays) == 1


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory with room for few."""
    monkeypatch.setattr(dpop, "MOST", 200)
    monkeypatch.setattr(dpop, "SHARE", 50)


@pytest.mark.usefixtures("small")
def test_a_flood_takes_its_callers_share_and_no_more() -> None:
    replays = Replays()
    for age in range(0, 60, SLOT):
        assert claim(replays, used(f"of {age}", NOW + age, b"another")) is None
    for number_ in range(50):
        assert claim(replays, used(number_, until=NOW + number_)) is None
    assert claim(replays, used("more")) is Reason.LIMIT_PROOFS
    assert claim(replays, used("more", until=NOW + 1)) is Reason.LIMIT_PROOFS
    assert claim(replays, used(0)) is Reason.TOKEN_PROOF_REPLAYED  # nothing has been pushed out
    assert claim(replays, used("more", owner=b"another")) is None
    assert len(replays) == 57
    assert claim(replays, used("later", NOW + 2 * PAST), NOW + PAST + 2 * SLOT) is None
    assert len(replays) == 1


@pytest.mark.usefixtures("small")
def test_a_full_memory_refuses_everybody_until_it_is_not() -> None:
    replays = Replays()
    for number_ in range(200):
        until = NOW + number_ % int(PAST + FUTURE)
        assert claim(replays, used(number_, until, number_.to_bytes(8, "big"))) is None
    assert claim(replays, used("more", owner=b"nobody yet")) is Reason.LIMIT_PROOFS
    assert len(replays) == 200
    assert claim(replays, used(199)) is Reason.TOKEN_PROOF_REPLAYED
    assert claim(replays, used("more", owner=b"nobody yet"), NOW + 2 * SLOT) is None
    assert len(replays) < 200


def test_a_few_callers_cannot_fill_the_memory() -> None:
    assert 3 * SHARE < MOST


@given(
    st.lists(
        st.tuples(
            st.floats(0, 30),  # seconds since the last one
            st.integers(0, 5),  # jti
            st.floats(-PAST, FUTURE),  # its iat, from its arrival
            st.floats(0, SLOT),  # how late its turn comes
        ),
        max_size=60,
    )
)
def test_no_proof_is_accepted_twice_while_it_holds(calls: list[tuple[float, int, float, float]]) -> None:
    """Whatever the order; and nothing is kept for longer than it could take."""
    replays, now, accepted = Replays(), NOW, {}
    for passed, jti, age, late in calls:
        now += passed
        until = now + age + PAST
        if claim(replays, used(jti, until), now + late) is None:
            assert accepted.get(jti, 0) < now + late
            accepted[jti] = until
        assert len(replays) <= 6
    claim(replays, used("last", now + 1000), now + PAST + FUTURE + 3 * SLOT)
    assert len(replays) == 1


# For all isolates: what SQL says is tested in test_ledger_oracle.py.


def test_a_binding_says_whether_its_proofs_are_used_up_for_all_isolates() -> None:
    assert not dpop.binding("j", ISSUER, "etl", "t").strict
    assert dpop.binding("j", ISSUER, "etl", "t", strict=True).strict


def test_a_proof_is_used_up_for_all_isolates() -> None:
    world = World()
    run(claim_everywhere(used(1), world))
    assert world.d1.proofs == {b"1".hex(): NOW + PAST + SLOT}
    assert [timeout for _, _, timeout in world.of("database")] == [TIMEOUT]
    assert refusal(run, claim_everywhere(used(1), world)) == (
        Reason.TOKEN_PROOF_REPLAYED,
        "at another isolate",
    )
    run(claim_everywhere(used(2), world))


@pytest.mark.parametrize("until", [NOW + PAST, NOW + PAST + 0.001, NOW + PAST + 0.999])
def test_what_d1_remembers_outlives_the_proof(until: float) -> None:
    """And by as much as a request that came in time may be late when its turn comes."""
    world = World()
    run(claim_everywhere(used(1, until), world))
    (kept,) = world.d1.proofs.values()
    assert type(kept) is int
    assert SLOT <= kept - until < SLOT + 1


@pytest.mark.parametrize("failure", [OSError("away"), TimeoutError(), OSError("x" * 5000)])
def test_a_proof_of_which_d1_cannot_tell_is_refused(failure: OSError) -> None:
    world = World()
    world.broken["database"] = failure
    reason, detail = refusal(run, claim_everywhere(used(1), world))
    assert (reason, detail) == (Reason.STATE_UNAVAILABLE, str(failure)[:200])


def test_an_isolate_clears_up_once_a_minute() -> None:
    replays = Replays()
    assert replays.due(NOW)
    assert [replays.due(NOW + later) for later in (0, 1, FORGET - 1)] == [False] * 3
    assert replays.due(NOW + FORGET)
    assert not replays.due(NOW + FORGET)


def test_d1_forgets_what_is_over_and_nothing_else() -> None:
    world = World()
    world.d1.proofs = {"a": int(NOW) - 1, "b": int(NOW), "c": int(NOW) + 1}
    run(forget(NOW + 0.9, world))
    assert set(world.d1.proofs) == {"b", "c"}
    world.broken["database"] = OSError("away")
    run(forget(NOW + 60, world))
    assert set(world.d1.proofs) == {"b", "c"}
