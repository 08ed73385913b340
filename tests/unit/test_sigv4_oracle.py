"""Calls signed by the gate and by botocore, for paths, queries and bodies of all sorts: the same signature."""

import json
from datetime import UTC, datetime
from unittest.mock import patch
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from hypothesis import assume, given
from hypothesis import strategies as st
from world import NOW

from credential import SigV4
from sigv4 import Signed, sign

ID, KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
BASE = "https://bucket.example.com:8443"
SERVICES = [pytest.param("s3", S3SigV4Auth, id="S3"), pytest.param("execute-api", SigV4Auth, id="another")]

METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# As a caller may write them: everything that an address may hold, escaped or not.
RAW = st.one_of(TEXT.map(lambda text: quote(text, safe="")), st.text("ab01-._~!$'()*,:@", max_size=12))
SEGMENTS = st.lists(RAW.filter(lambda raw: raw not in (".", "..")), max_size=5)
PAIRS = st.lists(st.tuples(RAW, st.sampled_from(["=", ""]), RAW), max_size=6)
BODIES = st.binary(max_size=64)


def theirs(
    auth: type[SigV4Auth],
    service: str,
    method: str,
    url: str,
    headers: dict[str, str],
    body: bytes,
    payload: str,
    token: str | None = None,
    params: list[tuple[str, str]] | None = None,
) -> dict[str, str]:
    """The headers that botocore sends. `params`: the query, where it has to write that itself."""
    request = AWSRequest(method=method, url=url, headers=dict(headers), data=body, params=params or {})
    signs = payload == "signed"
    request.context["payload_signing_enabled"] = signs
    request.context["client_config"] = Config(s3={"payload_signing_enabled": signs})
    if auth is SigV4Auth:  # for others than S3 it leaves the header out
        request.headers["x-amz-content-sha256"] = SigV4Auth.payload(auth(None, "", ""), request)
    with patch("botocore.auth.get_current_datetime", return_value=datetime.fromtimestamp(NOW, UTC)):
        auth(Credentials(ID, KEY, token), service, "eu-central-1").add_auth(request)
    return {name.lower(): str(value) for name, value in request.headers.items()}


def ours(
    service: str,
    method: str,
    url: str,
    headers: dict[str, str],
    body: bytes,
    payload: str,
    token: str | None = None,
) -> Signed:
    secret = {"access_key_id": ID, "secret_access_key": KEY, "session_token": token}
    of = SigV4("UPSTREAM_AWS_KEY", "eu-central-1", service, payload)
    return sign(of, json.dumps(secret), method, url, headers, body, NOW)


def joined(segments: list[str], pairs: list[tuple[str, str, str]]) -> str:
    query = "&".join(["".join(pair) for pair in pairs if "".join(pair)])
    return f"{BASE}/{'/'.join(segments)}" + (f"?{query}" if query else "")


@pytest.mark.parametrize(("service", "auth"), SERVICES)
@given(
    method=METHODS,
    segments=SEGMENTS,
    pairs=PAIRS,
    body=BODIES,
    payload=st.sampled_from(["signed", "unsigned"]),
)
def test_the_address_that_goes_out_is_signed_as_botocore_signs_it(
    service: str,
    auth: type[SigV4Auth],
    method: str,
    segments: list[str],
    pairs: list[tuple[str, str, str]],
    body: bytes,
    payload: str,
) -> None:
    result = ours(service, method, joined(segments, pairs), {}, body, payload)
    assert result.headers == theirs(auth, service, method, result.url, {}, body, payload)


@pytest.mark.parametrize(("service", "auth"), SERVICES)
@given(
    segments=st.lists(TEXT.filter(lambda text: text not in (".", "..")), max_size=4),
    pairs=st.lists(st.tuples(TEXT, TEXT), max_size=6),
)
def test_what_botocore_would_write_itself(
    service: str, auth: type[SigV4Auth], segments: list[str], pairs: list[tuple[str, str]]
) -> None:
    """Names and values as a program has them: each writes the address in its own way, and both sign the same."""
    assume(all(name or value for name, value in pairs))
    path = "/".join([quote(segment, safe="-._~") for segment in segments])
    query = "&".join(
        [f"{quote(name, safe='')}={quote(value, safe=chr(39) + ':/,')}" for name, value in pairs]
    )
    result = ours(service, "GET", f"{BASE}/{path}?{query}", {}, b"", "signed")
    assert result.headers == theirs(auth, service, "GET", f"{BASE}/{path}", {}, b"", "signed", params=pairs)
    assert parse_qsl(urlsplit(result.url).query, keep_blank_values=True) == pairs


VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@pytest.mark.parametrize(("service", "auth"), SERVICES)
@given(
    kind=st.one_of(st.none(), VALUES),
    meta=VALUES,
    token=st.one_of(st.none(), st.just("IQoJ/+==")),
    body=BODIES,
)
def test_headers_that_both_sign(
    service: str, auth: type[SigV4Auth], kind: str | None, meta: str, token: str | None, body: bytes
) -> None:
    headers = {"x-amz-meta-a": meta} | ({} if kind is None else {"content-type": kind})
    result = ours(service, "PUT", f"{BASE}/a", headers, body, "signed", token)
    assert result.headers == theirs(auth, service, "PUT", f"{BASE}/a", headers, body, "signed", token)


@pytest.mark.parametrize("port", ["", ":443", ":8443"])
@pytest.mark.parametrize(("service", "auth"), SERVICES)
def test_hosts(service: str, auth: type[SigV4Auth], port: str) -> None:
    url = f"https://Bucket.example.com{port}/a"
    result = ours(service, "GET", url, {}, b"", "signed")
    assert result.headers == theirs(auth, service, "GET", url, {}, b"", "signed")
