"""What a provider publishes, read by the gate's own code: its discovery document and its keys."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from airgate.engine import KEYS_LIMIT, Issuer, Keyring, read_key, read_object, refuse_foreign
from airgate.issuer.document import Document, Documents

TWICE = "another key has the same kid, so neither is used"


@dataclass(frozen=True)
class Member:
    """One key of the published set."""

    kid: str | None
    algorithms: tuple[str, ...]  # those that it is for; none when it isn't used
    why_not: str  # why the gate leaves it out; empty when it doesn't


@dataclass(frozen=True)
class Provider:
    """One issuer of policy, and what its provider answered."""

    issuer: Issuer
    keyring: Keyring  # as a gate would hold it now
    discovery: Document | None  # None: policy says where the keys are, so it isn't asked
    metadata: dict[str, Any]  # what the discovery document says; empty when it can't be read
    unreadable: str  # why that document, or the key set, isn't the JSON that it should be
    keys: Document | None  # None: discovery didn't lead there
    members: tuple[Member, ...]

    @property
    def documents(self) -> list[Document]:
        """What was fetched."""
        return [document for document in (self.discovery, self.keys) if document is not None]


async def ask(issuer: Issuer, now: float) -> Provider:
    """Fetch an issuer's keys as a gate does that has none yet. Never raises: what went wrong is among the answers."""
    keyring, fetch = Keyring(issuer.source), Documents()
    await keyring.refresh(fetch, now)
    fetched = list(fetch.fetched)
    discovery = fetched.pop(0) if issuer.source.jwks_uri is None else None
    keys = fetched[0] if fetched else None
    metadata: dict[str, Any] = {}
    members: tuple[Member, ...] = ()
    unreadable = ""
    try:
        if discovery is not None and not discovery.error:
            metadata = read_object(discovery.body, limit=KEYS_LIMIT)
        if keys is not None and not keys.error:
            members = _members(keyring, read_object(keys.body, limit=KEYS_LIMIT).get("keys"))
    except ValueError as error:
        unreadable = str(error)
    return Provider(issuer, keyring, discovery, metadata, unreadable, keys, members)


def _members(keyring: Keyring, published: Any) -> tuple[Member, ...]:
    """Each key with what the gate thinks of it. `keyring` is what came of them all."""
    members = published if isinstance(published, list) else []
    held = Counter(key.kid for key in keyring.keys)
    found = []
    for member in members:
        kid = member.get("kid") if isinstance(member, dict) else None
        kid = kid if isinstance(kid, str) else None
        try:
            refuse_foreign(member, keyring.source.issuer)
            key = read_key(member)
        except ValueError as error:
            found.append(Member(kid, (), str(error)))
            continue
        used = held[key.kid] > 0 and any(each.same(key) for each in keyring.keys if each.kid == key.kid)
        found.append(Member(kid, tuple(sorted(key.algorithms)) if used else (), "" if used else TWICE))
    return tuple(found)
