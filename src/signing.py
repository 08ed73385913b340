"""Private keys that the gate signs with, out of a secret's text: PKCS#8 PEM, a JWK, or Google service-account JSON.

All checks are done here; WebCrypto then sees a minimal JWK. No error says anything of what the text holds. The public
key is always derived from the private one: signing with Ed25519 beside another public key gives the private one away.
That arithmetic is done once for a key, and nobody outside can time it.
"""

import json
import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from hashlib import sha256, sha512
from typing import Any

from document import Work, read_base64url, read_object
from dpop import thumbprint
from keys import Key, fetchable, read_key

LIMIT = 16_384  # characters of a secret
WORK = Work(strings=128, names=64, structure=512, escapes=512)
MAX_KID = 256  # characters

_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]+)-----END ([A-Z0-9 ]+)-----", re.ASCII)
_CONVERT = "not PKCS#8: convert it with openssl pkcs8 -topk8 -nocrypt"
# The contents of the object identifiers (RFC 8017 §A.1, RFC 5480 §2.1, RFC 8410 §3).
_RSA = bytes.fromhex("2a864886f70d010101")
_EC = bytes.fromhex("2a8648ce3d0201")
_P256 = bytes.fromhex("2a8648ce3d030107")
_ED25519 = bytes.fromhex("2b6570")
_INTEGER, _BITS, _OCTETS, _NULL, _OBJECT, _SEQUENCE = 0x02, 0x03, 0x04, 0x05, 0x06, 0x30
# RFC 7518 §6.3.2, in the order of RFC 8017 §A.1.2.
_RSA_NUMBERS = ("n", "e", "d", "p", "q", "dp", "dq", "qi")
_LONGEST = 1024  # bytes of a number

_ALGORITHM = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}
_CURVE = {"EC": "P-256", "OKP": "Ed25519"}


class SigningKey:
    """A private key that signs. `handles` holds the runtime's imported form, one an algorithm."""

    __slots__ = ("algorithm", "handles", "issuer", "jwk", "kid", "public", "token_url")

    def __init__(self, jwk: dict[str, str], public: Key, kid: str | None = None) -> None:
        self.algorithm = _ALGORITHM[jwk["kty"]]  # RS256, ES256 or EdDSA
        self.jwk = jwk  # kty and the numbers, nothing else
        self.public = public.jwk
        self.kid = kid
        self.issuer: str | None = None  # a service account's own name,
        self.token_url: str | None = None  # and where it gets tokens
        self.handles: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"SigningKey({self.algorithm}, kid={self.kid!r})"

    @property
    def thumbprint(self) -> str:
        """RFC 7638, of the public key."""
        return thumbprint(self.public)

    @property
    def fingerprint(self) -> str:
        """As Snowflake writes it: `SHA256:` and base64 of the SHA-256 of the public key's SubjectPublicKeyInfo."""
        return "SHA256:" + b64encode(sha256(public_info(self.public)).digest()).decode("ascii")


def read_secret(text: str) -> SigningKey:
    """The key in a secret, whichever of the three forms it has. ValueError says what is wrong, never what is there."""
    if len(text) > LIMIT:
        raise ValueError(f"longer than {LIMIT} characters")
    text = text.strip()
    if text.startswith("-----BEGIN"):
        return _read_pem(text)
    if not text.startswith("{"):
        raise ValueError("neither a PEM key nor JSON")
    try:
        members = read_object(text, limit=LIMIT, depth=4, work=WORK)
    except ValueError:  # some of its messages hold a part of the text
        raise ValueError("not JSON that can be read") from None
    if "kty" not in members and "private_key" in members:
        return _read_account(members)
    return read_private(members)


def read_private(jwk: Any) -> SigningKey:
    """The key of a private JWK (RFC 7517 §4). Raises ValueError."""
    if not isinstance(jwk, dict):
        raise ValueError("the key is not an object")
    kty, crv, kid = jwk.get("kty"), jwk.get("crv"), jwk.get("kid")
    if not isinstance(kty, str) or kty not in _ALGORITHM or (kty in _CURVE and crv != _CURVE[kty]):
        raise ValueError("the key is neither RSA nor P-256 nor Ed25519")
    operations = jwk.get("key_ops", ["sign"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "sign" not in operations:
        raise ValueError("the key is not for signing")
    if jwk.get("alg") not in (None, _ALGORITHM[kty]) and (kty, jwk.get("alg")) != ("OKP", "Ed25519"):
        raise ValueError(f"alg does not fit the key: {_ALGORITHM[kty]} would")
    if "oth" in jwk:
        raise ValueError("an RSA key of more than two primes")
    if kty == "RSA":
        return _rsa(tuple([_number(jwk, name) for name in _RSA_NUMBERS]), _kid(kid))
    secret = _octets(jwk, "d")
    if len(secret) != 32:
        raise ValueError("d is not of 32 bytes")
    key = _p256(secret, _kid(kid)) if kty == "EC" else _ed25519(secret, _kid(kid))
    for name in ("x", "y") if kty == "EC" else ("x",):
        if jwk.get(name) != key.public[name]:
            raise ValueError("the public key is missing, or not that of the private one")
    return key


def public_jwk(jwk: dict[str, str], algorithm: str, kid: str | None) -> dict[str, str]:
    """A public key as it is published: it says what it is for (RFC 7517 §4.2, §4.4, §4.5)."""
    return {**jwk, **({} if kid is None else {"kid": kid}), "alg": algorithm, "use": "sig"}


def base64url(data: bytes) -> str:
    """Without padding (RFC 7515 §2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def signing_input(header: dict[str, Any], claims: dict[str, Any]) -> bytes:
    """What the signature of a compact JWS covers (RFC 7515 §5.1)."""
    return ".".join(
        [base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims)]
    ).encode("ascii")


def compact(signed: bytes, signature: bytes) -> str:
    """A compact JWS (RFC 7515 §3.1). An ES256 signature is r and s side by side (RFC 7518 §3.4), as in WebCrypto."""
    return f"{signed.decode('ascii')}.{base64url(signature)}"


def _kid(kid: Any) -> str | None:
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID):
        raise ValueError(f"the key's id is not a string of at most {MAX_KID} characters")
    return kid


def _octets(jwk: dict[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str) or len(value) > 2 * _LONGEST:
        raise ValueError(f"{name} is missing or not a short string")
    try:
        return read_base64url(value)
    except ValueError:
        raise ValueError(f"{name} is not canonical base64url") from None


def _number(jwk: dict[str, Any], name: str) -> int:
    return int.from_bytes(_octets(jwk, name), "big")


def _read_account(members: dict[str, Any]) -> SigningKey:
    """A service account's key, as Google hands it out."""
    text, email, url = members["private_key"], members.get("client_email"), members.get("token_uri")
    if not isinstance(text, str) or not text.strip().startswith("-----BEGIN"):
        raise ValueError("private_key is not a PEM key")
    if not isinstance(email, str) or not 0 < len(email) <= 320:
        raise ValueError("client_email is missing or not a short string")
    key = _read_pem(text.strip())
    key.kid, key.issuer = _kid(members.get("private_key_id")), email
    if url is not None:
        try:
            key.token_url = fetchable(url)
        except ValueError:
            raise ValueError("token_uri is not an https address") from None
    return key


def _read_pem(text: str) -> SigningKey:
    """RFC 7468 §10, with one key and nothing around it."""
    found = _PEM.fullmatch(text)
    if found is None or found[1] != found[3]:
        raise ValueError("not a single PEM key")
    if found[1] != "PRIVATE KEY":
        raise ValueError(_CONVERT)
    try:
        data = b64decode("".join(found[2].split()), validate=True)
    except ValueError:
        raise ValueError("the PEM key is not base64") from None
    return _read_pkcs8(data)


class _Der:
    """Distinguished encoding (X.690 §10), read forward: every length is definite, minimal and within bounds."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def ended(self) -> bool:
        return self._at == len(self._data)

    def done(self) -> None:
        if not self.ended():
            raise ValueError("the key's DER has more than it should")

    def next(self) -> int:
        """The tag that comes next; 0 at the end."""
        return 0 if self.ended() else self._data[self._at]

    def take(self, tag: int) -> bytes:
        """The contents of what comes next, which has to be of that tag."""
        if self.next() != tag:
            raise ValueError("the key's DER is not that of a private key")
        size, start = self._size(self._at + 1)
        if start + size > len(self._data):
            raise ValueError("the key's DER is cut off")
        self._at = start + size
        return self._data[start : self._at]

    def _size(self, at: int) -> tuple[int, int]:
        """How many octets the contents have, and where they begin."""
        first = self._data[at] if at < len(self._data) else 0x80
        if first < 0x80:
            return first, at + 1
        octets = self._data[at + 1 : at + 1 + (first & 0x7F)]
        size = int.from_bytes(octets, "big")
        if not 0 < len(octets) == first & 0x7F <= 2 or size < (0x80, 0x100)[len(octets) - 1]:
            raise ValueError("the key's DER has a length that is not minimal")
        return size, at + 1 + len(octets)

    def within(self, tag: int = _SEQUENCE) -> "_Der":
        return _Der(self.take(tag))

    def number(self) -> int:
        """An integer that is not negative."""
        octets = self.take(_INTEGER)
        if not 0 < len(octets) <= _LONGEST + 1 or octets[0] & 0x80:
            raise ValueError("a number in the key's DER is negative or too long")
        if len(octets) > 1 and octets[0] == 0 and not octets[1] & 0x80:
            raise ValueError("a number in the key's DER is not minimal")
        return int.from_bytes(octets, "big")


def _read_pkcs8(data: bytes) -> SigningKey:
    """PrivateKeyInfo and OneAsymmetricKey (RFC 5958 §2)."""
    outer = _Der(data)
    info = outer.within()
    outer.done()
    if info.number() > 1:
        raise ValueError("the key's DER is of a version that is not known")
    algorithm, secret = info.within(), _Der(info.take(_OCTETS))
    for tag in (0xA0, 0x81):  # attributes; the public key, which is derived all the same
        if info.next() == tag:
            info.take(tag)
    info.done()
    kind = algorithm.take(_OBJECT)
    if kind == _RSA:
        algorithm.take(_NULL)
        key = _read_rsa(secret)
    elif kind == _EC:
        if algorithm.take(_OBJECT) != _P256:
            raise ValueError("the key's curve is not P-256")
        key = _read_ec(secret)
    elif kind == _ED25519:
        seed = secret.take(_OCTETS)  # RFC 8410 §7
        if len(seed) != 32:
            raise ValueError("the Ed25519 key is not of 32 bytes")
        key = _ed25519(seed)
    else:
        raise ValueError("the key is neither RSA nor P-256 nor Ed25519")
    algorithm.done()
    secret.done()
    return key


def _read_rsa(secret: _Der) -> SigningKey:
    """RFC 8017 §A.1.2."""
    members = secret.within()
    if members.number() != 0:
        raise ValueError("an RSA key of more than two primes")
    numbers = tuple([members.number() for _ in _RSA_NUMBERS])
    members.done()
    return _rsa(numbers)


def _read_ec(secret: _Der) -> SigningKey:
    """RFC 5915 §3."""
    members = secret.within()
    if members.number() != 1:
        raise ValueError("the EC key is of a version that is not known")
    octets = members.take(_OCTETS)
    if len(octets) != 32:
        raise ValueError("the P-256 key is not of 32 bytes")
    if members.next() == 0xA0 and members.within(0xA0).take(_OBJECT) != _P256:
        raise ValueError("the key's curve is not P-256")
    key = _p256(octets)
    if members.next() == 0xA1:
        point = b"\0\4" + b"".join([read_base64url(key.public[name]) for name in ("x", "y")])
        if members.within(0xA1).take(_BITS) != point:
            raise ValueError("the public key is not that of the private one")
    members.done()
    return key


def _rsa(numbers: tuple[int, ...], kid: str | None = None) -> SigningKey:
    """The numbers in the order of _RSA_NUMBERS."""
    n, e, d, p, q, dp, dq, qi = numbers
    jwk = {"kty": "RSA"} | {
        name: base64url(number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big"))
        for name, number in zip(_RSA_NUMBERS, numbers, strict=True)
    }
    public = read_key({name: jwk[name] for name in ("kty", "n", "e")})
    if min(p, q) < 3 or n != p * q or (qi * q) % p != 1:
        raise ValueError("the numbers of the RSA key do not fit each other")
    for prime, exponent in ((p, dp), (q, dq)):
        if exponent != d % (prime - 1) or (e * exponent) % (prime - 1) != 1:
            raise ValueError("the numbers of the RSA key do not fit each other")
    return SigningKey(jwk, public, kid)


# SEC 2 §2.4.2.
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def _p256(secret: bytes, kid: str | None = None) -> SigningKey:
    scalar = int.from_bytes(secret, "big")
    if not 0 < scalar < _N:
        raise ValueError("the P-256 key is out of range")
    x, y = [base64url(number.to_bytes(32, "big")) for number in _p256_point(scalar)]
    public = {"kty": "EC", "crv": "P-256", "x": x, "y": y}
    return SigningKey({**public, "d": base64url(secret)}, read_key(public), kid)


def _p256_point(scalar: int) -> tuple[int, int]:
    """`scalar` times the base point, from the top bit down, in Jacobian coordinates (SEC 1 §2.2.1).

    For a scalar below the order no sum on the way is of equal or opposite points, so none needs a case of its own.
    """
    x2, y2 = _G
    x, y, z = x2, y2, 1
    for bit in bin(scalar)[3:]:
        square, zz = y * y % _P, z * z % _P
        slope = 3 * (x - zz) * (x + zz) % _P
        middle = 4 * x * square % _P
        z = 2 * y * z % _P
        x = (slope * slope - 2 * middle) % _P
        y = (slope * (middle - x) - 8 * square * square) % _P
        if bit == "1":
            zz = z * z % _P
            run, rise = (x2 * zz - x) % _P, (y2 * zz * z - y) % _P
            square = run * run % _P
            cube, middle = square * run % _P, x * square % _P
            x = (rise * rise - cube - 2 * middle) % _P
            y = (rise * (middle - x) - y * cube) % _P
            z = z * run % _P
    inverse = pow(z, -1, _P)
    return x * inverse * inverse % _P, y * inverse * inverse * inverse % _P


# RFC 8032 §5.1.
_Q = 2**255 - 19
_D = -121665 * pow(121666, -1, _Q) % _Q
_B = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    46316835694926478169428394003475163141307993866256225615783033603165251855960,
)


def _ed25519(secret: bytes, kid: str | None = None) -> SigningKey:
    """RFC 8032 §5.1.5."""
    octets = bytearray(sha512(secret).digest()[:32])
    octets[0] &= 248
    octets[31] = octets[31] & 127 | 64
    x, y = _ed25519_point(int.from_bytes(octets, "little"))
    public = {"kty": "OKP", "crv": "Ed25519", "x": base64url((y | (x & 1) << 255).to_bytes(32, "little"))}
    return SigningKey({**public, "d": base64url(secret)}, read_key(public), kid)


def _ed25519_point(scalar: int) -> tuple[int, int]:
    """`scalar` times the base point, in extended coordinates (RFC 8032 §5.1.4)."""
    x2, y2 = _B
    t2 = 2 * _D * x2 * y2 % _Q
    x, y, z, t = 0, 1, 1, 0
    for bit in bin(scalar)[2:]:
        a, b = x * x % _Q, y * y % _Q
        h, g = a + b, a - b
        e, f = h - (x + y) * (x + y) % _Q, 2 * z * z % _Q + g
        x, y, z, t = e * f % _Q, g * h % _Q, f * g % _Q, e * h % _Q
        if bit == "1":
            a, b = (y - x) * (y2 - x2) % _Q, (y + x) * (y2 + x2) % _Q
            c, d = t * t2 % _Q, 2 * z
            e, f, g, h = b - a, d - c, d + c, b + a
            x, y, z, t = e * f % _Q, g * h % _Q, f * g % _Q, e * h % _Q
    inverse = pow(z, -1, _Q)
    return x * inverse % _Q, y * inverse % _Q


def _der(tag: int, *contents: bytes) -> bytes:
    data = b"".join(contents)
    size = len(data).to_bytes((len(data).bit_length() + 7) // 8, "big")
    return (
        bytes([tag]) + (bytes([len(data)]) if len(data) < 0x80 else bytes([0x80 | len(size)]) + size) + data
    )


def public_info(jwk: dict[str, str]) -> bytes:
    """SubjectPublicKeyInfo (RFC 5280 §4.1) of a public JWK, in DER."""
    numbers = {name: read_base64url(jwk[name]) for name in ("n", "e", "x", "y") if name in jwk}
    if jwk["kty"] == "RSA":
        integers = [
            _der(_INTEGER, b"\0" * (octets[0] >> 7), octets) for octets in (numbers["n"], numbers["e"])
        ]
        kind, key = _der(_OBJECT, _RSA) + _der(_NULL), _der(_SEQUENCE, *integers)
    elif jwk["kty"] == "EC":
        kind, key = _der(_OBJECT, _EC) + _der(_OBJECT, _P256), b"\4" + numbers["x"] + numbers["y"]
    else:
        kind, key = _der(_OBJECT, _ED25519), numbers["x"]
    return _der(_SEQUENCE, _der(_SEQUENCE, kind), _der(_BITS, b"\0", key))
