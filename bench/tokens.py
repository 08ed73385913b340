"""Access tokens for the measurements: truly signed, each with a `jti` of its own, minted before anything is timed."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt

from airgate.dev.stack import AUDIENCE

PUBLIC = ("kty", "n", "e", "crv", "x", "y", "alg", "use", "kid")


def public(jwks: dict[str, Any]) -> dict[str, Any]:
    """The JWKS that an issuer publishes for its private one."""
    return {"keys": [{name: jwk[name] for name in PUBLIC if name in jwk} for jwk in jwks["keys"]]}


def mint(jwks: dict[str, Any], algorithm: str, issuer: str, amount: int) -> Iterator[str]:
    """Different tokens of one workload, valid for an hour."""
    jwk = next(jwk for jwk in jwks["keys"] if jwk["alg"] == algorithm)
    key = jwt.PyJWK(jwk).key
    header = {"kid": jwk["kid"], "typ": "at+jwt"}
    now = int(time.time())
    claims = {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": "finance-etl",
        "client_id": "finance-etl",
        "iat": now,
        "exp": now + 3600,
        "groups": ["finance-publishers", "finance-readers", "all-staff"],
        "airgate_kind": "workload",
    }
    for number in range(amount):
        yield jwt.encode({**claims, "jti": f"bench-{number:09}"}, key, algorithm, header)


def write(file: Path, tokens: Iterator[str]) -> Path:
    """One token a line."""
    file.write_text("\n".join(tokens), encoding="ascii")
    return file
