"""AWS Signature Version 4: how a call is signed for Amazon's services, and for others that speak their protocol.

What is signed is what the service makes of the address, so the address goes out in the one spelling in which there is
nothing to make of it: reserved characters of a query are percent-encoded, and so are those of a path of S3, which
unlike all others encodes a path once and takes a plus for a space.
"""

import hmac
import re
from functools import lru_cache
from hashlib import sha256
from time import gmtime, strftime
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from credential import SigV4
from document import Work, read_object
from model import Denied, Reason

LIMIT = 16_384  # characters of a secret
WORK = Work(strings=32, names=16, structure=128, escapes=64)
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY = sha256(b"").hexdigest()

_ALGORITHM = "AWS4-HMAC-SHA256"
_ONCE = frozenset({"s3", "s3-object-lambda", "s3-outposts"})  # services whose paths are encoded once
_OWN = frozenset({"authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"})
_KEY = re.compile(r"[!-~]{1,8192}")
_PORT = {"http": 80, "https": 443}


class Keys(NamedTuple):
    """What AWS knows the gate by."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return "Keys(...)"


class Signed(NamedTuple):
    """A call as it goes out: an equivalent address, and all headers."""

    url: str
    headers: dict[str, str]


def read_keys(text: str) -> Keys:
    """The keys in a secret's text, JSON. ValueError says what is wrong, never what is there."""
    try:
        members = read_object(text, limit=LIMIT, depth=2, work=WORK)
    except ValueError:  # some of its messages hold a part of the text
        raise ValueError("not a JSON object that can be read") from None
    if not members.keys() <= {"access_key_id", "secret_access_key", "session_token"}:
        raise ValueError("members beside access_key_id, secret_access_key and session_token")
    keys = Keys(
        members.get("access_key_id", ""), members.get("secret_access_key", ""), members.get("session_token")
    )
    for name, value in zip(Keys._fields, keys, strict=True):
        optional = name == "session_token" and value is None
        if not optional and (not isinstance(value, str) or _KEY.fullmatch(value) is None):
            raise ValueError(f"{name} is not one")
    if "/" in keys.access_key_id:
        raise ValueError("access_key_id is not one")
    return keys


def sign(
    of: SigV4, secret: str, method: str, url: str, headers: dict[str, str], body: bytes | None, now: float
) -> Signed:
    """Sign a call. `headers`: all that go out, names in lower case. `body`: None is one that is not at hand.

    Signed are the host, content-type, and every x-amz- header, which services insist on. Raises Denied
    `upstream.credential`.
    """
    try:
        keys = _keys(secret)
    except ValueError as error:
        raise Denied(Reason.UPSTREAM_CREDENTIAL, f"{of.secret}: {error}") from None
    if of.payload == "unsigned":
        digest = UNSIGNED
    elif body is None:
        raise Denied(Reason.UPSTREAM_CREDENTIAL, f"{of.secret}: the body is not at hand to be signed")
    else:
        digest = sha256(body).hexdigest() if body else EMPTY
    stamp = strftime("%Y%m%dT%H%M%SZ", gmtime(now))
    address, host, path, query = _address(url, of.service in _ONCE)
    sent = {name: value for name, value in headers.items() if name not in _OWN}
    sent |= {"x-amz-date": stamp, "x-amz-content-sha256": digest}
    if keys.session_token is not None:
        sent["x-amz-security-token"] = keys.session_token
    covered = {
        name: value for name, value in sent.items() if name.startswith("x-amz-") or name == "content-type"
    }
    covered["host"] = host
    names = sorted(covered)
    request = "\n".join(
        [
            method,
            path,
            query,
            *[f"{name}:{' '.join(covered[name].split())}" for name in names],
            "",
            ";".join(names),
            digest,
        ]
    )
    scope = f"{stamp[:8]}/{of.region}/{of.service}/aws4_request"
    text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{sha256(request.encode('utf-8')).hexdigest()}"
    key = _signing_key(keys.secret_access_key, stamp[:8], of.region, of.service)
    signature = hmac.new(key, text.encode("ascii"), sha256).hexdigest()
    sent["authorization"] = (
        f"{_ALGORITHM} Credential={keys.access_key_id}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return Signed(address, sent)


_keys = lru_cache(32)(read_keys)  # secrets change with the Worker's version


@lru_cache(64)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    """The key of a day."""
    key = b"AWS4" + secret.encode("ascii")
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode("ascii"), sha256).digest()
    return key


def _encoded(text: str) -> str:
    """A text with every octet percent-encoded that is not unreserved (RFC 3986 §2.3), whichever were before."""
    return quote_from_bytes(unquote_to_bytes(text), safe="~")


def _address(url: str, once: bool) -> tuple[str, str, str, str]:
    """The address to call, and of it host, path and query as they are signed."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    if parts.port is not None and parts.port != _PORT.get(parts.scheme):
        host += f":{parts.port}"
    path = parts.path or "/"
    if once:
        # A plus that stands for itself, as policy has read it.
        path = canonical = "/".join([_encoded(segment) for segment in path.split("/")])
    else:
        canonical = quote_from_bytes(re.sub("/{2,}", "/", path).encode("utf-8"), safe="/~")
    # A plus in a query is a space, as in a form.
    pairs = [pair.replace("+", "%20").partition("=") for pair in parts.query.split("&") if pair]
    spelt = [(_encoded(name), sign, _encoded(value)) for name, sign, value in pairs]
    query = "&".join([name + sign + value for name, sign, value in spelt])
    address = f"{parts.scheme}://{host}{path}" + (f"?{query}" if query else "")
    covered = "&".join(
        [f"{name}={value}" for name, value in sorted([(name, value) for name, _, value in spelt])]
    )
    return address, host, canonical, covered
