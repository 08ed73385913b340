"""The small world that the tests of the core play in: one issuer, its keys and tokens, a policy set, and the ports.

Nothing here is cryptography: a signature is a hash of what it covers and the key's id, and `World.verify` checks
just that. Ports are plain coroutines that never suspend.
"""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Coroutine
from typing import Any

from model import Inbound, Outbound, UpstreamAnswer

NOW = 1_800_000_000.0
ISSUER = "https://login.example.com"
JWKS_URI = "https://login.example.com/keys"
AUDIENCE = "https://gate.example.com"
POINTER = "policy/current"
BUNDLE = "policy/bundle/"
ABSENT: Any = object()  # as a member's value: leave that member out


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    work.close()
    raise AssertionError("it waits for something that nobody will bring")


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def number(value: int, size: int | None = None) -> str:
    """An integer as JWKs write it (RFC 7518 §2, Base64urlUInt), or as long as a coordinate of its curve."""
    return b64(value.to_bytes(size or max(1, (value.bit_length() + 7) // 8), "big"))


def without(members: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The members with the changes, and without those that are ABSENT."""
    return {name: value for name, value in {**members, **changes}.items() if value is not ABSENT}


# The curves' own base points (SEC 2 §2) stand for EC keys; the Ed25519 key is RFC 8037's example.
ED25519 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
P256 = {
    "kty": "EC",
    "crv": "P-256",
    "x": number(0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296, 32),
    "y": number(0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5, 32),
}
P384 = {
    "kty": "EC",
    "crv": "P-384",
    "x": number(
        0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7, 48
    ),
    "y": number(
        0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F, 48
    ),
}
P521 = {
    "kty": "EC",
    "crv": "P-521",
    "x": number(
        0xC6858E06B70404E9CD9E3ECB662395B4429C648139053FB521F828AF606B4D3DBAA14B5E77EFE75928FE1DC127A2FFA8DE3348B3C1856A429BF97E7E31C2E5BD66,
        66,
    ),
    "y": number(
        0x11839296A789A3BC0045C8A5FB42C7D1BD998F54449579B446817AFBD17273E662C97EE72995EF42640C550B9013FAD0761353C7086A272C24088BE94769FD16650,
        66,
    ),
}
RSA = {"kty": "RSA", "n": number(2**2047 + 1), "e": "AQAB"}

KEY = {**ED25519, "kid": "one"}


def jwks(*keys: Any) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def signature(signed: bytes, kid: str | None) -> bytes:
    return hashlib.sha512(f"{kid}".encode() + signed).digest()


HEADER = {"alg": "EdDSA", "kid": "one", "typ": "at+jwt"}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "finance-etl",
    "client_id": "finance-etl",
    "jti": "1",
    "iat": NOW - 10,
    "exp": NOW + 300,
    "groups": ["finance-publishers", "finance-readers"],
}


def compact(header: Any, claims: Any, kid: str | None = "one") -> str:
    """A compact JWS (RFC 7515 §3.1). Header and claims are values, or bytes to be used as they are."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    signed = ".".join(b64(part) for part in parts)
    return f"{signed}.{b64(signature(signed.encode(), kid))}"


def token(header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A good access token, with changes."""
    return compact(without(HEADER, **(header or {})), without(CLAIMS, **claims))


ANYONE: dict[str, Any] = {"any": [], "all": [], "none": []}


def rule(**changes: Any) -> dict[str, Any]:
    """A policy as bundles write it, with changes: finance publishers may do anything below /v1 of the ledger."""
    policy: dict[str, Any] = {
        "id": "publish",
        "description": "Month-end close",
        "owner": "finance@example.com",
        "effect": "permit",
        "mode": "enforce",
        "subject": {
            "issuers": None,
            "ids": None,
            "kinds": None,
            "roles": {"any": ["publisher"], "all": [], "none": []},
        },
        "workload": None,
        "target": {"upstreams": ["ledger"], "methods": ["*"], "paths": ["/v1/**"]},
    }
    return without(policy, **changes)


def document(*policies: dict[str, Any]) -> dict[str, Any]:
    """A bundle's JSON: with the given policies, or with rule() and a health page for publishers."""
    health = rule(
        id="health",
        target={"upstreams": ["-"], "methods": ["GET"], "paths": ["/health"]},
        owner="gate@example.com",
    )
    return {
        "format": 1,
        "issuers": {
            "company": {
                "issuer": ISSUER,
                "jwks_uri": JWKS_URI,
                "audiences": [AUDIENCE],
                "algorithms": ["EdDSA"],
                "type": "at+jwt",
                "max_lifetime": 3600,
                "clock_skew": 60,
                "kind": {"claim": ["airgate_kind"], "default": "workload"},
                "attested": {"dag": ["airflow", "dag"]},
            }
        },
        "roles": {
            "publisher": [{"issuer": "company", "claim": ["groups"], "value": "finance-publishers"}],
            "reader": [
                {"issuer": "company", "claim": ["groups"], "value": "finance-readers"},
                {"issuer": "company", "subject": "auditor"},
            ],
        },
        "upstreams": {
            "ledger": {
                "base": "https://ledger.example.com/api",
                "owner": "ledger@example.com",
                "timeout": 30,
                "log_path": True,
            },
            "crm": {
                "base": "https://crm.example.com",
                "owner": "crm@example.com",
                "timeout": 2.5,
                "log_path": False,
            },
        },
        "policies": list(policies) or [rule(), health],
    }


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def pointer(text: str, sequence: int = 1, **changes: Any) -> dict[str, Any]:
    """The pointer to a bundle's text, with changes."""
    return without(
        {
            "format": 1,
            "sequence": sequence,
            "bundle": digest(text),
            "published_at": NOW - 60,
            "published_by": "ci",
            "note": "",
        },
        **changes,
    )


def inbound(
    url: str = "https://gate/ledger/v1/entries",
    method: str = "GET",
    *,
    body: bool = False,
    at: float = NOW,
    **headers: str,
) -> Inbound:
    """A request. Header names are written with "_" for "-"."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Inbound("f" * 32, at, method, url, named, body)


def bearing(credential: str | None = None, **headers: str) -> dict[str, str]:
    """Headers with a good token, or with this one."""
    return {"authorization": f"Bearer {token() if credential is None else credential}", **headers}


class World:
    """The ports, with a clock to set and everything that happened, in order."""

    def __init__(self, bundle: dict[str, Any] | None = None) -> None:
        self.clock = NOW
        self.values: dict[str, str | Exception] = {}
        self.pages: dict[str, bytes | Exception] = {JWKS_URI: jwks(KEY)}
        self.answer: UpstreamAnswer | Exception = UpstreamAnswer(200, "native")
        self.broken: dict[str, Exception] = {}  # ports that fail, by name
        self.happened: list[tuple[str, Any]] = []
        self.deferred: list[Coroutine[Any, Any, Any]] = []
        self.publish(bundle or document())

    def publish(self, bundle: dict[str, Any], sequence: int = 1) -> str:
        """Put a bundle and the pointer to it into KV. Returns its digest."""
        text = canonical(bundle)
        self.values[BUNDLE + digest(text)] = text
        self.values[POINTER] = canonical(pointer(text, sequence))
        return digest(text)

    def _enter(self, port: str, what: Any) -> None:
        self.happened.append((port, what))
        if port in self.broken:
            raise self.broken[port]

    def of(self, port: str) -> list[Any]:
        """What a port was asked, in order."""
        return [what for name, what in self.happened if name == port]

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """The audit lines, read back."""
        read = [json.loads(line) for line in self.of("log")]
        return [line for line in read if event in (None, line["event"])]

    def settle(self) -> int:
        """Do the work that was put off. Returns how much there was."""
        works, self.deferred = self.deferred, []
        for work in works:
            run(work)
        return len(works)

    def now(self) -> float:
        if "now" in self.broken:
            raise self.broken["now"]
        return self.clock

    def log(self, line: str) -> None:
        self.happened.append(("log", line))

    def defer(self, work: Coroutine[Any, Any, Any]) -> None:
        self.deferred.append(work)

    async def kv(self, key: str, timeout: float) -> str | None:
        self._enter("kv", (key, timeout))
        value = self.values.get(key)
        if isinstance(value, Exception):
            raise value
        return value

    async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
        self._enter("fetch", url)
        page = self.pages.get(url, OSError("answered 404"))
        if isinstance(page, Exception):
            raise page
        return page

    async def verify(self, key: Any, algorithm: str, given: bytes, signed: bytes) -> bool:
        self._enter("verify", key.kid)
        return given == signature(signed, key.kid)

    async def send(self, call: Outbound) -> UpstreamAnswer:
        self._enter("send", call)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer
