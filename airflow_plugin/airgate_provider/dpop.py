"""Proofs of possession (RFC 9449): a key of this process, and one proof for each request."""

from __future__ import annotations

import hashlib
import secrets
import time
from base64 import urlsafe_b64encode
from email.utils import parsedate_to_datetime
from typing import Any

CLOCK_TOLERANCE = 3.0  # seconds that a clock may differ before it is corrected


class ProofKey:
    """A P-256 key that never leaves this process, and how far the other side's clock is from ours."""

    def __init__(self) -> None:
        # Not needed by a connection without DPoP, and a DAG file should not wait for it.
        from cryptography.hazmat.primitives.asymmetric import ec
        from jwt.algorithms import ECAlgorithm

        self._private = ec.generate_private_key(ec.SECP256R1())
        self.jwk: dict[str, Any] = ECAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        self._ahead = 0.0

    def proof(self, method: str, url: str, token: str | None = None, nonce: str | None = None) -> str:
        """A proof for one request (§4.2): beside that token, or at a token endpoint beside none."""
        import jwt

        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": url.partition("#")[0].partition("?")[0],
            "iat": int(time.time() + self._ahead),
        }
        if token is not None:
            digest = hashlib.sha256(token.encode("ascii")).digest()
            claims["ath"] = urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
        if nonce is not None:
            claims["nonce"] = nonce
        return jwt.encode(claims, self._private, "ES256", {"typ": "dpop+jwt", "jwk": self.jwk})

    def correct(self, date: str | None) -> bool:
        """Learn from an answer's Date (RFC 9110 §6.6.1) how far our clock is off; whether that changed anything.

        A proof holds for a minute and a clock may be 5 s ahead: a worker whose clock is off would be locked out.
        """
        try:
            theirs = parsedate_to_datetime(date or "").timestamp()
        except (TypeError, ValueError):
            return False
        ahead = theirs - time.time()
        if abs(ahead - self._ahead) <= CLOCK_TOLERANCE:
            return False
        self._ahead = ahead
        return True
