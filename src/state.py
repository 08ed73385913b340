"""What one isolate remembers between requests: the policy in force, issuers' keys, tokens it has verified.

Plain values only, every one bounded. Nothing here may be awaited by a request other than the one that began it.
"""

import gc
from collections.abc import Coroutine
from typing import Any, Protocol

import assertion
import audit
import credential
import journal
import telemetry
from assertion import AssertionKeys
from breaker import Health
from bundle import Bundle, Issuer, Pointer, load_bundle, pinned
from dpop import Replays
from gatetoken import Own
from journal import Journal
from keys import Keyring
from minted import Minted
from model import Denied, Reason
from shard import EMPTY, Shard, load_shard
from telemetry import Telemetry
from trust import VARIABLE
from verified import Seen, Verified
from view import Store as Database
from view import View

SLOW = 5.0  # seconds that a read nobody waits for, or everybody must wait for, may take
AGAIN = 1.0  # seconds between two tries while there is no policy at all
MOST_WORK = 10.0  # seconds behind an answer after which no export is begun
WARN = 90 * 86_400.0  # seconds before the end of the time zones' offsets
MOST_KEPT = 10_000_000  # characters of shards, about ten bytes of memory each; above, the one read first goes

BUNDLE = "policy/bundle/"
SHARD = "policy/shard/"


class Store(Database, Protocol):
    """Where policy comes from, and where the isolate reports what it found."""

    def defer(self, work: Coroutine[Any, Any, Any]) -> None: ...
    async def last(self, work: Coroutine[Any, Any, bool]) -> bool:
        """Run work to its end, and wait for it. It goes on when the caller hangs up."""


class Reporting(journal.Ports, telemetry.Ports, Protocol):
    """What is done behind answers, for whoever looks on."""


class Secrets(Protocol):
    """The Worker's secrets."""

    def secret(self, name: str) -> str:
        """Raises LookupError when there is none of that name."""


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _place(bundle: Bundle | None, name: str) -> tuple[str, str | None] | None:
    """Where an upstream is; None for one that is not there."""
    upstream = bundle.upstreams.get(name) if bundle is not None else None
    return None if upstream is None else (upstream.base, upstream.via)


def _settle() -> None:
    """A policy set stays until the next one: the collector need not walk it again and again."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


class State:
    """One isolate's memory."""

    def __init__(self) -> None:
        self.bundle: Bundle | None = None
        self.pointer: Pointer | None = None
        self.view = View()
        self.error = ""  # what is wrong with the view or the newest policy; empty when nothing is
        self._shards: dict[
            str, Shard
        ] = {}  # by their hash, so that a new bundle finds those that have not changed
        self._missed: dict[str, tuple[float, str]] = {}  # shards that could not be read: when, and why
        self._keyrings: dict[str, Keyring] = {}
        self._healths: dict[str, Health] = {}
        self.telemetry = Telemetry()
        self.minted = Minted(self.telemetry.counters)
        self._assertion: AssertionKeys | ValueError | None = None
        self._own: Own | bool = False  # True: there is none
        self.proofs = Replays()
        self.verified = Verified()
        self.journal = Journal()

    def begin(self, ports: journal.Ports) -> None:
        """Open the audit log, with the isolate's first request. Never raises."""
        self.journal.begin(ports)
        self.view.names = self.journal.names
        self.verified = Verified(self.journal.names)

    async def settle(self, wait: float, ports: Reporting) -> None:
        """Sign, register and store what is on record, then tell who wants to know. Never raises."""
        journal, begun = self.journal, ports.now()
        await journal.settle(wait, ports)
        if ports.now() - begun < wait + MOST_WORK:  # the runtime ends what goes on for 30 s behind an answer
            instance = journal.chain.id if journal.chain is not None else ""
            await self.telemetry.export(ports, instance, journal.sinks)

    def fresh(self, now: float) -> bool:
        """True while the view has been looked at so lately that nothing is to be done."""
        return self.bundle is not None and self.view.fresh(now)

    async def current(self, store: Store) -> Bundle:
        """The policy in force, with a view that is not too old.

        Raises Denied `state.stale` when its view is too old, or it has none yet, and `policy.unavailable` when it has
        a view but never had a policy. No request waits for another's reading: each that needs a newer view reads for
        itself.
        """
        now, view = store.now(), self.view
        if self.bundle is None:
            if not (self.error and now - view.asked_at < AGAIN):
                await store.last(self.refresh(store, SLOW))
        elif not view.fresh(now):
            late = False  # whether more time would have helped, for the bundle perhaps
            if now - view.read_at > view.ages.wait and now - view.failed_at > view.ages.refresh:
                late = await store.last(self.refresh(store, SLOW if view.stale(now) else view.ages.patience))
            now = store.now()
            if (late or not view.fresh(now)) and now - view.deferred_at > view.ages.refresh:
                # Behind this answer a reading may take its time. Claimed before it begins: others use what is here.
                view.asked_at = view.deferred_at = now
                store.defer(self.refresh(store, SLOW))
        if view.stale(store.now()):
            raise Denied(Reason.STATE_STALE, self.error)
        if self.bundle is None:
            raise Denied(Reason.POLICY_UNAVAILABLE, self.error)
        return self.bundle

    async def refresh(self, store: Store, timeout: float) -> bool:
        """Read the view, and the bundle if it is another. Keeps the one in force when that fails. Never raises.

        Returns whether it ran out of time, so that a longer try might do.
        """
        view, begun = self.view, store.now()
        view.asked_at = begun
        end = begun + timeout
        try:
            pointer, error = await view.read(store, timeout)
            if pointer is None:
                raise ValueError(error or "no policy has been published")
            # A rollback is an old bundle under a new number. After each wait another request may have read this
            # pointer, or a newer one.
            if self._newer(pointer):
                text = await store.kv(BUNDLE + pointer.bundle, max(0.05, end - store.now()))
                if text is None:
                    raise ValueError("the bundle that the pointer names is not there (yet)")
                if self._newer(pointer):
                    bundle = load_bundle(pinned(text, pointer.bundle, "the bundle"))
                    shards = await self._successors(bundle, store, end)
                    if self._newer(pointer):
                        self._install(bundle, shards, pointer)
                        self._tell(store, "loaded", "", pointer)
        except (OSError, ValueError, RecursionError) as failure:
            if view.read_at < begun:
                view.failed_at = store.now()
            self._complain(store, _message(failure))
            return isinstance(failure, TimeoutError)
        self._complain(store, error)
        return False

    def _complain(self, store: Store, error: str) -> None:
        if error and error != self.error:
            self._tell(store, "refused", error)
        self.error = error

    def _tell(self, store: Store, result: str, detail: str, pointer: Pointer | None = None) -> None:
        by, of = ("", None) if pointer is None else (pointer.by, pointer.of)
        store.log(audit.bundle_event(store.now(), result, detail, self.version, self.sequence, by, of))

    def _newer(self, pointer: Pointer) -> bool:
        return self.pointer is None or pointer.sequence > self.pointer.sequence

    async def _successors(self, bundle: Bundle, store: Store, end: float) -> dict[str, Shard]:
        """The shards that take the place of those in use: a new policy comes into force whole, or not at all."""
        used = [
            upstream
            for upstream, digest in (self.bundle.shards.items() if self.bundle is not None else ())
            if digest in self._shards
        ]
        shards = {}
        for upstream in used:
            digest = bundle.shards.get(upstream)
            if digest is not None and digest not in self._shards:
                shards[digest] = await self._read_shard(digest, upstream, store, max(0.05, end - store.now()))
        return shards

    def held(self, bundle: Bundle, upstream: str) -> Shard | None:
        """The shard of an upstream, if it is here or there is nothing to be read."""
        digest = bundle.shards.get(upstream)
        return EMPTY if digest is None else self._shards.get(digest)

    async def shard(self, bundle: Bundle, upstream: str, store: Store) -> Shard:
        """The shard of an upstream, read when it is first asked for. Raises Denied `policy.unavailable`."""
        held = self.held(bundle, upstream)
        if held is not None:
            return held
        digest, now = bundle.shards[upstream], store.now()
        missed = self._missed.get(digest)
        if missed is None or now - missed[0] >= AGAIN:
            try:
                shard = await self._read_shard(digest, upstream, store, SLOW)
            except (OSError, ValueError, RecursionError) as error:
                missed = self._missed[digest] = (store.now(), _message(error))
                store.log(audit.bundle_event(missed[0], "refused", missed[1], bundle.version, self.sequence))
            else:
                if self.bundle is bundle:
                    self._missed.pop(digest, None)
                    self._keep_shard(digest, shard)
                return shard
        raise Denied(Reason.POLICY_UNAVAILABLE, missed[1])

    async def _read_shard(self, digest: str, upstream: str, store: Store, timeout: float) -> Shard:
        """Raises OSError and ValueError."""
        text = await store.kv(SHARD + digest, timeout)
        held = self._shards.get(digest)
        if held is not None:  # another request has read it while this one waited
            return held
        if text is None:
            raise ValueError(f"the shard of {upstream} is not there (yet)")
        return load_shard(pinned(text, digest, f"the shard of {upstream}"), upstream)

    def _keep_shard(self, digest: str, shard: Shard) -> None:
        self._shards[digest] = shard
        self._make_room()

    def _make_room(self) -> None:
        while len(self._shards) > 1 and sum([one.size for one in self._shards.values()]) > MOST_KEPT:
            del self._shards[next(iter(self._shards))]
        _settle()

    def _install(self, bundle: Bundle, shards: dict[str, Shard], pointer: Pointer) -> None:
        before, self.bundle, self.pointer = self.bundle, bundle, pointer
        named = frozenset(bundle.shards.values())
        self._shards = {digest: shard for digest, shard in (self._shards | shards).items() if digest in named}
        self._missed = {}
        self.verified = Verified(self.journal.names)  # roles and rules may have changed
        sources = {issuer.source for issuer in bundle.issuers.values()}
        self._keyrings = {issuer: ring for issuer, ring in self._keyrings.items() if ring.source in sources}
        self._healths = {
            name: health
            for name, health in self._healths.items()
            if _place(before, name) == _place(bundle, name)
        }
        self._make_room()

    @property
    def version(self) -> str | None:
        return self.bundle.version if self.bundle else None

    @property
    def sequence(self) -> int | None:
        return self.pointer.sequence if self.pointer else None

    def report(self, now: float) -> dict[str, Any]:
        """What is in force and how fresh, for health: ages in seconds, None where there is nothing yet."""
        return {
            "bundle": {
                "version": self.version,
                "sequence": self.sequence,
                "age": round(now - self.pointer.published_at) if self.pointer else None,
                "by": (self.pointer.by or None) if self.pointer else None,
                "error": self.error or None,
                "zones_until": self.bundle.zones_until if self.bundle else None,
            },
            "view": self.view.report(now),
            "audit": self.journal.report(now),
            "telemetry": self.telemetry.report(self.journal.sinks),
            "shards": {
                upstream: self._shard_report(digest)
                for upstream, digest in (self.bundle.shards.items() if self.bundle else ())
            },
            "circuits": {  # of the upstreams that this isolate holds calls back from
                name: circuit
                for name, health in self._healths.items()
                if (circuit := health.circuit(now)) != "closed"
            },
            "warnings": self._warnings(now),
            "issuers": {
                issuer.mapping.id: self._keys_report(issuer, now)
                for issuer in (self.bundle.issuers.values() if self.bundle else ())
            },
        }

    def _shard_report(self, digest: str) -> dict[str, Any]:
        shard = self._shards.get(digest)
        return {
            "policies": shard.policies if shard is not None else None,  # None: not asked for yet
            "error": self._missed[digest][1] if digest in self._missed else None,
        }

    def _warnings(self, now: float) -> list[str]:
        until = self.bundle.zones_until if self.bundle is not None else None
        warnings = []
        if until is not None and now >= until - WARN:
            told = audit.timestamp(until)
            warnings.append(f"time zones are known until {told} only: publish the policy again")
        if self.view.trusted is None:
            warnings.append(f"no {VARIABLE}: whoever can write D1 can change policy")
        warnings += self.view.sessions.warnings(now)
        if self.telemetry.warning:
            warnings.append(self.telemetry.warning)
        return warnings + self.journal.warnings()

    def _keys_report(self, issuer: Issuer, now: float) -> dict[str, Any]:
        ring = self.keyring(issuer)
        return {
            "keys": len(ring.keys),
            "age": round(now - ring.fetched_at) if ring.keys else None,
            "error": ring.error or None,
        }

    def keyring(self, issuer: Issuer) -> Keyring:
        name = issuer.source.issuer
        ring = self._keyrings.get(name)
        if ring is None or ring.source != issuer.source:
            ring = self._keyrings[name] = Keyring(issuer.source)
        return ring

    def assertion_keys(self, secrets: Secrets) -> AssertionKeys:
        """What assertions are signed with. Raises Denied `upstream.credential`."""
        if self._assertion is None:
            text = credential.read(assertion.SECRET, secrets.secret)
            try:
                self._assertion = assertion.read_keys(text)
            except ValueError as error:  # it stays as it is for as long as this isolate lives
                self._assertion = error
        if isinstance(self._assertion, ValueError):
            raise Denied(Reason.UPSTREAM_CREDENTIAL, f"{assertion.SECRET}: {self._assertion}")
        return self._assertion

    def own(self, secrets: Secrets) -> Own | None:
        """The keys by which the gate knows its own tokens; None where it has none. They are the same for good."""
        if self._own is False:
            try:
                self._own = Own(self.assertion_keys(secrets))
            except Denied:
                self._own = True
        return self._own if isinstance(self._own, Own) else None

    def health(self, upstream: str) -> Health:
        """What this isolate knows of an upstream that is in force."""
        health = self._healths.get(upstream)
        if health is None:
            health = self._healths[upstream] = Health()
        return health

    def remember(self, token: str, seen: Seen, bundle: Bundle) -> None:
        """Keep a token verified under a bundle, unless another is in force by now: its roles may be others."""
        if bundle is self.bundle:
            self.verified.keep(token, seen)
