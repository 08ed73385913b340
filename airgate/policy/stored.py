"""A policy set as it lies in KV: a bundle, and the shards that it names."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from airgate.engine import BUNDLE, SHARD, pinned
from airgate.environment import Environment, read_all
from airgate.policy import index
from airgate.policy.compile import Compiled
from airgate.policy.decompile import decompile, summaries
from airgate.policy.policyset import PolicySet
from airgate.policy.seed import Seed

LONGEST_LIST = 1000  # names; a local store lists no more, so what is missing from such a list may be there


class StoredError(Exception):
    """KV lacks some of a policy set, or holds something else in its place, or the gate would refuse it."""


def read_stored(env: Environment, digest: str, known: Mapping[str, str] | None = None) -> Compiled:
    """The set whose bundle has that SHA-256; its seed is empty. `known`: texts of shards that need not be read.

    Raises StoredError, and as Environment does.
    """
    text = _whole(env.kv_get(BUNDLE + digest), digest, f"its bundle, {BUNDLE}{digest},")
    bundle: dict[str, Any] = json.loads(text)
    named: dict[str, str] = bundle["shards"]
    have = {each: (known or {})[each] for each in named.values() if each in (known or {})}
    read = read_all(env, [SHARD + each for each in sorted(set(named.values()) - have.keys())])
    for upstream, each in named.items():
        if each not in have:
            have[each] = _whole(read[SHARD + each], each, f"its shard of {upstream}, {SHARD}{each},")
    try:
        engine = PolicySet.load(text, have)
    except ValueError as error:
        raise StoredError(f"the gate would refuse it: {error}") from None
    shards = {upstream: have[each] for upstream, each in named.items()}
    rules = {upstream: index.rules(json.loads(each)) for upstream, each in shards.items()}
    return Compiled(bundle, text, digest, shards, rules, Seed(Path()), engine)


def missing(env: Environment, compiled: Compiled) -> dict[str, str]:
    """What of a set KV lacks, or holds something else in place of: texts by key. Raises as Environment does."""
    wanted = {SHARD + digest: text for digest, text in compiled.stored.items()}
    there = env.kv_names(SHARD)
    lacking = {key: text for key, text in wanted.items() if key not in there}
    if len(there) >= LONGEST_LIST:
        lacking = wanted
    bundle = env.kv_get(BUNDLE + compiled.sha256)
    if bundle is None or bundle.strip() != compiled.text:
        lacking[BUNDLE + compiled.sha256] = compiled.text
    return lacking


def alike(before: Compiled, after: Compiled) -> tuple[Compiled, Compiled]:
    """Both with seeds in the same words, so that what differs between them differs in meaning.

    Of a member of issuers or upstreams that only one of their formats has, nothing is said. `after` knows descriptions.
    """
    descriptions = summaries(before.rules) | summaries(after.rules)
    descriptions |= {
        f"{noun} {name}": str(entry.data["description"])
        for noun, entries in (("policy", after.seed.policies), ("role", after.seed.roles))
        for name, entry in entries.items()
    }
    documents = [dict(before.bundle), dict(after.bundle)]
    for section in ("issuers", "upstreams"):
        one, other = (document[section] for document in documents)
        for document in documents:
            document[section] = {
                name: {
                    member: value
                    for member, value in each.items()
                    if member in one.get(name, each) and member in other.get(name, each)
                }
                for name, each in document[section].items()
            }
    old, new = (
        replace(compiled, seed=decompile(document, compiled.rules, descriptions))
        for compiled, document in zip((before, after), documents, strict=True)
    )
    return old, new


def _whole(text: str | None, digest: str, what: str) -> str:
    if text is None:
        raise StoredError(f"{what} is not in KV")
    try:
        return pinned(text.strip(), digest, what)
    except ValueError:
        raise StoredError(f"{what} is not what it was: its hash is another") from None
