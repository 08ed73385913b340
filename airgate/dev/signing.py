"""The local provider's signing keys: made new at every start, and used by tests and the demo to sign odd tokens."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from airgate.engine import thumbprint

ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA")


def new_keys() -> dict[str, Any]:
    """A private JWKS with one new key for each algorithm; `kid` is `local-` and the algorithm in lower case."""
    keys = [
        ("RS256", RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048), as_dict=True)),
        ("PS256", RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048), as_dict=True)),
        ("ES256", ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)),
        ("ES384", ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()), as_dict=True)),
        ("ES512", ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP521R1()), as_dict=True)),
        ("EdDSA", OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate(), as_dict=True)),
    ]
    return {"keys": [_labelled(alg, jwk) for alg, jwk in keys]}


def new_audit_keys() -> tuple[str, str]:
    """A key for the gate's audit log: the secret AUDIT_KEY, and the public set that logs are verified with."""
    private: dict[str, Any] = OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate(), as_dict=True)
    public = {name: private[name] for name in ("kty", "crv", "x")}
    kid = thumbprint(public)
    secret = {**public, "d": private["d"], "kid": kid}
    keys = {"keys": [{**public, "kid": kid, "iat": int(time.time())}]}
    return json.dumps(secret), json.dumps(keys, indent=2) + "\n"


def sign(
    keys: Path,
    claims: Mapping[str, Any],
    *,
    algorithm: str = "RS256",
    headers: Mapping[str, Any] | None = None,
) -> str:
    """Sign claims with the provider's key for an algorithm.

    The header is {alg, kid, typ: at+jwt}; `headers` adds to it or replaces, and None leaves one out. `keys` is the
    stack's provider_keys file. Raises ValueError when it has no key for the algorithm.
    """
    for jwk in json.loads(keys.read_text(encoding="utf-8"))["keys"]:
        if jwk["alg"] == algorithm:
            header = {"kid": jwk["kid"], "typ": "at+jwt", **(headers or {})}
            # For PyJWT a typ of None means none at all, and a missing one means "JWT".
            kept = {name: value for name, value in header.items() if value is not None or name == "typ"}
            return jwt.encode(dict(claims), jwt.PyJWK(jwk).key, algorithm, kept)
    raise ValueError(f"the local provider has no key for {algorithm}; it has {', '.join(ALGORITHMS)}")


def _labelled(algorithm: str, jwk: Mapping[str, Any]) -> dict[str, Any]:
    key = {name: value for name, value in jwk.items() if name != "key_ops"}
    return {**key, "alg": algorithm, "use": "sig", "kid": f"local-{algorithm.lower()}"}
