"""Tokens that the gate gets for itself: how each kind is asked for, and how one isolate keeps them.

No request ever waits for what another one began (the runtime would kill it): a token that ends soon is replaced in the
background, by whoever claims that first, while the others go on with the one that is there. Only with none, or one that
the upstream has refused, does a request fetch for itself. No error says anything of a secret, a token or an answer,
beyond its status and the error codes that are OAuth's own.
"""

import json
import re
from base64 import b64encode
from collections.abc import Coroutine
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote_plus, urlencode

import credential
import signing
from claims import at
from counters import Counters
from credential import ClientCredentials, JwtBearer
from document import Work, read_base64url, read_object
from keys import fetchable
from model import Denied, Reason
from signing import SigningKey

TIMEOUT = 5.0  # seconds for each answer
LIMIT = 65_536  # bytes of an answer
WORK = Work(strings=1024, names=512, structure=8192, escapes=1024)
LONGEST = 16_384  # characters of a token
LIFE = 300.0  # seconds of a token of which nobody says how long it lives
MOST_LIFE = 86_400.0  # seconds for which a token is kept, whatever is said
EARLY = 60.0  # seconds before its end from which on a token is replaced, or
SHARE = 0.8  # of its life, if that is later
MARGIN = 5.0  # seconds before its end from which on it is not used, at most a tenth of its life
CLAIM = 4 * TIMEOUT  # seconds for which nobody else begins what one has: two tries, and some
PAUSE = 2.0  # seconds after a failure in which nobody asks
FORCED = 30.0  # seconds between two tokens that are replaced since the upstream refused them
MOST_FETCHES = 8  # at once, for one credential, while there is no token
MOST = 256  # credentials whose tokens are kept

_TOKEN = re.compile(r"[!-~]+")
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# RFC 6749 §5.2, RFC 8707 §2. Other texts of an answer may hold anything.
_ERRORS = frozenset(
    {
        "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
        "invalid_scope", "invalid_target", "server_error", "temporarily_unavailable",
    }
)  # fmt: skip


class Mint(Protocol):
    """What it takes to get a token."""

    def now(self) -> float: ...
    def defer(self, work: Coroutine[Any, Any, Any]) -> None: ...
    async def last(self, work: Coroutine[Any, Any, bool]) -> bool:
        """Run work to its end, and wait for it. It goes on when the caller hangs up."""

    def secret(self, name: str) -> str:
        """Raises LookupError."""

    async def post(
        self, url: str, headers: dict[str, str], body: bytes, timeout: float, limit: int
    ) -> tuple[int, bytes]:
        """Status and body of the answer, and no redirects. Raises OSError."""

    async def sign(self, key: SigningKey, data: bytes) -> bytes:
        """Raises Denied or ValueError."""


class Token(NamedTuple):
    """A token, and until when it is good."""

    text: str
    renew: float  # from when on another one is to be got
    until: float


class _Held:
    """What is kept for one credential. Plain values only: nothing here can be awaited."""

    __slots__ = (
        "asked",
        "begun",
        "claimed",
        "error",
        "forced_at",
        "kept",
        "key",
        "quiet",
        "refused",
        "token",
        "void",
    )

    def __init__(self) -> None:
        self.token: Token | None = None
        self.refused = False  # whether the upstream has refused it
        # Fetches are put in order by number: in a Worker every request has a clock of its own.
        self.asked = 0  # the one that was begun last
        self.kept = 0  # the one that brought the token
        self.void = 0  # the last one that was begun before a token was refused
        self.key: tuple[str, SigningKey] | None = None  # a secret's text, and what it says
        self.claimed = 0.0  # until when somebody fetches in the background: the claim
        self.begun: list[float] = []  # when the fetches were begun that requests wait for, each for itself
        self.error = ""  # why the last fetch failed; empty when it did not
        self.quiet = 0.0  # until when nobody asks again after that
        self.forced_at = 0.0  # when a token was last refused, and another one asked for

    def good(self, now: float) -> Token | None:
        return self.token if self.token is not None and now < self.token.until else None


class Minted:
    """The tokens of one isolate, by their credential: upstreams whose settings are the same share them."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._counters = counters if counters is not None else Counters()
        self._held: dict[credential.Minted, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    async def token(self, of: credential.Minted, ports: Mint) -> str:
        """A token for a credential. Raises Denied `upstream.credential`."""
        held, now = self._of(of), ports.now()
        good = held.good(now)
        if good is not None and not held.refused:
            if now >= good.renew and now >= max(held.claimed, held.quiet):
                held.claimed = now + CLAIM
                ports.defer(self._renew(held, of, ports))
            self._counters.credential_hits += 1
            return good.text
        self._counters.credential_misses += 1
        failed = await self._another(held, of, ports, now)
        good = held.good(
            ports.now()
        )  # with no other to be had, a refused one: it may have been refused for the call
        if good is None:
            raise Denied(
                Reason.UPSTREAM_CREDENTIAL, failed or f"{of.secret}: the token ended before it was here"
            )
        return good.text

    def forget(self, of: credential.Minted, token: str, now: float) -> bool:
        """Note that the upstream has refused a token. Returns whether `token` would now try to get another one.

        An upstream that refuses every token gets a new one twice a minute, not with every call.
        """
        held = self._held.get(of)
        good = held.good(now) if held is not None else None
        if held is None or good is None or good.text != token or held.refused:
            return True
        if now - held.forced_at < FORCED:
            return False
        held.refused, held.forced_at, held.void = True, now, held.asked
        return True

    async def _another(self, held: _Held, of: credential.Minted, ports: Mint, now: float) -> str:
        """Fetch a token that this request needs, unless too many do so, or one has just failed. Returns why not."""
        if held.error and now < held.quiet:
            return held.error
        held.begun = [begun for begun in held.begun if now - begun < CLAIM]
        if len(held.begun) >= MOST_FETCHES:
            return f"{of.secret}: too many requests wait for a token"
        held.begun.append(now)
        await ports.last(self._first(held, of, ports, now))
        return held.error

    def _of(self, of: credential.Minted) -> _Held:
        held = self._held.get(of)
        if held is None:
            if len(self._held) >= MOST:  # the one that was asked for first
                del self._held[next(iter(self._held))]
            held = self._held[of] = _Held()
        return held

    async def _renew(self, held: _Held, of: credential.Minted, ports: Mint) -> None:
        try:
            await _fetch(held, of, ports)
        finally:
            held.claimed = 0.0

    async def _first(self, held: _Held, of: credential.Minted, ports: Mint, begun: float) -> bool:
        try:
            return await _fetch(held, of, ports)
        finally:
            if begun in held.begun:
                held.begun.remove(begun)


async def _fetch(held: _Held, of: credential.Minted, ports: Mint) -> bool:
    """Get another token. Keeps the one that is there when that fails, and says in `error` why."""
    now = ports.now()
    held.asked += 1
    number = held.asked
    try:
        secret = credential.read(of.secret, ports.secret)
        token = await _mint(held, of, secret, ports, now)
    except (Denied, OSError, ValueError) as error:
        held.error = _why(error, of.secret)
    else:
        held.error, held.quiet = "", 0.0
        # Not in place of one asked for later; and one asked for before a refusal may be the same.
        if number > max(held.kept, held.void):
            held.token, held.refused, held.kept = token, False, number
        return True
    held.quiet = ports.now() + PAUSE
    return False


def _why(error: Exception, binding: str) -> str:
    """What the audit log may say of a failure."""
    if isinstance(error, Denied):
        return error.detail or f"{binding}: {error.reason}"
    # Others than the gate's own quote what they could not read, or an address.
    return f"{binding}: {error if type(error) is ValueError else type(error).__name__}"


async def _mint(held: _Held, of: credential.Minted, secret: str, ports: Mint, now: float) -> Token:
    """Raises Denied, OSError and ValueError."""
    if isinstance(of, ClientCredentials):
        headers, form = _client(of, secret)
        return _granted(await _ask(of.token_url, headers, _form(form), ports), now)
    if isinstance(of, JwtBearer):
        return await _bear(held, of, secret, ports, now)
    fields = {name: text.replace("{secret}", secret) for name, text in of.fields}
    if of.encoding == "json":
        body, kind = json.dumps(fields).encode(), "application/json"
    else:
        body, kind = _form(fields), "application/x-www-form-urlencoded"
    answer = await _ask(of.url, {"content-type": kind}, body, ports)
    return _token(at(answer, of.token), of.lifetime or _expires(answer), now)


def _form(fields: dict[str, str]) -> bytes:
    return urlencode(fields).encode("ascii")


def _client(of: ClientCredentials, secret: str) -> tuple[dict[str, str], dict[str, str]]:
    """Headers and form of a request (RFC 6749 §4.4.2, RFC 8707 §2), with the client's password (§2.3.1)."""
    headers = {"content-type": "application/x-www-form-urlencoded"}
    form = {"grant_type": "client_credentials"}
    for name in ("scope", "audience", "resource"):
        if (value := getattr(of, name)) is not None:
            form[name] = value
    if of.authentication == "post":
        form |= {"client_id": of.client_id, "client_secret": secret}
    else:  # both are encoded as in a form first: they may hold a colon
        pair = f"{quote_plus(of.client_id)}:{quote_plus(secret)}"
        headers["authorization"] = "Basic " + b64encode(pair.encode("ascii")).decode("ascii")
    return headers, form


async def _bear(held: _Held, of: JwtBearer, secret: str, ports: Mint, now: float) -> Token:
    """A JWT that is signed here, or the token that it is good for (RFC 7523 §2.1)."""
    if held.key is None or held.key[0] != secret:
        held.key = (secret, signing.read_secret(secret))
    key = held.key[1]
    if key.algorithm != of.algorithm:
        raise ValueError(f"the key is for {key.algorithm}, and the settings say {of.algorithm}")
    url = of.token_url or key.token_url
    kid = of.key_id or key.kid
    header = {"alg": key.algorithm, "typ": "JWT", **({} if kid is None else {"kid": kid})}
    signed = signing.signing_input(header, _claims(of, key, url, now))
    jwt = signing.compact(signed, await ports.sign(key, signed))
    if url is None:
        return _token(jwt, of.lifetime, now)
    form = {"grant_type": _GRANT, "assertion": jwt, **({} if of.scope is None else {"scope": of.scope})}
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return _granted(await _ask(url, headers, _form(form), ports), now)


def _claims(of: JwtBearer, key: SigningKey, url: str | None, now: float) -> dict[str, Any]:
    """RFC 7523 §3. The scope stands beside them and among them, where Google looks for it."""
    issuer = of.issuer or key.issuer
    if issuer is None:
        raise ValueError("the settings say no issuer")
    if "{fingerprint}" in issuer:
        issuer = issuer.replace("{fingerprint}", key.fingerprint)
    # To Google a subject is somebody on whose behalf a service account acts.
    subject = of.subject or (None if key.issuer is not None and url is not None else issuer)
    claims = {"iss": issuer, "sub": subject, "aud": of.audience or url, "scope": of.scope}
    issued = int(now)
    return {name: value for name, value in claims.items() if value is not None} | {
        "iat": issued,
        "exp": issued + of.lifetime,
    }


async def _ask(url: str, headers: dict[str, str], body: bytes, ports: Mint) -> dict[str, Any]:
    """The object that a token endpoint answers with. Raises OSError and ValueError."""
    fetchable(url)
    given = {"accept": "application/json", **headers}
    try:
        status, text = await ports.post(url, given, body, TIMEOUT, LIMIT)
    except ConnectionError:
        # Servers end idle connections, sometimes just when they are used again: that must cost nobody a call.
        status, text = await ports.post(url, given, body, TIMEOUT, LIMIT)
    try:
        answer = read_object(text, limit=LIMIT, depth=16, work=WORK)
    except ValueError:
        if 200 <= status < 300:
            raise ValueError("the token endpoint's answer is not a JSON object that can be read") from None
        answer = {}
    if not 200 <= status < 300:
        code = answer.get("error")
        known = f", {code}" if isinstance(code, str) and code in _ERRORS else ""
        raise ValueError(f"the token endpoint answered {status}{known}")
    return answer


def _granted(answer: dict[str, Any], now: float) -> Token:
    """The token of an OAuth 2.0 answer (RFC 6749 §5.1). Raises ValueError."""
    kind = answer.get("token_type", "bearer")
    # In another case than the RFC's, or "BearerToken", or "JWT". A DPoP or MAC token would need more than itself.
    if not isinstance(kind, str) or not (kind.lower().startswith("bearer") or kind.lower() == "jwt"):
        raise ValueError("the token endpoint gave a token that is not a bearer token")
    return _token(answer.get("access_token"), _expires(answer), now)


def _expires(answer: dict[str, Any]) -> float | None:
    """`expires_in` in seconds, which some write as a text. None: nothing, or nothing that can be read."""
    value = answer.get("expires_in")
    if isinstance(value, str) and len(value) <= 10 and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return max(0, min(value, MOST_LIFE))


def _token(text: Any, life: float | None, now: float) -> Token:
    """Raises ValueError for what is no token, or not good any more."""
    if not isinstance(text, str) or len(text) > LONGEST or _TOKEN.fullmatch(text) is None:
        raise ValueError(f"no token of at most {LONGEST} visible ASCII characters where it should be")
    if life is None:
        life = _said(text, now)
    if life < 1:
        raise ValueError("the token has expired already")
    life = min(life, MOST_LIFE)
    return Token(text, now + max(SHARE * life, life - EARLY), now + life - min(MARGIN, life / 10))


def _said(text: str, now: float) -> float:
    """Seconds that a token has left by its own `exp`, if it is a JWT that can be read."""
    parts = text.split(".", 3)
    if len(parts) != 3:
        return LIFE
    try:
        ends = read_object(read_base64url(parts[1]), limit=LONGEST, depth=16, work=WORK).get("exp")
    except ValueError:
        return LIFE
    if isinstance(ends, bool) or not isinstance(ends, int | float):
        return LIFE
    return min(ends, now + MOST_LIFE) - now
