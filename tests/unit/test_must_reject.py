"""What a gate must reject, item by item: RFC 8725 and its successor, RFC 9068, OpenID Connect Core.

Every row is a request to the whole gate. The verifier here says yes to any signature, so whatever refuses a token is a
check of the gate's own; only where the point is whose key it was does it compare. Salts of PSS are the verifier's to
check: test_signatures.py has them, with a real one.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from world import (
    ABSENT,
    AUDIENCE,
    CLAIMS,
    ED25519,
    HEADER,
    ISSUER,
    JWKS_URI,
    KEY,
    NOW,
    P256,
    P384,
    P521,
    RSA,
    World,
    b64,
    bearing,
    compact,
    document,
    inbound,
    jwks,
    number,
    run,
    token,
)

import gateway
from keys import COOL_DOWN, FRESH, LIMIT, Key
from model import Reason
from state import State

ITEMS = {
    "format": """three parts; five parts; JSON serialization; characters; padding; length 4n+1; trailing bits;
        over the cap""",
    "JSON": """duplicate keys; NaN; Infinity; 1e999; boolean for a NumericDate; string for a NumericDate; huge exp;
        UTF-16; UTF-32; BOM; lone surrogate; not an object; depth over 16""",
    "header": """alg missing; alg none; alg HS*; alg not on the list; crit; b64; zip; enc; jwk; jku; x5u; x5c;
        kid not a string; kid long""",
    "key": """alg differs; kty mismatch; crv mismatch; use enc; key_ops without verify; d; oct; RSA under 2048; e = 1;
        duplicate kid; point not on the curve; small-order Ed25519""",
    "signature": "r zero; s zero; r >= n; s >= n; DER; wrong length; PSS salt",
    "claims": """iss not byte-exact; key of another issuer; aud missing; aud without us; aud with non-strings;
        exp missing; nbf beyond skew; iat beyond skew; lifetime over the cap; sub missing""",
    "type": """typ not at+jwt; no client_id; no jti; no iat; ID token; several audiences; dpop+jwt; logout+jwt""",
    "JWKS": """refetch without cool-down; good keys dropped; redirects; oversize; discovery of another issuer""",
}
ELSEWHERE = {("signature", "PSS salt")}

FIRST, MIDDLE, LAST = token().split(".")
SEVERAL = [AUDIENCE, "https://other.example.com"]
UNSIGNED = b64(b'{"alg":"none"}')
LOGOUT = "http://schemas.openid.net/event/backchannel-logout"
PARTNER = "https://partner.example.com"
DISCOVERY = ISSUER + "/.well-known/openid-configuration"
Attempt = Callable[[], Reason | None]


class Lenient(World):
    """A world in which every signature is good."""

    async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
        return True


class Strict(World):
    """A world in which a signature is good if it is a hash of the key's numbers, whatever its id."""

    async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
        return given == signature(key.jwk, signed)


def signature(jwk: dict[str, Any], signed: bytes) -> bytes:
    return hashlib.sha512(jwk["x"].encode() + signed).digest()


def asked(world: World, state: State, credential: str) -> Reason | None:
    """Why a token is refused; None: the call went through."""
    run(gateway.handle(inbound(at=world.clock, **bearing(credential)), state, world))
    reason = world.lines("decision")[-1]["reason"]
    assert (reason is None) == bool(world.of("send"))
    return None if reason is None else Reason(reason)


def presenting(
    credential: str, *keys: Any, pages: dict[str, Any] | None = None, discovered: bool = False, **rules: Any
) -> Attempt:
    """Present a token to a gate whose issuer has these keys and rules."""

    def attempt() -> Reason | None:
        bundle = document()
        if discovered:
            bundle["issuers"]["company"]["jwks_uri"] = None
        world, state = Lenient(bundle), State()
        world.pages = {JWKS_URI: jwks(*(keys or (KEY,))), **(pages or {})}
        issuers = run(state.current(world)).issuers
        issuers[ISSUER] = issuers[ISSUER]._replace(rules=issuers[ISSUER].rules._replace(**rules))
        return asked(world, state, credential)

    return attempt


def claiming(**claims: Any) -> Attempt:
    return presenting(token(**claims))


def saying(**header: Any) -> Attempt:
    return presenting(token(header))


def spelled(header: bytes | None = None, claims: bytes | None = None) -> Attempt:
    return presenting(compact(header or HEADER, claims or CLAIMS))


def plain(header: dict[str, Any] | None = None, type_: str = "any", **claims: Any) -> Attempt:
    """Present a token of an issuer that does not promise RFC 9068."""
    return presenting(token({"typ": "JWT", **(header or {})}, **claims), type=type_)


def discovering(metadata: Any) -> Attempt:
    """Present a token whose keys are to be found by discovery."""
    return presenting(token(), pages={DISCOVERY: json.dumps(metadata).encode()}, discovered=True)


def by(algorithm: str, jwk: Any, signed: bytes | None = None, *more: Any) -> Attempt:
    """Present a token of this algorithm, signed by this key: with any signature that fits, or with this one."""
    head, _, _ = token({"alg": algorithm}).rpartition(".")
    size = {"RS256": 256, "PS256": 256, "ES384": 96, "ES512": 132}.get(algorithm, 64)
    jwk = {**jwk, "kid": "one"} if isinstance(jwk, dict) else jwk
    given = b64(bytes(size - 1) + b"\1" if signed is None else signed)
    if algorithm.startswith("ES") and signed is None:
        given = b64(rs(1, 1, size // 2))
    beside = {**ED25519, "kid": "beside"}  # or an issuer without usable keys would be unavailable
    return presenting(f"{head}.{given}", jwk, beside, *more, algorithms=frozenset({algorithm}))


def rs(r: int, s: int, size: int = 32) -> bytes:
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def of_another_issuer() -> Reason | None:
    bundle = document()
    bundle["issuers"]["partner"] = {
        **bundle["issuers"]["company"],
        "issuer": PARTNER,
        "jwks_uri": PARTNER + "/keys",
    }
    world = Strict(bundle)
    theirs = {**KEY, "x": number(7, 32)}
    world.pages[PARTNER + "/keys"] = jwks(theirs)
    signed = token().rpartition(".")[0]
    ours = f"{signed}.{b64(signature(KEY, signed.encode()))}"
    assert asked(world, State(), ours) is None
    world.happened.clear()
    return asked(world, State(), f"{signed}.{b64(signature(theirs, signed.encode()))}")


def flooded() -> Reason | None:
    """Unknown ids, also while the fetch that the first of them began is under way, and after it."""
    state = State()
    asked_while = []

    class Flooded(Lenient):
        async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
            page = await super().fetch(url, timeout, limit)
            if len(self.of("fetch")) == 2:
                for made_up in range(50):
                    await gateway.handle(
                        inbound(at=self.clock, **bearing(token({"kid": f"a{made_up}"}))), state, self
                    )
                    asked_while.append(self.lines("decision")[-1]["reason"])
            return page

    world = Flooded()
    assert asked(world, state, token()) is None
    world.clock += COOL_DOWN + 1
    world.happened = [entry for entry in world.happened if entry[0] != "send"]
    for made_up in range(50):
        reason = asked(world, state, token({"kid": f"b{made_up}"}))
    assert set(asked_while) == {Reason.TOKEN_KEY}
    assert (
        len(world.of("fetch")) == 3
    )  # the first one, the one for an unknown id, and one while that is under way
    return reason


def failing() -> Reason | None:
    """The issuer fails when its keys have become stale; its tokens go on being accepted, and nobody else's are."""
    world, state = Lenient(), State()
    assert asked(world, state, token()) is None
    world.pages[JWKS_URI] = OSError("answered 500")
    world.clock += FRESH + 1
    late = {"iat": world.clock, "exp": world.clock + 60}
    assert asked(world, state, token(**late)) is None
    assert world.settle() == 1
    assert asked(world, state, token(jti="2", **late)) is None
    world.happened = [entry for entry in world.happened if entry[0] != "send"]
    return asked(world, state, token({"kid": "made up"}, **late))


class Row:
    """`reason`: why the gate must refuse; `how`: in which way, where one item has several."""

    def __init__(self, area: str, item: str, reason: Reason, attempt: Attempt, how: str = "") -> None:
        self.item = (area, item)
        self.reason = reason
        self.attempt = attempt
        self.id = f"{area}: {item}" + (f", {how}" if how else "")


MALFORMED, ALGORITHM, KEY_, SIGNATURE = (
    Reason.TOKEN_MALFORMED,
    Reason.TOKEN_ALGORITHM,
    Reason.TOKEN_KEY,
    Reason.TOKEN_SIGNATURE,
)
CLAIMS_, AUDIENCE_, TYPE = Reason.TOKEN_CLAIMS, Reason.TOKEN_AUDIENCE, Reason.TOKEN_TYPE
UNAVAILABLE = Reason.ISSUER_UNAVAILABLE

# SEC 2 §2: how many points each curve's base point generates.
N256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
N384 = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
N521 = int("1" + 65 * "f" + "a51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409", 16)

DER = bytes.fromhex("3045022100") + bytes([0x80] * 32) + bytes.fromhex("0220") + bytes([0x11] * 32)
SHORT_DER = bytes.fromhex("303e021d00") + bytes([0x80] * 28) + bytes.fromhex("021d00") + bytes([0x80] * 28)

ROWS = [
    Row("format", "three parts", MALFORMED, presenting(f"{FIRST}.{MIDDLE}"), "two"),
    Row("format", "three parts", MALFORMED, presenting(f"{FIRST}.{MIDDLE}."), "the last one empty"),
    Row("format", "three parts", MALFORMED, presenting(f"{FIRST}..{LAST}"), "the claims detached"),
    Row("format", "three parts", MALFORMED, presenting(f"{FIRST}.{MIDDLE}.{LAST}.{LAST}"), "four"),
    Row("format", "five parts", MALFORMED, presenting(f"{FIRST}.{MIDDLE}.{LAST}.{LAST}.{LAST}"), "a JWE"),
    Row(
        "format",
        "JSON serialization",
        MALFORMED,
        presenting(json.dumps({"protected": FIRST, "payload": MIDDLE, "signature": LAST})),
    ),
    Row("format", "characters", MALFORMED, presenting(f"{FIRST}.{MIDDLE}.{LAST[:-1]}?"), "?"),
    Row("format", "characters", MALFORMED, presenting(f"{FIRST}.{MIDDLE}.{LAST[:-2]}+/"), "those of base64"),
    Row("format", "characters", MALFORMED, presenting(f"{FIRST}\t.{MIDDLE}.{LAST}"), "a tab"),
    Row("format", "characters", MALFORMED, presenting(f"{FIRST}.{MIDDLE}.{LAST}\n"), "a line feed at the end"),
    Row("format", "characters", MALFORMED, presenting(f"{FIRST}.{MIDDLE}.{LAST[:-1]}é"), "outside ASCII"),
    Row("format", "padding", MALFORMED, presenting(f"{FIRST}.{MIDDLE}.{LAST}=="), "of the signature"),
    Row("format", "padding", MALFORMED, presenting(f"{FIRST}=.{MIDDLE}.{LAST}"), "of the header"),
    Row("format", "length 4n+1", MALFORMED, presenting(f"{FIRST}.{MIDDLE}.AAAAA")),
    Row("format", "trailing bits", MALFORMED, presenting(f"{FIRST}.{MIDDLE}.QR"), "four of them"),
    Row("format", "trailing bits", MALFORMED, presenting(f"{FIRST}.{MIDDLE}.QUF"), "two of them"),
    Row("format", "over the cap", MALFORMED, claiming(padding="x" * 6000)),
    Row("format", "over the cap", MALFORMED, presenting("A" * 100_000), "by far"),
    Row("JSON", "duplicate keys", MALFORMED, spelled(b'{"alg":"EdDSA","alg":"none"}'), "alg"),
    Row("JSON", "duplicate keys", MALFORMED, spelled(None, b'{"iss":"a","\\u0069ss":"b"}'), "one escaped"),
    Row("JSON", "duplicate keys", MALFORMED, spelled(None, b'{"iss":"a","b":{"c":1,"c":1}}'), "inside"),
    Row("JSON", "NaN", MALFORMED, claiming(exp=float("nan"))),
    Row("JSON", "Infinity", MALFORMED, claiming(exp=float("inf"))),
    Row("JSON", "Infinity", MALFORMED, claiming(nbf=float("-inf")), "below zero"),
    Row("JSON", "1e999", MALFORMED, spelled(None, b'{"iss":"a","exp":1e999}')),
    Row("JSON", "1e999", MALFORMED, spelled(None, b'{"iss":"a","exp":' + b"9" * 400 + b".0}"), "in digits"),
    *[
        Row("JSON", f"{kind} for a NumericDate", CLAIMS_, claiming(**{name: value}), name)
        for name in ("exp", "nbf", "iat")
        for kind, value in (("boolean", True), ("string", str(NOW)))
    ],
    Row("JSON", "huge exp", CLAIMS_, claiming(exp=2**53)),
    Row("JSON", "huge exp", CLAIMS_, claiming(exp=10**400), "past any float"),
    Row("JSON", "huge exp", CLAIMS_, claiming(exp=1e300), "a float"),
    Row("JSON", "huge exp", MALFORMED, claiming(exp=10**600), "in more digits than a token has"),
    Row("JSON", "UTF-16", MALFORMED, spelled(None, json.dumps(CLAIMS).encode("utf-16"))),
    Row("JSON", "UTF-16", MALFORMED, spelled(json.dumps(HEADER).encode("utf-16-le")), "without a BOM"),
    Row("JSON", "UTF-32", MALFORMED, spelled(None, json.dumps(CLAIMS).encode("utf-32"))),
    Row("JSON", "BOM", MALFORMED, spelled(b"\xef\xbb\xbf" + json.dumps(HEADER).encode()), "in the header"),
    Row("JSON", "BOM", MALFORMED, spelled(None, b"\xef\xbb\xbf" + json.dumps(CLAIMS).encode()), "in claims"),
    Row("JSON", "lone surrogate", MALFORMED, claiming(sub="\ud800")),
    Row("JSON", "lone surrogate", MALFORMED, spelled(None, b'{"iss":"a","sub":"\xed\xa0\x80"}'), "unescaped"),
    Row("JSON", "not an object", MALFORMED, spelled(b"[]"), "the header"),
    Row("JSON", "not an object", MALFORMED, spelled(None, b'"claims"'), "the claims"),
    Row("JSON", "depth over 16", MALFORMED, claiming(deep=json.loads("[" * 16 + "]" * 16))),
    Row("JSON", "depth over 16", MALFORMED, spelled(b"[" * 700), "in the header, by far"),
    Row("JSON", "depth over 16", MALFORMED, spelled(None, b'{"iss":' + b'{"a":' * 1000), "by far"),
    Row("header", "alg missing", ALGORITHM, saying(alg=ABSENT)),
    *[Row("header", "alg none", ALGORITHM, saying(alg=name), name) for name in ("none", "None", "nOnE", "")],
    Row("header", "alg none", MALFORMED, presenting(f"{UNSIGNED}.{MIDDLE}."), "unsigned"),
    *[Row("header", "alg HS*", ALGORITHM, saying(alg=name), name) for name in ("HS256", "HS384", "HS512")],
    *[
        Row("header", "alg not on the list", ALGORITHM, saying(alg=name), str(name))
        for name in ("ES256", "eddsa", "EdDSA ", "RS1", None, ["EdDSA"], "Ed448", "A128KW")
    ],
    Row("header", "crit", MALFORMED, saying(crit=["exp"], exp=1)),
    Row("header", "crit", MALFORMED, saying(crit=[]), "empty"),
    Row("header", "b64", MALFORMED, saying(b64=False)),
    Row("header", "b64", MALFORMED, saying(b64=True), "true, which changes nothing"),
    Row("header", "zip", MALFORMED, saying(zip="DEF")),
    Row("header", "enc", MALFORMED, saying(enc="A128GCM")),
    Row("header", "jwk", MALFORMED, saying(jwk=KEY)),
    Row("header", "jku", MALFORMED, saying(jku=JWKS_URI), "even the issuer's own"),
    Row("header", "x5u", MALFORMED, saying(x5u="https://evil.example")),
    Row("header", "x5c", MALFORMED, saying(x5c=["MII"])),
    *[
        Row("header", "kid not a string", MALFORMED, saying(kid=kid), type(kid).__name__)
        for kid in (1, ["one"], {"kid": "one"}, True)
    ],
    Row("header", "kid long", MALFORMED, saying(kid="k" * 257)),
    Row("header", "kid long", MALFORMED, saying(kid="k" * 2000), "by far"),
    Row("key", "alg differs", KEY_, by("RS256", {**RSA, "alg": "PS256"}), "PS256 for RS256"),
    Row("key", "alg differs", KEY_, by("ES256", {**P256, "alg": "ES384"}), "ES384 for ES256"),
    Row("key", "alg differs", KEY_, by("EdDSA", {**ED25519, "alg": "ES256"}), "ES256 for EdDSA"),
    Row("key", "alg differs", KEY_, by("RS256", {**RSA, "alg": "RSA-OAEP"}), "RSA-OAEP for RS256"),
    Row("key", "kty mismatch", KEY_, by("ES256", RSA), "RSA for ES256"),
    Row("key", "kty mismatch", KEY_, by("RS256", P256), "EC for RS256"),
    Row("key", "kty mismatch", KEY_, by("EdDSA", P256), "EC for EdDSA"),
    Row("key", "kty mismatch", KEY_, by("ES256", {**P256, "kty": "OKP"}), "OKP with EC's numbers"),
    Row("key", "crv mismatch", KEY_, by("ES256", P384), "P-384 for ES256"),
    Row("key", "crv mismatch", KEY_, by("ES512", P256), "P-256 for ES512"),
    Row("key", "crv mismatch", KEY_, by("ES256", {**P384, "crv": "P-256"}), "P-384's numbers under P-256"),
    Row("key", "crv mismatch", KEY_, by("EdDSA", {**ED25519, "crv": "X25519"}), "X25519 for EdDSA"),
    Row("key", "crv mismatch", KEY_, by("ES256", {**P256, "crv": "secp256k1"}), "secp256k1 for ES256"),
    Row("key", "use enc", KEY_, by("RS256", {**RSA, "use": "enc"})),
    Row("key", "key_ops without verify", KEY_, by("RS256", {**RSA, "key_ops": ["encrypt"]})),
    Row("key", "key_ops without verify", KEY_, by("RS256", {**RSA, "use": "sig", "key_ops": []}), "empty"),
    *[
        Row("key", "d", KEY_, by("RS256", {**RSA, name: "AQ"}), f"as {name}")
        for name in ("d", "p", "q", "dp", "dq", "qi")
    ],
    Row("key", "d", KEY_, by("ES256", {**P256, "d": "AQ"}), "of an EC key"),
    Row("key", "oct", KEY_, by("EdDSA", {"kty": "oct", "k": LAST})),
    Row("key", "RSA under 2048", KEY_, by("RS256", {**RSA, "n": number(2**2046 + 1)}), "2047 bits"),
    Row("key", "RSA under 2048", KEY_, by("PS256", {**RSA, "n": number(2**1023 + 1)}), "1024 bits"),
    Row("key", "RSA under 2048", KEY_, by("RS256", {**RSA, "n": b64(b"\0" * 64 + b"\xff" * 192)}), "zeros"),
    Row("key", "e = 1", KEY_, by("RS256", {**RSA, "e": "AQ"})),
    Row("key", "e = 1", KEY_, by("RS256", {**RSA, "e": "AAAB"}), "behind zeros"),
    Row("key", "duplicate kid", KEY_, by("ES256", P256, None, {**ED25519, "kid": "one"})),
    Row("key", "duplicate kid", KEY_, by("ES256", P256, None, {**P256, "kid": "one"}), "of one key"),
    Row("key", "point not on the curve", KEY_, by("ES256", {**P256, "y": P256["x"]}), "P-256"),
    Row("key", "point not on the curve", KEY_, by("ES384", {**P384, "y": P384["x"]}), "P-384"),
    Row("key", "point not on the curve", KEY_, by("ES512", {**P521, "y": P521["x"]}), "P-521"),
    Row("key", "point not on the curve", KEY_, by("ES256", {**P256, "x": number(0, 32), "y": number(0, 32)}), "0"),
    *[
        Row("key", "small-order Ed25519", KEY_, by("EdDSA", {**ED25519, "x": b64(y.to_bytes(32, "little"))}), how)
        for y, how in (
            (0, "order 4"),
            (1, "order 1"),
            (2**255 - 20, "order 2"),
            (0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826, "order 8"),
            (2**255 - 18, "order 1, written past the field"),
            (2**255 + 1, "order 1, with the sign bit"),
        )
    ],
    *[
        row
        for alg, jwk, n, size in (("ES256", P256, N256, 32), ("ES384", P384, N384, 48), ("ES512", P521, N521, 66))
        for row in (
            Row("signature", "r zero", SIGNATURE, by(alg, jwk, rs(0, 1, size)), alg),
            Row("signature", "s zero", SIGNATURE, by(alg, jwk, rs(1, 0, size)), alg),
            Row("signature", "r >= n", SIGNATURE, by(alg, jwk, rs(n, 1, size)), alg),
            Row("signature", "s >= n", SIGNATURE, by(alg, jwk, rs(1, n, size)), alg),
            Row("signature", "wrong length", SIGNATURE, by(alg, jwk, rs(1, 1, size)[1:]), f"{alg}, shorter"),
            Row("signature", "wrong length", SIGNATURE, by(alg, jwk, rs(1, 1, size) + b"\0"), f"{alg}, longer"),
        )
    ],
    Row("signature", "r zero", SIGNATURE, by("ES256", P256, bytes(64)), "and s, CVE-2022-21449"),
    Row("signature", "r >= n", SIGNATURE, by("ES256", P256, b"\xff" * 64), "and s, all ones"),
    Row("signature", "DER", SIGNATURE, by("ES256", P256, DER)),
    Row("signature", "DER", SIGNATURE, by("ES256", P256, SHORT_DER + b"\0\0"), "padded"),
    Row("signature", "wrong length", SIGNATURE, by("RS256", RSA, b"\1" * 255), "RS256, shorter"),
    Row("signature", "wrong length", SIGNATURE, by("PS256", RSA, b"\0" + b"\1" * 256), "PS256, longer"),
    Row("signature", "wrong length", SIGNATURE, by("EdDSA", ED25519, b"\1" * 63), "EdDSA, shorter"),
    *[
        Row("claims", "iss not byte-exact", Reason.TOKEN_ISSUER, claiming(iss=iss), how)
        for iss, how in (
            (ISSUER + "/", "a slash more"),
            (ISSUER.upper(), "upper case"),
            (ISSUER + "\0", "a NUL more"),
            (ISSUER.replace("https", "http"), "http"),
            (ISSUER.replace("login", "l\u043egin"), "a letter that looks alike"),
            (ISSUER.replace("//", "//user@"), "a user"),
            ([ISSUER], "a list"),
            (ABSENT, "missing"),
        )
    ],
    Row("claims", "key of another issuer", SIGNATURE, of_another_issuer, "under the same kid"),
    Row("claims", "aud missing", AUDIENCE_, claiming(aud=ABSENT)),
    Row("claims", "aud missing", AUDIENCE_, claiming(aud=None), "null"),
    Row("claims", "aud without us", AUDIENCE_, claiming(aud="https://other.example.com")),
    Row("claims", "aud without us", AUDIENCE_, claiming(aud=["https://other.example.com"]), "a list"),
    Row("claims", "aud without us", AUDIENCE_, claiming(aud=[]), "nobody"),
    Row("claims", "aud without us", AUDIENCE_, claiming(aud=AUDIENCE + "/"), "a slash more"),
    Row("claims", "aud with non-strings", AUDIENCE_, claiming(aud=[AUDIENCE, 1])),
    Row("claims", "aud with non-strings", AUDIENCE_, claiming(aud=[AUDIENCE, [AUDIENCE]]), "a list"),
    Row("claims", "aud with non-strings", AUDIENCE_, claiming(aud={AUDIENCE: True}), "an object"),
    Row("claims", "exp missing", CLAIMS_, claiming(exp=ABSENT)),
    Row("claims", "exp missing", CLAIMS_, claiming(exp=None), "null"),
    Row("claims", "nbf beyond skew", Reason.TOKEN_NOT_YET_VALID, claiming(nbf=NOW + 61)),
    Row("claims", "iat beyond skew", Reason.TOKEN_NOT_YET_VALID, claiming(iat=NOW + 61)),
    Row("claims", "lifetime over the cap", Reason.TOKEN_LIFETIME, claiming(iat=NOW, exp=NOW + 3601)),
    Row("claims", "lifetime over the cap", Reason.TOKEN_LIFETIME, claiming(iat=NOW - 3600, exp=NOW + 1), "old"),
    Row("claims", "lifetime over the cap", Reason.TOKEN_LIFETIME, plain(iat=ABSENT, exp=NOW + 3601), "no iat"),
    Row("claims", "sub missing", CLAIMS_, claiming(sub=ABSENT)),
    Row("claims", "sub missing", CLAIMS_, claiming(sub=""), "empty"),
    *[
        Row("type", "typ not at+jwt", TYPE, saying(typ=typ), str(typ) if typ is not ABSENT else "missing")
        for typ in ("JWT", ABSENT, None, "", "jose", "at jwt", "at+jwt ", "application/at+jwt;x=1", "id+jwt")
    ],
    Row("type", "typ not at+jwt", TYPE, saying(typ=1), "a number"),
    Row("type", "no client_id", CLAIMS_, claiming(client_id=ABSENT)),
    Row("type", "no jti", CLAIMS_, claiming(jti=ABSENT)),
    Row("type", "no iat", CLAIMS_, claiming(iat=ABSENT)),
    Row("type", "no iat", CLAIMS_, plain(type_="id_token", iat=ABSENT), "of an ID token"),
    Row("type", "ID token", TYPE, saying(typ="JWT"), "where RFC 9068 is promised"),
    *[
        Row("type", "ID token", TYPE, plain(**{name: "abc"}), f"known by {name}")
        for name in ("nonce", "at_hash", "c_hash", "s_hash")
    ],
    Row("type", "ID token", TYPE, plain(typ="ID"), "known by Keycloak's typ"),
    Row("type", "ID token", TYPE, plain(token_use="id"), "known by Cognito's token_use"),
    Row("type", "ID token", TYPE, plain({"typ": ABSENT}, nonce="abc"), "without typ"),
    Row("type", "several audiences", AUDIENCE_, claiming(aud=SEVERAL, client_id="stranger")),
    Row(
        "type",
        "several audiences",
        AUDIENCE_,
        claiming(aud=SEVERAL, azp="stranger"),
        "and an azp that nobody trusts",
    ),
    Row(
        "type",
        "several audiences",
        AUDIENCE_,
        plain(aud=SEVERAL[::-1], client_id=ABSENT),
        "and no azp in a plain JWT",
    ),
    *[
        Row("type", typ, TYPE, plain({"typ": typ}, type_), f"where type is {type_}")
        for typ in ("dpop+jwt", "logout+jwt")
        for type_ in ("at+jwt", "any", "id_token")
    ],
    Row("type", "logout+jwt", TYPE, plain(events={LOGOUT: {}}), "unnamed"),
    Row("type", "logout+jwt", TYPE, plain(type_="id_token", events={}), "unnamed, for an ID token"),
    Row("type", "logout+jwt", TYPE, plain(typ="Logout"), "by Keycloak's typ"),
    Row("JWKS", "refetch without cool-down", KEY_, flooded),
    Row("JWKS", "good keys dropped", UNAVAILABLE, failing),
    *[
        Row("JWKS", item, UNAVAILABLE, presenting(token(), pages={JWKS_URI: page}), how)
        for item, page, how in (
            ("redirects", OSError("answered 302"), "as the runtime reports them"),
            ("oversize", jwks(KEY) + b" " * LIMIT, "which the runtime let through"),
            ("oversize", jwks(*[KEY] * 65), "in keys"),
            ("oversize", b'{"keys":' + b"[" * 100_000, "in depth"),
        )
    ],
    *[
        Row(
            "JWKS",
            "discovery of another issuer",
            UNAVAILABLE,
            discovering(metadata),
            how,
        )
        for metadata, how in (
            ({"issuer": PARTNER, "jwks_uri": JWKS_URI}, ""),
            ({"issuer": ISSUER + "/", "jwks_uri": JWKS_URI}, "by a slash"),
            ({"jwks_uri": JWKS_URI}, "by none"),
        )
    ],
]  # fmt: skip


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS])
def test_rejected(row: Row) -> None:
    assert row.attempt() is row.reason


def test_the_table_is_complete() -> None:
    listed = {(area, " ".join(item.split())) for area, items in ITEMS.items() for item in items.split(";")}
    assert {row.item for row in ROWS} | ELSEWHERE == listed


def test_no_two_rows_have_one_name() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)


GOOD = [
    pytest.param(presenting(token()), id="an access token"),
    pytest.param(plain(), id="a plain JWT where any will do"),
    pytest.param(plain({"typ": ABSENT}), id="a plain JWT without typ"),
    pytest.param(plain({"typ": "at+jwt"}, nonce="abc"), id="an access token where any will do"),
    pytest.param(plain(typ="Bearer", auth_time=NOW, acr="1"), id="Keycloak's access token"),
    pytest.param(plain(type_="id_token", nonce="abc", at_hash="abc"), id="an ID token where one is asked for"),
    *[pytest.param(by(alg, jwk), id=f"a token by {alg}") for alg, jwk in (
        ("RS256", RSA), ("PS256", RSA), ("ES256", P256), ("ES384", P384), ("ES512", P521), ("EdDSA", ED25519)
    )],
    pytest.param(by("ES256", P256, rs(N256 - 1, N256 - 1)), id="r and s as large as they may be"),
    pytest.param(claiming(aud=[AUDIENCE, AUDIENCE]), id="our audience twice"),
    *[
        pytest.param(
            presenting(
                token({"typ": "JWT"}, aud=SEVERAL, **{name: "trusted"}),
                type="any",
                authorized_parties=frozenset({"trusted"}),
            ),
            id=f"several audiences with a trusted {name}",
        )
        for name in ("azp", "client_id")
    ],
    pytest.param(
        discovering({"issuer": ISSUER, "jwks_uri": JWKS_URI}), id="keys found by discovery"
    ),
]  # fmt: skip


@pytest.mark.parametrize("attempt", GOOD)
def test_what_the_rows_start_from_is_accepted(attempt: Attempt) -> None:
    assert attempt() is None
