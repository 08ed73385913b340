"""The ledger of a gate: which bundle is in force, who put it there, when and why. One signed row of D1 for each number.

Rows are only ever added, each under the number that follows the highest one: whoever comes second is told. KV holds a
copy of the newest row, which a gate believes, where it is rightly signed, when D1 has lost it.
"""

import asyncio
import getpass
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from airgate.engine import (
    HEAD,
    MAY_PUBLISH,
    POINTER_FORMAT,
    POINTER_LIMIT,
    POINTER_TYPE,
    Pointer,
    Signed,
    Untrusted,
    load_pointer,
    read_head,
    signer,
)
from airgate.environment import Conflict, Environment, quote
from airgate.issuer.signature import verify
from airgate.policy.index import canonical
from airgate.policy.output import printable
from airgate.signing_key import SigningKey

MOST_READ = 20  # rows, to find one that counts below others that don't
SHORT_COMMIT = 9  # digits
HIGHEST = 2**53  # that a gate reads


class NotTrusted(Exception):
    """The gate would not believe what this key signs. Nothing was written; the message says what to do."""


@dataclass(frozen=True)
class Entry:
    """One row, as the gate judges it."""

    number: int
    signed: Signed
    pointer: Pointer | None  # None: it can't be read
    doubt: str = ""  # why the gate doesn't take it; empty: it does
    verified: bool = False  # it is signed by a key that the gate trusts

    @property
    def counts(self) -> bool:
        return not self.doubt

    @property
    def document(self) -> dict[str, Any]:
        """The pointer's members; none when it can't be read."""
        members: dict[str, Any] = json.loads(self.signed.document) if self.pointer is not None else {}
        return members

    @property
    def bundle(self) -> str:
        """The SHA-256 of the bundle; empty when it can't be read."""
        return self.pointer.bundle if self.pointer is not None else ""

    @property
    def by(self) -> str:
        """Who put it there: the key's name, as the gate has it; else what the row says, on one line."""
        return printable(self.pointer.by) if self.pointer is not None else "unknown"

    @property
    def why(self) -> str:
        """The note, and of a rollback what it goes back to; on one line, whoever wrote it."""
        document = self.document
        back = f"back to number {document['of']}" if document.get("of") is not None else ""
        return ": ".join(filter(None, [back, printable(document.get("note", ""))]))

    @property
    def commit(self) -> str:
        """The git commit as people quote it, with its `+`; empty when it isn't known."""
        commit = str(self.document.get("commit", ""))
        changed = "+" if commit.endswith("+") else ""
        return printable(commit.removesuffix("+")[:SHORT_COMMIT] + changed)

    @property
    def at(self) -> int:
        """Seconds since the epoch; 0 when it can't be read."""
        return int(self.pointer.published_at) if self.pointer is not None else 0


@dataclass(frozen=True)
class Ledger:
    """The newest rows, and KV's copy of the newest one."""

    entries: list[Entry]  # newest first
    copy: Entry | None

    @property
    def newest(self) -> int:
        """The highest number in D1; 0 when it is empty."""
        return self.entries[0].number if self.entries else 0

    @property
    def next(self) -> int:
        """The number to publish under: above all that a gate may know of."""
        return max(self.newest, self.copy.number if self.copy is not None and self.copy.counts else 0) + 1

    @property
    def lost(self) -> bool:
        """D1 lacks rows that KV has a rightly signed copy of."""
        return self.copy is not None and self.copy.verified and self.copy.number > self.newest

    @property
    def in_force(self) -> Entry | None:
        """The newest entry that counts. With others above it, gates that run go on with this one."""
        if self.lost:
            return self.copy
        return next((entry for entry in self.entries if entry.counts), None)

    @property
    def copied(self) -> bool:
        """Whether KV's copy is the newest row."""
        return self.copy is not None and bool(self.entries) and self.copy.signed == self.entries[0].signed


def read_ledger(env: Environment) -> Ledger:
    """What D1 and KV say is in force. Raises as Environment does."""
    with ThreadPoolExecutor(2) as pool:
        rows, copy = pool.submit(read_entries, env, MOST_READ), pool.submit(env.kv_get, HEAD)
        entries, text = rows.result(), copy.result()
    signed = read_head(text)
    copied = None
    if signed is not None:
        number = _number(signed.document)
        copied = judge(env, number, signed) if number else None
    return Ledger(entries, copied)


def read_entries(env: Environment, most: int | None = None) -> list[Entry]:
    """The rows of D1, newest first. Raises as Environment.d1 does."""
    limit = f" LIMIT {most}" if most is not None else ""
    text = f"substr(document, 1, {POINTER_LIMIT + 1}) AS document"  # nobody knows who wrote it
    rows = env.d1(f"SELECT sequence, {text}, key, signature FROM pointers ORDER BY sequence DESC{limit}")
    return [_entry(env, row) for row in rows]


def read_entry(env: Environment, number: int) -> Entry | None:
    """The row of that number. Raises as Environment.d1 does."""
    rows = env.d1(f"SELECT sequence, document, key, signature FROM pointers WHERE sequence = {number:d}")
    return _entry(env, rows[0]) if rows else None


def _entry(env: Environment, row: Mapping[str, Any]) -> Entry:
    return judge(env, row["sequence"], Signed(row["document"], row["key"], row["signature"]))


def judge(env: Environment, number: int, signed: Signed) -> Entry:
    """What the gate makes of a document that stands under a number."""
    try:
        pointer = load_pointer(signed.document)
    except ValueError as error:
        return Entry(number, signed, None, printable(f"it can't be read: {error}"))
    if pointer.gate != env.gate:
        return Entry(number, signed, pointer, f"it is for another gate, {pointer.gate!r:.80}")
    if pointer.sequence != number:
        return Entry(number, signed, pointer, f"it is the document of number {pointer.sequence}")
    if env.trusted is None:
        return Entry(number, signed, pointer)
    try:
        by = asyncio.run(signer(signed, POINTER_TYPE, MAY_PUBLISH, env.trusted, verify))
    except Untrusted as error:
        return Entry(number, signed, pointer, printable(f"it is {error}"))
    return Entry(number, signed, pointer._replace(by=by.name), verified=True)


def require_trusted(env: Environment, key: SigningKey | None) -> None:
    """Raises NotTrusted unless the gate takes what the key signs; None: nothing is signed."""
    if key is not None and MAY_PUBLISH not in key.may:
        raise NotTrusted(
            f"The key {key.kid} ({key.name}) may {' and '.join(key.may)}, not {MAY_PUBLISH}. Use another: --key FILE"
        )
    if env.trusted is None:
        return
    doubt = "it is not signed"
    if key is not None:
        probe = Signed("", key.kid, key.sign(POINTER_TYPE, ""))
        try:
            asyncio.run(signer(probe, POINTER_TYPE, MAY_PUBLISH, env.trusted, verify))
        except Untrusted as error:
            doubt = f"it would be {error}"
        else:
            return
    who = ", ".join(f"{one.name} ({one.kid})" for one in env.trusted.values() if MAY_PUBLISH in one.may)
    raise NotTrusted(
        f"{env.gate} would not take this policy: {doubt}.\nThose who may publish there: {who or 'nobody'}. "
        "Use one of these keys, or have yours trusted: airgate keys trust FILE"
    )


def draft(env: Environment, number: int, key: SigningKey | None, members: Mapping[str, Any]) -> Signed:
    """The signed document of a number. `members`: the pointer's, less those that follow from the other arguments.

    Raises ValueError: the gate would not read it, for the note is too long, say.
    """
    known = env.trusted.get(key.kid) if env.trusted is not None and key is not None else None
    by = known.name if known is not None else key.name if key is not None else user()
    document = canonical(
        {"format": POINTER_FORMAT, "gate": env.gate, "sequence": number, "published_by": by, **members}
    )
    signed = Signed(document, key.kid if key is not None else "", _signature(key, document))
    entry = judge(env, number, signed)
    if not entry.counts:
        raise ValueError(entry.doubt)
    return signed


def append(env: Environment, after: int, number: int, signed: Signed) -> bool:
    """Add a row under `number`, if `after` is still the highest one in D1. False: somebody else was first.

    From then on it is in force. A statement may arrive twice, so a row that is there already may be this very one.
    Raises as Environment.d1 does, but for Conflict.
    """
    values = ", ".join([str(number), *map(quote, signed)])
    try:
        added = env.d1(
            f"INSERT INTO pointers (sequence, document, key, signature) SELECT {values} "
            f"WHERE (SELECT coalesce(max(sequence), 0) FROM pointers) = {after} RETURNING sequence"
        )
    except Conflict:
        added = []
    if added:
        return True
    there = read_entry(env, number)
    return there is not None and there.signed == signed


def write_copy(env: Environment, signed: Signed) -> None:
    """Write KV's copy of the newest row. Raises as Environment.kv_put does."""
    env.kv_put({HEAD: canonical(signed._asdict())})


def user() -> str:
    """Whoever runs this."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "unknown"


def _signature(key: SigningKey | None, document: str) -> str:
    return key.sign(POINTER_TYPE, document) if key is not None else ""


def _number(document: str) -> int:
    try:
        return load_pointer(document).sequence
    except ValueError:
        return 0
