"""WebCrypto's part in the gate, played by `cryptography` on a desk, with a key that `keys` let through."""

from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from airgate.engine import Denied, Key, Reason, read_base64url

_ECDSA: dict[str, tuple[type[ec.EllipticCurve], type[HashAlgorithm]]] = {
    "ES256": (ec.SECP256R1, SHA256),
    "ES384": (ec.SECP384R1, SHA384),
    "ES512": (ec.SECP521R1, SHA512),
}


async def verify(key: Key, algorithm: str, signature: bytes, signed: bytes) -> bool:
    """The port `keys.Verify` (RFC 7518 §3.3 to §3.5, RFC 8037 §3.1); it gets what `Key.fits` lets through.

    Raises Denied `token.key` for a key that the library won't have.
    """
    try:
        _verify(key.jwk, algorithm, signature, signed)
    except InvalidSignature:
        return False
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Denied(Reason.TOKEN_KEY, f"the key can't be used: {type(error).__name__}") from None
    return True


def _verify(jwk: dict[str, str], algorithm: str, signature: bytes, signed: bytes) -> None:
    public: Any
    if algorithm in _ECDSA:
        curve, digest = _ECDSA[algorithm]
        public = ec.EllipticCurvePublicNumbers(_number(jwk["x"]), _number(jwk["y"]), curve()).public_key()
        half = len(signature) // 2
        r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
        public.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest()))
    elif algorithm == "EdDSA":
        Ed25519PublicKey.from_public_bytes(read_base64url(jwk["x"])).verify(signature, signed)
    else:
        public = rsa.RSAPublicNumbers(_number(jwk["e"]), _number(jwk["n"])).public_key()
        # RFC 7518 §3.5: a salt as long as the hash, no other.
        scheme = padding.PSS(padding.MGF1(SHA256()), 32) if algorithm == "PS256" else padding.PKCS1v15()
        public.verify(signature, signed, scheme, SHA256())


def _number(text: str) -> int:
    return int.from_bytes(read_base64url(text), "big")
