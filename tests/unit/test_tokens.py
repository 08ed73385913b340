"""Tokens: what cannot be read, which claims are refused, and what a caller presented. RFC 7515, 7519, 8725, 9068."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import ABSENT, AUDIENCE, CLAIMS, HEADER, ISSUER, NOW, b64, compact, token, without

from model import Denied, Reason
from tokens import MAX_TIME, MAX_TOKEN, Rules, Unverified, bearer, parse, validate

GOOD = token()
FIRST, MIDDLE, LAST = GOOD.split(".")


def reason_of(work: Any, *arguments: Any) -> Reason:
    with pytest.raises(Denied) as caught:
        work(*arguments)
    return caught.value.reason


@pytest.mark.parametrize(
    ("headers", "credential"),
    [
        pytest.param({"authorization": "Bearer abc"}, "abc", id="a Bearer credential"),
        pytest.param({"authorization": "bearer abc"}, "abc", id="the scheme in lower case"),
        pytest.param({"authorization": "BEARER abc"}, "abc", id="the scheme in upper case"),
        pytest.param({"authorization": "Bearer   abc "}, "abc", id="more spaces than one"),
        pytest.param({"airgate-token": "own"}, "own", id="Airgate-Token alone"),
        pytest.param(
            {"airgate-token": "own", "authorization": "Bearer abc"},
            "own",
            id="Airgate-Token wins over Authorization",
        ),
        pytest.param(
            {"airgate-token": "own", "authorization": "Basic abc"},
            "own",
            id="Airgate-Token beside another scheme",
        ),
        pytest.param(
            {"airgate-token": "", "authorization": "Bearer abc"}, "", id="an empty Airgate-Token still wins"
        ),
    ],
)
def test_the_credential_presented(headers: dict[str, str], credential: str) -> None:
    assert bearer(headers) == credential


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no header"),
        pytest.param({"authorization": ""}, id="an empty header"),
        pytest.param({"authorization": "Basic dXNlcjpwYXNz"}, id="another scheme"),
        pytest.param({"authorization": "Bearer"}, id="a scheme without a credential"),
        pytest.param({"authorization": "Bearer "}, id="a scheme and a space"),
        pytest.param({"authorization": GOOD}, id="a token without a scheme"),
        pytest.param({"authorization": f"Bearer\t{GOOD}"}, id="a tab for a space"),
        pytest.param({"authorization": f"Basic abc, Bearer {GOOD}"}, id="another scheme joined before it"),
    ],
)
def test_no_credential(headers: dict[str, str]) -> None:
    assert reason_of(bearer, headers) is Reason.TOKEN_MISSING


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(
            {"authorization": f"Bearer {GOOD}, Bearer {GOOD}"}, id="two Authorization headers joined"
        ),
        pytest.param({"authorization": f"Bearer {GOOD}, Basic abc"}, id="another scheme joined after it"),
        pytest.param({"airgate-token": f"{GOOD}, {GOOD}"}, id="two Airgate-Token headers joined"),
        pytest.param({"airgate-token": f"Bearer {GOOD}"}, id="a scheme in Airgate-Token"),
    ],
)
def test_two_credentials_are_none(headers: dict[str, str]) -> None:
    assert reason_of(parse, bearer(headers)) is Reason.TOKEN_MALFORMED


def test_a_good_token_is_read() -> None:
    assert parse(GOOD) == Unverified(
        "EdDSA", "one", "at+jwt", ISSUER, CLAIMS, f"{FIRST}.{MIDDLE}".encode(), parse(GOOD).signature
    )
    assert b64(parse(GOOD).signature) == LAST


@pytest.mark.parametrize(
    ("change", "kid", "type_"),
    [
        pytest.param({"kid": ABSENT}, None, "at+jwt", id="without a kid"),
        pytest.param({"kid": "k" * 256}, "k" * 256, "at+jwt", id="with the longest kid"),
        pytest.param({"typ": ABSENT}, "one", None, id="without a typ"),
        pytest.param(
            {"typ": "Application/AT+JWT"}, "one", "application/at+jwt", id="typ is not case-sensitive"
        ),
        pytest.param({"nonce": 1}, "one", "at+jwt", id="with a parameter that changes nothing"),
    ],
)
def test_headers_that_are_read(change: dict[str, Any], kid: str | None, type_: str | None) -> None:
    read = parse(token(change))
    assert (read.kid, read.type) == (kid, type_)


def raw(header: bytes | None = None, claims: bytes | None = None) -> str:
    return compact(header or HEADER, claims or CLAIMS)


def parts_of_length(length: int) -> str:
    return f"{FIRST}.{MIDDLE}." + "A" * (length - len(FIRST) - len(MIDDLE) - 2)


MALFORMED = [
    # Row "format".
    pytest.param("", id="format: nothing"),
    pytest.param(f"{FIRST}.{MIDDLE}", id="format: two parts"),
    pytest.param(f"{GOOD}.{LAST}", id="format: four parts"),
    pytest.param(f"{GOOD}.{LAST}.{LAST}", id="format: five parts, a JWE"),
    pytest.param(f"{FIRST}.{MIDDLE}.", id="format: an empty signature"),
    pytest.param(f".{MIDDLE}.{LAST}", id="format: an empty header"),
    pytest.param(f"{FIRST}..{LAST}", id="format: detached claims"),
    pytest.param(json.dumps({"protected": FIRST, "payload": MIDDLE, "signature": LAST}), id="format: JSON"),
    pytest.param(f"{FIRST}.{MIDDLE}.{LAST[:-1]}?", id="format: a question mark"),
    pytest.param(f"{FIRST}.{MIDDLE}.{LAST}\n", id="format: a line feed at the end"),
    pytest.param(f" {GOOD}", id="format: a space at the start"),
    pytest.param(f"{FIRST}.{MIDDLE}.{LAST[:-2]}+/", id="format: base64 instead of base64url"),
    pytest.param(f"{FIRST}.{MIDDLE}.{LAST[:-1]}é", id="format: a letter outside ASCII"),
    pytest.param(f"{GOOD}==", id="format: padding"),
    pytest.param(f"{FIRST}.{MIDDLE}.AAAAA", id="format: a length of 4n+1"),
    pytest.param(f"{FIRST}.{MIDDLE}.QR", id="format: trailing bits of two characters"),
    pytest.param(f"{FIRST}.{MIDDLE}.QUF", id="format: trailing bits of three characters"),
    pytest.param(parts_of_length(MAX_TOKEN + 1), id="format: one character over the cap"),
    # Row "JSON".
    pytest.param(raw(b'{"alg":"EdDSA","alg":"none"}'), id="JSON: alg twice"),
    pytest.param(raw(None, b'{"iss":"https://a","iss":"https://b"}'), id="JSON: iss twice"),
    pytest.param(raw(None, b'{"iss":"https://a","exp":NaN}'), id="JSON: NaN"),
    pytest.param(raw(None, b'{"iss":"https://a","exp":Infinity}'), id="JSON: Infinity"),
    pytest.param(raw(None, b'{"iss":"https://a","exp":1e999}'), id="JSON: 1e999"),
    pytest.param(raw(json.dumps(HEADER).encode("utf-16")), id="JSON: header in UTF-16"),
    pytest.param(raw(None, json.dumps(CLAIMS).encode("utf-32")), id="JSON: claims in UTF-32"),
    pytest.param(raw(b"\xef\xbb\xbf" + json.dumps(HEADER).encode()), id="JSON: a byte order mark"),
    pytest.param(raw(None, b'{"iss":"\\ud800"}'), id="JSON: a lone surrogate"),
    pytest.param(raw(b"[]"), id="JSON: header is a list"),
    pytest.param(raw(None, b'"claims"'), id="JSON: claims are a string"),
    pytest.param(raw(None, b'{"iss":' + b"[" * 16 + b"]" * 16 + b"}"), id="JSON: 17 levels"),
    pytest.param(raw(b"\x80abc"), id="JSON: not UTF-8"),
    # Row "header".
    pytest.param(token({"crit": ["exp"], "exp": 1}), id="header: crit"),
    pytest.param(token({"crit": []}), id="header: an empty crit"),
    pytest.param(token({"b64": True}), id="header: b64"),
    pytest.param(token({"zip": "DEF"}), id="header: zip"),
    pytest.param(token({"enc": "A128GCM"}), id="header: enc"),
    pytest.param(token({"jwk": {}}), id="header: jwk"),
    pytest.param(token({"jku": "https://evil.example"}), id="header: jku"),
    pytest.param(token({"x5u": "https://evil.example"}), id="header: x5u"),
    pytest.param(token({"x5c": None}), id="header: x5c, even null"),
    pytest.param(token({"kid": 1}), id="header: kid is a number"),
    pytest.param(token({"kid": ["one"]}), id="header: kid is a list"),
    pytest.param(token({"kid": "k" * 257}), id="header: a long kid"),
]


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed(text: str) -> None:
    assert reason_of(parse, text) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(token({"alg": ABSENT}), Reason.TOKEN_ALGORITHM, id="header: alg missing"),
        pytest.param(token({"alg": None}), Reason.TOKEN_ALGORITHM, id="header: alg null"),
        pytest.param(token({"alg": ["EdDSA"]}), Reason.TOKEN_ALGORITHM, id="header: alg a list"),
        pytest.param(token({"typ": 1}), Reason.TOKEN_TYPE, id="type: typ a number"),
        pytest.param(token(iss=ABSENT), Reason.TOKEN_ISSUER, id="claims: iss missing"),
        pytest.param(token(iss=[ISSUER]), Reason.TOKEN_ISSUER, id="claims: iss a list"),
        pytest.param(token(iss=None), Reason.TOKEN_ISSUER, id="claims: iss null"),
    ],
)
def test_parts_of_the_wrong_kind(text: str, reason: Reason) -> None:
    assert reason_of(parse, text) is reason


def test_a_token_as_long_as_the_cap_is_read() -> None:
    longest = parts_of_length(MAX_TOKEN - (MAX_TOKEN - len(FIRST) - len(MIDDLE) - 2) % 4)
    assert MAX_TOKEN - 4 < len(longest) <= MAX_TOKEN
    assert parse(longest).issuer == ISSUER


@given(st.binary(min_size=1, max_size=64))
def test_one_signature_has_one_spelling(signature: bytes) -> None:
    spelled = b64(signature)
    assert parse(f"{FIRST}.{MIDDLE}.{spelled}").signature == signature
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for last in alphabet.replace(spelled[-1], ""):
        try:
            other = parse(f"{FIRST}.{MIDDLE}.{spelled[:-1]}{last}").signature
        except Denied:
            continue
        assert other != signature


@given(st.text(max_size=300) | st.from_regex(r"[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,9}"))
def test_any_text_is_read_or_denied(text: str) -> None:
    try:
        parse(text)
    except Denied as denied:
        assert denied.reason.startswith("token.")  # noqa: PT017 - only one of the two ends is a failure


RULES = Rules(frozenset({AUDIENCE}), frozenset({"EdDSA"}), "at+jwt", 3600, 60)
ANY = RULES._replace(type="any")


def claimed(header: dict[str, Any] | None = None, **claims: Any) -> Unverified:
    return parse(token(header, **claims))


ACCEPTED = [
    pytest.param({}, RULES, id="a good token"),
    pytest.param({"aud": [AUDIENCE]}, RULES, id="aud is a list"),
    pytest.param({"aud": ["https://other", AUDIENCE]}, RULES, id="aud names us among others"),
    pytest.param({"exp": NOW - 59.9}, RULES, id="expired, but not by the whole skew"),
    pytest.param({"nbf": NOW}, RULES, id="valid from now"),
    pytest.param({"nbf": NOW + 60}, RULES, id="not valid yet, by exactly the skew"),
    pytest.param({"iat": NOW + 60}, RULES, id="issued later, by exactly the skew"),
    pytest.param({"iat": NOW, "exp": NOW + 3600}, RULES, id="a lifetime of exactly the cap"),
    pytest.param({"iat": NOW - 1800, "exp": NOW + 1800}, RULES, id="a lifetime of the cap, half of it gone"),
    pytest.param({"exp": int(NOW) + 1, "iat": int(NOW)}, RULES, id="times are integers"),
    pytest.param({"iat": ABSENT, "exp": NOW + 3600}, ANY, id="no iat, and the cap is left"),
    pytest.param({"iat": ABSENT, "jti": ABSENT, "client_id": ABSENT}, ANY, id="a plain JWT has less in it"),
    pytest.param({"nbf": 0}, RULES, id="valid since 1970"),
    pytest.param({"sub": "s" * 512}, RULES, id="the longest sub"),
]


@pytest.mark.parametrize(("claims", "rules"), ACCEPTED)
def test_acceptable_claims(claims: dict[str, Any], rules: Rules) -> None:
    merged = without(CLAIMS, **claims)
    assert validate(claimed(**claims), rules, NOW) == (merged["sub"], merged["exp"] + 60)


REFUSED = [
    # Row "claims".
    pytest.param({"aud": ABSENT}, Reason.TOKEN_AUDIENCE, id="aud is missing"),
    pytest.param({"aud": None}, Reason.TOKEN_AUDIENCE, id="aud is null"),
    pytest.param({"aud": "https://other"}, Reason.TOKEN_AUDIENCE, id="aud is another"),
    pytest.param({"aud": []}, Reason.TOKEN_AUDIENCE, id="aud is empty"),
    pytest.param({"aud": ["https://other"]}, Reason.TOKEN_AUDIENCE, id="aud is a list without us"),
    pytest.param({"aud": [AUDIENCE, 1]}, Reason.TOKEN_AUDIENCE, id="aud names us and a number"),
    pytest.param({"aud": {AUDIENCE: 1}}, Reason.TOKEN_AUDIENCE, id="aud is an object with our name"),
    pytest.param({"aud": AUDIENCE + "/"}, Reason.TOKEN_AUDIENCE, id="aud has a slash more"),
    pytest.param({"aud": AUDIENCE.upper()}, Reason.TOKEN_AUDIENCE, id="aud in upper case"),
    pytest.param({"exp": ABSENT}, Reason.TOKEN_CLAIMS, id="exp is missing"),
    pytest.param({"exp": None}, Reason.TOKEN_CLAIMS, id="exp is null"),
    pytest.param({"exp": True}, Reason.TOKEN_CLAIMS, id="exp is a boolean"),
    pytest.param({"exp": str(NOW + 60)}, Reason.TOKEN_CLAIMS, id="exp is a string"),
    pytest.param({"exp": [NOW + 60]}, Reason.TOKEN_CLAIMS, id="exp is a list"),
    pytest.param({"exp": -1}, Reason.TOKEN_CLAIMS, id="exp is negative"),
    pytest.param({"exp": MAX_TIME}, Reason.TOKEN_CLAIMS, id="exp is huge"),
    pytest.param({"exp": 10**400}, Reason.TOKEN_CLAIMS, id="exp is past any float"),
    pytest.param({"exp": MAX_TIME - 1}, Reason.TOKEN_LIFETIME, id="exp is the largest that is a time"),
    pytest.param({"nbf": True}, Reason.TOKEN_CLAIMS, id="nbf is a boolean"),
    pytest.param({"nbf": "0"}, Reason.TOKEN_CLAIMS, id="nbf is a string"),
    pytest.param({"iat": False}, Reason.TOKEN_CLAIMS, id="iat is a boolean"),
    pytest.param({"iat": "0"}, Reason.TOKEN_CLAIMS, id="iat is a string"),
    pytest.param({"exp": NOW - 60}, Reason.TOKEN_EXPIRED, id="expired by exactly the skew"),
    pytest.param({"exp": 0}, Reason.TOKEN_EXPIRED, id="expired in 1970"),
    pytest.param({"nbf": NOW + 60.01}, Reason.TOKEN_NOT_YET_VALID, id="not valid yet, by more than the skew"),
    pytest.param({"iat": NOW + 60.01}, Reason.TOKEN_NOT_YET_VALID, id="issued later, by more than the skew"),
    pytest.param(
        {"iat": NOW, "exp": NOW + 3600.01}, Reason.TOKEN_LIFETIME, id="a lifetime just over the cap"
    ),
    pytest.param({"iat": 0}, Reason.TOKEN_LIFETIME, id="a lifetime since 1970"),
    pytest.param({"sub": ABSENT}, Reason.TOKEN_CLAIMS, id="sub is missing"),
    pytest.param({"sub": ""}, Reason.TOKEN_CLAIMS, id="sub is empty"),
    pytest.param({"sub": 7}, Reason.TOKEN_CLAIMS, id="sub is a number"),
    pytest.param({"sub": "s" * 513}, Reason.TOKEN_CLAIMS, id="sub is long"),
    # Row "type": what RFC 9068 §2.2 asks for.
    pytest.param({"client_id": ABSENT}, Reason.TOKEN_CLAIMS, id="client_id is missing"),
    pytest.param({"client_id": 1}, Reason.TOKEN_CLAIMS, id="client_id is a number"),
    pytest.param({"jti": ABSENT}, Reason.TOKEN_CLAIMS, id="jti is missing"),
    pytest.param({"iat": ABSENT}, Reason.TOKEN_CLAIMS, id="iat is missing"),
]


@pytest.mark.parametrize(("claims", "reason"), REFUSED)
def test_unacceptable_claims(claims: dict[str, Any], reason: Reason) -> None:
    assert reason_of(validate, claimed(**claims), RULES, NOW) is reason


def test_without_iat_more_than_the_cap_may_not_be_left() -> None:
    late = claimed(iat=ABSENT, exp=NOW + 3600.01)
    assert reason_of(validate, late, ANY, NOW) is Reason.TOKEN_LIFETIME


@pytest.mark.parametrize(
    ("type_", "promised", "plain"),
    [
        pytest.param("at+jwt", True, True, id="at+jwt"),
        pytest.param("AT+JWT", True, True, id="AT+JWT"),
        pytest.param("application/at+jwt", True, True, id="application/at+jwt"),
        pytest.param("JWT", False, True, id="JWT, as ID tokens have it"),
        pytest.param("application/jwt", False, True, id="application/jwt"),
        pytest.param(ABSENT, False, True, id="no typ"),
        pytest.param("dpop+jwt", False, False, id="dpop+jwt"),
        pytest.param("logout+jwt", False, False, id="logout+jwt"),
        pytest.param("JOSE", False, False, id="JOSE"),
    ],
)
def test_types(type_: Any, promised: bool, plain: bool) -> None:
    for rules, accepted in ((RULES, promised), (ANY, plain)):
        presented = claimed({"typ": type_})
        if accepted:
            assert validate(presented, rules, NOW)[0] == "finance-etl"
        else:
            assert reason_of(validate, presented, rules, NOW) is Reason.TOKEN_TYPE


@given(
    st.floats(-4000, 4000),
    st.none() | st.floats(-4000, 4000),
    st.none() | st.floats(-4000, 4000),
    st.floats(0, 300),
)
def test_an_accepted_token_is_within_its_times(
    exp: float, nbf: float | None, iat: float | None, skew: float
) -> None:
    rules = ANY._replace(clock_skew=int(skew))
    claims = {"exp": NOW + exp}
    claims |= {} if nbf is None else {"nbf": NOW + nbf}
    claims |= {"iat": ABSENT if iat is None else NOW + iat}
    try:
        _, end = validate(claimed(**claims), rules, NOW)
        accepted = True
    except Denied:
        accepted = False
    lifetime = claims["exp"] - (NOW if iat is None else claims["iat"])
    assert accepted is (
        claims["exp"] + rules.clock_skew > NOW
        and (nbf is None or claims["nbf"] - rules.clock_skew <= NOW)
        and (iat is None or claims["iat"] - rules.clock_skew <= NOW)
        and lifetime <= rules.max_lifetime
    )
    if accepted:
        assert end == claims["exp"] + rules.clock_skew
