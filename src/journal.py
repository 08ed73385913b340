"""One isolate's audit log: a chain of lines, checkpoints of it that are signed and registered, and batches for R2.

A line is written at once, and it is on record from then on. Everything else is done behind an answer, by the request
that wrote the first line which no checkpoint covers yet: it waits a while for others, signs how far the chain has come,
writes that into the log, marks it in the register (D1), and stores the lines of that time as an object, where somebody
wants that. Whatever of it fails is counted and tried again with the next lines. No call waits for it, or fails by it.
"""

import json
import math
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol

import assertion
import audit
import pseudonym
from chain import CHECKPOINT, Chain
from document import read_object
from model import Denied
from pseudonym import PLAIN, Names
from signing import SigningKey, base64url, read_secret
from trust import ALGORITHM, VARIABLE, pae

KEY = "AUDIT_KEY"  # the Worker's secret: a private Ed25519 JWK with its `kid`
EVENTS, SECONDS = "AUDIT_EVENTS", "AUDIT_SECONDS"  # variables: after how many lines, or how long, to sign
USUAL_EVENTS, USUAL_SECONDS = 4000, 10.0
LONGEST_SECONDS = 10.0  # the runtime ends what goes on for 30 s behind an answer
TIMEOUT = 2.0  # seconds for D1, and for R2
LONGEST_WORK = 8.0  # seconds after which no other step is begun
GRACE = 18.0  # seconds after which work that should be over counts as lost
MOST_KEPT = 4_000_000  # characters of lines that wait for R2
MOST_KIDS = 16
LONGEST_NAME = 128  # characters of the gate's name: a checkpoint holds it, and is never cut

REGISTER = """
INSERT INTO chains (chain, opened_at, keys, position, document, key, signature)
SELECT ?1, ?2, ?3, -1, '', '', '' WHERE NOT EXISTS (SELECT 1 FROM chains WHERE chain = ?1)
RETURNING CAST(number AS TEXT) AS value
"""  # not ON CONFLICT, which uses a number up where the row is there: a gap
REGISTERED = "SELECT CAST(number AS TEXT) AS value FROM chains WHERE chain = ?1"
FORMER = "SELECT keys AS value FROM chains WHERE number < ?1 ORDER BY number DESC LIMIT 1"
MARK = """
UPDATE chains SET position = ?3, document = ?4, key = ?5, signature = ?6
WHERE chain = ?1 AND number = ?2 AND position < ?3 RETURNING CAST(number AS TEXT) AS value
"""
MARKED = "SELECT CAST(position AS TEXT) AS value FROM chains WHERE chain = ?1 AND number = ?2"


class Ports(Protocol):
    """What the journal needs of the outside world."""

    def now(self) -> float: ...
    def log(self, line: str) -> None: ...
    def secret(self, name: str) -> str: ...
    def location(self) -> str | None:
        """Where this isolate runs, such as FRA; None when the runtime does not say."""

    async def sleep(self, seconds: float) -> None: ...
    async def sign(self, key: SigningKey, data: bytes) -> bytes: ...
    async def database(self, sql: str, values: tuple[int | str, ...], timeout: float) -> str | None: ...
    def stores(self) -> bool:
        """Whether there is a bucket for batches."""

    async def store(self, name: str, text: str, timeout: float) -> None:
        """Put an object into the bucket. Raises OSError."""


class Journal:
    """The lines of one isolate, from its first request on."""

    def __init__(self) -> None:
        self.chain: Chain | None = None
        self.worker = audit.NOWHERE  # the part of every decision that says where it was made
        self.names: Names = PLAIN
        self.gate = ""
        self.number: int | None = None  # of the chain in the register
        self.error = ""  # of what was tried last
        self.failed = {"sign": 0, "register": 0, "r2": 0}
        self.stored = {"objects": 0, "lines": 0, "lost": 0}
        self._events, self._seconds = USUAL_EVENTS, USUAL_SECONDS
        self._key: SigningKey | None = None
        self._key_error = ""
        self._settings_error = ""
        self._keys = "{}"  # ids of the keys that this isolate has, for the register
        self._compared = False  # whether these have been compared with those of the chain before
        self._signed: tuple[int, float] | None = None  # position and time of the last checkpoint
        self._told = 0  # lines, not counting checkpoints: those would ask for another one, for ever
        self._tried: int | None = None  # how many of them the last try for a checkpoint was about
        self._covered = 0  # and how many the last one covers that did not fail
        self._missed = -1  # as many lines there were when the register's row was found to be gone
        self._later = -math.inf  # until when somebody waits with a checkpoint
        self._at_once = -math.inf  # until when somebody makes one
        self._batch: list[str] | None = None  # lines for R2; None: nobody wants them
        self._size = 0  # characters of these
        self._gone = 0  # lines that have left the batch
        self._storing = -math.inf  # until when somebody stores some
        self._again = False  # whether there is more to be stored behind that
        self._part = 0  # how many lines the object has that was tried last, and may be there or not

    def begin(self, ports: Ports) -> None:
        """Open the chain, with the isolate's first request. Never raises."""
        now, version = ports.now(), _told(ports.secret, "VERSION")
        self.gate = (_told(ports.secret, "GATE") or "airgate")[:LONGEST_NAME]
        location = ports.location()
        self.worker = audit.worker(location, version)
        self.names = pseudonym.read_names(
            _set_to(ports.secret, pseudonym.SUBJECTS), _told(ports.secret, pseudonym.KEY)
        )
        self._events, self._seconds = self._pace(ports.secret)
        if ports.stores():
            self._batch = []
        own = _kids(_told(ports.secret, KEY))
        keys = {
            "audit": own[0] if own else None,
            "trusted": _kids(_told(ports.secret, VARIABLE)),
            "assertion": _kids(_told(ports.secret, assertion.SECRET)),
        }
        self._keys = json.dumps(keys, separators=(",", ":"))
        self.chain = Chain(os.urandom(16).hex())
        ports.log(audit.opening_event(now, self.gate, location, version, keys, self.names))

    def _pace(self, secret: Callable[[str], str]) -> tuple[int, float]:
        """After how many lines, and how many seconds, a checkpoint is due."""
        try:
            events = int(_set_to(secret, EVENTS) or USUAL_EVENTS)
            seconds = float(_set_to(secret, SECONDS) or USUAL_SECONDS)
            if not (1 <= events <= 100_000 and 0.1 <= seconds <= LONGEST_SECONDS):
                raise ValueError
        except ValueError:
            self._settings_error = (
                f"{EVENTS}, {SECONDS}: expected 1 to 100000 lines, and 0.1 to {LONGEST_SECONDS:.0f} seconds"
            )
            return USUAL_EVENTS, USUAL_SECONDS
        return events, seconds

    def take(self, event: str) -> str:
        """The line that an event becomes, to be written at once."""
        assert self.chain is not None  # begin() comes first
        line = self.chain.link(event if len(event) <= audit.BOUND else audit.fitted(event))
        if not event.startswith('{"event":"checkpoint"'):
            self._told += 1
        if self._batch is not None:
            self._keep(line, self._batch)
        return line

    def due(self, now: float) -> float | None:
        """In how many seconds settle() is to be called for; None when somebody sees to it, or there is nothing to do.

        A claim: whoever is told a time has to call it.
        """
        waiting = self._told - (self._tried or 0)
        if not waiting:
            return None
        if (self._tried is None or waiting >= self._events) and not 0 <= self._at_once - now <= GRACE:
            self._at_once = now + GRACE
            return 0.0
        # Beside one that is at it: what comes while that one signs is not covered by it.
        if not 0 <= self._later - now <= self._seconds + GRACE:
            self._later = now + self._seconds + GRACE
            return self._seconds
        return None

    async def settle(self, wait: float, ports: Ports) -> None:
        """Do what due() has asked for: `wait` seconds from now. Never raises."""
        try:
            if wait:
                await self._try(ports.sleep(wait))
                self._later = -math.inf
            self.error, end = "", ports.now() + LONGEST_WORK
            for step in (self._register, self._checkpoint, self._store):
                if ports.now() < end:  # or it goes on with the next lines
                    await self._try(step(ports))
        finally:
            if not wait:
                self._at_once = -math.inf

    async def _try(self, step: Coroutine[Any, Any, None]) -> None:
        """A mistake of ours ends one step, and not those behind it: the log itself goes on."""
        try:
            await step
        except Exception as error:
            self.error = audit.where(error)

    async def _register(self, ports: Ports) -> None:
        """See that the chain is known in D1, so that somebody notices should it vanish."""
        if self.chain is None or (self.number is not None and self._compared):
            return
        try:
            number = self.number
            if number is None:
                number = self.number = await self._number(self.chain.id, ports)
            if self._compared:
                return
            former = await ports.database(FORMER, (number,), TIMEOUT)
        except (OSError, ValueError) as error:
            self._fail("register", error)
            return
        if not self._compared:  # nor by another one meanwhile
            self._compared = True
            for event in _changes(former, self._keys, ports.now()):
                ports.log(event)

    async def _number(self, chain: str, ports: Ports) -> int:
        """The chain's number, given out now or before. Raises OSError, ValueError."""
        number = await ports.database(REGISTER, (chain, int(ports.now()), self._keys), TIMEOUT)
        if number is None:
            number = await ports.database(REGISTERED, (chain,), TIMEOUT)
        if number is None:
            raise OSError("no row came back")
        found = int(number) if len(number) <= 16 else 0
        if not 0 < found <= 2**53:
            raise ValueError("no number came back")
        return found

    async def _checkpoint(self, ports: Ports) -> None:
        """Sign how far the chain has come, write that down, and mark it in the register."""
        chain, told = self.chain, self._told
        self._tried = told
        if chain is None or told == self._covered:
            return
        now, key = ports.now(), self._signing_key(ports)
        position = chain.length - 1
        document = chain.checkpoint(self.gate, audit.timestamp(now), self.number)
        kid = signature = ""
        if key is not None and key.kid is not None:
            try:
                signature = base64url(await ports.sign(key, pae(CHECKPOINT, document)))
            except Exception as error:
                self._fail("sign", error)
                return  # what the register has of before is signed
            kid = key.kid
            ports.log(audit.checkpoint_event(now, document, kid, signature))
        if told > self._covered:  # another one may have been quicker
            self._covered, self._signed = told, (position, now)
        if self.number is not None:
            await self._mark(chain.id, self.number, position, document, kid, signature, ports)

    def _signing_key(self, ports: Ports) -> SigningKey | None:
        """Read once: an isolate's secrets stay as they are."""
        if self._key is None and not self._key_error:
            text = _told(ports.secret, KEY)
            try:
                if text is None:
                    raise ValueError("is missing: nothing proves that the log is whole")
                key = read_secret(text)
                if key.algorithm != ALGORITHM or not key.kid:
                    raise ValueError("is not an Ed25519 JWK with a kid")
                self._key = key
            except ValueError as error:
                self._key_error = f"{KEY}: {error}"
        return self._key

    async def _mark(
        self, chain: str, number: int, position: int, document: str, kid: str, signature: str, ports: Ports
    ) -> None:
        try:
            values = (chain, number, position, document, kid, signature)
            if await ports.database(MARK, values, TIMEOUT) is not None:
                return
            # A later checkpoint may have been quicker. Without a row the register was cut, and this is on record.
            gone = await ports.database(MARKED, (chain, number), TIMEOUT) is None
            if not gone or self.number != number:  # or another one has seen it, too
                return
            self.number = None
            if self._told == self._missed:  # or a register that keeps nothing would make work for ever
                raise OSError("the row is gone again")
            ports.log(audit.register_event(ports.now(), number))
            self._missed = self._told
        except (OSError, ValueError) as error:
            self._fail("register", error)

    def _keep(self, line: str, batch: list[str]) -> None:
        """Keep a line for R2, as long as there is room."""
        if self._size + len(line) >= MOST_KEPT:
            self.stored["lost"] += 1
            return
        batch.append(line)
        self._size += len(line) + 1

    async def _store(self, ports: Ports) -> None:
        """Store the lines that wait, as one object. Names sort by the time of the first line.

        While that fails the lines stay, and go with those that come: then under the same name.
        """
        batch, now = self._batch, ports.now()
        if not batch:
            return
        self._again = True
        if 0 <= self._storing - now <= GRACE:
            return  # another one is at it, and does it again
        self._storing = now + GRACE
        try:
            while batch and self._again:
                self._again = self._part > 0  # what came since that try is an object of its own
                await self._put(batch, ports)
        except Exception as error:
            self._fail("r2", error)
        finally:
            self._storing = -math.inf

    async def _put(self, batch: list[str], ports: Ports) -> None:
        """Store the lines that are in the batch now, or those of the last try.

        That may come through yet, after this one: so an object of the same name has the same lines.
        """
        self._part = lines = self._part or len(batch)
        end, text = self._gone + lines, "\n".join(batch[:lines]) + "\n"
        await ports.store(_object_name(self.gate, batch[0]), text, TIMEOUT)
        stored = max(0, end - self._gone)  # this one may have been given up, and others did it
        if stored:
            self._part = 0
        self._size -= sum([len(line) + 1 for line in batch[:stored]])
        del batch[:stored]
        self._gone += stored
        self.stored["objects"] += 1
        self.stored["lines"] += stored

    def _fail(self, what: str, error: Exception) -> None:
        self.failed[what] += 1
        foreseen = isinstance(error, Denied | OSError | ValueError)
        told = f"{type(error).__name__}: {error}" if foreseen else audit.where(error)
        self.error = f"{what}: {told}"[:300]

    @property
    def sinks(self) -> dict[str, tuple[int, int]]:
        """Lines that each sink took, and lost."""
        sinks = {"logs": (self.chain.length if self.chain is not None else 0, 0)}
        if self._batch is not None:
            sinks["r2"] = (self.stored["lines"], self.stored["lost"])
        return sinks

    def warnings(self) -> list[str]:
        """What whoever runs the gate should know, for health."""
        lost = self.number is None and self.failed["register"] > 0
        warned = (
            self._key_error,
            self._settings_error,
            self.names.error,
            "the register in D1 does not know this chain: nobody would notice should all of it vanish"
            if lost
            else "",
        )
        return [one for one in warned if one]

    def report(self, now: float) -> dict[str, Any]:
        """How the log is doing, for health. Ages in seconds."""
        return {
            "chain": self.chain.id if self.chain is not None else None,
            "lines": self.chain.length if self.chain is not None else 0,
            "number": self.number,
            "signed": self._key is not None,
            "unsigned": self._told - self._covered,
            "checkpoint": None
            if self._signed is None
            else {"position": self._signed[0], "age": max(0.0, round(now - self._signed[1], 1))},
            "failed": dict(self.failed),
            "r2": None if self._batch is None else {**self.stored, "waiting": len(self._batch)},
            "error": self.error or None,
        }


def _object_name(gate: str, line: str) -> str:
    """Of a batch that begins with a line: airgate/2026/11/22/09-30-00.125Z-<chain>-<position>.ndjson."""
    first = json.loads(line)
    day, _, moment = first["time"].partition("T")
    name = f"{moment.replace(':', '-')}-{first['chain']}-{first['position']:09}.ndjson"
    return f"{gate}/{day.replace('-', '/')}/{name}"


def _told(secret: Callable[[str], str], name: str) -> str | None:
    """A variable or secret of the Worker's; None when there is none that is a text."""
    with suppress(LookupError, ValueError):
        return secret(name)
    return None


def _set_to(secret: Callable[[str], str], name: str) -> str | None:
    """A setting: as `_told`, but one that is no text is not taken for one that is missing."""
    try:
        return secret(name)
    except LookupError:
        return None
    except ValueError:
        return "no text"


def _kids(text: str | None) -> list[str]:
    """The ids of the keys in a JWK or a JWK set, read for its ids only."""
    try:
        members = read_object(text or "", limit=65_536, depth=5)
    except ValueError:
        return []
    keys = members.get("keys", [members])
    named = [jwk.get("kid") for jwk in keys if isinstance(jwk, dict)] if isinstance(keys, list) else []
    return [kid[:128] for kid in named[:MOST_KIDS] if isinstance(kid, str)]


def _changes(former: str | None, own: str, now: float) -> list[str]:
    """An event for each set of keys that is another one than that of the isolate which opened its chain before."""
    try:
        before, after = read_object(former or "", limit=65_536, depth=3), json.loads(own)
    except ValueError:
        return []
    events = []
    for of in ("audit", "trusted", "assertion"):
        old, new = _set(before.get(of)), _set(after.get(of))
        if old != new:
            events.append(audit.keys_event(now, of, None, sorted(new - old), sorted(old - new)))
    return events


def _set(kids: Any) -> set[str]:
    return {kid for kid in (kids if isinstance(kids, list) else [kids]) if isinstance(kid, str)}
