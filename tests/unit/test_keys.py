"""Issuers' keys: which JWKs are usable, how a token's key is found, and what happens while an issuer is away."""

import json
from collections.abc import Coroutine, Generator
from typing import Any

import pytest
from world import (
    ABSENT,
    ED25519,
    ISSUER,
    JWKS_URI,
    KEY,
    NOW,
    P256,
    P384,
    P521,
    RSA,
    b64,
    jwks,
    number,
    run,
    without,
)

from document import read_base64url
from keys import (
    COOL_DOWN,
    FRESH,
    LIMIT,
    MOST_FETCHES,
    MOST_KEYS,
    MOST_LOOKING,
    PRIVATE,
    RETRY,
    TIMEOUT,
    USABLE,
    Key,
    Keyring,
    Source,
    read_jwks,
    read_key,
)
from model import Denied, Reason
from tokens import Jws

OTHER = {**P256, "kid": "other"}
DISCOVERY = ISSUER + "/.well-known/openid-configuration"

USABLE_KEYS = [
    pytest.param(RSA, {"RS256", "PS256"}, 256, id="an RSA key serves two algorithms"),
    pytest.param({**RSA, "alg": "RS256"}, {"RS256"}, 256, id="an RSA key for RS256"),
    pytest.param({**RSA, "alg": "PS256"}, {"PS256"}, 256, id="an RSA key for PS256"),
    pytest.param({**RSA, "e": "Aw"}, {"RS256", "PS256"}, 256, id="an RSA key with e = 3"),
    pytest.param({**RSA, "n": number(2**8191 + 1)}, {"RS256", "PS256"}, 1024, id="the longest RSA key"),
    pytest.param(P256, {"ES256"}, 64, id="a P-256 key"),
    pytest.param(P384, {"ES384"}, 96, id="a P-384 key"),
    pytest.param(P521, {"ES512"}, 132, id="a P-521 key"),
    pytest.param({**P256, "alg": "ES256"}, {"ES256"}, 64, id="a P-256 key for ES256"),
    pytest.param(ED25519, {"EdDSA"}, 64, id="an Ed25519 key"),
    pytest.param({**ED25519, "alg": "EdDSA"}, {"EdDSA"}, 64, id="an Ed25519 key for EdDSA"),
    pytest.param({**ED25519, "alg": "Ed25519"}, {"EdDSA"}, 64, id="an Ed25519 key by RFC 9864's name"),
    pytest.param({**P256, "use": "sig"}, {"ES256"}, 64, id="a key for signatures"),
    pytest.param(
        {**P256, "key_ops": ["sign", "verify"]}, {"ES256"}, 64, id="a key whose operations include verify"
    ),
    pytest.param(
        {**P256, "x5c": ["MII"], "x5t": "abc"}, {"ES256"}, 64, id="a key with a certificate beside it"
    ),
]


@pytest.mark.parametrize(("jwk", "algorithms", "size"), USABLE_KEYS)
def test_a_usable_key(jwk: dict[str, Any], algorithms: set[str], size: int) -> None:
    key = read_key({**jwk, "kid": "one"})
    assert (key.kid, key.algorithms) == ("one", algorithms)
    public = ("kty", "n", "e", "crv", "x", "y")
    assert key.jwk == {name: value for name, value in jwk.items() if name in public}
    for algorithm in algorithms:
        assert key.fits(algorithm, b"\1" * size)
        assert not key.fits(algorithm, b"\1" * (size - 1))
        assert not key.fits(algorithm, b"\1" * (size + 1))
    assert not key.fits("none", b"\1" * size)


def test_a_key_may_have_no_id() -> None:
    assert read_key(ED25519).kid is None


def past_the_field(coordinate: str) -> str:
    """Another spelling of a P-521 coordinate: the same number modulo the field."""
    return number(int.from_bytes(read_base64url(coordinate), "big") + 2**521 - 1, 66)


UNUSABLE_KEYS = [
    pytest.param(["kty", "OKP"], id="it is not an object"),
    pytest.param(None, id="it is null"),
    pytest.param({}, id="it is empty"),
    # Row "key" of the tokens that must be rejected.
    pytest.param({**RSA, "alg": "ES256"}, id="alg ES256 on an RSA key"),
    pytest.param({**RSA, "alg": "RS512"}, id="alg RS512, which is not accepted"),
    pytest.param({**RSA, "alg": "RSA-OAEP"}, id="alg RSA-OAEP"),
    pytest.param({**P256, "alg": "ES384"}, id="alg of another curve"),
    pytest.param({**P256, "alg": "none"}, id="alg none"),
    pytest.param({**P256, "alg": "HS256"}, id="alg HS256"),
    pytest.param({**P256, "alg": ["ES256"]}, id="alg is a list"),
    pytest.param({**P256, "kid": 1}, id="kid is a number"),
    pytest.param({**P256, "kty": ["EC"]}, id="kty is a list"),
    pytest.param({**P256, "crv": {}}, id="crv is an object"),
    pytest.param({**P256, "kty": "RSA"}, id="kty RSA on an EC key"),
    pytest.param({**P256, "kty": "OKP"}, id="kty OKP on an EC key"),
    pytest.param({**P256, "kty": "ec"}, id="kty in lower case"),
    pytest.param({**P256, "crv": "P-384"}, id="crv of a longer curve"),
    pytest.param({**P384, "crv": "P-256"}, id="crv of a shorter curve"),
    pytest.param({**P256, "crv": "secp256k1"}, id="crv secp256k1"),
    pytest.param({**ED25519, "crv": "Ed448"}, id="crv Ed448"),
    pytest.param({**ED25519, "crv": "X25519"}, id="crv X25519, which agrees on keys"),
    pytest.param({**P256, "crv": ABSENT}, id="crv is missing"),
    pytest.param({**P256, "kty": ABSENT}, id="kty is missing"),
    pytest.param({**P256, "y": ABSENT}, id="y is missing"),
    pytest.param({**RSA, "n": ABSENT}, id="n is missing"),
    pytest.param({**RSA, "e": ABSENT}, id="e is missing"),
    pytest.param({**ED25519, "x": ABSENT}, id="x is missing"),
    pytest.param({**P256, "use": "enc"}, id="use enc"),
    pytest.param({**P256, "use": None}, id="use null"),
    pytest.param({**P256, "key_ops": ["sign"]}, id="key_ops without verify"),
    pytest.param({**P256, "key_ops": []}, id="key_ops empty"),
    pytest.param({**P256, "key_ops": "verify"}, id="key_ops is a string"),
    pytest.param({**P256, "key_ops": 1}, id="key_ops is a number"),
    pytest.param({**P256, "key_ops": None}, id="key_ops is null"),
    pytest.param({**P256, "d": "AQ"}, id="a private EC key"),
    pytest.param({**RSA, "d": "AQ"}, id="a private RSA key"),
    *[
        pytest.param({**RSA, name: None if name == "oth" else "AQ"}, id=f"an RSA key with its secret {name}")
        for name in sorted(PRIVATE - {"d", "k"})
    ],
    pytest.param({"kty": "oct", "k": "c2VjcmV0"}, id="a shared secret"),
    pytest.param({**RSA, "n": number(2**1023 + 1)}, id="an RSA key of 1,024 bits"),
    pytest.param({**RSA, "n": number(2**2046 + 1)}, id="an RSA key of 2,047 bits"),
    pytest.param({**RSA, "n": number(2**8192 + 1)}, id="an RSA key of 8,193 bits"),
    pytest.param({**RSA, "n": number(2**20000 + 1)}, id="an RSA key of 20,001 bits"),
    pytest.param({**RSA, "n": number(2**2047)}, id="an even RSA modulus"),
    pytest.param({**RSA, "n": 2**2047 + 1}, id="an RSA modulus as a JSON number"),
    pytest.param({**RSA, "n": "é" * 342}, id="an RSA modulus outside ASCII"),
    pytest.param({**RSA, "n": "A"}, id="an RSA modulus that is not base64url"),
    pytest.param({**RSA, "e": "AQ"}, id="e = 1"),
    pytest.param({**RSA, "e": "Ag"}, id="e = 2"),
    pytest.param({**RSA, "e": number(2**16)}, id="e is even"),
    pytest.param({**RSA, "e": number(2**64 + 1)}, id="e is huge"),
    pytest.param({**P256, "y": P256["x"]}, id="a point that is not on its curve"),
    pytest.param({**P384, "x": number(0, 48), "y": number(0, 48)}, id="the point 0, 0"),
    pytest.param({**P521, "x": number(2**521 - 1, 66)}, id="a coordinate as large as the field"),
    pytest.param(
        {**P256, "x": number(int.from_bytes(b"\xff" * 32, "big"), 32)}, id="a coordinate past the field"
    ),
    pytest.param({**P521, "x": past_the_field(P521["x"])}, id="the x of a point, written past the field"),
    pytest.param({**P521, "y": past_the_field(P521["y"])}, id="the y of a point, written past the field"),
    pytest.param({**P256, "x": number(2**256, 33)}, id="a coordinate too long for its curve"),
    pytest.param({**ED25519, "x": b64(b"\x07" * 33)}, id="an Ed25519 key of 33 bytes"),
]


@pytest.mark.parametrize("jwk", UNUSABLE_KEYS)
def test_an_unusable_key_is_refused_and_locks_nobody_out(jwk: Any) -> None:
    jwk = without(jwk) if isinstance(jwk, dict) else jwk
    with pytest.raises(ValueError):  # noqa: PT011 - a key is left out, whatever is wrong with it
        read_key(jwk)
    assert [key.kid for key in read_jwks(jwks(jwk, KEY), ISSUER)] == ["one"]


FIELD = 2**255 - 19
ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826

# A signature by such a key can be made for any text, without a private key.
SMALL_ORDER = [
    pytest.param(1, id="the neutral element"),
    pytest.param(FIELD - 1, id="the element of order 2"),
    pytest.param(0, id="an element of order 4"),
    pytest.param(2**255, id="the other element of order 4"),
    pytest.param(ORDER_8, id="an element of order 8"),
    pytest.param(2**255 + FIELD - ORDER_8, id="another element of order 8"),
    pytest.param(FIELD, id="an element of order 4, written past the field"),
    pytest.param(FIELD + 1, id="the neutral element, written past the field"),
]


@pytest.mark.parametrize("y", SMALL_ORDER)
def test_a_small_order_ed25519_key_is_refused(y: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - a key is left out, whatever is wrong with it
        read_key({**ED25519, "x": b64(y.to_bytes(32, "little"))})


@pytest.mark.parametrize(
    "modulus",
    [
        pytest.param(RSA["n"] + "==", id="padding"),
        pytest.param(RSA["n"][:4] + "!!!!" + RSA["n"][4:], id="characters that a lax decoder leaves out"),
        pytest.param(RSA["n"][:4] + "\n\n\n\n" + RSA["n"][4:], id="line breaks"),
    ],
)
def test_a_number_has_only_the_characters_of_base64url(modulus: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - a key is left out, whatever is wrong with it
        read_key({**RSA, "n": modulus})


def test_a_zero_before_an_rsa_modulus_does_not_make_its_signatures_longer() -> None:
    key = read_key({**RSA, "n": number(2**2047 + 1, 257)})
    assert key.fits("RS256", bytes(256))
    assert not key.fits("RS256", bytes(257))


# SEC 2 §2: how many points the base point of each curve generates.
ORDERS = [
    pytest.param(
        P256, "ES256", 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551, id="P-256"
    ),
    pytest.param(
        P384,
        "ES384",
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
        id="P-384",
    ),
    pytest.param(
        P521,
        "ES512",
        2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
        id="P-521",
    ),
]


@pytest.mark.parametrize(("jwk", "algorithm", "order"), ORDERS)
def test_r_and_s_lie_between_zero_and_the_order(jwk: dict[str, Any], algorithm: str, order: int) -> None:
    """Or a library that forgets to look takes a signature of zeros for any (CVE-2022-21449)."""
    key = read_key(jwk)
    for r, s, fit in (
        (1, 1, True),
        (order - 1, order - 1, True),
        (0, 0, False),
        (0, 1, False),
        (1, 0, False),
        (order, 1, False),
        (1, order, False),
        (order + 1, order + 1, False),
    ):
        assert key.fits(algorithm, b"".join(n.to_bytes(key.size // 2, "big") for n in (r, s))) is fit


def test_two_keys_under_one_id_are_both_left_out() -> None:
    assert [key.kid for key in read_jwks(jwks(KEY, {**P256, "kid": "one"}, OTHER), ISSUER)] == ["other"]


def test_keys_without_an_id_are_not_duplicates_of_each_other() -> None:
    assert [key.kid for key in read_jwks(jwks(ED25519, P256), ISSUER)] == [None, None]


TENANT = "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0"


@pytest.mark.parametrize(
    ("named", "used"),
    [
        pytest.param(ABSENT, True, id="a key that names no issuer"),
        pytest.param(None, True, id="a key whose issuer is null"),
        pytest.param(TENANT, True, id="a key of this directory"),
        pytest.param(
            "https://login.microsoftonline.com/{tenantid}/v2.0", True, id="a key of every directory"
        ),
        pytest.param(
            "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0",
            False,
            id="a key of personal accounts",
        ),
        pytest.param("https://login.microsoftonline.com/{tenantid}/v1.0", False, id="another version's"),
        pytest.param(
            "https://login.microsoftonline.com/{tenantid}", False, id="every directory, of one more name"
        ),
        pytest.param(
            "https://login.microsoftonline.com/x/{tenantid}/v2.0", False, id="every directory below another"
        ),
        pytest.param("https://sts.windows.net/{tenantid}/", True, id="a name of another kind"),
        pytest.param("{tenantid}", True, id="no address"),
        pytest.param([TENANT], False, id="a list"),
        pytest.param("", False, id="an empty name"),
    ],
)
def test_a_key_of_another_directory_is_left_out(named: Any, used: bool) -> None:
    keys = read_jwks(jwks(OTHER, without(KEY, issuer=named)), TENANT)
    assert [key.kid for key in keys] == ["other", *(["one"] if used else [])]


@pytest.mark.parametrize(
    ("named", "used"),
    [
        pytest.param("https://sts.windows.net/{tenantid}/", True, id="every directory"),
        pytest.param(
            "https://login.microsoftonline.com/{tenantid}/v2.0", True, id="every directory, by another name"
        ),
        pytest.param(TENANT, True, id="this directory, by another name"),
        pytest.param(
            "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0",
            False,
            id="personal accounts, by another name",
        ),
        pytest.param("https://login.microsoftonline.com/common/v2.0", False, id="a name without an id"),
    ],
)
def test_a_key_of_another_directory_is_left_out_whatever_the_names_are_like(named: str, used: bool) -> None:
    issuer = "https://sts.windows.net/11111111-2222-3333-4444-555555555555/"
    keys = read_jwks(jwks(OTHER, {**KEY, "issuer": named}), issuer)
    assert [key.kid for key in keys] == ["other", *(["one"] if used else [])]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="no keys"),
        pytest.param(b'{"keys":null}', id="keys is null"),
        pytest.param(b'{"keys":{"one":{}}}', id="keys is an object"),
        pytest.param(b'{"keys":[],"keys":[]}', id="keys appears twice"),
        pytest.param(b"<html>", id="a page for people"),
        pytest.param(jwks(*[KEY] * (MOST_KEYS + 1)), id="too many keys"),
        pytest.param(b'{"keys":[]}' + b" " * LIMIT, id="too long"),
    ],
)
def test_not_a_jwks(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the last good keys stay, whatever is wrong with it
        read_jwks(text, ISSUER)


class Web:
    """An issuer's documents, and what was asked of it."""

    def __init__(self, **pages: bytes | Exception) -> None:
        self.pages: dict[str, bytes | Exception] = {JWKS_URI: jwks(KEY), **pages}
        self.asked: list[str] = []

    async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
        assert (timeout, limit) == (TIMEOUT, LIMIT)
        self.asked.append(url)
        page = self.pages[url]
        if isinstance(page, Exception):
            raise page
        return page


class Broken(Web):
    """Whose connections break, each so many times before they hold."""

    def __init__(self, times: int, error: Exception) -> None:
        super().__init__(**{DISCOVERY: json.dumps({"issuer": ISSUER, "jwks_uri": JWKS_URI}).encode()})
        self.left = dict.fromkeys(self.pages, times)
        self.error = error

    async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
        page = await super().fetch(url, timeout, limit)
        self.left[url] -= 1
        if self.left[url] >= 0:
            raise self.error
        return page


@pytest.mark.parametrize(
    ("times", "error", "fetched", "asked"),
    [
        pytest.param(1, ConnectionError("Error"), True, [DISCOVERY] * 2 + [JWKS_URI] * 2, id="once"),
        pytest.param(2, ConnectionError("Error"), False, [DISCOVERY] * 2, id="twice"),
        pytest.param(
            1, TimeoutError("TimeoutError"), False, [DISCOVERY], id="slow servers are not asked again"
        ),
        pytest.param(1, OSError("answered 500"), False, [DISCOVERY], id="an answer is an answer"),
    ],
)
def test_a_connection_that_breaks_is_made_again(
    times: int, error: Exception, fetched: bool, asked: list[str]
) -> None:
    broken, ring = Broken(times, error), Keyring(Source(ISSUER, None))
    assert run(ring.refresh(broken.fetch, NOW)) is fetched
    assert broken.asked == asked


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
def ring(web: Web) -> Keyring:
    """A keyring that has fetched its keys."""
    ring = Keyring(Source(ISSUER, JWKS_URI))
    assert run(ring.refresh(web.fetch, NOW))
    web.asked.clear()
    return ring


def find(ring: Keyring, web: Web, now: float = NOW, kid: str | None = "one", algorithm: str = "EdDSA") -> Key:
    key = run(ring.find(kid, algorithm, web.fetch, now))
    assert isinstance(key, Key)
    return key


def denied(
    ring: Keyring, web: Web, now: float = NOW, kid: str | None = "one", algorithm: str = "EdDSA"
) -> Reason:
    with pytest.raises(Denied) as caught:
        find(ring, web, now, kid, algorithm)
    return caught.value.reason


def test_the_first_token_fetches_the_keys(web: Web) -> None:
    ring = Keyring(Source(ISSUER, JWKS_URI))
    assert find(ring, web).kid == "one"
    assert (web.asked, ring.fetched_at, ring.tried_at, ring.error) == ([JWKS_URI], NOW, NOW, "")


def test_keys_that_are_held_are_not_fetched_again(ring: Keyring, web: Web) -> None:
    for later in (0, FRESH, USABLE - 1):
        assert find(ring, web, NOW + later).kid == "one"
    assert web.asked == []


@pytest.mark.parametrize(
    ("fetched", "asked", "stale"),
    [
        pytest.param(FRESH, FRESH, False, id="not at the age of FRESH"),
        pytest.param(FRESH + 0.1, FRESH + 0.1, True, id="just after it"),
        pytest.param(FRESH + 0.1, COOL_DOWN, False, id="not while somebody has just begun"),
        pytest.param(FRESH + 0.1, COOL_DOWN + 0.1, True, id="again when that came to nothing"),
    ],
)
def test_staleness(fetched: float, asked: float, stale: bool) -> None:
    ring = Keyring(Source(ISSUER, JWKS_URI))
    ring.fetched_at = NOW - fetched
    ring.claim(NOW - asked)
    assert ring.stale(NOW) is stale


@pytest.mark.parametrize(
    ("kid", "algorithm"),
    [
        pytest.param("two", "EdDSA", id="a kid that is not there"),
        pytest.param("one", "ES256", id="the kid of a key for another algorithm"),
        pytest.param("one", "none", id="no algorithm at all"),
        pytest.param(None, "ES256", id="no kid, and no key fits"),
        pytest.param("", "EdDSA", id="an empty kid"),
        pytest.param("One", "EdDSA", id="a kid in other letters"),
    ],
)
def test_no_key_for_a_token(ring: Keyring, web: Web, kid: str | None, algorithm: str) -> None:
    assert denied(ring, web, kid=kid, algorithm=algorithm) is Reason.TOKEN_KEY


def test_without_a_kid_the_only_key_that_fits_is_used(web: Web) -> None:
    web.pages[JWKS_URI] = jwks(KEY, OTHER)
    ring = Keyring(Source(ISSUER, JWKS_URI))
    assert find(ring, web, kid=None, algorithm="ES256").kid == "other"
    web.pages[JWKS_URI] = jwks(KEY, {**ED25519, "kid": "two", "x": number(7, 32)})
    ring = Keyring(Source(ISSUER, JWKS_URI))
    assert denied(ring, web, kid=None) is Reason.TOKEN_KEY


def test_a_key_that_is_new_since_the_last_fetch_is_found_at_once(ring: Keyring, web: Web) -> None:
    """However lately that was: it was not for this key's sake."""
    web.pages[JWKS_URI] = jwks(KEY, OTHER)
    assert find(ring, web, NOW + 0.1, "other", "ES256").kid == "other"
    assert web.asked == [JWKS_URI]


def test_an_unknown_kid_refetches_once_in_a_cool_down(ring: Keyring, web: Web) -> None:
    for made_up in range(1001):
        assert (
            denied(ring, web, NOW + 1 + COOL_DOWN * made_up / 1000, f"made up {made_up}") is Reason.TOKEN_KEY
        )
    assert web.asked == [JWKS_URI]
    web.pages[JWKS_URI] = jwks(KEY, OTHER)
    assert find(ring, web, NOW + 1.1 + COOL_DOWN, "other", "ES256").kid == "other"
    assert web.asked == [JWKS_URI] * 2


def test_a_flood_of_unknown_kids_costs_the_issuer_little(ring: Keyring, web: Web) -> None:
    """Ten minutes of ten made-up ids a second, the keys refreshed in the background all the while."""
    for tenth in range(6000):
        now = NOW + tenth / 10
        if ring.stale(now):
            run(ring.refresh(web.fetch, now))
        assert denied(ring, web, now, f"made up {tenth}") is Reason.TOKEN_KEY
    assert len(web.asked) <= 600 / COOL_DOWN + 1 + 600 / FRESH


def test_a_flood_while_the_issuer_fails_costs_it_little(ring: Keyring, web: Web) -> None:
    web.pages[JWKS_URI] = OSError("answered 500")
    for tenth in range(6000):
        assert denied(ring, web, NOW + tenth / 10, f"made up {tenth}") is Reason.ISSUER_UNAVAILABLE
        assert find(ring, web, NOW + tenth / 10).kid == "one"
    assert len(web.asked) <= 600 / RETRY + 1


def test_a_flood_of_unknown_kids_during_a_fetch_costs_one_fetch_more(ring: Keyring) -> None:
    """The cool-down is claimed before the fetch, not after it."""
    late, asked = NOW + COOL_DOWN + 1, []

    class Flooded(Web):
        async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
            asked.append(url)
            if len(asked) == 1:
                for made_up in range(100):
                    assert denied(ring, self, late, f"made up {made_up}") is Reason.TOKEN_KEY
            return jwks(KEY)

    assert denied(ring, Flooded(), late, "made up") is Reason.TOKEN_KEY
    assert asked == [JWKS_URI] * 2  # the second was over at once, so it answered the rest


class Slow(Web):
    """An issuer that answers when it is told to."""

    class Pause:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
        await self.Pause()
        return await super().fetch(url, timeout, limit)


def resumed(work: Coroutine[Any, Any, Key]) -> Key | Reason | None:
    """What has become of a coroutine, after one more step of it: None while it waits."""
    try:
        work.send(None)
    except StopIteration as end:
        key: Key = end.value
        return key
    except Denied as refused:
        return refused.reason
    return None


def started(ring: Keyring, slow: Web, amount: int, now: float = NOW, kid: str = "other") -> list[Any]:
    """So many requests at once for one key, each as far as it comes: coroutines that wait, or reasons."""
    works = [ring.find(kid, "ES256", slow.fetch, now) for _ in range(amount)]
    return [work if (came := resumed(work)) is None else came for work in works]


def test_requests_that_meet_a_new_key_at_once_all_find_it(ring: Keyring) -> None:
    """Each fetches for itself: none may wait for what another has begun."""
    slow = Slow()
    slow.pages[JWKS_URI] = jwks(KEY, OTHER)
    works = started(ring, slow, MOST_LOOKING)
    for work in works:
        key = resumed(work)
        assert isinstance(key, Key)
        assert key.kid == "other"
    assert slow.asked == [JWKS_URI] * MOST_LOOKING


def test_more_than_so_many_are_told_to_come_again(ring: Keyring) -> None:
    slow = Slow()
    slow.pages[JWKS_URI] = jwks(KEY, OTHER)
    works = started(ring, slow, MOST_LOOKING + 5)
    assert works[MOST_LOOKING:] == [Reason.ISSUER_UNAVAILABLE] * 5
    assert isinstance(resumed(works[0]), Key)
    assert [key.kid for key in started(ring, slow, 5)] == ["other"] * 5  # what one has brought, all have
    for work in works[1:MOST_LOOKING]:
        work.close()


def test_while_an_issuer_fails_one_request_at_a_time_tries_it(ring: Keyring) -> None:
    slow = Slow()
    slow.pages[JWKS_URI] = OSError("answered 500")
    [first] = started(ring, slow, 1)
    assert resumed(first) is Reason.ISSUER_UNAVAILABLE
    assert started(ring, slow, 3, NOW + RETRY) == [Reason.ISSUER_UNAVAILABLE] * 3
    second, *others = started(ring, slow, 4, NOW + RETRY + 0.1)
    assert others == [Reason.ISSUER_UNAVAILABLE] * 3
    slow.pages[JWKS_URI] = jwks(KEY, OTHER)
    assert isinstance(resumed(second), Key)
    assert slow.asked == [JWKS_URI] * 2


def test_a_fetch_that_is_lost_with_its_request_does_not_start_a_cool_down(ring: Keyring) -> None:
    """A client that hangs up takes its request along, and what that was doing."""
    slow = Slow()
    slow.pages[JWKS_URI] = jwks(KEY, OTHER)
    [lost] = started(ring, slow, 1)
    lost.close()
    [another] = started(ring, slow, 1, NOW + 1)
    another.close()
    [later] = started(ring, slow, 1, NOW + 2 * TIMEOUT)
    key = resumed(later)
    assert isinstance(key, Key)
    assert key.kid == "other"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(OSError("answered 500"), id="the issuer answers 500"),
        pytest.param(TimeoutError(), id="the issuer does not answer"),
        pytest.param(b"<html>", id="the issuer answers with a page"),
        pytest.param(b'{"keys":[]}', id="the issuer publishes no key"),
        pytest.param(jwks({**RSA, "e": "AQ"}), id="the issuer publishes no usable key"),
        pytest.param(jwks({**KEY, "key_ops": 1}), id="the issuer publishes a key with odd operations"),
        pytest.param(b'{"keys":' + b"[" * 5000, id="the issuer publishes 5,000 brackets"),
    ],
)
def test_good_keys_stay_when_a_fetch_fails(ring: Keyring, web: Web, page: bytes | Exception) -> None:
    web.pages[JWKS_URI] = page
    held, late = list(ring.keys), NOW + FRESH + 1
    assert run(ring.refresh(web.fetch, late)) is False
    assert (ring.keys, ring.fetched_at, ring.tried_at) == (held, NOW, late)
    assert ring.error
    assert find(ring, web, late) is held[0]
    assert denied(ring, web, late, "made up") is Reason.ISSUER_UNAVAILABLE  # it could be a new key
    assert find(ring, web, NOW + USABLE - 1) is held[0]


def test_an_error_is_kept_short(ring: Keyring, web: Web) -> None:
    web.pages[JWKS_URI] = OSError("x" * 5000)
    assert run(ring.refresh(web.fetch, NOW)) is False
    assert len(ring.error) == 200
    web.pages[JWKS_URI] = jwks(KEY)
    assert run(ring.refresh(web.fetch, NOW)) is True
    assert ring.error == ""


def test_without_any_key_the_issuer_is_unavailable_and_is_left_alone_for_a_while(web: Web) -> None:
    web.pages[JWKS_URI] = OSError("answered 500")
    ring = Keyring(Source(ISSUER, JWKS_URI))
    assert denied(ring, web) is Reason.ISSUER_UNAVAILABLE
    assert denied(ring, web, NOW + RETRY - 0.1) is Reason.ISSUER_UNAVAILABLE
    assert web.asked == [JWKS_URI]
    assert denied(ring, web, NOW + RETRY) is Reason.ISSUER_UNAVAILABLE
    assert web.asked == [JWKS_URI] * 2
    web.pages[JWKS_URI] = jwks(KEY)
    assert find(ring, web, NOW + 2 * RETRY).kid == "one"


def test_the_first_keys_may_not_have_the_one_asked_for(web: Web) -> None:
    ring = Keyring(Source(ISSUER, JWKS_URI))
    assert denied(ring, web, kid="made up") is Reason.TOKEN_KEY
    assert web.asked == [JWKS_URI]


def test_keys_that_are_too_old_are_not_used(ring: Keyring, web: Web) -> None:
    web.pages[JWKS_URI] = OSError("answered 500")
    assert denied(ring, web, NOW + USABLE) is Reason.ISSUER_UNAVAILABLE
    assert web.asked == [JWKS_URI]
    assert not ring.usable(NOW + USABLE)
    web.pages[JWKS_URI] = jwks(KEY)
    assert find(ring, web, NOW + USABLE + RETRY).kid == "one"


def test_only_so_many_requests_fetch_the_first_keys_at_once() -> None:
    """Each must fetch for itself, as none may wait for another's fetch."""
    ring, slow = Keyring(Source(ISSUER, JWKS_URI)), Slow()
    requests = [ring.find("one", "EdDSA", slow.fetch, NOW + 0.01) for _ in range(2 * MOST_FETCHES)]
    became = [resumed(request) for request in requests]
    assert became == [None] * MOST_FETCHES + [Reason.ISSUER_UNAVAILABLE] * MOST_FETCHES
    slow.pages[JWKS_URI] = OSError("answered 500")
    waiting = requests[:MOST_FETCHES]
    assert {resumed(request) for request in waiting} == {Reason.ISSUER_UNAVAILABLE}
    assert slow.asked == [JWKS_URI] * MOST_FETCHES
    assert find(ring, Web(), NOW + RETRY + TIMEOUT).kid == "one"


def test_a_request_whose_own_fetch_fails_uses_the_keys_another_has_brought() -> None:
    ring, asked = Keyring(Source(ISSUER, JWKS_URI)), []

    class Racing(Web):
        async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
            asked.append(url)
            if len(asked) == 1:
                assert (await ring.find("one", "EdDSA", self.fetch, NOW)).kid == "one"
                raise OSError("answered 500")
            return jwks(KEY)

    assert find(ring, Racing()).kid == "one"
    assert len(asked) == 2


def test_of_two_fetches_at_once_the_later_one_counts(web: Web) -> None:
    ring, asked = Keyring(Source(ISSUER, JWKS_URI)), []

    class Overtaken(Web):
        async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
            asked.append(url)
            if len(asked) == 1:
                assert await ring.refresh(web.fetch, NOW + 1)
            return jwks(OTHER)

    assert run(ring.refresh(Overtaken().fetch, NOW))
    assert ([key.kid for key in ring.keys], ring.fetched_at) == (["one"], NOW + 1)


def test_a_key_still_published_stays_the_same_object(ring: Keyring, web: Web) -> None:
    held = find(ring, web)
    web.pages[JWKS_URI] = jwks(OTHER, {**KEY, "use": "sig"})
    assert run(ring.refresh(web.fetch, NOW + FRESH))
    assert find(ring, web) is held
    assert ring.holds(held)


@pytest.mark.parametrize(
    "published",
    [
        pytest.param(OTHER, id="another key only"),
        pytest.param({**KEY, "kid": "two"}, id="the same key under another id"),
        pytest.param({**KEY, "x": number(7, 32)}, id="another key under the same id"),
    ],
)
def test_a_withdrawn_key_is_no_longer_held(ring: Keyring, web: Web, published: dict[str, Any]) -> None:
    held = find(ring, web)
    web.pages[JWKS_URI] = jwks(published)
    assert run(ring.refresh(web.fetch, NOW + FRESH))
    assert not ring.holds(held)


def test_a_key_that_may_do_less_than_before_is_another_key(web: Web) -> None:
    web.pages[JWKS_URI] = jwks({**RSA, "kid": "one"})
    ring = Keyring(Source(ISSUER, JWKS_URI))
    held = find(ring, web, algorithm="RS256")
    web.pages[JWKS_URI] = jwks({**RSA, "kid": "one", "alg": "PS256"})
    assert run(ring.refresh(web.fetch, NOW))
    assert not ring.holds(held)


ANOTHER = {**KEY, "x": number(7, 32)}  # another key under the same id
UNNAMED = without(P256)


@pytest.mark.parametrize(
    ("published", "news"),
    [
        pytest.param([[KEY]], None, id="the same keys"),
        pytest.param([[{**KEY, "use": "sig"}]], None, id="the same key, written out in another way"),
        pytest.param([[KEY, OTHER]], (["other"], []), id="a key more"),
        pytest.param([[OTHER]], (["other"], ["one"]), id="another key"),
        pytest.param([[ANOTHER]], (["one"], ["one"]), id="another key under the same id"),
        pytest.param([[KEY, UNNAMED]], ([""], []), id="a key without an id"),
        pytest.param([[KEY, OTHER], [KEY]], None, id="a key that came and went before anybody heard of it"),
        pytest.param([[OTHER], [OTHER, UNNAMED]], (["", "other"], ["one"]), id="two changes"),
        pytest.param([[OTHER], [KEY]], None, id="there and back"),
        pytest.param([OSError("answered 500"), [OTHER]], (["other"], ["one"]), id="a failure in between"),
        pytest.param([[]], None, id="no key at all, which is not believed"),
    ],
)
def test_keys_that_come_and_go_are_news(
    ring: Keyring, web: Web, published: list[Any], news: tuple[list[str], list[str]] | None
) -> None:
    assert ring.news is None  # of the first keys there is nothing to tell
    for step, keys in enumerate(published, 1):
        web.pages[JWKS_URI] = keys if isinstance(keys, Exception) else jwks(*keys)
        run(ring.refresh(web.fetch, NOW + step))
    assert ring.news == news


def test_news_are_told_once(ring: Keyring, web: Web) -> None:
    web.pages[JWKS_URI] = jwks(OTHER)
    run(ring.refresh(web.fetch, NOW + 1))
    assert ring.news == (["other"], ["one"])
    ring.news = None  # it is on record
    run(ring.refresh(web.fetch, NOW + 2))
    assert ring.news is None
    web.pages[JWKS_URI] = jwks(KEY)
    run(ring.refresh(web.fetch, NOW + 3))
    assert ring.news == (["one"], ["other"])


@pytest.mark.parametrize("issuer", [ISSUER, ISSUER + "/"], ids=["without a slash", "with a slash"])
def test_discovery(issuer: str) -> None:
    web = Web(**{DISCOVERY: json.dumps({"issuer": issuer, "jwks_uri": JWKS_URI, "more": {}}).encode()})
    assert find(Keyring(Source(issuer, None)), web).kid == "one"
    assert web.asked == [DISCOVERY, JWKS_URI]


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9400/jwks", "http://localhost/jwks", "http://[::1]:1/jwks"]
)
def test_discovery_may_name_a_plain_address_of_this_machine(address: str) -> None:
    web = Web(**{DISCOVERY: json.dumps({"issuer": ISSUER, "jwks_uri": address}).encode(), address: jwks(KEY)})
    assert find(Keyring(Source(ISSUER, None)), web).kid == "one"


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({"issuer": "https://evil.example", "jwks_uri": JWKS_URI}, id="it names another issuer"),
        pytest.param({"issuer": ISSUER + "/", "jwks_uri": JWKS_URI}, id="it names the issuer with a slash"),
        pytest.param({"jwks_uri": JWKS_URI}, id="it names no issuer"),
        pytest.param({"issuer": ISSUER}, id="it names no jwks_uri"),
        pytest.param({"issuer": ISSUER, "jwks_uri": None}, id="its jwks_uri is null"),
        pytest.param({"issuer": ISSUER, "jwks_uri": [JWKS_URI]}, id="its jwks_uri is a list"),
        pytest.param(
            {"issuer": ISSUER, "jwks_uri": "http://login.example.com/keys"}, id="its jwks_uri is not https"
        ),
        pytest.param(
            {"issuer": ISSUER, "jwks_uri": "http://127.0.0.1.evil.example/"}, id="it only looks local"
        ),
        pytest.param(
            {"issuer": ISSUER, "jwks_uri": "http://localhost@evil.example/"}, id="local is its user"
        ),
        pytest.param({"issuer": ISSUER, "jwks_uri": "data:application/json,{}"}, id="its jwks_uri is data"),
        pytest.param({"issuer": ISSUER, "jwks_uri": "/keys"}, id="its jwks_uri is relative"),
        pytest.param({"issuer": ISSUER, "jwks_uri": "https://[::1"}, id="its jwks_uri cannot be read"),
        pytest.param([], id="it is a list"),
    ],
)
def test_discovery_that_is_not_believed(metadata: Any) -> None:
    web = Web(**{DISCOVERY: json.dumps(metadata).encode()})
    assert denied(Keyring(Source(ISSUER, None)), web) is Reason.ISSUER_UNAVAILABLE
    assert web.asked == [DISCOVERY]


JWS = Jws("EdDSA", "one", "at+jwt", b"", b"signed", b"\1" * 64)


class Verifier:
    """The port that checks signatures, with an answer to give, and what it was asked."""

    def __init__(self, answer: bool | Denied = True) -> None:
        self.answer = answer
        self.asked: list[tuple[str | None, str, bytes, bytes]] = []

    async def verify(self, key: Key, algorithm: str, signature: bytes, signed: bytes) -> bool:
        self.asked.append((key.kid, algorithm, signature, signed))
        if isinstance(self.answer, Denied):
            raise self.answer
        return self.answer


def test_a_good_signature_gives_its_key(ring: Keyring, web: Web) -> None:
    verifier = Verifier()
    key = run(ring.verify(JWS, frozenset({"EdDSA"}), web.fetch, verifier.verify, NOW))
    assert key is ring.keys[0]
    assert verifier.asked == [("one", "EdDSA", b"\1" * 64, b"signed")]


@pytest.mark.parametrize(
    ("jws", "answer", "reason", "asked"),
    [
        pytest.param(JWS, False, Reason.TOKEN_SIGNATURE, 1, id="the signature is wrong"),
        pytest.param(
            JWS._replace(signature=bytes(63)), True, Reason.TOKEN_SIGNATURE, 0, id="it cannot be the key's"
        ),
        pytest.param(JWS._replace(kid="two"), True, Reason.TOKEN_KEY, 0, id="there is no such key"),
        pytest.param(
            JWS._replace(algorithm="ES256"),
            True,
            Reason.TOKEN_ALGORITHM,
            0,
            id="it is not the issuer's algorithm",
        ),
        pytest.param(
            JWS, Denied(Reason.TOKEN_KEY), Reason.TOKEN_KEY, 1, id="the runtime will not have the key"
        ),
    ],
)
def test_a_signature_that_proves_nothing(
    ring: Keyring, web: Web, jws: Jws, answer: bool | Denied, reason: Reason, asked: int
) -> None:
    verifier = Verifier(answer)
    with pytest.raises(Denied) as caught:
        run(ring.verify(jws, frozenset({"EdDSA"}), web.fetch, verifier.verify, NOW))
    assert (caught.value.reason, len(verifier.asked)) == (reason, asked)


def test_a_fetch_is_seen_through_when_the_caller_who_needed_it_hangs_up(ring: Keyring) -> None:
    """Or its claim would hold up everybody else, and a key that was taken back would stay."""
    slow, kept = Slow(), list[Coroutine[Any, Any, bool]]()
    slow.pages[JWKS_URI] = jwks({**P256, "kid": "new"})

    async def last(work: Coroutine[Any, Any, bool]) -> bool:
        kept.append(work)
        await Slow.Pause()
        raise AssertionError("nobody goes on here")

    caller = ring.find("new", "ES256", slow.fetch, NOW + 60, last)
    caller.send(None)
    caller.close()
    [work] = kept
    work.send(None)
    assert run(work) is True
    assert find(ring, slow, NOW + 60, "new", "ES256").kid == "new"
    assert slow.asked == [JWKS_URI]


def test_looking_for_unknown_keys_does_not_put_off_the_fetch_in_the_background(
    ring: Keyring, web: Web
) -> None:
    for second in range(0, 3600, 7):
        now = NOW + second
        if ring.stale(now):
            ring.claim(now)
            assert run(ring.refresh(web.fetch, now))
        with pytest.raises(Denied):
            run(ring.find("made-up", "EdDSA", Web(**{JWKS_URI: OSError("answered 500")}).fetch, now))
        assert now - ring.fetched_at <= FRESH + COOL_DOWN + 7
