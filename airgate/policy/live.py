"""What is in force on the local stack, read from its KV as the gate reads it."""

from collections.abc import Callable
from dataclasses import dataclass

from airgate.engine import BUNDLE, POINTER, SHARD, Bundle, load_bundle, load_pointer, load_shard, pinned
from airgate.policy.policyset import PolicySet

Get = Callable[[str], str | None]  # the value of a key in KV


class LiveError(Exception):
    """Nothing that could decide is in force. The message says why."""


@dataclass(frozen=True)
class Live:
    """The bundle in force. Its shards are read one by one: each takes a second."""

    bundle: Bundle
    get: Get

    @classmethod
    def read(cls, get: Get) -> "Live":
        """Raises LiveError."""
        try:
            pointer = load_pointer(_value(get, POINTER, "the pointer"))
            text = _value(get, BUNDLE + pointer.bundle, "the bundle")
            return cls(load_bundle(pinned(text, pointer.bundle, "the bundle")), get)
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


def _value(get: Get, key: str, what: str) -> str:
    text = get(key)
    if text is None:
        raise LiveError(f"KV holds no {key}: {what} is missing. Publish: airgate policy publish --local")
    return text.strip()
