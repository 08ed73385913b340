"""The gate as an OAuth 2.0 protected resource: what it says of itself, and how it asks for a token.

The whole gate is one resource, named by its origin, whatever upstream a call is for: tokens are for the gate, and what
they may be used for is policy's to say.
"""

import re
from collections.abc import Mapping
from typing import Any

from assertion import JWKS
from bundle import Issuer
from dpop import ALGORITHMS
from model import Reason

METADATA = "/.well-known/oauth-protected-resource"
TOKEN = "/-/token"
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"

_SPELT = re.compile(r"https?://[A-Za-z0-9.\-_\[\]:]{1,300}")
_OF_A_PROOF = frozenset({Reason.TOKEN_PROOF_MISSING, Reason.TOKEN_PROOF_INVALID, Reason.TOKEN_PROOF_REPLAYED})


def metadata(origin: str, issuers: Mapping[str, Issuer], own: str | None = None) -> dict[str, Any]:
    """The gate's metadata (RFC 9728 §2). `origin`: as the client called it. Which issuers are accepted is public.

    `own`: the gate's name as an issuer, where it signs tokens.
    """
    return {
        "resource": origin,
        "resource_name": "Airgate",
        "authorization_servers": sorted({*issuers, own} - {None}),
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": list(ALGORITHMS),
        "dpop_bound_access_tokens_required": bool(issuers)
        and all([issuer.dpop == "required" for issuer in issuers.values()]),
    }


def server(issuer: str) -> dict[str, Any]:
    """The gate's metadata as an authorization server, which only exchanges tokens (RFC 8414 §2)."""
    origin = issuer.rstrip("/")
    return {
        "issuer": issuer,
        "token_endpoint": origin + TOKEN,
        "jwks_uri": origin + JWKS,
        "grant_types_supported": [GRANT],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["none"],
        "dpop_signing_alg_values_supported": list(ALGORITHMS),
    }


def challenge(reason: Reason, origin: str) -> str:
    """WWW-Authenticate for a 401: the ways in, and what was wrong (RFC 6750 §3, RFC 9449 §7.1, RFC 9728 §5.1)."""
    # A client wrote the host: one that would not fit between quotes is not written back.
    about = f', resource_metadata="{origin}{METADATA}"' if _SPELT.fullmatch(origin) is not None else ""
    algorithms = f'DPoP algs="{" ".join(ALGORITHMS)}"'
    if reason in _OF_A_PROOF:
        return f'{algorithms}, error="invalid_dpop_proof"{about}'
    if reason is Reason.TOKEN_UNBOUND:
        return f'{algorithms}, error="invalid_token"{about}'
    # RFC 6750 §3: no error code for a request that brought no token at all.
    error = "" if reason is Reason.TOKEN_MISSING else ', error="invalid_token"'
    return f'Bearer realm="airgate"{error}{about}, {algorithms}{error}{about}'
