"""A policy set that decides calls: a bundle and its shards, with the gate's own code."""

from collections.abc import Mapping
from dataclasses import dataclass

from airgate.engine import EMPTY, Bundle, Call, Decision, Shard, load_bundle, load_shard, pinned


@dataclass(frozen=True)
class PolicySet:
    """Everything that a gate would hold, had it been asked about every upstream."""

    bundle: Bundle
    shards: dict[str, Shard]  # by upstream

    @classmethod
    def load(cls, bundle: str, shards: Mapping[str, str]) -> "PolicySet":
        """Read a bundle's text, and the shards that it names, by the SHA-256 of their text.

        Raises ValueError where something is missing, has another hash, or would be refused by the gate.
        """
        read = load_bundle(bundle)
        held = {}
        for upstream, digest in read.shards.items():
            if digest not in shards:
                raise ValueError(f"the shard of {upstream} is missing")
            held[upstream] = load_shard(pinned(shards[digest], digest, f"the shard of {upstream}"), upstream)
        return cls(read, held)

    def decide(self, call: Call) -> Decision:
        """What policy says of a call: with the bundle's version, and with whom to ask where no policy decided."""
        decision = self.shards.get(call.target.upstream, EMPTY).decide(call)
        upstream = self.bundle.upstreams.get(call.target.upstream)
        owner = upstream.owner if decision.owner is None and upstream is not None else decision.owner
        return decision._replace(bundle=self.bundle.version, owner=owner)
