"""Names that the audit log has for subjects, where it is not to hold who they are.

A pseudonym is the same for the same subject of the same issuer, so that calls can be counted and followed, and tells
nobody without the key who that is. Whoever has the key can look somebody up: HMAC (RFC 2104) with SHA-256.
"""

import hmac
from hashlib import sha256
from typing import NamedTuple

from model import Denied, Reason

SUBJECTS = "AUDIT_SUBJECTS"  # the Worker's variable: plain, which is usual, or pseudonym
KEY = "AUDIT_PSEUDONYM_KEY"  # and its secret
SHORTEST = 32  # characters of the secret
PREFIX = "pseudonym:"


class Names(NamedTuple):
    """How subjects are named in the log. Without a key as they are; with an error nobody can be named."""

    key: bytes | None = None
    error: str = ""

    def of(self, issuer: str, subject: str) -> str:
        """A subject of an issuer, as the log has it. Raises Denied `internal`."""
        if self.error:
            raise Denied(Reason.INTERNAL, self.error)
        return subject if self.key is None else pseudonym(self.key, issuer, subject)


PLAIN = Names()


def pseudonym(key: bytes, issuer: str, subject: str) -> str:
    """`pseudonym:` and 32 hex digits. `issuer`: its id in the policy set."""
    named = f"{issuer}\0{subject}".encode()
    return PREFIX + hmac.digest(key, named, sha256).hex()[:32]


def read_names(subjects: str | None, key: str | None) -> Names:
    """The setting's meaning. One that cannot be followed names nobody: personal data must not slip into a log."""
    if subjects in (None, "", "plain"):
        return PLAIN
    if subjects != "pseudonym":
        return Names(error=f"{SUBJECTS}: expected plain or pseudonym")
    if key is None or len(key.strip()) < SHORTEST:
        return Names(
            error=f"{SUBJECTS} asks for pseudonyms: the secret {KEY} is missing or below {SHORTEST} characters"
        )
    return Names(key.strip().encode("utf-8", "surrogatepass"))  # whatever the secret is made of
