"""What upstreams' settings give away, or leave undone: secrets that stand in policy or go to two hosts, credentials
that nobody uses, settings that don't go together.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from airgate.engine import HELD
from airgate.policy import limits
from airgate.policy.addresses import authority
from airgate.policy.finding import Finding
from airgate.policy.rules import upstreams as upstreams_of
from airgate.policy.seed import Entry, Keys, Seed
from airgate.policy.upstreams import CONTACTS, usual_credential
from airgate.policy.words import either, quoted

# Words without white space, as long as keys are. Below this many bits a character, it is text or a number.
_WORD = re.compile(r"[A-Za-z0-9+_.~=-]{20,}")
_BITS = 3.5
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")  # names things far more often
_SCHEME = re.compile(r"(?i)(bearer|basic|token|apikey)\s+(?!\{)\S")
_KNOWN = re.compile(r"(AKIA|ASIA|eyJ|gh[pousr]_|glpat-|sk_live_|sk-|xox[abp]-|-----BEGIN)")


def exposure(seed: Seed) -> Iterator[Finding]:
    """Findings and notes about all upstreams of a valid seed."""
    yield from _shared(seed)
    named: dict[str, set[str]] = {}
    for policy in (entry.data for entry in seed.policies.values()):
        if name := policy.get("obligations", {}).get("credential"):
            for upstream in upstreams_of(policy):
                named.setdefault(upstream, set()).add(name)
    for upstream, entry in seed.upstreams.items():
        yield from _written_out(entry)
        yield from _idle(entry, named.get(upstream, set()))
        for name, data in entry.data.get("credentials", {}).items():
            yield from _of_credential(entry, ("credentials", name), data)


def _shared(seed: Seed) -> Iterator[Finding]:
    """A secret that goes to two hosts: each of them could use it at the other."""
    first: dict[str, tuple[str, Entry]] = {}
    for entry in seed.upstreams.values():
        for name, data in entry.data.get("credentials", {}).items():
            host = _receiver(entry, data)
            if host is None:
                continue
            before, where = first.setdefault(data["secret"], (host, entry))
            if before != host:
                text = (
                    f"{quoted(data['secret'])}: goes to {host}, and by {where.place} to {before}; each could use it "
                    "at the other, so give each host a secret of its own"
                )
                yield _at(entry, ("credentials", name, "secret"), "shared-secret", text)


def _receiver(entry: Entry, data: dict[str, Any]) -> str | None:
    """The host that a credential's secret itself is sent to. None: it only signs, or there is none."""
    kind: str = data["kind"]
    if kind in ("header", "basic"):
        return authority(entry.data["base"])
    if kind in ("client_credentials", "login"):
        return authority(data[CONTACTS[kind]])
    return None


def _written_out(entry: Entry) -> Iterator[Finding]:
    """What looks like a secret: policy is read by many, and kept for ever."""
    texts: list[tuple[Keys, str]] = [
        (("set_headers", name), value) for name, value in entry.data.get("set_headers", {}).items()
    ]
    for name, data in entry.data.get("credentials", {}).items():
        keys: Keys = ("credentials", name)
        texts += [((*keys, "format"), data["format"])] if "format" in data else []
        texts += [((*keys, "fields", field), value) for field, value in data.get("fields", {}).items()]
    for keys, text in texts:
        if looks_secret(text):
            advice = "put it into a Worker's secret, and its name under credentials"
            yield _at(entry, keys, "secret", f"looks like a secret that is written out; {advice}")


def looks_secret(text: str) -> bool:
    """Whether a value, less the places where secrets are put, looks like one."""
    if _SCHEME.search(text) or _KNOWN.search(text):
        return True
    bare = text.replace("{secret}", " ").replace("{token}", " ")
    return any(_random(word) for word in _WORD.findall(bare) if not _UUID.fullmatch(word))


def _random(word: str) -> bool:
    """Letters and digits without a pattern."""
    counts = Counter(word).values()
    bits = -sum(count / len(word) * math.log2(count / len(word)) for count in counts)
    return bits >= _BITS and any(map(str.isdigit, word)) and any(map(str.isalpha, word))


def _idle(entry: Entry, named: set[str]) -> Iterator[Finding]:
    """Credentials that no call can use, and calls that none is used for."""
    credentials = entry.data.get("credentials", {})
    usual = usual_credential(entry.data)
    for name in credentials:
        if name != usual and name not in named:
            text = "no call uses this credential: no policy asks for it, and it isn't the usual one"
            keys = (*entry.keys, "credentials", name)
            yield Finding(entry.source.problem(keys, text, at_key=True), "unused-credential", "", note=True)
    if credentials and usual is None:
        text = (
            f"calls whose permits name none of {either(credentials)} go without a credential; "
            "credential: NAME says which is the usual one"
        )
        yield _at(entry, ("credentials",), "no-credential", text, note=True)


def _of_credential(entry: Entry, keys: Keys, data: dict[str, Any]) -> Iterator[Finding]:
    if data["kind"] == "caller":
        text = (
            "the caller's own Authorization passes only where its identity comes in Airgate-Token; "
            "without that header, Authorization is for the gate, and goes no further"
        )
        yield _at(entry, (*keys, "kind"), "caller-credential", text, note=True)
    if data["kind"] == "sigv4" and data.get("payload", "signed") == "signed":
        most = entry.data.get("max_body")
        if most is None or limits.size(most) > HELD:
            shown = f"{quoted(most)}: " if most is not None else ""
            text = (
                f"{shown}a body is held whole to be signed, so a longer one than {limits.written(HELD)} is refused; "
                'write "payload: unsigned" if the service takes it, or max_body: 1MB'
            )
            place: Keys = ("max_body",) if most is not None else (*keys, "kind")
            yield _at(entry, place, "signed-body", text, note=most is None)


def _at(entry: Entry, keys: Keys, code: str, text: str, *, note: bool = False) -> Finding:
    return Finding(entry.problem(keys, text), code, "", note)
