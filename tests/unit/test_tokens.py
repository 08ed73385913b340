"""Tokens: what cannot be read, which claims are refused, and what a caller presented. RFC 7515, 7519, 8725, 9068."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import ABSENT, AUDIENCE, CLAIMS, HEADER, ISSUER, NOW, b64, compact, token, without

from model import Denied, Reason
from tokens import (
    MAX_HEADER,
    MAX_TIME,
    MAX_TOKEN,
    WORK,
    Jws,
    Rules,
    Unverified,
    for_gate,
    parse,
    presented,
    read_jws,
    validate,
)

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
    assert presented(headers)[0] == credential


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        pytest.param({"authorization": "Bearer abc"}, "bearer", id="Bearer"),
        pytest.param({"authorization": "DPoP abc"}, "dpop", id="DPoP"),
        pytest.param({"authorization": "dpop  abc "}, "dpop", id="DPoP in lower case"),
        pytest.param({"airgate-token": "abc", "authorization": "DPoP abc"}, "", id="Airgate-Token has none"),
    ],
)
def test_the_scheme_it_is_presented_under(headers: dict[str, str], scheme: str) -> None:
    assert presented(headers) == ("abc", scheme)


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
    assert reason_of(presented, headers) is Reason.TOKEN_MISSING


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"authorization": "Bearer " + "A" * (MAX_TOKEN + 1)}, id="in Authorization"),
        pytest.param({"airgate-token": "A" * (MAX_TOKEN + 1)}, id="in Airgate-Token"),
    ],
)
def test_a_long_credential_is_refused_before_anybody_looks_at_it(headers: dict[str, str]) -> None:
    assert reason_of(presented, headers) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(
            {"authorization": f"Bearer {GOOD}, Bearer {GOOD}"}, id="two Authorization headers joined"
        ),
        pytest.param({"authorization": f"Bearer {GOOD}, Basic abc"}, id="another scheme joined after it"),
        pytest.param({"authorization": f"Bearer {GOOD}, DPoP {GOOD}"}, id="both schemes joined"),
        pytest.param(
            {"authorization": f"DPoP {GOOD}, Bearer {GOOD}"}, id="both schemes joined the other way"
        ),
        pytest.param({"airgate-token": f"{GOOD}, {GOOD}"}, id="two Airgate-Token headers joined"),
        pytest.param({"airgate-token": f"Bearer {GOOD}"}, id="a scheme in Airgate-Token"),
    ],
)
def test_two_credentials_are_none(headers: dict[str, str]) -> None:
    assert reason_of(parse, presented(headers)[0]) is Reason.TOKEN_MALFORMED


def test_a_good_token_is_read() -> None:
    assert parse(GOOD) == Unverified(
        "EdDSA", "one", "at+jwt", ISSUER, CLAIMS, f"{FIRST}.{MIDDLE}".encode(), parse(GOOD).signature
    )
    assert b64(parse(GOOD).signature) == LAST


def test_a_jws_is_read_whatever_it_carries() -> None:
    assert read_jws(f"{FIRST}.{b64(b'no claims')}.AAAA") == Jws(
        "EdDSA", "one", "at+jwt", b"no claims", f"{FIRST}.{b64(b'no claims')}".encode(), bytes(3)
    )
    assert read_jws(f"{FIRST}..AAAA").payload == b""


@pytest.mark.parametrize(
    ("change", "kid", "type_"),
    [
        pytest.param({"kid": ABSENT}, None, "at+jwt", id="without a kid"),
        pytest.param({"kid": "k" * 256}, "k" * 256, "at+jwt", id="with the longest kid"),
        pytest.param({"typ": ABSENT}, "one", None, id="without a typ"),
        pytest.param({"typ": ""}, "one", "", id="with an empty typ, which is not none"),
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


def packed(**claims: Any) -> bytes:
    return json.dumps({"iss": ISSUER, **claims}, separators=(",", ":")).encode()


def names(amount: int) -> dict[str, str]:
    return {f"n{number}": "" for number in range(amount)}


BOUNDS = [
    pytest.param(lambda n: packed(g=[""] * (n - 3)), WORK.strings, id="strings"),
    pytest.param(lambda n: packed(**names(n - 1)), WORK.names, id="names"),
    pytest.param(lambda n: packed(inside=names(n - 2)), WORK.names, id="names of members inside"),
    # {":[]:} and the digits: commas and white space are not counted.
    pytest.param(lambda n: packed(g=[7] * (n - 6)).replace(b",", b" , "), WORK.structure, id="structure"),
]


@pytest.mark.parametrize(("claims", "most"), BOUNDS)
def test_there_is_only_so_much_to_read(claims: Callable[[int], bytes], most: int) -> None:
    assert parse(compact(HEADER, claims(most))).issuer == ISSUER
    assert reason_of(parse, compact(HEADER, claims(most + 1))) is Reason.TOKEN_MALFORMED


def test_quotes_within_a_string_are_no_strings() -> None:
    text = '"' * 2 * WORK.strings
    assert parse(compact(HEADER, packed(text=text))).claims["text"] == text


def test_a_header_is_short() -> None:
    longest = {**HEADER, "x": "x" * (MAX_HEADER * 3 // 4 - len(json.dumps({**HEADER, "x": ""})))}
    assert parse(token(longest)).issuer == ISSUER
    assert reason_of(parse, token({**longest, "x": longest["x"] + "x"})) is Reason.TOKEN_MALFORMED


def test_as_many_groups_as_a_token_has_room_for_are_read() -> None:
    """Of eight letters each, packed."""
    groups = [f"team-{number}" for number in range(100, 625)]
    longest = compact(HEADER, json.dumps({**CLAIMS, "groups": groups}, separators=(",", ":")).encode())
    assert MAX_TOKEN - 200 < len(longest) <= MAX_TOKEN
    assert parse(longest).claims["groups"] == groups


LONG = (MAX_TOKEN - len(FIRST) - 2 - 88) * 3 // 4 - 40  # bytes of claims in the longest token


def filled(unit: bytes, head: bytes = b'{"iss":"https://a","a":[', tail: bytes = b"0]}") -> bytes:
    return head + unit * ((LONG - len(head) - len(tail)) // len(unit)) + tail


IN_TEXT = (b'{"iss":"https://a","a":"', b'"}')
HOSTILE = [
    pytest.param(filled(b"0,"), id="numbers"),
    pytest.param(filled(b"1e1,"), id="floats"),
    pytest.param(filled(b"9" * 4000 + b","), id="a number of 4,000 digits"),
    pytest.param(filled(b"9" * 5000 + b","), id="a number of 5,000 digits"),
    pytest.param(filled(b"1." + b"9" * 5000 + b","), id="a fraction of 5,000 digits"),
    pytest.param(filled(b"[],"), id="empty lists"),
    pytest.param(filled(b"{},"), id="empty objects"),
    pytest.param(filled(b'{"":0},'), id="objects"),
    pytest.param(filled(b"[" * 14 + b"]" * 14 + b","), id="lists as deep as they may be"),
    pytest.param(b'{"iss":' + b"[" * (LONG // 2) + b"]" * (LONG // 2) + b"}", id="one deep list"),
    pytest.param(b"[" * LONG, id="brackets only"),
    pytest.param(filled(b'"",'), id="empty strings"),
    pytest.param(filled(b'"[{[{",'), id="brackets in strings"),
    pytest.param(filled(b'"', b""), id="quotes only"),
    pytest.param(filled(b"\\", b""), id="backslashes only"),
    pytest.param(filled(b'\\"', *IN_TEXT), id="escaped quotes"),
    pytest.param(filled(b"\\u0041", *IN_TEXT), id="escaped letters"),
    pytest.param(filled("\u00e9".encode(), *IN_TEXT), id="letters of two bytes"),
    pytest.param(filled(b" "), id="white space"),
    pytest.param(json.dumps({"iss": "a"} | {f"{n:x}": 0 for n in range(550)}).encode(), id="names"),
]


def cost(text: str) -> float:
    """Seconds to read a token: the least of many, so that a busy machine does not count."""
    least = 1.0
    for _ in range(15):
        began = time.perf_counter()
        with suppress(Denied):
            parse(text)
        least = min(least, time.perf_counter() - began)
    return least


@pytest.mark.parametrize("claims", HOSTILE)
def test_no_token_is_slow_to_read(claims: bytes) -> None:
    """Seven times the longest honest one would be quadratic, or as bad; none is above twice."""
    text = compact(HEADER, claims)
    assert len(text) <= MAX_TOKEN
    honest = compact(HEADER, filled(b'"finance-publishers",', tail=b'""]}'))
    assert cost(text) < 7 * cost(honest)


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
ID_TOKEN = RULES._replace(type="id_token")
OTHER, SECOND = "https://other.example.com", "https://second.example.com"
BOTH = RULES._replace(audiences=frozenset({AUDIENCE, SECOND}))
TRUSTING = RULES._replace(authorized_parties=frozenset({"finance-etl"}))


def claimed(header: dict[str, Any] | None = None, **claims: Any) -> Unverified:
    return parse(token(header, **claims))


ACCEPTED = [
    pytest.param({}, RULES, id="a good token"),
    pytest.param({"aud": [AUDIENCE]}, RULES, id="aud is a list"),
    pytest.param({"aud": [AUDIENCE, AUDIENCE]}, RULES, id="aud is a list with us twice"),
    pytest.param(
        {"aud": [AUDIENCE, SECOND]}, BOTH, id="aud names us by two names, and no party has to be trusted"
    ),
    pytest.param({"aud": [OTHER, AUDIENCE]}, TRUSTING, id="aud names others, and client_id is authorized"),
    pytest.param(
        {"aud": [OTHER, AUDIENCE], "azp": "finance-etl", "client_id": "another"},
        TRUSTING,
        id="aud names others, and azp is authorized",
    ),
    pytest.param({"azp": "nobody-in-particular"}, TRUSTING, id="aud is us alone, and azp is somebody else"),
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
    pytest.param({"nbf": None}, Reason.TOKEN_CLAIMS, id="nbf is null"),
    pytest.param({"iat": None}, Reason.TOKEN_CLAIMS, id="iat is null"),
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


@pytest.mark.parametrize(
    ("claims", "rules"),
    [
        pytest.param({}, RULES, id="where nobody is authorized"),
        pytest.param({"azp": "another"}, TRUSTING, id="azp is another, whatever client_id is"),
        pytest.param({"azp": None}, TRUSTING, id="azp is null"),
        pytest.param({"azp": ["finance-etl"]}, TRUSTING, id="azp is a list"),
        pytest.param({"client_id": "another"}, TRUSTING, id="client_id is another"),
        pytest.param({"client_id": ABSENT}, TRUSTING, id="neither is there"),
    ],
)
def test_a_token_that_is_for_others_as_well(claims: dict[str, Any], rules: Rules) -> None:
    shared = claimed(aud=[OTHER, AUDIENCE], **claims)
    assert reason_of(validate, shared, rules, NOW) is Reason.TOKEN_AUDIENCE


PICKY = RULES._replace(
    require=((("hd",), frozenset({"example.com", "example.org"})), (("org", "verified"), frozenset({"true"})))
)
VERIFIED = {"org": {"verified": True}}


@pytest.mark.parametrize(
    ("claims", "accepted"),
    [
        pytest.param({"hd": "example.com", **VERIFIED}, True, id="one of the values"),
        pytest.param({"hd": "example.org", **VERIFIED}, True, id="another of them"),
        pytest.param({"hd": ["x", "example.com"], **VERIFIED}, True, id="a list with one of them"),
        pytest.param({"hd": "example.com", "org": {"verified": "true"}}, True, id="a text that says true"),
        pytest.param(VERIFIED, False, id="the claim is missing"),
        pytest.param({"hd": None, **VERIFIED}, False, id="the claim is null"),
        pytest.param({"hd": "evil.example.com", **VERIFIED}, False, id="another value"),
        pytest.param({"hd": "Example.com", **VERIFIED}, False, id="another case"),
        pytest.param({"hd": [], **VERIFIED}, False, id="an empty list"),
        pytest.param({"hd": {"example.com": 1}, **VERIFIED}, False, id="an object"),
        pytest.param({"hd": "example.com"}, False, id="one of two claims"),
        pytest.param(
            {"hd": "example.com", "org": {"verified": False}}, False, id="false where true is required"
        ),
        pytest.param({"hd": "example.com", "org": {"verified": 1}}, False, id="1 where true is required"),
    ],
)
def test_claims_that_an_issuers_tokens_must_have(claims: dict[str, Any], accepted: bool) -> None:
    if accepted:
        assert validate(claimed(**claims), PICKY, NOW)[0] == "finance-etl"
    else:
        assert reason_of(validate, claimed(**claims), PICKY, NOW) is Reason.TOKEN_CLAIMS


def test_without_iat_more_than_the_cap_may_not_be_left() -> None:
    late = claimed(iat=ABSENT, exp=NOW + 3600.01)
    assert reason_of(validate, late, ANY, NOW) is Reason.TOKEN_LIFETIME


@pytest.mark.parametrize(
    ("type_", "promised", "plain", "login"),
    [
        pytest.param("at+jwt", True, True, False, id="at+jwt"),
        pytest.param("AT+JWT", True, True, False, id="AT+JWT"),
        pytest.param("application/at+jwt", True, True, False, id="application/at+jwt"),
        pytest.param("JWT", False, True, True, id="JWT, as ID tokens have it"),
        pytest.param("application/jwt", False, True, True, id="application/jwt"),
        pytest.param(ABSENT, False, True, True, id="no typ"),
        *[
            pytest.param(type_, False, False, False, id=type_ or "an empty one")
            for type_ in (
                "",
                "JOSE",
                "JOSE+JSON",
                "dpop+jwt",
                "logout+jwt",
                "secevent+jwt",
                "oauth-authz-req+jwt",
                "token-introspection+jwt",
                "client-authentication+jwt",
                "application/at+jwt; v=1",
            )
        ],
    ],
)
def test_types(type_: Any, promised: bool, plain: bool, login: bool) -> None:
    for rules, accepted in ((RULES, promised), (ANY, plain), (ID_TOKEN, login)):
        presented = claimed({"typ": type_})
        if accepted:
            assert validate(presented, rules, NOW)[0] == "finance-etl"
        else:
            assert reason_of(validate, presented, rules, NOW) is Reason.TOKEN_TYPE


@pytest.mark.parametrize(
    ("claims", "plain", "login"),
    [
        pytest.param({"nonce": "abc"}, False, True, id="nonce, of an ID token"),
        pytest.param({"at_hash": "abc"}, False, True, id="at_hash, of an ID token"),
        pytest.param({"c_hash": None}, False, True, id="c_hash, even null"),
        pytest.param({"s_hash": "abc"}, False, True, id="s_hash, of an ID token"),
        pytest.param({"auth_time": NOW, "acr": "1", "amr": ["pwd"]}, True, True, id="what both may have"),
        pytest.param({"typ": "Bearer"}, True, False, id="Keycloak's access token"),
        pytest.param({"typ": "DPoP"}, True, False, id="Keycloak's access token, bound to a key"),
        pytest.param({"typ": "ID"}, False, True, id="Keycloak's ID token"),
        pytest.param({"typ": "Refresh"}, False, False, id="Keycloak's refresh token"),
        pytest.param({"typ": "Offline"}, False, False, id="Keycloak's offline token"),
        pytest.param({"typ": "Logout"}, False, False, id="Keycloak's logout token"),
        pytest.param({"typ": "invoice"}, True, True, id="a typ that means something else"),
        pytest.param({"typ": 1, "token_use": ["id"]}, True, True, id="purposes that are no strings"),
        pytest.param({"token_use": "access"}, True, False, id="Cognito's access token"),
        pytest.param({"token_use": "id"}, False, True, id="Cognito's ID token"),
        pytest.param({"events": {}}, False, False, id="a security event"),
    ],
)
def test_what_a_plain_token_is_for(claims: dict[str, Any], plain: bool, login: bool) -> None:
    for rules, accepted in ((ANY, plain), (ID_TOKEN, login)):
        presented = claimed({"typ": "JWT"}, **claims)
        if accepted:
            assert validate(presented, rules, NOW)[0] == "finance-etl"
        else:
            assert reason_of(validate, presented, rules, NOW) is Reason.TOKEN_TYPE
    # One that says in its header that it is an access token need not be guessed at.
    assert validate(claimed(**claims), RULES, NOW)[0] == "finance-etl"


def test_an_id_token_needs_iat() -> None:
    assert reason_of(validate, claimed({"typ": "JWT"}, iat=ABSENT), ID_TOKEN, NOW) is Reason.TOKEN_CLAIMS
    plain = claimed({"typ": "JWT"}, jti=ABSENT, client_id=ABSENT)
    assert validate(plain, ID_TOKEN, NOW)[0] == "finance-etl"


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


@pytest.mark.parametrize("unit", ["a", "a.", ".", "-", "a.a.a ", "a.a", "e30.e30.e30,"])
def test_looking_for_tokens_takes_no_longer_for_what_is_hostile(unit: str) -> None:
    text = (unit * 16_384)[: 2 * MAX_TOKEN]
    begun = time.process_time()
    assert not for_gate(text, lambda iss: None)
    assert time.process_time() - begun < 0.5
    assert for_gate(text + "a", lambda iss: None)  # too long to be looked at
