"""The policy set that a gate decides by, read from its stores: what commands look up before they change access."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from airgate.engine import SHARD, Bundle, pinned
from airgate.environment import Environment, EnvironmentMissing, read_all
from airgate.node import NodeMissing, WranglerFailed
from airgate.policy.index import Rule, rules
from airgate.policy.live import Live, LiveError


class NotReadable(Exception):
    """What is in force can't be told. The message says why."""


@dataclass(frozen=True)
class InForce:
    """A bundle, without its shards."""

    bundle: Bundle
    env: Environment

    @classmethod
    def read(cls, env: Environment) -> "InForce":
        """Raises NotReadable."""
        try:
            return cls(Live.read(env).bundle, env)
        except (LiveError, NodeMissing, WranglerFailed, EnvironmentMissing) as error:
            raise NotReadable(str(error)) from None

    @property
    def issuers(self) -> dict[str, str]:
        """The exact `iss` of each issuer, by its id in policy."""
        return {issuer.mapping.id: iss for iss, issuer in self.bundle.issuers.items()}

    def attests(self, name: str) -> list[str]:
        """The ids of the issuers whose tokens say it of a task: `dag`, `run`."""
        return sorted(
            issuer.mapping.id
            for issuer in self.bundle.issuers.values()
            if name in dict(issuer.mapping.attested)
        )

    def policies(self) -> dict[str, tuple[Rule, list[str]]]:
        """Every policy by its id, and the upstreams it is about. Reads all shards. Raises NotReadable."""
        found: dict[str, tuple[Rule, list[str]]] = {}
        try:
            for upstream, rule in self._rules():
                found.setdefault(rule.id, (rule, []))[1].append(upstream)
        except (NodeMissing, WranglerFailed, ValueError, KeyError, TypeError) as error:
            raise NotReadable(str(error)) from None
        return found

    def _rules(self) -> Iterator[tuple[str, Rule]]:
        texts = read_all(self.env, [SHARD + digest for digest in self.bundle.shards.values()])
        for upstream, digest in sorted(self.bundle.shards.items()):
            text = pinned((texts[SHARD + digest] or "").strip(), digest, f"the shard of {upstream}")
            for rule in rules(json.loads(text)):
                yield upstream, rule
