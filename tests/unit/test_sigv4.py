"""AWS Signature Version 4: Amazon's own example, what is signed, and the address that goes out."""

import json
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import ABSENT, NOW, without

from credential import SigV4
from model import Denied, Reason
from sigv4 import EMPTY, LIMIT, UNSIGNED, Keys, Signed, read_keys, sign

OF = SigV4("UPSTREAM_AWS_KEY", "us-east-1", "execute-api", "signed")
S3 = OF._replace(service="s3")
# Amazon's example keys, which are no one's.
KEYS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
SECRET = json.dumps(KEYS)
URL = "https://api.example.com/prod/items"


def signed(
    url: str = URL,
    of: SigV4 = OF,
    method: str = "GET",
    body: bytes | None = b"",
    now: float = NOW,
    **headers: str,
) -> Signed:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return sign(of, SECRET, method, url, named, body, now)


def covered(result: Signed) -> list[str]:
    """The names of the headers that are signed."""
    parts = result.headers["authorization"].split(" ")
    return parts[2].removeprefix("SignedHeaders=").removesuffix(",").split(";")


def test_amazon_s_own_example_of_s3() -> None:
    """API reference of S3, "Signature Calculations for the Authorization Header": GET Bucket."""
    keys = {
        "access_key_id": "AKIAIOSFODNN7EXAMPLE",
        "secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    }
    result = sign(
        S3,
        json.dumps(keys),
        "GET",
        "https://examplebucket.s3.amazonaws.com/?prefix=J&max-keys=2",
        {},
        b"",
        1369353600,
    )
    assert result.headers["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
        "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    )
    assert result.url == "https://examplebucket.s3.amazonaws.com/?prefix=J&max-keys=2"


def test_what_goes_out() -> None:
    result = signed(accept="a/b", content_type="text/plain", x_amz_target="t", body=b"x")
    assert result.url == URL
    assert result.headers.pop("authorization").startswith(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20270115/us-east-1/execute-api/aws4_request, SignedHeaders="
    )
    assert result.headers == {
        "accept": "a/b",
        "content-type": "text/plain",
        "x-amz-target": "t",
        "x-amz-date": "20270115T080000Z",
        "x-amz-content-sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
    }


def test_headers_that_are_signed() -> None:
    always = ["host", "x-amz-content-sha256", "x-amz-date"]
    assert covered(signed()) == always
    # Services refuse an x-amz- header that is not signed.
    result = signed(accept="a/b", content_type="text/plain", x_amz_acl="private", user_agent="u")
    assert covered(result) == ["content-type", "host", "x-amz-acl", "x-amz-content-sha256", "x-amz-date"]


def test_a_caller_signs_nothing_itself() -> None:
    theirs = {
        "authorization": "AWS4",
        "x_amz_date": "d",
        "x_amz_content_sha256": "c",
        "x_amz_security_token": "t",
    }
    assert signed(**theirs) == signed()


def test_a_session_s_token_goes_along() -> None:
    secret = json.dumps({**KEYS, "session_token": "IQoJ/+=="})
    result = sign(OF, secret, "GET", URL, {"x-amz-security-token": "theirs"}, b"", NOW)
    assert result.headers["x-amz-security-token"] == "IQoJ/+=="
    assert covered(result) == ["host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"]


DIGESTS = [
    pytest.param(OF, b"", EMPTY, id="no body"),
    pytest.param(OF, b"{}", "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", id="a body"),
    pytest.param(OF._replace(payload="unsigned"), b"{}", UNSIGNED, id="a body that is not signed"),
    pytest.param(OF._replace(payload="unsigned"), None, UNSIGNED, id="a body that is not at hand"),
]


@pytest.mark.parametrize(("of", "body", "digest"), DIGESTS)
def test_the_body_s_digest(of: SigV4, body: bytes | None, digest: str) -> None:
    assert signed(of=of, body=body, method="PUT").headers["x-amz-content-sha256"] == digest


def test_a_body_that_is_not_at_hand_cannot_be_signed() -> None:
    with pytest.raises(Denied) as caught:
        signed(body=None)
    assert caught.value.reason is Reason.UPSTREAM_CREDENTIAL
    assert caught.value.detail.startswith("UPSTREAM_AWS_KEY: ")


ADDRESSES = [
    pytest.param(OF, "https://a.example.com/x/y", "https://a.example.com/x/y", id="a plain one"),
    pytest.param(OF, "https://a.example.com", "https://a.example.com/", id="no path"),
    pytest.param(OF, "https://a.example.com:443/x", "https://a.example.com/x", id="a port that says nothing"),
    pytest.param(OF, "https://a.example.com:8443/x", "https://a.example.com:8443/x", id="a port"),
    pytest.param(OF, "http://[::1]:8080/x", "http://[::1]:8080/x", id="IPv6"),
    pytest.param(OF, "https://a.example.com/x:y/a%3Ab/(c)", "https://a.example.com/x:y/a%3Ab/(c)", id="a path"),
    pytest.param(S3, "https://a.example.com/x:y/a%3ab/(c)", "https://a.example.com/x%3Ay/a%3Ab/%28c%29", id="S3"),
    pytest.param(S3, "https://a.example.com/a+b/%2B/%20", "https://a.example.com/a%2Bb/%2B/%20", id="a plus in a key"),
    pytest.param(S3, "https://a.example.com/a%2Fb//c/", "https://a.example.com/a%2Fb//c/", id="slashes of S3"),
    pytest.param(S3, "https://a.example.com/%C3%A4/%ff", "https://a.example.com/%C3%A4/%FF", id="octets of S3"),
    pytest.param(OF, "https://a.example.com/?a=b:c/d,e'f", "https://a.example.com/?a=b%3Ac%2Fd%2Ce%27f", id="a query"),
    pytest.param(OF, "https://a.example.com/?a=b+c&d=%2b", "https://a.example.com/?a=b%20c&d=%2B", id="pluses"),
    pytest.param(OF, "https://a.example.com/?z=1&acl&a=&a=2", "https://a.example.com/?z=1&acl&a=&a=2", id="odd pairs"),
    pytest.param(OF, "https://a.example.com/?a==b&=c", "https://a.example.com/?a=%3Db&=c", id="equal signs"),
    pytest.param(OF, "https://a.example.com/?&&a&", "https://a.example.com/?a", id="pairs of nothing"),
    pytest.param(OF, "https://a.example.com/?", "https://a.example.com/", id="a query of nothing"),
    pytest.param(OF, "https://a.example.com/?a=%~", "https://a.example.com/?a=%25~", id="not an escape"),
]  # fmt: skip


@pytest.mark.parametrize(("of", "url", "sent"), ADDRESSES)
def test_the_address_that_goes_out(of: SigV4, url: str, sent: str) -> None:
    assert signed(url, of).url == sent
    assert signed(sent, of) == signed(url, of)  # it is signed as it goes out


ESCAPED = st.text("abz019-._~!$&'()*+,;=:@/?%", max_size=20).map(lambda text: text.replace("%", "%2F"))


@given(path=ESCAPED, query=ESCAPED)
def test_another_spelling_of_the_same(path: str, query: str) -> None:
    path = path.replace("?", "")
    for of in (OF, S3):
        url = f"https://a.example.com/{path}?{query}"
        sent = signed(url, of).url
        assert signed(sent, of).url == sent
        assert unquote(urlsplit(sent).path) == unquote(urlsplit(url).path)
        pairs = {"keep_blank_values": True}
        assert parse_qsl(urlsplit(sent).query, **pairs) == parse_qsl(urlsplit(url).query, **pairs)


def test_what_services_encode_twice_differs_from_s3() -> None:
    url = "https://a.example.com/a%20b"
    of = OF._replace(service="s3-object-lambda")
    same = [signed(url, one).headers["authorization"].rpartition("=")[2] for one in (OF, S3, of)]
    assert len(set(same)) == 3


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"url": URL + "/2"}, id="another path"),
        pytest.param({"url": URL + "?a"}, id="another query"),
        pytest.param({"url": URL.replace("api", "b")}, id="another host"),
        pytest.param({"method": "PUT"}, id="another method"),
        pytest.param({"body": b"x"}, id="another body"),
        pytest.param({"now": NOW + 1}, id="another second"),
        pytest.param({"now": NOW + 86400}, id="another day"),
        pytest.param({"of": OF._replace(region="us-east-2")}, id="another region"),
        pytest.param({"of": OF._replace(service="lambda")}, id="another service"),
        pytest.param({"content_type": "a/b"}, id="another content type"),
        pytest.param({"x_amz_meta_a": "b"}, id="another header of Amazon's"),
    ],
)
def test_a_signature_is_for_one_call(changes: dict[str, Any]) -> None:
    one, other = signed().headers, signed(**changes).headers
    assert one["authorization"].rpartition("=")[2] != other["authorization"].rpartition("=")[2]


def test_white_space_in_a_header_is_signed_as_amazon_sees_it() -> None:
    assert (
        signed(x_amz_meta_a="b  c").headers["authorization"]
        == signed(x_amz_meta_a="b c").headers["authorization"]
    )


WRONG = [
    pytest.param("", id="nothing"),
    pytest.param("AKIDEXAMPLE:wJalrXUtnFEMI", id="two keys with a colon"),
    pytest.param("[]", id="a list"),
    pytest.param(json.dumps({"a": {"b": {}}}), id="nested"),
    pytest.param(" " * LIMIT + "{}", id="too long"),
    pytest.param(json.dumps(without(KEYS, access_key_id=ABSENT)), id="without an id"),
    pytest.param(json.dumps(without(KEYS, secret_access_key=ABSENT)), id="without a key"),
    pytest.param(json.dumps({**KEYS, "access_key_id": ""}), id="an empty id"),
    pytest.param(json.dumps({**KEYS, "access_key_id": "AKID/EXAMPLE"}), id="an id with a slash"),
    pytest.param(json.dumps({**KEYS, "access_key_id": 1}), id="an id that is a number"),
    pytest.param(json.dumps({**KEYS, "secret_access_key": "wJalr XUtnFEMI"}), id="a key with a space"),
    pytest.param(
        json.dumps({**KEYS, "secret_access_key": "wJalrXUtnFEM\u00ce"}), id="a key outside of ASCII"
    ),
    pytest.param(json.dumps({**KEYS, "secret_access_key": None}), id="a key that is null"),
    pytest.param(json.dumps({**KEYS, "session_token": ""}), id="an empty token"),
    pytest.param(json.dumps({**KEYS, "session_token": ["IQoJb3JpZ2lu"]}), id="a token that is a list"),
    pytest.param(json.dumps({**KEYS, "SessionToken": "IQoJb3JpZ2lu"}), id="a token under another name"),
]


@pytest.mark.parametrize("text", WRONG)
def test_secrets_that_hold_no_keys(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is for people
        read_keys(text)
    with pytest.raises(Denied) as denied:
        sign(OF, text, "GET", URL, {}, b"", NOW)
    assert denied.value.reason is Reason.UPSTREAM_CREDENTIAL
    assert denied.value.detail == f"UPSTREAM_AWS_KEY: {caught.value}"
    assert not [word for word in ("AKID", "wJalr", "IQoJ") if word in denied.value.detail]


def test_keys_are_read_and_not_shown() -> None:
    assert read_keys(SECRET) == Keys(*KEYS.values(), None)
    assert read_keys(json.dumps({**KEYS, "session_token": None})).session_token is None
    assert "wJalr" not in f"{read_keys(SECRET)} {read_keys(SECRET)!r}"
