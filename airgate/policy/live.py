"""What is in force on a gate, read from its ledger and its KV as the gate reads it."""

from collections.abc import Callable
from dataclasses import dataclass

from airgate.engine import BUNDLE, SHARD, Bundle, load_bundle, load_shard, pinned
from airgate.environment import Environment
from airgate.policy.ledger import read_ledger
from airgate.policy.policyset import PolicySet


class LiveError(Exception):
    """Nothing that could decide is in force. The message says why."""


@dataclass(frozen=True)
class Live:
    """The bundle in force. Its shards are read one by one: each takes a second."""

    bundle: Bundle
    get: Callable[[str], str | None]

    @classmethod
    def read(cls, env: Environment) -> "Live":
        """Raises LiveError, and as Environment does."""
        ledger = read_ledger(env)
        entry = ledger.in_force
        if entry is None:
            doubt = f" that counts: {ledger.entries[0].doubt}" if ledger.entries else ""
            raise LiveError(
                f"The ledger of {env.name} has no entry{doubt}. Publish: airgate policy publish --env {env.name}"
            )
        return cls._load(env, entry.bundle)

    @classmethod
    def at(cls, env: Environment, version: str) -> "Live":
        """What the log calls that version: bundles stay in KV. Raises LiveError, and as Environment does."""
        found = sorted(env.kv_names(BUNDLE + version))
        if len(found) != 1:
            why = "several bundles that begin so" if found else "no such bundle"
            raise LiveError(f"KV of {env.name} holds {why}: {version}")
        return cls._load(env, found[0].removeprefix(BUNDLE))

    @classmethod
    def _load(cls, env: Environment, digest: str) -> "Live":
        try:
            text = _value(env.kv_get, BUNDLE + digest, "the bundle")
            return cls(load_bundle(pinned(text, digest, "the bundle")), env.kv_get)
        except ValueError as error:
            raise LiveError(f"The gate would refuse what is in KV: {error}") from None

    def policies(self, upstream: str | None) -> tuple[PolicySet, dict[str, str]]:
        """The policies about one upstream, and the text of its shard, if there is one. Raises LiveError."""
        digest = self.bundle.shards.get(upstream) if upstream is not None else None
        if upstream is None or digest is None:
            return PolicySet(self.bundle, {}), {}
        try:
            text = pinned(_value(self.get, SHARD + digest, "the shard"), digest, f"the shard of {upstream}")
            return PolicySet(self.bundle, {upstream: load_shard(text, upstream)}), {upstream: text}
        except ValueError as error:
            raise LiveError(f"The gate would refuse what is in KV: {error}") from None


def _value(get: Callable[[str], str | None], key: str, what: str) -> str:
    text = get(key)
    if text is None:
        raise LiveError(f"KV holds no {key}: {what} is missing. Publish again: airgate policy publish")
    return text.strip()
