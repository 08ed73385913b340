"""Verifying: logs are cut into tasks, examined side by side, and what was found is joined, chain by chain.

    with prove(logs, keys) as proof:
        for chain in proof.chains(): ...
        proof.findings

Everything that grows with the logs is in files below one temporary folder, some 4 % of their size.
"""

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import IO

from airgate.audit.examine import Examined, Examiner, Place, Sign, Task, note
from airgate.audit.findings import Finding
from airgate.audit.link import BRIEF, Files, Held, Line, Linked, Linking, located, unpacked
from airgate.audit.register import GRACE, Comparison, Register, Span, joined
from airgate.audit.source import (
    GZIP,
    LONGEST,
    STANDARD_INPUT,
    Bar,
    SourceError,
    Tally,
    boundary,
    called,
    paths,
)
from airgate.audit.trusted import Checker, Keys, seconds
from airgate.moments import clock

PART = 16 << 20  # bytes of a log that one process examines at once
SMALL = 8 << 20  # bytes of logs for which more processes aren't worth their start
MOST_CHAINS = 200_000
MOST_ALIKE = 10_000  # findings of one kind that are kept; all are counted
HOURS = 2  # of events before a chain's first line that make its missing beginning suspicious


@dataclass
class Proof:
    """What logs hold, and what is wrong with it."""

    tally: Tally
    logs: list[str]
    keys: Keys | None
    examined: dict[int, tuple[int, int]]  # by task: which log, and how many lines of it come before
    held: dict[str, Held]
    files: Files
    signs: list[Sign]
    earliest: str = ""
    latest: str = ""
    hours: set[str] = field(default_factory=set)
    register: Register | None = None
    copies: Sequence[Register] = ()  # older ones of the same gate
    gate: str | None = None  # whose log it should be
    window: tuple[float | None, float | None] = (None, None)  # since and until; None: as the logs
    span: Span = field(default_factory=lambda: Span(-1, -1))  # the time that the register is asked about
    unchained: tuple[str, Place] | None = None  # time and place of the latest event without a chain
    counts: Counter[str] = field(
        default_factory=Counter
    )  # of findings, by kind; a few thousand of each are kept
    linked: list[Linked] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def proved(self) -> int:
        """Lines that a checkpoint covers."""
        return sum(max(0, min(chain.proved, chain.last) - chain.first + 1) for chain in self.linked)

    @property
    def checkpoints(self) -> int:
        return sum(chain.checkpoints for chain in self.linked)

    @property
    def gates(self) -> list[str]:
        return sorted({chain.gate for chain in self.linked if chain.gate})

    def where(self, place: Place) -> str:
        log, before = self.examined[place.task]
        return f"{self.logs[log]}:{before + place.line}"

    def join(self) -> None:
        """Join the chains, and say what is found. Once. Raises SourceError."""
        for sign in self.signs:
            self._find(sign)
        if self.register is not None:
            self.register = joined(self.register, self.copies, self._add)
        beside: list[list[Line]] = []  # of each chain: its lines at the position of its row
        for name in sorted(self.held):
            linking = Linking(
                name, self.held[name], self.files.read, self.where, lambda task: self.examined[task][0]
            )
            chain = linking.linked()
            if chain is None:
                continue
            self.linked.append(chain)
            for sign in chain.signs:
                self._find(sign)
            if self.register is not None:
                row = self.register.by_chain.get(name)
                beside.append([] if row is None or row.position < 0 else linking.hashes(row.position))
        self.span = self._span()
        for chain in self.linked:
            self._ends(chain)
        if self.register is not None:
            comparison = Comparison(self.register, self.span, Checker(self.keys))
            for chain, at in zip(self.linked, beside, strict=True):
                for finding in comparison.seen(chain, at, chain.begin):
                    self._add(finding)
            for finding in comparison.rest():
                self._add(finding)
        else:
            self._skipped()
        self._numbers()
        self._others()
        self.findings.sort(key=lambda each: not each.failure)

    def _add(self, finding: Finding) -> None:
        """Keep a finding, or count it when there are very many of its kind."""
        self.counts[finding.kind] += 1
        if self.counts[finding.kind] <= MOST_ALIKE:
            self.findings.append(finding)

    def _find(self, sign: Sign) -> None:
        where = self.where(sign.place)
        self._add(Finding(sign.kind, sign.chain, sign.position, where, sign.text, sign.count))

    def _span(self) -> Span:
        """The time that the register is asked about: of lines that are signed for, where there are any.

        What nobody signed for may name any time. Raises SourceError.
        """
        covered = [chain for chain in self.linked if chain.proved >= chain.first]
        begun = [at for chain in covered if (at := seconds(chain.begun)) >= 0] or [seconds(self.earliest)]
        ended = [seconds(chain.proved_at) for chain in covered] or [seconds(self.latest)]
        since, until = self.window
        span = Span(min(begun) if since is None else since, max(ended) if until is None else until)
        if self.register is not None and min(span.since, span.until) < 0:
            raise SourceError(
                "No line says which time these logs are of. Say it to ask the register: --since WHEN --until WHEN"
            )
        return span

    def _others(self) -> None:
        """What is to be said of the logs as a whole."""
        if self.unchained is not None:
            time, place = self.unchained
            if self.earliest and time > self.earliest:
                text = f"without chain, position and hash (schema 1), at {time}, when there were chains"
                self._add(Finding("unplaced", None, None, self.where(place), text))
            text = "without chain, position and hash (schema 1)"
            self._add(Finding("unchained", None, None, None, text, self.tally.unchained))
        if self.tally.damaged:
            text = "; ".join(self.tally.damaged[:5])
            self._add(Finding("damaged", None, None, None, text, len(self.tally.damaged)))
        if self.gate is None and len(self.gates) > 1:
            some = ", ".join(self.gates[:5]) + (", …" if len(self.gates) > 5 else "")
            self._add(Finding("several gates", None, None, None, some, len(self.gates)))

    def _numbers(self) -> None:
        """Numbers in the register that two chains of a gate have."""
        known: dict[tuple[str, int], str] = {}
        for chain in self.linked:
            for number in chain.numbers:
                other = known.setdefault((chain.gate, number), chain.id)
                if other != chain.id:
                    text = f"its checkpoints name number {number}, and so do those of the chain {other}"
                    self._add(Finding("register wrong", chain.id, None, chain.begin, text))

    def _ends(self, chain: Linked) -> None:
        """What is to be said of a chain's beginning and end, and of whose it is."""
        if self.gate is not None and chain.gate != self.gate:
            text = f"of the gate {chain.gate or '?'}, not of {self.gate}"
            self._add(Finding("other gate", chain.id, None, chain.begin, text, chain.count))
        if chain.first > 0:
            self._add(self._beginning(chain))
        if self.keys is None or not chain.tail:
            return
        since = f", since {chain.since or chain.proved_at or chain.begun or 'an unknown time'}"
        after = chain.proved + 1 if chain.proved >= chain.first else chain.first
        begun, ended = seconds(chain.begun), seconds(chain.ended)
        if chain.proved < 0 and chain.opened is not None and chain.opened.key is None:
            kind, text = "unsigned", "the whole chain: its gate had no key"
        elif not chain.checkpoints:
            brief = min(begun, ended) >= 0 and abs(ended - begun) <= BRIEF
            kind = "not yet signed" if brief else "never signed"
            text = f"no checkpoint that counts covers any of it{since}"
        elif chain.overdue:
            kind, text = "overdue", f"no checkpoint covers what comes after position {after - 1}{since}"
        elif chain.proved < 0:
            kind, text = "open end", f"no checkpoint covers the chain{since}"
        else:
            kind, text = "open end", f"no checkpoint covers what comes after position {after - 1}{since}"
        self._add(Finding(kind, chain.id, after, chain.end, text, chain.tail))

    def _beginning(self, chain: Linked) -> Finding:
        row = self.register.by_chain.get(chain.id) if self.register is not None else None
        missing = self._before(chain.begun)
        said = "these logs hold events of the hours before" if missing else "these logs begin later"
        if row is not None and (not missing or row.opened_at - GRACE > self.span.since):
            missing = missing or row.opened_at - GRACE > self.span.since
            said = f"by the register it was opened at {clock(row.opened_at)}"
        return Finding(
            "beginning missing" if missing else "begins before", chain.id, 0, chain.begin,
            f"positions 0 to {chain.first - 1} aren't here; {said}", chain.first,
        )  # fmt: skip

    def _before(self, begun: str) -> bool:
        """Whether there are events of all hours before a moment."""
        at = seconds(begun)
        if at < 0:
            return False
        moment = datetime.fromtimestamp(at, UTC)
        return all(
            (moment - timedelta(hours=back)).strftime("%Y-%m-%dT%H") in self.hours
            for back in range(1, HOURS + 1)
        )

    def _skipped(self) -> None:
        """Numbers that no chain has, between those of chains that began in these logs."""
        for gate in self.gates:
            numbers = sorted(
                {
                    number
                    for chain in self.linked
                    if chain.gate == gate and chain.first == 0
                    for number in chain.numbers
                }
            )
            others = {number for chain in self.linked if chain.gate == gate for number in chain.numbers}
            lacking = [
                number
                for before, after in pairwise(numbers)
                for number in range(before + 1, min(after, before + 1000))
                if number not in others
            ]
            if lacking:
                some = ", ".join(str(number) for number in lacking[:10]) + (
                    ", …" if len(lacking) > 10 else ""
                )
                text = f"no chain here is number {some}"
                self._add(Finding("number skipped", None, None, None, text, len(lacking)))


@contextmanager
def prove(
    logs: Sequence[Path],
    keys: Keys | None,
    *,
    register: Register | None = None,
    copies: Sequence[Register] = (),
    gate: str | None = None,
    window: tuple[float | None, float | None] = (None, None),
    jobs: int | None = None,
) -> Iterator[Proof]:
    """What logs hold, and what is wrong with it. Raises SourceError.

    `keys`: None when there are none; `copies`: of the register, older than it; `gate`: whose logs
    these are; `window`: the time that the register is asked about; `jobs`: how many processes.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="airgate-")))
        files = Files()
        stack.callback(files.close)
        found = paths(logs)
        opened = [
            path if path.is_file() else _kept(path, scratch / f"{at}.log") for at, path in enumerate(found)
        ]
        names = [called(path) for path in found]
        tasks = list(_tasks(names, opened))
        total = sum(path.stat().st_size for path in opened)
        proof = Proof(Tally(files=len(found)), names, keys, {}, {}, files, [])
        proof.register, proof.copies, proof.gate, proof.window = register, copies, gate, window
        count = min(jobs or os.cpu_count() or 1, len(tasks) or 1) if total > SMALL or jobs else 1
        bar = stack.enter_context(Bar(total, "verifying"))
        try:
            _gather(proof, tasks, _examined(tasks, keys, scratch, count), bar)
            for number in {unpacked(at)[0] for held in proof.held.values() for at in held.segments}:
                files.add(number, str(_spill(scratch, number)))
            proof.join()
        except OSError as error:
            raise SourceError(
                f"No room for what verifying keeps in {scratch.parent} (4 to 10 % of the logs): {error.strerror}. "
                "Set TMPDIR to a folder with more."
            ) from None
        yield proof


def _gather(proof: Proof, tasks: Sequence[Task], results: Iterable[Examined], bar: Bar) -> None:
    """All that the tasks have found. Raises SourceError."""
    lines: dict[int, int] = {}
    signs: dict[tuple[str, str | None], Sign] = {}
    for examined in results:
        task, tally = tasks[examined.number], examined.tally
        lines[task.number] = tally.lines
        for name in ("lines", "events", "unchained", "foreign", "broken", "cut"):
            setattr(proof.tally, name, getattr(proof.tally, name) + getattr(tally, name))
        proof.tally.damaged += tally.damaged
        proof.hours |= examined.hours
        if examined.unchained is not None and (
            proof.unchained is None or examined.unchained[0] > proof.unchained[0]
        ):
            proof.unchained = examined.unchained
        proof.earliest = min(filter(None, (proof.earliest, examined.earliest)), default="")
        proof.latest = max(proof.latest, examined.latest)
        for chain, offsets in examined.segments.items():
            proof.held.setdefault(chain, Held()).segments.extend(
                located(examined.spill, offset) for offset in offsets
            )
        if len(proof.held) > MOST_CHAINS:
            raise SourceError(f"The logs name more than {MOST_CHAINS:,} chains. Verify fewer files at once.")
        for chain, stated in examined.stated.items():
            proof.held[chain].stated += stated
        for chain, opened in examined.opened.items():
            proof.held[chain].opened = opened
        for sign in examined.signs.values():
            note(signs, sign)
        bar.advance((task.end or task.path.stat().st_size) - task.start)
    log, before = -1, 0
    for task in tasks:
        if task.log != log:
            log, before = task.log, 0
        proof.examined[task.number] = log, before
        before += lines[task.number]
    proof.signs = list(signs.values())


def _kept(path: Path, kept: Path) -> Path:
    """Standard input or a pipe, which can be read once only, as a file. Raises SourceError."""
    try:
        with kept.open("wb") as file:
            if path == STANDARD_INPUT:
                shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
            else:
                with path.open("rb") as pipe:
                    shutil.copyfileobj(pipe, file, 1 << 20)
    except OSError as error:
        raise SourceError(f"{called(path)}: can't be read: {error.strerror}") from None
    return kept


def _tasks(names: Sequence[str], opened: Sequence[Path]) -> Iterator[Task]:
    """Parts of logs, in their order. Raises SourceError."""
    number = 0
    for log, (name, path) in enumerate(zip(names, opened, strict=True)):
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                ends: list[int | None] = [None] if file.read(2) == GZIP else [*_ends(file, size)]
        except OSError as error:
            raise SourceError(f"{name}: can't be read: {error.strerror}") from None
        start = 0
        for end in ends:
            yield Task(number, log, name, path, start, end)
            number += 1
            start = end or 0


def _ends(file: IO[bytes], size: int) -> Iterator[int]:
    """Where parts end: with a line, and not inside of an object over many lines."""
    start = 0
    while size - start > PART:
        at = start + PART
        file.seek(at)
        window = b""
        while len(window) < LONGEST and (block := file.read(1 << 18)):
            window += block
            if end := boundary(window):
                start = at + end
                break
        else:
            # Nowhere to cut: as far as the next line's end, or what is left.
            start = at + (window.rfind(b"\n") + 1 or len(window))
        if start < size:
            yield start
    yield size


def _spill(scratch: Path, number: int) -> Path:
    return scratch / f"{number}.segments"


def _examined(tasks: Sequence[Task], keys: Keys | None, scratch: Path, count: int) -> Iterator[Examined]:
    """What comes of the tasks, in any order. Raises SourceError."""
    if count == 1:
        with _spill(scratch, 0).open("wb") as file:
            examiner = Examiner(keys, file, 0)
            for task in tasks:
                yield examiner.examine(task)
        return
    with ProcessPoolExecutor(count, initializer=_begin, initargs=(keys, scratch)) as pool:
        waiting = iter(tasks)
        try:
            running: set[Future[Examined]] = {
                pool.submit(_examine, task) for task in islice(waiting, 2 * count)
            }
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(_examine, task) for task in islice(waiting, len(done))}
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise SourceError(
                "A process that was reading has been ended from outside, perhaps for want of memory. Try --jobs 1."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


_own: list[Examiner] = []  # of this process


def _begin(keys: Keys | None, scratch: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one sees to it
    gc.disable()  # nothing here is cyclic, and the collector takes a tenth of the time
    number = os.getpid()
    _own[:] = [Examiner(keys, _spill(scratch, number).open("wb"), number)]


def _examine(task: Task) -> Examined:
    return _own[0].examine(task)
