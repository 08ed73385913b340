"""Issuers' keys: which keys of a JWKS are usable, which one signed a token, and how they are kept fresh.

Every check of a key is done here (RFC 7517, RFC 8725 §3.1); WebCrypto then sees a minimal JWK. No request ever waits
for a fetch that another request began (the runtime would kill it): a fetch is claimed by a time stamp, and whoever
finds it claimed uses the keys that are there.
"""

from collections import Counter
from collections.abc import Coroutine
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from document import read_base64url, read_object
from model import Denied, Reason

FRESH = 300  # seconds after which keys are fetched again, in the background
USABLE = 86_400  # seconds for which keys stay in use while their issuer cannot be reached
COOL_DOWN = 30  # seconds between two fetches for a key id that is not known, or in the background
RETRY = 5  # seconds between two fetches that requests need, while an issuer fails
TIMEOUT = 3  # seconds for each document
LIMIT = 262_144  # bytes of each document
MOST_KEYS = 64
# Requests that fetch for themselves while another's fetch is under way, since none may wait for it:
MOST_FETCHES = 128  # within one TIMEOUT, while there are no keys
MOST_LOOKING = 32  # for an id that is not known: it may be a new key's

# WebCrypto knows RSA by hash and padding, so one RSA key may serve two algorithms unless its JWK says which.
_ALGORITHMS: dict[tuple[str, str | None], frozenset[str]] = {
    ("RSA", None): frozenset({"RS256", "PS256"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
}
ALGORITHMS = frozenset[str]().union(*_ALGORITHMS.values())
# RFC 7518 §6.2.2, §6.3.2, §6.4.1: whoever publishes one of these has given the key away.
PRIVATE = frozenset({"d", "dp", "dq", "k", "oth", "p", "q", "qi"})
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_COORDINATE = {"P-256": 32, "P-384": 48, "P-521": 66, "Ed25519": 32}
# SEC 2 §2: p and b of y² = x³ - 3x + b, and n, the order of the base point. A point that is not on the curve leaks or
# forges, depending on the library; so does a signature of zeros (CVE-2022-21449).
_CURVES = {
    "P-256": (
        2**256 - 2**224 + 2**192 + 2**96 - 1,
        0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ),
    "P-384": (
        2**384 - 2**128 - 2**96 + 2**32 - 1,
        0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    ),
    "P-521": (
        2**521 - 1,
        0x0051953EB9618E1C9A1F929A21A0B68540EEA2DA725B99B315F3B8B489918EF109E156193951EC7E937B1652C0BD3BB1BF073573DF883D2C34F1EF451FD46B503F00,
        2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
    ),
}
# y of the eight points whose order divides the cofactor of Ed25519: 1, 2, 4 and 8.
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset({0, 1, 2**255 - 20, _ORDER_8, 2**255 - 19 - _ORDER_8})


class Fetch(Protocol):
    """Reads a document: at most `limit` bytes within `timeout` seconds, no redirects.

    Raises OSError: ConnectionError when the connection broke, TimeoutError when it took too long.
    """

    async def __call__(self, url: str, timeout: float, limit: int) -> bytes: ...


class Verify(Protocol):
    """Checks a signature by a key that fits it; raises Denied when the runtime will not have the key."""

    async def __call__(self, key: "Key", algorithm: str, signature: bytes, signed: bytes) -> bool: ...


class Last(Protocol):
    """Runs work to its end, and waits for it, though whoever asked for it may hang up before."""

    async def __call__(self, work: Coroutine[Any, Any, bool]) -> bool: ...


class Signed(Protocol):
    """What is signed, and what it says about how: a `tokens.Jws` or `tokens.Unverified`."""

    @property
    def algorithm(self) -> str: ...
    @property
    def kid(self) -> str | None: ...
    @property
    def signed(self) -> bytes: ...
    @property
    def signature(self) -> bytes: ...


class Key:
    """A public key that may verify. `handles` holds the runtime's imported form, one an algorithm."""

    __slots__ = ("algorithms", "handles", "jwk", "kid", "size")

    def __init__(self, kid: str | None, algorithms: frozenset[str], jwk: dict[str, str], size: int) -> None:
        self.kid = kid
        self.size = size  # bytes of a signature
        self.algorithms = algorithms
        self.jwk = jwk  # kty and the public numbers, nothing else
        self.handles: dict[str, Any] = {}

    def fits(self, algorithm: str, signature: bytes) -> bool:
        """Whether a signature of that algorithm can be this key's at all: r and s side by side, say, never DER."""
        if algorithm not in self.algorithms or len(signature) != self.size:
            return False
        if self.jwk["kty"] != "EC":
            return True
        n = _CURVES[self.jwk["crv"]][2]
        r = int.from_bytes(signature[: self.size // 2], "big")
        s = int.from_bytes(signature[self.size // 2 :], "big")
        return 0 < r < n and 0 < s < n  # SEC 1 §4.1.4

    def same(self, other: "Key") -> bool:
        return self.jwk == other.jwk and self.algorithms == other.algorithms


class Source(NamedTuple):
    """Where an issuer's keys come from. Without `jwks_uri`: OpenID Connect Discovery 1.0 §4."""

    issuer: str
    jwks_uri: str | None


def _number(jwk: dict[str, Any], name: str) -> int:
    value = jwk[name]
    if not isinstance(value, str) or len(value) > 1400:
        raise ValueError(f"{name} is not a number")
    return int.from_bytes(read_base64url(value), "big")


def _check_numbers(kty: str, jwk: dict[str, Any]) -> int:
    """Check a key's numbers, and return how many bytes its signatures have (RFC 7518 §3.3, §3.4, RFC 8037 §3.1)."""
    if kty == "RSA":
        modulus, exponent = _number(jwk, "n"), _number(jwk, "e")
        if not 2048 <= modulus.bit_length() <= 8192 or modulus % 2 == 0:
            raise ValueError("RSA modulus is too short, too long or even")
        if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > 64:
            raise ValueError("RSA exponent is not acceptable")
        return (modulus.bit_length() + 7) // 8
    size = _COORDINATE[jwk["crv"]]
    for name in _MEMBERS[kty][1:]:
        if _number(jwk, name) >> (8 * size):
            raise ValueError(f"{name} is too long for its curve")
    if kty == "EC":
        p, b, _ = _CURVES[jwk["crv"]]
        x, y = _number(jwk, "x"), _number(jwk, "y")
        if x >= p or y >= p or (y * y - (x * x * x - 3 * x + b)) % p:
            raise ValueError("the point is not on its curve")
    else:
        # RFC 8032 §5.1.2: little-endian, the top bit is the sign of x. A key of small order verifies forged signatures.
        y = int.from_bytes(read_base64url(jwk["x"]), "little") & (2**255 - 1)
        if y in _SMALL_ORDER or y >= 2**255 - 19:
            raise ValueError("the key is of small order, or not canonical")
    return 2 * size


def read_key(jwk: Any) -> Key:
    """A usable verification key from one JWK (RFC 7517 §4); ValueError says why it is not one."""
    if not isinstance(jwk, dict):
        raise ValueError("not an object")
    kty, crv, kid, alg = jwk.get("kty"), jwk.get("crv"), jwk.get("kid"), jwk.get("alg")
    if not all(value is None or isinstance(value, str) for value in (kty, crv, kid, alg)):
        raise ValueError("kty, crv, kid and alg are strings")
    algorithms = _ALGORITHMS.get((str(kty), None if kty == "RSA" else crv))
    if algorithms is None:
        raise ValueError(f"kty {kty!r:.20} with crv {crv!r:.20} is not supported")
    if not PRIVATE.isdisjoint(jwk):
        raise ValueError("a private key has been published")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("not for verifying")
    if alg is not None:
        algorithms &= {"EdDSA" if alg == "Ed25519" else alg}
        if not algorithms:
            raise ValueError(f"alg {alg!r:.20} does not fit the key")
    try:
        size = _check_numbers(str(kty), jwk)
    except KeyError as error:
        raise ValueError(f"{error.args[0]} is missing") from None
    return Key(kid, algorithms, {"kty": str(kty), **{name: jwk[name] for name in _MEMBERS[str(kty)]}}, size)


def refuse_foreign(jwk: Any, issuer: str) -> None:
    """Raise ValueError for a key that signs for another issuer of the same host.

    Entra serves the keys of several directories as one set, and writes into each whose it is: `issuer`, where
    `{tenantid}` stands for every directory.
    """
    named = jwk.get("issuer") if isinstance(jwk, dict) else None
    if named is None or named == issuer:
        return
    if isinstance(named, str):
        before, every, after = named.partition("{tenantid}")
        one = issuer.removeprefix(before).removesuffix(after)
        if every and issuer == before + one + after and one and "/" not in one:
            return
        ours, theirs = urlsplit(issuer), urlsplit(named)
        # In another way of writing issuers' names only the directory's id can be compared.
        same = {part for part in ours.path.split("/") if len(part) >= 32} & {*theirs.path.split("/")}
        if ours.netloc != theirs.netloc and (every or same):
            return
    raise ValueError("signs for another issuer")


def read_jwks(text: bytes, issuer: str) -> list[Key]:
    """The usable keys of an issuer's JWKS. Unusable ones are left out: one bad key must not lock everybody out."""
    members = read_object(text, limit=LIMIT).get("keys")
    if not isinstance(members, list) or len(members) > MOST_KEYS:
        raise ValueError(f"keys is not a list of at most {MOST_KEYS}")
    keys = []
    for member in members:
        try:
            refuse_foreign(member, issuer)
            keys.append(read_key(member))
        except ValueError:
            continue
    # Two keys under one id: nobody can say which was meant, so neither is.
    count = Counter(key.kid for key in keys if key.kid is not None)
    return [key for key in keys if key.kid is None or count[key.kid] == 1]


def fetchable(url: Any) -> str:
    """An address that keys may be fetched from: https, or http on this machine. ValueError otherwise."""
    if isinstance(url, str):
        parts = urlsplit(url)
        if parts.scheme == "https" or (
            parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
        ):
            return url
    raise ValueError("not an https address")


async def _here(work: Coroutine[Any, Any, bool]) -> bool:
    return await work


async def _read(fetch: Fetch, url: str) -> bytes:
    """A document of an issuer. Raises OSError."""
    try:
        return await fetch(url, TIMEOUT, LIMIT)
    except ConnectionError:
        # Servers end idle connections, sometimes just when they are used again: that must cost nobody a call.
        return await fetch(url, TIMEOUT, LIMIT)


def _news(before: list[Key], after: list[Key]) -> tuple[list[str], list[str]] | None:
    """Ids of the keys that came and went; an id that is another key's by now did both. None for the first keys."""
    added, removed = _without(before, after), _without(after, before)
    return (added, removed) if before and (added or removed) else None


def _without(some: list[Key], keys: list[Key]) -> list[str]:
    """The ids of the keys that are not among some others."""
    return sorted(
        {key.kid or "" for key in keys if not any([key.same(one) and key.kid == one.kid for one in some])}
    )


class Keyring:
    """The keys of one issuer, as one isolate holds them. Plain values only: nothing here can be awaited."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.keys: list[Key] = []
        self.fetched_at = 0.0  # when the fetch was begun that brought the keys held now
        self.asked_at = 0.0  # when a fetch in the background was last begun: the claim
        self.tried_at = 0.0  # when any was
        self.error = ""  # why the last fetch failed; empty when it did not
        self.news: tuple[list[str], list[str]] | None = None  # ids that came and went, for the audit log
        self._on_record: list[Key] = []  # the keys that the log knows of
        self._begun: list[float] = []
        self._looked_at = 0.0  # when a fetch for an unknown id was last begun: the claim of its cool-down
        self._looking = 0  # how many were begun since
        self._looked = True  # whether one of them, or another begun since, is over

    def stale(self, now: float) -> bool:
        """True when a background refresh is due and nobody has begun one."""
        return now - self.fetched_at > FRESH and now - self.asked_at > COOL_DOWN

    def claim(self, now: float) -> None:
        """Note that a fetch in the background begins: for a while nobody else begins one."""
        self.asked_at = now

    def usable(self, now: float) -> bool:
        return bool(self.keys) and now - self.fetched_at < USABLE

    def holds(self, key: Key) -> bool:
        """True while this very key is among the issuer's: a token verified by it stays verified."""
        return key in self.keys

    async def refresh(self, fetch: Fetch, now: float) -> bool:
        """Fetch the keys anew. Keeps the ones held when that fails, and says in `error` why. Never raises."""
        self.tried_at = now
        try:
            text = await _read(fetch, await self._jwks_uri(fetch))
            fetched = read_jwks(text, self.source.issuer)
            if not fetched:
                raise ValueError("the JWKS holds no usable key")
        except (OSError, ValueError) as error:
            self.error = f"{type(error).__name__}: {error}"[:200]
            self._looked |= now >= self._looked_at
            return False
        self._looked |= now >= self._looked_at
        if now < self.fetched_at:
            return True  # a later fetch was answered first
        if self.news is None:
            self._on_record = self.keys
        # A key that is still published stays the same object, so nothing verified by it is verified again.
        self.keys = [
            next((held for held in self.keys if held.same(key) and held.kid == key.kid), key)
            for key in fetched
        ]
        self.news = _news(self._on_record, self.keys)
        self.fetched_at, self.error = now, ""
        return True

    async def _jwks_uri(self, fetch: Fetch) -> str:
        if self.source.jwks_uri is not None:
            return self.source.jwks_uri
        address = self.source.issuer.rstrip("/") + "/.well-known/openid-configuration"
        metadata = read_object(await _read(fetch, address), limit=LIMIT)
        # OpenID Connect Discovery 1.0 §4.3: or one issuer could speak for another.
        if metadata.get("issuer") != self.source.issuer:
            raise ValueError("the discovery document names another issuer")
        return fetchable(metadata.get("jwks_uri"))

    async def find(
        self, kid: str | None, algorithm: str, fetch: Fetch, now: float, last: Last = _here
    ) -> Key:
        """The key that a token names.

        What a fetch was claimed for must be found out: one that ended with its caller would hold up all others. Raises
        Denied: `token.key` when there is none, `issuer.unavailable` when that cannot be known.
        """
        if not self.usable(now):
            # Nothing to fall back on, so every request fetches for itself; after a failure they answer at once
            # for a while.
            if self.error and now - self.tried_at < RETRY:
                raise Denied(Reason.ISSUER_UNAVAILABLE, self.error)
            self._begun = [begun for begun in self._begun if now - begun < TIMEOUT]
            if len(self._begun) >= MOST_FETCHES:
                raise Denied(Reason.ISSUER_UNAVAILABLE, "too many requests wait for the first keys")
            self._begun.append(now)
            if not await last(self.refresh(fetch, now)) and not self.usable(now):
                raise Denied(Reason.ISSUER_UNAVAILABLE, self.error)
            return self._choose(kid, algorithm) or self._unknown(kid, now)
        key = self._choose(kid, algorithm)
        if key is None and self._may_look(now):
            await last(self.refresh(fetch, now))
            key = self._choose(kid, algorithm)
        return key or self._unknown(kid, now)

    async def verify(
        self,
        token: Signed,
        algorithms: frozenset[str],
        fetch: Fetch,
        verify: Verify,
        now: float,
        last: Last = _here,
    ) -> Key:
        """The key that signed a token, by one of the issuer's algorithms (RFC 8725 §3.1).

        Raises Denied `token.algorithm`, `token.signature`, and what `find` raises.
        """
        algorithm, signature = token.algorithm, token.signature
        if algorithm not in algorithms:
            raise Denied(Reason.TOKEN_ALGORITHM, f"{algorithm!r:.20}")
        key = self._choose(token.kid, algorithm) if self.usable(now) else None
        if key is None:
            key = await self.find(token.kid, algorithm, fetch, now, last)
        if not key.fits(algorithm, signature) or not await verify(key, algorithm, signature, token.signed):
            raise Denied(Reason.TOKEN_SIGNATURE)
        return key

    def _may_look(self, now: float) -> bool:
        """Whether this request may fetch for an id that is not known: the issuer may have rotated, or it is made up.

        The cool-down is claimed before the fetch, so a flood of made-up ids costs one fetch, not one each. It is not
        that of the fetches in the background: one of those just before a rotation must not lock the new key out.
        """
        if self._under_way(now):
            may = not self.error and self._looking < MOST_LOOKING
        else:
            # Not looked by now: the fetch was lost with the request that began it.
            may = not self._looked or now - self._looked_at > (RETRY if self.error else COOL_DOWN)
            if may:
                self._looked_at, self._looking, self._looked = now, 0, False
        self._looking += may
        return may

    def _under_way(self, now: float) -> bool:
        """Whether somebody is fetching for an unknown id. A fetch is two documents, each asked for twice at most."""
        return not self._looked and now - self._looked_at < 4 * TIMEOUT

    def _choose(self, kid: str | None, algorithm: str) -> Key | None:
        fitting = [
            key for key in self.keys if algorithm in key.algorithms and (kid is None or key.kid == kid)
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _unknown(self, kid: str | None, now: float) -> Key:
        if self.error or self._under_way(now):  # it may be a new key: not the caller's fault, so not 401
            raise Denied(Reason.ISSUER_UNAVAILABLE, self.error or "its keys are being fetched")
        raise Denied(Reason.TOKEN_KEY, "no single key fits" if kid is None else f"kid {kid!r:.80}")
