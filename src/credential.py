"""What the gate shows an upstream instead of the caller's token: the kinds of credential, as the bundle names them.

Every one names its secret, a binding of the Worker, and never holds it. Values are read at the moment of use.
"""

import re
from base64 import b64encode
from collections.abc import Callable
from typing import NamedTuple

import headers
import keys
from document import Reader
from model import Denied, Reason

SECRET = re.compile(r"UPSTREAM_[A-Z0-9_]{1,64}")
LONGEST = 16_384  # characters of a value that goes into a header


class Header(NamedTuple):
    """A secret as the value of a header: a bearer token, an API key."""

    secret: str
    header: str  # in lower case
    format: str  # with {secret} in it, once


class Basic(NamedTuple):
    """User and password (RFC 7617)."""

    user: str | None  # None: the secret is user:password
    secret: str


class ClientCredentials(NamedTuple):
    """A token of an OAuth 2.0 client (RFC 6749 §4.4)."""

    secret: str
    token_url: str
    client_id: str
    authentication: str  # how the client shows its secret: basic | post
    scope: str | None
    audience: str | None
    resource: str | None  # RFC 8707
    header: str
    format: str  # with {token} in it, once


class JwtBearer(NamedTuple):
    """A JWT that the gate signs: as a grant for a token (RFC 7523), or, without `token_url`, as the token itself."""

    secret: str
    algorithm: str
    issuer: str | None
    subject: str | None
    audience: str | None
    scope: str | None
    lifetime: int  # seconds
    key_id: str | None
    token_url: str | None
    header: str
    format: str


class Login(NamedTuple):
    """A call that answers with a token."""

    secret: str
    url: str
    fields: tuple[tuple[str, str], ...]  # one of them has {secret} in it
    encoding: str  # json | form
    token: tuple[str, ...]  # where the answer has it
    lifetime: int | None  # seconds; None: what the answer says
    header: str
    format: str


class SigV4(NamedTuple):
    """AWS Signature Version 4."""

    secret: str
    region: str
    service: str
    payload: str  # signed | unsigned


class Own(NamedTuple):
    """The caller's own `Authorization`, for callers whose identity came in `Airgate-Token`."""


Credential = Header | Basic | ClientCredentials | JwtBearer | Login | SigV4 | Own
# The gate gets a token for these, and another one when that is refused.
Minted = ClientCredentials | JwtBearer | Login


def taken(credential: Credential) -> frozenset[str]:
    """The headers that a credential sets, with "-" for "_" and ".": a caller's of these names go no further."""
    if isinstance(credential, SigV4):
        return frozenset({"authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"})
    if isinstance(credential, Basic | Own):
        return frozenset({"authorization"})
    return frozenset({headers.plain(credential.header)})


def value(secret: str, binding: str, form: str, place: str) -> str:
    """A header's value with a secret or a token in its place. Raises Denied `upstream.credential`."""
    text = form.replace(place, secret)
    if not secret or len(text) > LONGEST or not headers.sendable(text):
        raise Denied(
            Reason.UPSTREAM_CREDENTIAL, f"{binding}: what it holds, or gets, does not fit into a header"
        )
    return text


def fixed(credential: Header | Basic, secret: Callable[[str], str]) -> tuple[str, str]:
    """Name and value of the header of a credential that is there already. Raises Denied `upstream.credential`."""
    held = read(credential.secret, secret)
    if isinstance(credential, Header):
        return credential.header, value(held, credential.secret, credential.format, "{secret}")
    pair = held if credential.user is None else f"{credential.user}:{held}"
    if ":" not in pair:
        raise Denied(Reason.UPSTREAM_CREDENTIAL, f"{credential.secret}: not user:password")
    return "authorization", "Basic " + b64encode(pair.encode("utf-8")).decode("ascii")


def read(binding: str, secret: Callable[[str], str]) -> str:
    """A secret, without the white space that files end with. Raises Denied `upstream.credential`."""
    try:
        held = secret(binding).strip()
    except (LookupError, ValueError):
        held = ""
    if not held:
        raise Denied(Reason.UPSTREAM_CREDENTIAL, f"no secret {binding}")
    return held


def _binding(reader: Reader) -> str:
    name = reader.text("secret")
    if SECRET.fullmatch(name) is None:
        raise reader.wrong("secret", "a name such as UPSTREAM_LEDGER_TOKEN")
    return name


def _url(reader: Reader, name: str) -> str:
    try:
        return keys.fetchable(reader.text(name))
    except ValueError:
        raise reader.wrong(name, "an https address") from None


def _header(reader: Reader) -> str:
    name = reader.text("header")
    if not headers.settable(name):
        raise reader.wrong("header", "a header that an upstream's settings may set, in lower case")
    return name


def _format(reader: Reader, place: str) -> str:
    text = reader.text("format")
    if text.count(place) != 1 or not headers.sendable(text) or len(text) > 256:
        raise reader.wrong("format", f"printable characters with {place} among them, once")
    return text


def _text_or_null(reader: Reader, name: str) -> str | None:
    return None if reader.null(name) else reader.text(name)


def _url_or_null(reader: Reader, name: str) -> str | None:
    return None if reader.null(name) else _url(reader, name)


def _client_credentials(reader: Reader) -> ClientCredentials:
    return ClientCredentials(
        secret=_binding(reader),
        token_url=_url(reader, "token_url"),
        client_id=reader.text("client_id"),
        authentication=reader.one_of("authentication", "basic", "post"),
        scope=_text_or_null(reader, "scope"),
        audience=_text_or_null(reader, "audience"),
        resource=_text_or_null(reader, "resource"),
        header=_header(reader),
        format=_format(reader, "{token}"),
    )


def _jwt_bearer(reader: Reader) -> JwtBearer:
    return JwtBearer(
        secret=_binding(reader),
        algorithm=reader.one_of("algorithm", "RS256", "ES256"),
        issuer=_text_or_null(reader, "issuer"),
        subject=_text_or_null(reader, "subject"),
        audience=_text_or_null(reader, "audience"),
        scope=_text_or_null(reader, "scope"),
        lifetime=reader.whole("lifetime", 60, 86_400),
        key_id=_text_or_null(reader, "key_id"),
        token_url=_url_or_null(reader, "token_url"),
        header=_header(reader),
        format=_format(reader, "{token}"),
    )


def _login(reader: Reader) -> Login:
    fields = reader.within("fields")
    pairs = tuple([(name, fields.text(name)) for name in sorted(fields.all_names())])
    if sum([text.count("{secret}") for _, text in pairs]) != 1:
        raise reader.wrong("fields", "{secret} in one of them, once")
    return Login(
        secret=_binding(reader),
        url=_url(reader, "url"),
        fields=pairs,
        encoding=reader.one_of("encoding", "json", "form"),
        token=reader.some("token"),
        lifetime=None if reader.null("lifetime") else reader.whole("lifetime", 60, 86_400),
        header=_header(reader),
        format=_format(reader, "{token}"),
    )


def _sigv4(reader: Reader) -> SigV4:
    named = SigV4(
        _binding(reader),
        reader.text("region"),
        reader.text("service"),
        reader.one_of("payload", "signed", "unsigned"),
    )
    for name, text in (("region", named.region), ("service", named.service)):
        if re.fullmatch(r"[a-z0-9-]{1,40}", text) is None:
            raise reader.wrong(name, "a name of AWS, in lower case")
    return named


def load_credential(reader: Reader) -> Credential:
    """One of an upstream's credentials. ValueError says where it is wrong."""
    kind = reader.one_of(
        "kind", "header", "basic", "client_credentials", "jwt_bearer", "login", "sigv4", "caller"
    )
    read: Credential
    if kind == "header":
        read = Header(_binding(reader), _header(reader), _format(reader, "{secret}"))
    elif kind == "basic":
        read = Basic(_text_or_null(reader, "user"), _binding(reader))
        if read.user is not None and ":" in read.user:
            raise reader.wrong("user", "no colon (RFC 7617)")
    elif kind == "client_credentials":
        read = _client_credentials(reader)
    elif kind == "jwt_bearer":
        read = _jwt_bearer(reader)
    elif kind == "login":
        read = _login(reader)
    elif kind == "sigv4":
        read = _sigv4(reader)
    else:
        read = Own()
    reader.done()
    return read
