"""The register of chains, which a gate keeps in D1: `airgate audit register` reads it, `verify` compares logs with it.

One row for each chain, from its opening on, with its newest checkpoint. So a chain that vanished from the logs as a
whole is noticed, and so is a log that was cut before its last checkpoint. Rows are numbered without gaps, and
checkpoints name the number, so that a deleted row is noticed as well, unless it was the last.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from airgate.audit.findings import Finding
from airgate.audit.link import LONGEST_TAIL, Line, Linked
from airgate.audit.trusted import SLACK, Checker, Statement, Wrong, seconds
from airgate.environment import Environment, EnvironmentMissing, EnvOption, open_environment
from airgate.moments import clock
from airgate.node import NodeMissing, WranglerFailed
from airgate.policy.check import counted

LIMIT = 1 << 30  # bytes of a register's file
PAGE = 1000  # rows that are read at once
GRACE = 60  # seconds that a gate may take to write down in D1 what it has written into its log
DONE, INVALID = 0, 2
STANDARD_OUTPUT = Path("-")

_COLUMNS = ("number", "chain", "opened_at", "keys", "position", "document", "key", "signature")


class RegisterRefused(Exception):
    """The register can't be read or used. The message says why, and what to do."""


@dataclass(frozen=True)
class Row:
    """One chain, as the register has it."""

    number: int
    chain: str
    opened_at: int  # seconds since the epoch
    position: int  # that its newest checkpoint covers; -1: none yet
    document: str
    key: str
    signature: str
    keys: str = ""  # ids of the keys that its isolate had, as JSON


@dataclass
class Register:
    """All rows, in the order of their numbers."""

    gate: str
    read_at: int  # seconds since the epoch
    newest: int  # the highest number that was ever given out, as far as D1 knows
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.by_chain = {row.chain: row for row in self.rows}

    @property
    def text(self) -> str:
        """The file: one row a line."""
        head = json.dumps({"gate": self.gate, "read_at": self.read_at, "newest": self.newest})
        rows = [json.dumps({name: getattr(row, name) for name in _COLUMNS}) for row in self.rows]
        return f'{head[:-1]}, "chains": [\n' + ",\n".join(rows) + "\n]}\n"


def register(
    env: EnvOption = "local",
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Where to write it; - prints it.")
    ] = STANDARD_OUTPUT,
) -> None:
    """Read the register of chains out of D1, for `airgate audit verify --register FILE`.

    Keep copies where nobody who can write D1 can change them: a row that is in an old copy and not in a new one was
    deleted.
    """
    try:
        found = read_environment(open_environment(env))
        if out == STANDARD_OUTPUT:
            typer.echo(found.text, nl=False)
        else:
            _write(out, found.text)
            typer.echo(
                f"{counted(len(found.rows), 'chain')} of {found.gate} written to {out}\n\n"
                f"Next: airgate audit verify LOG… --register {out}"
            )
    except (EnvironmentMissing, NodeMissing, WranglerFailed, RegisterRefused) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(INVALID) from None


def read_environment(env: Environment, now: float | None = None) -> Register:
    """The register as it is in D1. Raises RegisterRefused, and what Environment.d1 raises."""
    rows: list[Row] = []
    began = int(time.time() if now is None else now)
    while True:
        after = rows[-1].number if rows else 0
        page = env.d1(
            f"SELECT {', '.join(_COLUMNS)} FROM chains WHERE number > {after} ORDER BY number LIMIT {PAGE}"
        )
        rows += [_row(each, f"row {number}") for number, each in enumerate(page, len(rows) + 1)]
        if len(page) < PAGE:
            break
    try:  # D1's own table, which tells how many rows there have been
        given = env.d1("SELECT seq FROM sqlite_sequence WHERE name = 'chains'")
    except WranglerFailed:
        given = []
    newest = given[0].get("seq") if given else 0
    highest = rows[-1].number if rows else 0
    return Register(env.gate, began, max(newest if type(newest) is int else 0, highest), rows)


def read_file(file: Path) -> Register:
    """A register that `airgate audit register` has written. Raises RegisterRefused."""
    try:
        if file.stat().st_size > LIMIT:
            raise RegisterRefused(f"{file}: larger than any register")
        document = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        raise RegisterRefused(
            f"{file}: no such file. Make it: airgate audit register --env NAME --out {file}"
        ) from None
    except OSError as error:
        raise RegisterRefused(f"{file}: can't be read: {error.strerror}") from None
    except ValueError:
        document = None
    names = {"gate": str, "read_at": int, "newest": int, "chains": list}
    if not isinstance(document, dict) or not all(
        isinstance(document.get(name), kind) for name, kind in names.items()
    ):
        raise RegisterRefused(f"{file}: not a register. They are made by: airgate audit register --out FILE")
    rows = [_row(each, f"{file}: chains[{number}]") for number, each in enumerate(document["chains"])]
    rows.sort(key=lambda row: row.number)
    return Register(document["gate"], document["read_at"], document["newest"], rows)


def _row(members: Any, what: str) -> Row:
    if not isinstance(members, Mapping):
        raise RegisterRefused(f"{what}: not an object")
    for name in ("number", "opened_at", "position"):
        if type(members.get(name)) is not int:
            raise RegisterRefused(f"{what}: {name} is no whole number")
    for name in ("chain", "document", "key", "signature", "keys"):
        if not isinstance(members.get(name), str):
            raise RegisterRefused(f"{what}: {name} is no text")
    return Row(**{name: members[name] for name in _COLUMNS})


def _write(file: Path, text: str) -> None:
    try:
        part = file.with_name(f".{file.name}.{os.getpid()}")
        part.write_text(text, "utf-8")
        part.replace(file)
    except OSError as error:
        raise RegisterRefused(f"{file}: can't be written: {error.strerror}") from None


@dataclass(frozen=True)
class Span:
    """The time that logs are of, in seconds since the epoch."""

    since: float
    until: float

    def __contains__(self, moment: float) -> bool:
        return self.since <= moment <= self.until

    @property
    def words(self) -> str:
        return f"{clock(int(self.since))} to {clock(int(self.until))}"


class Comparison:
    """Logs beside the register. Chains of the logs are shown to `seen`, one by one; `rest` says what they lacked."""

    def __init__(self, register: Register, span: Span, checker: Checker) -> None:
        self.register, self._span, self._checker = register, span, checker
        self._met: set[str] = set()
        self._highest = register.newest  # number that was given out before the register was read
        self._said: dict[str, Statement | Wrong | None] = {}

    def seen(self, chain: Linked, at: list[Line], where: str) -> Iterator[Finding]:
        """What the register says of a chain that is in the logs. `at`: its lines at the position of its row."""
        row = self.register.by_chain.get(chain.id)
        if row is None:
            yield from self._unregistered(chain, where)
            return
        self._met.add(chain.id)
        if chain.first == 0 <= chain.proved and row.opened_at < seconds(chain.begun) - SLACK:
            yield Finding(
                "register wrong", chain.id, None, where,
                f"number {row.number} says opened {clock(row.opened_at)}, the chain's first line {chain.begun}",
            )  # fmt: skip
        if chain.numbers and chain.numbers[-1] != row.number:
            yield Finding(
                "register wrong", chain.id, None, None,
                f"its row has number {row.number}, its checkpoints say {chain.numbers[-1]}",
            )  # fmt: skip
        said = self._statement(row)
        if said is None and row.position >= 0 and chain.checkpoints:
            yield Finding("register wrong", chain.id, None, None, f"number {row.number}: it isn't signed")
        at_position = said.position if isinstance(said, Statement) else -1
        if at_position < chain.proved and seconds(chain.proved_at) < self.register.read_at - GRACE:
            yield Finding(
                "register behind", chain.id, at_position, where,
                f"number {row.number} knows of a checkpoint at {at_position}, the log of one at {chain.proved}",
            )  # fmt: skip
        if not isinstance(said, Statement):
            return
        if chain.last < said.position:
            if seconds(said.time) > self._span.until:
                if self._span.until - seconds(chain.proved_at or chain.begun) > LONGEST_TAIL:
                    yield Finding(
                        "perhaps cut", chain.id, chain.last + 1, chain.end,
                        f"it ends at position {chain.last}; by the register it was at {said.position} at {said.time}",
                    )  # fmt: skip
            else:
                yield Finding(
                    "cut", chain.id, chain.last + 1, chain.end,
                    f"positions {chain.last + 1} to {said.position} are missing at its end; signed at {said.time}",
                    said.position - chain.last,
                )  # fmt: skip
        elif at and all(line.hash != said.hash for line in at):
            yield Finding(
                "contradicted", chain.id, said.position, where,
                f"the checkpoint in the register (number {row.number}) says otherwise: lines up to here were rewritten",
            )  # fmt: skip

    def _unregistered(self, chain: Linked, where: str) -> Iterator[Finding]:
        later = seconds(chain.begun) > self.register.read_at - GRACE
        if chain.proved >= 0 and chain.gate != self.register.gate:
            yield Finding(
                "not registered", chain.id, None, where,
                f"it is of the gate {chain.gate}, the register of {self.register.gate}",
            )  # fmt: skip
        elif later:
            yield Finding("not registered", chain.id, None, where, "it began after the register was read")
        elif chain.numbers:
            self._highest = max(self._highest, chain.numbers[-1])
            yield Finding(
                "unregistered", chain.id, None, where,
                f"its row, number {chain.numbers[-1]}, was deleted from the register", chain.count,
            )  # fmt: skip
        elif chain.proved >= 0:
            said = "by its signed checkpoints, the gate had no number for it: it could not reach D1"
            yield Finding("not registered", chain.id, None, where, said, chain.count)
        else:
            yield Finding(
                "unregistered", chain.id, None, where,
                "the register has no such chain, and no checkpoint is there to say why", chain.count,
            )  # fmt: skip

    def rest(self) -> Iterator[Finding]:
        """What is wrong with the register itself, and its chains that aren't in the logs; after all were seen."""
        opened = number = 0
        for row in self.register.rows:
            said = self._statement(row)
            if row.number == number:
                yield Finding("register wrong", row.chain, None, None, f"two rows have number {number}")
            if row.opened_at < opened - SLACK or row.opened_at > self.register.read_at + SLACK:
                yield Finding(
                    "register wrong", row.chain, None, None,
                    f"number {row.number} says opened {clock(row.opened_at)}, which can't be: "
                    "numbers are given out one after the other",
                )  # fmt: skip
            else:
                opened = max(opened, row.opened_at)
            number = row.number
            if isinstance(said, Wrong):
                yield Finding("register wrong", row.chain, None, None, f"number {row.number}: {said.text}")
            if row.chain not in self._met:
                yield from self._absent(row, said)
        yield from self._gaps()

    def _absent(self, row: Row, said: Statement | Wrong | None) -> Iterator[Finding]:
        signed = seconds(said.time) if isinstance(said, Statement) else -1.0
        opened, last = float(row.opened_at), max(signed, float(row.opened_at))
        what = f"number {row.number}, opened {clock(row.opened_at)}"
        lines = row.position + 1
        if lines > 0:
            what += f", with {counted(lines, 'line')} at least"
        if opened in self._span or signed in self._span:
            yield Finding("vanished", row.chain, 0, None, what, max(lines, 1))
        elif opened < self._span.since and last > self._span.until:
            yield Finding("perhaps vanished", row.chain, None, None, what)
        elif signed < 0 and opened < self.register.read_at - GRACE:
            what += "; no signed checkpoint says how far it came, or when"
            yield Finding("perhaps vanished", row.chain, None, None, what)

    def _gaps(self) -> Iterator[Finding]:
        rows, expected = self.register.rows, 1
        for row in rows:
            if row.number > expected:
                ended = row.opened_at >= self._span.since
                kind = "register gap" if ended else "number skipped"
                yield _gap(kind, expected, row.number - 1, f"before {clock(row.opened_at)}")
            expected = row.number + 1
        if self._highest >= expected:
            yield _gap("register gap", expected, self._highest, "at its end")

    def _statement(self, row: Row) -> Statement | Wrong | None:
        """What the row's checkpoint says; None: it has none, or none that is signed."""
        if row.chain not in self._said:
            self._said[row.chain] = self._checked(row)
        return self._said[row.chain]

    def _checked(self, row: Row) -> Statement | Wrong | None:
        if row.position < 0 and not row.document:
            return None
        if not row.signature and not row.key:
            return None
        said = self._checker.check(row.document, row.key, row.signature)
        if isinstance(said, Wrong):
            return said
        if (said.chain, said.position, said.number) != (row.chain, row.position, row.number):
            return Wrong("forged", "its checkpoint is of another row")
        return said


def joined(register: Register, copies: Sequence[Register], add: Callable[[Finding], None]) -> Register:
    """The register, with what older copies of it know and it doesn't. `add` is told of each such row."""
    if not copies:
        return register
    rows, newest = dict(register.by_chain), register.newest
    for copy in copies:
        when = f"the copy of {clock(copy.read_at)}"
        if copy.newest > newest:
            add(Finding(
                "register set back", None, None, None,
                f"the newest number ever given out is {newest}, and was {copy.newest} in {when}",
            ))  # fmt: skip
            newest = copy.newest
        for old in copy.rows:
            row = rows.get(old.chain)
            if row is None:
                text = f"number {old.number}, which {when} has, is gone"
            elif row.position < old.position:
                text = (
                    f"number {old.number} is at position {row.position}, and was at {old.position} in {when}"
                )
            elif (row.number, row.opened_at) != (old.number, old.opened_at):
                text = f"number {row.number} has another number or time of opening than in {when}"
            else:
                continue
            add(Finding("register set back", old.chain, None, None, text))
            rows[old.chain] = old
    ordered = sorted(rows.values(), key=lambda row: row.number)
    return Register(register.gate, register.read_at, newest, ordered)


def _gap(kind: str, first: int, last: int, where: str) -> Finding:
    numbers = f"number {first}" if first == last else f"numbers {first} to {last}"
    return Finding(kind, None, None, None, f"{numbers} {where}", last - first + 1)
