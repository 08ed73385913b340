"""An isolate's view of D1: the head of the ledger, the acts, ended sessions, how old that is, and what of it counts.

From `refresh` seconds on it is read again in the background, from `wait` on before deciding. While D1 is away it is
used until it is `stale`: then the gate can't tell what has been revoked, and refuses.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import audit
import ledger
from access import Access, Act, act_id, load_act
from bundle import Pointer
from keys import Verify
from ledger import FEW, MANY, PAGE, load_pointer
from pseudonym import PLAIN, Names
from sessions import Sessions
from trust import ACT, GRANT, POINTER, PUBLISH, VARIABLE, Signed, Trusted, Untrusted, read_trusted, signer

GATE = "GATE"
UNNAMED = "airgate"  # a gate without the variable
MOST_PAGES = 50  # of acts, in one reading, and as many of ended sessions
MOST_REFUSED = 1000  # documents remembered, so that each is looked at once
RECENT = 3600.0  # seconds
MOST_TOLD = 20  # acts of one reading, in the log: a request's lines are limited

Secret = Callable[[str], str]  # a variable of the Worker's. Raises LookupError when there is none


_Head = tuple[Signed, Pointer]


class Ages(NamedTuple):
    """How old the view may be, in seconds. Each is a variable of the Worker's, such as VIEW_WAIT."""

    refresh: float = 2.0  # from here on it is read again behind an answer
    wait: float = 10.0  # from here on it is read again before one
    patience: float = 0.5  # for as long as this
    stale: float = 60.0  # from here on nothing is decided by it


class Store(Protocol):
    """Where the view is read."""

    def now(self) -> float: ...
    def log(self, line: str) -> None: ...
    def secret(self, name: str) -> str: ...
    async def database(self, sql: str, values: tuple[int | str, ...], timeout: float) -> str | None:
        """The text `value` of the first row that D1 returns, None without a row. Raises OSError."""

    async def kv(self, key: str, timeout: float) -> str | None: ...

    @property
    def verify(self) -> Verify: ...


def read_ages(secret: Secret) -> Ages:
    """The variables, or what is usual. ValueError names one that can't be."""
    ages = {}
    for name, usual in Ages()._asdict().items():
        variable = f"VIEW_{name.upper()}"
        try:
            seconds = float(secret(variable))
        except LookupError:
            seconds = usual
        except ValueError:
            seconds = math.nan
        if not 0.1 <= seconds <= 3600:
            raise ValueError(f"{variable}: expected seconds, from 0.1 to 3600")
        ages[name] = seconds
    if not ages["refresh"] <= ages["wait"] <= ages["stale"]:
        raise ValueError("VIEW_REFRESH, VIEW_WAIT and VIEW_STALE: expected to rise in this order")
    return Ages(**ages)


def read_gate(secret: Secret) -> str:
    """The gate's name, which everything that is signed for it says."""
    try:
        return secret(GATE)
    except LookupError:
        return UNNAMED


def read_keys(secret: Secret) -> Trusted | None:
    """Whose signatures count; None: policy need not be signed here. Raises ValueError."""
    try:
        text = secret(VARIABLE)
    except LookupError:
        return None
    if not text.strip():
        return None
    try:
        return read_trusted(text)
    except ValueError as error:
        raise ValueError(f"{VARIABLE}: {error}") from None


def _forgotten(known: tuple[int, str, int], told: ledger.Sessions, now: float) -> bool:
    """Whether D1 has lost the newest ended session that is known, though it was not yet to be forgotten."""
    number, session, until = known
    return number > 0 and told.at != session and (told.at is not None or now < until)


class View:
    """What one isolate knows of D1."""

    def __init__(self) -> None:
        self.ages = Ages()
        self.gate = UNNAMED
        self.trusted: Trusted | None = None
        self.access = Access()
        self.sessions = Sessions()
        self.names: Names = PLAIN
        self.read_at = -math.inf  # when the reading that succeeded last began
        self.asked_at = -math.inf
        self.failed_at = -math.inf
        self.deferred_at = -math.inf  # when a reading was begun that nobody waits for; while it is on its way
        self._refused: set[Signed] = set()  # acts that don't count
        self._configured = False
        self._remembered = False  # whether the copies in KV have been looked at
        self._last = (0, "")  # number and id of the newest act that is known
        self._ended = (0, "", 0)  # number, session and end of the newest ended session that is
        self._head: _Head | None = None  # the last one that was believed

    def fresh(self, now: float) -> bool:
        """Whether nothing is to be done before deciding, nor behind the answer."""
        age = now - self.read_at
        if age < -self.ages.wait:
            # The clock was ahead: nobody knows how old this is, nor what was dropped too early.
            self.read_at = self.asked_at = self.failed_at = self.deferred_at = -math.inf
            self._ended = (0, "", 0)
            return False
        return age <= self.ages.refresh or (
            age <= self.ages.wait and now - self.asked_at <= self.ages.refresh
        )

    def stale(self, now: float) -> bool:
        return now - self.read_at > self.ages.stale

    def report(self, now: float) -> dict[str, Any]:
        """What is known of D1 and how old that is, in seconds, for health."""
        return {
            "age": max(0.0, round(now - self.read_at, 1)) if self.read_at > 0 else None,
            "signed": self.trusted is not None,
            "revocations": self.access.revocations,
            "grants": self.access.grants,
            "refused": len(self._refused),
            "sessions": self.sessions.report(now),
        }

    def configure(self, store: Store) -> None:
        """Read the Worker's variables: they are what they are for as long as this isolate lives. Raises ValueError."""
        if not self._configured:
            self.ages = read_ages(store.secret)
            self.gate = read_gate(store.secret)
            self.trusted = read_keys(store.secret)
            self._configured = True

    async def read(self, store: Store, timeout: float) -> tuple[Pointer | None, str]:
        """Learn what is new in D1. Returns the newest pointer that counts, and what is wrong with the ledger if it is.

        An isolate that has just begun looks at KV's copies too. Raises OSError and ValueError: then nothing is new.
        """
        self.configure(store)
        begun = store.now()
        end = begun + timeout
        after, before = self._last, self._head  # others may read at the same time
        # What was dropped while a clock was ahead may not be over: it is read anew.
        since = self._ended if begun >= self.read_at else (0, "", 0)
        copy: Signed | None = None
        copied: list[Signed] = []
        if not self._remembered:  # before D1, which then can't be behind them
            if self.trusted is not None:  # without a signature this copy says nothing
                copy = ledger.read_head(await store.kv(ledger.HEAD, timeout))
            copied = ledger.read_acts(await store.kv(ledger.ACTS, max(0.05, end - store.now())))
        view = await self._view(store, after[0], since[0], begun, end)
        lost = bool(after[0] and view.at != after[1])  # rows were lost: those that are there may be new
        forgotten = view.sessions is not None and _forgotten(since, view.sessions, begun)
        if lost or forgotten:
            after, since = (0, "") if lost else after, (0, "", 0) if forgotten else since
            view = await self._view(store, after[0], since[0], begun, end)
        rows, ended, pages = view.heads, view.sessions, 1
        await self._learn([signed for _, signed in view.acts], store)
        while len(view.acts) == PAGE:  # what is known by then stays known, should time run out
            number, signed = view.acts[-1]
            self._last = number, act_id(signed.document)
            pages += 1
            if pages > MOST_PAGES:
                raise ValueError(f"D1 holds more than {MOST_PAGES * PAGE} acts that are not over")
            view = await self._view(store, number, since[0], begun, end)
            await self._learn([signed for _, signed in view.acts], store)
        await self._learn(copied, store)
        self._last = view.last
        await self._learn_sessions(ended, store, begun, end)
        self._remembered = True
        if not begun <= self.read_at <= store.now():  # a clock that was ahead is not believed for long
            self.read_at = begun
        return await self._newest(rows, copy, before, store)

    async def _view(self, store: Store, after: int, since: int, now: float, end: float) -> ledger.View:
        """Acts above one number and ended sessions above another. Raises OSError and ValueError."""
        values = (after, int(now), since)
        try:
            text = await store.database(ledger.VIEW, values, max(0.05, end - store.now()))
        except OSError as error:
            if ledger.NO_SESSIONS not in str(error):
                raise
            # The Worker was uploaded before its migration: what it did until then it does without that.
            text = await store.database(ledger.WITHOUT_SESSIONS, values[:2], max(0.05, end - store.now()))
        return ledger.read_view(text)

    async def _learn_sessions(
        self, told: ledger.Sessions | None, store: Store, now: float, end: float
    ) -> None:
        """Take in ended sessions, page by page. Raises OSError and ValueError: what is known by then stays known.

        What was whole before stays so while this goes on: it gets no older by that than by any other reading.
        """
        sessions, asked, pages = self.sessions, FEW, 1
        sessions.missing = told is None
        while told is not None:
            sessions.add(told.rows, now)
            if len(told.rows) < asked:
                sessions.whole, self._ended = True, told.last
                return
            row = told.rows[-1]
            self._ended = row.number, row.session, row.until
            if pages == MOST_PAGES:
                sessions.whole = False
                return  # the next reading goes on from there
            asked, pages = MANY, pages + 1
            values = (0, int(now), row.number)
            told = ledger.read_more(await store.database(ledger.MORE, values, max(0.05, end - store.now())))

    async def _learn(self, documents: Iterable[Signed], store: Store) -> None:
        """Take in acts that count. Raises ValueError when there are too many."""
        known: dict[str, Act] = {}
        lines: list[str] = []
        for signed in documents:
            name = act_id(signed.document)
            if self.access.knows(name) or name in known or signed in self._refused:
                continue
            result, detail = "known", ""
            try:
                known[name], detail = await self._act(signed, store)
            except ValueError as error:
                result, detail = "refused", str(error)
                if len(self._refused) < MOST_REFUSED:
                    self._refused.add(signed)
            # An isolate that begins says nothing of what others will have said.
            new = self._remembered or (name in known and known[name].at > store.now() - RECENT)
            if new and len(lines) < MOST_TOLD:
                lines.append(audit.act_event(store.now(), result, name, detail, signed.document, self.names))
        self.access.add(known.values(), store.now())
        for line in lines:
            store.log(line)

    async def _act(self, signed: Signed, store: Store) -> tuple[Act, str]:
        """The act, and who has signed it. Raises ValueError when it doesn't count."""
        one = load_act(signed.document)
        self._refuse_other_gate(one.gate)
        if not one.opens:
            return one, ""
        if self.trusted is None:
            raise Untrusted(f"this gate has no {VARIABLE}, so nobody may grant")
        by = await signer(signed, ACT, GRANT, self.trusted, store.verify)
        return one, f"signed by {by.name}"

    async def _newest(
        self, rows: list[tuple[int, Signed]], copy: Signed | None, known: _Head | None, store: Store
    ) -> tuple[Pointer | None, str]:
        """The newest pointer that counts, of D1's rows, the copy and the one known before; and what is wrong."""
        complaint = ""
        top: _Head | None = None
        for number, signed in rows:
            try:
                pointer = await self._pointer(signed, store)
                if pointer.sequence != number:
                    raise ValueError(f"it is the document of number {pointer.sequence}")
            except ValueError as error:
                complaint = complaint or f"number {number} of the ledger does not count: {error}"
            else:
                top = signed, pointer
                break
        if copy is not None:
            with suppress(ValueError):  # whoever can write KV alone changes nothing, and is not heard
                pointer = await self._pointer(copy, store)
                if known is None or pointer.sequence > known[1].sequence:
                    known = copy, pointer
        if known is not None and (top is None or top[1].sequence < known[1].sequence):
            complaint = complaint or f"rows of the ledger are missing: {known[1].sequence} stays in force"
        elif (
            known is not None
            and top is not None
            and top[1].sequence == known[1].sequence
            and top[0] != known[0]
        ):
            complaint = (
                f"another document has number {known[1].sequence} now: the one of before stays in force"
            )
        for one in (known, top):
            if one is not None and (self._head is None or one[1].sequence > self._head[1].sequence):
                self._head = one
        return None if self._head is None else self._head[1], complaint

    async def _pointer(self, signed: Signed, store: Store) -> Pointer:
        """Raises ValueError when it doesn't count."""
        if self._head is not None and self._head[0] == signed:
            return self._head[1]
        pointer = load_pointer(signed.document)
        self._refuse_other_gate(pointer.gate)
        if self.trusted is None:
            return pointer
        by = await signer(signed, POINTER, PUBLISH, self.trusted, store.verify)
        return pointer._replace(by=by.name)

    def _refuse_other_gate(self, named: str) -> None:
        if named != self.gate:
            raise Untrusted(f"it is for another gate, {named!r:.80}")
