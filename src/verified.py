"""Tokens that this isolate has verified: at most 2,048 of them, in at most 4 MB.

A token is found by its whole text. It is forgotten with `exp`, with the key that verified it, and with the policy under
which it was verified, issuers' settings included. What holds for one request only, a DPoP proof, is no part of this.
"""

import sys
from typing import Any

import audit
from dpop import Binding, Proof
from identity import SAID, Shared, act
from keys import Key, Keyring
from model import Caller, Identity
from pseudonym import PLAIN, Names

GENERATION = 1024  # tokens in each of two generations
MOST = 2_000_000  # bytes, about, in each
MOST_ACTING = 8  # combinations of role tag and context remembered for one token
LONGEST = 1024  # characters of what the audit line says of one; longer ones are not remembered

# What Python takes for them on 64 bits, measured; a Worker's are 32. A text has up to four bytes a character.
_EACH = 1_000
_ACTING = 1_200
_BOUND = 2_000
_TEXT = 90


class Seen:
    """A token whose signature and claims have been checked."""

    __slots__ = ("_acting", "acting", "binding", "identity", "key", "keyring", "until", "weight")

    def __init__(
        self,
        token: str,
        identity: Identity,
        until: float,
        key: Key,
        keyring: Keyring,
        binding: Binding | None,
    ) -> None:
        self.identity = identity
        self.until = until  # seconds since the epoch
        self.key = key
        self.keyring = keyring
        self.binding = binding  # to a key: then every request brings a proof of it
        # As what the identity has acted, by the headers that say so, each with the audit line's part about it.
        self.acting: dict[tuple[str | None, ...], tuple[Caller, str]] = {}
        self._acting = 0  # bytes of these, about
        self.weight = _EACH + len(token) + _weight(identity) + (_BOUND if binding is not None else 0)

    def acts(self, headers: dict[str, str], names: Names = PLAIN) -> tuple[Caller, str]:
        """The caller under this request's role tag and context. The same headers give the same caller."""
        said = tuple([headers.get(name) for name in SAID])
        known = self.acting.get(said)
        if known is None:
            caller = act(self.identity, headers)
            known = (caller, audit.describe(caller, names))
            if len(known[1]) <= LONGEST:
                self._remember(said, known)
        return known

    def _remember(self, said: tuple[str | None, ...], known: tuple[Caller, str]) -> None:
        if len(self.acting) >= MOST_ACTING:
            self.acting.clear()
            self.weight -= self._acting
            self._acting = 0
        self.acting[said] = known
        weight = _ACTING + 3 * len(known[1])
        self._acting += weight
        self.weight += weight

    def proved(self, proof: Proof) -> None:
        """Note that a proof of the key was right: its header need not be read again."""
        if self.binding is not None and self.binding.header != proof.header:
            self.weight += 2 * (len(proof.header) - len(self.binding.header))
            self.binding.keep(proof)


def _weight(identity: Identity) -> int:
    roles = sys.getsizeof(identity.granted)
    if not isinstance(identity.unknown, Shared):
        roles += sys.getsizeof(identity.unknown)
    texts: list[Any] = [
        identity.subject,
        identity.actor or "",
        identity.actor_issuer or "",
        identity.token_id or "",
        identity.session or "",
    ]
    for values in identity.claims.values():
        texts += values
    for fact in identity.attested.values():
        texts += [fact.value] if isinstance(fact.value, str) else fact.value
    if (exchanged := identity.exchanged) is not None:
        texts += [*exchanged.parents, *exchanged.roles]
        roles += sum([_EACH + _weight(alone.identity) for _, alone in exchanged.alone])
    return roles + sum([_TEXT + 4 * len(text) for text in texts])


class Verified:
    """The tokens, in two generations: the older half goes at once, and none is searched for."""

    def __init__(self, names: Names = PLAIN) -> None:
        self._names = names
        self._young: dict[str, Seen] = {}
        self._old: dict[str, Seen] = {}
        self._weight = 0  # of the young ones

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def recall(self, token: str, now: float) -> Seen | None:
        """A token verified before, if it is still valid and its key still the issuer's."""
        seen = self._young.get(token)
        if seen is None:
            seen = self._old.get(token)
            if seen is None:
                return None
            self.keep(token, seen)
        if now < seen.until and seen.keyring.usable(now) and seen.keyring.holds(seen.key):
            return seen
        self._young.pop(token, None)
        self._old.pop(token, None)
        return None

    def keep(self, token: str, seen: Seen) -> None:
        """Remember a token."""
        if len(self._young) >= GENERATION:
            self._age()
        self._young[token] = seen
        self._grew(seen.weight)

    def acts(self, seen: Seen, headers: dict[str, str]) -> tuple[Caller, str]:
        """As `Seen.acts`, and what that adds counts. Raises Denied."""
        weight = seen.weight
        acting = seen.acts(headers, self._names)
        if seen.weight != weight:
            self._grew(seen.weight - weight)
        return acting

    def proved(self, seen: Seen, proof: Proof) -> None:
        """As `Seen.proved`, and what that adds counts."""
        weight = seen.weight
        seen.proved(proof)
        self._grew(seen.weight - weight)

    def _grew(self, weight: int) -> None:
        self._weight = max(0, self._weight + weight)
        if self._weight > MOST:
            self._age()

    def _age(self) -> None:
        self._old, self._young, self._weight = self._young, {}, 0
