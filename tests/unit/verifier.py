"""WebCrypto's part in the gate, played by `cryptography`: on a desk, where there is no WebCrypto."""

from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

from document import read_base64url
from keys import Key

_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_HASHES = {"ES256": SHA256(), "ES384": SHA384(), "ES512": SHA512()}


def _number(text: str) -> int:
    return int.from_bytes(read_base64url(text), "big")


def _load(jwk: dict[str, str], algorithm: str) -> Any:
    if algorithm in _CURVES:
        return ec.EllipticCurvePublicNumbers(
            _number(jwk["x"]), _number(jwk["y"]), _CURVES[algorithm]
        ).public_key()
    if algorithm == "EdDSA":
        return Ed25519PublicKey.from_public_bytes(read_base64url(jwk["x"]))
    return rsa.RSAPublicNumbers(_number(jwk["e"]), _number(jwk["n"])).public_key()


async def verify(key: Key, algorithm: str, signature: bytes, signed: bytes) -> bool:
    """The port `keys.Verify`, to be given what `Key.fits` lets through."""
    handle = key.handles.get(algorithm)
    if handle is None:
        handle = key.handles[algorithm] = _load(key.jwk, algorithm)
    try:
        if algorithm in _CURVES:
            half = len(signature) // 2
            r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
            handle.verify(encode_dss_signature(r, s), signed, ec.ECDSA(_HASHES[algorithm]))
        elif algorithm == "EdDSA":
            handle.verify(signature, signed)
        elif algorithm == "PS256":
            handle.verify(signature, signed, padding.PSS(padding.MGF1(SHA256()), 32), SHA256())
        else:
            handle.verify(signature, signed, padding.PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True
