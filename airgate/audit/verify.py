"""`airgate audit verify`: are these logs what the gate wrote, all of it and in this order?

Exit codes: 0 proved; 1 something is altered, missing, forged, conflicting or contradicts the register; 2 nothing could
be verified, nothing is proved, or there are no keys to prove it with.
"""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from airgate.audit.findings import KINDS, Finding
from airgate.audit.proof import Proof, prove
from airgate.audit.register import Register, RegisterRefused, read_environment, read_file
from airgate.audit.source import SourceError
from airgate.audit.trusted import FILE, KeysRefused, read_keys
from airgate.dev.stack import StackError, read_stack
from airgate.environment import EnvironmentMissing, open_environment
from airgate.moments import clock
from airgate.node import NodeMissing, WranglerFailed
from airgate.policy.check import counted
from airgate.policy.output import console, printable
from airgate.policy.traffic import since as moment

PROVED, FOUND, INVALID = 0, 1, 2
MOST_SHOWN = 20  # findings of one kind; --json has all
MOST_LISTED = 100_000  # the same, with --json


def verify(
    logs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]…",
            help="Logs, or folders of them; - is standard input. The running local stack's when left out.",
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys", metavar="FILE", help=f"Public keys of the gate; {FILE} when left out and there."
        ),
    ] = None,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Check the chains alone; whoever can write a log can make one.")
    ] = False,
    gate: Annotated[
        str | None,
        typer.Option("--gate", metavar="NAME", help="Whose log it is; chains of others are findings."),
    ] = None,
    register: Annotated[
        list[Path] | None,
        typer.Option(
            "--register",
            metavar="FILE",
            help="What `airgate audit register` has written. Older copies beside it: repeat it, or add --env.",
        ),
    ] = None,
    env: Annotated[
        str | None, typer.Option("--env", metavar="NAME", help="Read the register of this environment now.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="Ask the register about this time on only: 7d, 2026-11-14 or a moment."
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="The same, up to this time.")] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Fail for doubles, order, open ends and beginnings as well."),
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", metavar="N", min=1, help="Processes; one for each core when left out."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Prove that logs are what the gate wrote: nothing altered, nothing missing, nothing added.

    Raw, gzip, `wrangler tail --format json` and Logpush, in any order. Exits with 0 when all is proved, 1 when
    something is altered, missing, forged, conflicting or contradicts the register, 2 when it can't be verified.
    """
    try:
        given, file = _given(logs, keys, no_keys)
        trusted = None if file is None else read_keys(file)
        registers = _registers(register or [], env)
        rows, copies = (registers[0], registers[1:]) if registers else (None, [])
        window = _window(since, until, rows)
        with prove(
            given, trusted, register=rows, copies=copies, gate=gate, window=window, jobs=jobs
        ) as proof:
            if not proof.tally.events:
                raise SourceError(
                    "\n".join(
                        [
                            "No event of a gate is in these logs.",
                            *proof.tally.sentences()[1:],
                            "Where something else wraps the gate's lines, unwrap them: docs/audit-proof.md",
                        ]
                    )
                )
            code = _code(proof, strict, no_keys)
            if as_json:
                typer.echo(json.dumps(_document(proof, code, strict), ensure_ascii=False))
            else:
                _tell(proof, file, code, strict, no_keys)
    except (
        SourceError,
        KeysRefused,
        RegisterRefused,
        EnvironmentMissing,
        NodeMissing,
        WranglerFailed,
    ) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(INVALID) from None
    raise typer.Exit(code)


def _given(logs: list[Path] | None, keys: Path | None, no_keys: bool) -> tuple[list[Path], Path | None]:
    """The logs, and the file of keys. Raises SourceError."""
    if no_keys and keys is not None:
        raise SourceError("Say --keys FILE or --no-keys, not both")
    file = keys or (FILE if FILE.is_file() else None)
    if not logs:
        try:
            stack = read_stack()
        except StackError as error:
            raise SourceError(
                f"Name the logs: airgate audit verify FILE…, or start a local stack. {error}"
            ) from None
        logs, file = [stack.audit], keys or stack.audit_keys
    return logs, None if no_keys else file


def _registers(files: list[Path], env: str | None) -> list[Register]:
    """The newest one first. Raises what reading them raises."""
    found = [read_file(file) for file in files]
    if env is not None:
        found.append(read_environment(open_environment(env)))
    if len(gates := {each.gate for each in found}) > 1:
        raise RegisterRefused(
            f"These registers are of different gates ({', '.join(sorted(gates))}). Verify each gate's log with its own."
        )
    return sorted(found, key=lambda each: each.read_at, reverse=True)


def _window(
    since: str | None, until: str | None, register: Register | None
) -> tuple[float | None, float | None]:
    """Raises RegisterRefused."""
    if register is None and (since or until):
        raise RegisterRefused(
            "--since and --until say what the register is asked about; give one: --register FILE"
        )
    times: list[float | None] = []
    for name, text in (("--since", since), ("--until", until)):
        try:
            times.append(None if text is None else moment(text, time.time()))
        except ValueError as error:
            raise RegisterRefused(f"{name}: {error}") from None
    return times[0], times[1]


def _code(proof: Proof, strict: bool, no_keys: bool) -> int:
    if any(each.failure or strict for each in proof.findings):
        return FOUND
    if proof.keys is None:
        return PROVED if no_keys else INVALID
    return PROVED if proof.proved else INVALID


def _tell(proof: Proof, file: Path | None, code: int, strict: bool, no_keys: bool) -> None:
    screen = console()

    def say(text: str, style: str = "") -> None:
        screen.print(
            Text(printable(text) if not text.startswith(" ") else _indented(text), style), soft_wrap=True
        )

    for sentence in proof.tally.sentences():
        say(sentence)
    for sentence in _scope(proof, file):
        say(sentence)
    failures = [each for each in proof.findings if each.failure or strict]
    notes = [each for each in proof.findings if not (each.failure or strict)]
    for heading, style, findings in (
        ("Not what the gate wrote, or not proved:", "bold red", failures),
        ("Good to know:", "bold", notes),
    ):
        if findings:
            say("")
            say(heading, style)
            for line in _lines(findings, proof.counts):
                say(line)
    say("")
    say(
        _verdict(proof, code, _total(failures, proof.counts), no_keys),
        {PROVED: "bold green"}.get(code, "bold red"),
    )
    say("")
    say("What this can't tell:")
    for sentence in unprovable(proof):
        say(f"  {sentence}")


def _indented(text: str) -> str:
    bare = text.lstrip(" ")
    return " " * (len(text) - len(bare)) + printable(bare)


def _scope(proof: Proof, file: Path | None) -> Iterator[str]:
    chains = counted(len(proof.linked), "chain")
    gates = f" of {', '.join(proof.gates[:5])}" if proof.gates else ""
    span = f", {proof.earliest} to {proof.latest}" if proof.earliest else ""
    yield f"{chains}{gates}{span}"
    if proof.keys is None:
        yield f"{counted(proof.checkpoints, 'checkpoint')}, not checked: there are no keys"
    else:
        yield f"{counted(proof.checkpoints, 'checkpoint')}, checked with {file} ({counted(len(proof.keys), 'key')})"
    if (register := proof.register) is not None:
        yield (
            f"Register of {register.gate}, read {clock(register.read_at)}: {counted(len(register.rows), 'chain')}, "
            f"asked about {proof.span.words}"
        )


def _total(findings: list[Finding], counts: Mapping[str, int]) -> int:
    """How many findings there are of these kinds, the ones that weren't kept among them."""
    return sum(counts[kind] for kind in {each.kind for each in findings})


def _lines(findings: list[Finding], counts: Mapping[str, int]) -> Iterator[str]:
    by_kind: dict[str, list[Finding]] = {}
    for each in findings:
        by_kind.setdefault(each.kind, []).append(each)
    for kind, alike in by_kind.items():
        yield f"  {kind}: {KINDS[kind].meaning}"
        for each in alike[:MOST_SHOWN]:
            where = [each.where] if each.where else []
            if each.chain is not None:
                where.append(
                    f"chain {each.chain}" + ("" if each.position is None else f" position {each.position}")
                )
            more = f" ({each.count:,} in all)" if each.count > 1 else ""
            yield f"    {', '.join(where)}{': ' if where else ''}{each.text}{more}"
        if len(alike) > MOST_SHOWN:
            listed = "them" if len(alike) == counts[kind] else f"the first {len(alike):,}"
            yield f"    and {counts[kind] - MOST_SHOWN:,} more like these; --json lists {listed}"


def _verdict(proof: Proof, code: int, failures: int, no_keys: bool) -> str:
    tail = sum(chain.tail for chain in proof.linked)
    if code == FOUND:
        return f"Not proved: {counted(failures, 'finding')}. What to do about each: docs/audit-proof.md"
    if proof.keys is None:
        said = "Every line has its hash and follows the one before. Without keys that says nothing of who wrote it."
        return said if no_keys else f"{said} Give the gate's public keys: --keys {FILE} (or say --no-keys)"
    if not proof.proved:
        return "Nothing is proved: no checkpoint that counts covers any of these events. Whose they are, nobody knows."
    rest = f" {counted(tail, 'event')} at the ends of chains no checkpoint covers." if tail else ""
    return f"Proved: {counted(proof.proved, 'event')} as the gate wrote them, none of them altered or missing.{rest}"


def unprovable(proof: Proof) -> Iterator[str]:
    """What nobody can tell from these files, in sentences."""
    if proof.register is None:
        yield "Whether whole chains vanished, or the ends of chains from a checkpoint on. Ask the register: --env NAME."
    else:
        yield "Whether lines after a chain's last checkpoint in the register were cut: those of its last seconds."
        yield (
            "Whether a chain that lived on after these logs was cut before their end: verify with the logs that follow."
        )
        yield "Whether chains vanished that never got a number, because the gate could not reach D1."
        if not proof.copies:
            yield (
                "Whether somebody who can write D1 deleted chains with their newest rows, gave the numbers out again, "
                "or cut chains and set their rows back: add older copies of the register, --register FILE."
            )
    if any(chain.first > 0 for chain in proof.linked):
        yield "Whether chains that begin before these logs lost lines of this time at their beginning."
    if proof.keys is not None and any(key.until is not None for key in proof.keys.values()):
        yield "Whether somebody who has a retired key wrote chains with it, dated before it was retired."
    yield "Whether somebody who had the gate's private key (AUDIT_KEY), or could deploy the gate, wrote all of it anew."


def _document(proof: Proof, code: int, strict: bool) -> dict[str, Any]:
    tally = proof.tally
    register = proof.register
    return {
        "result": "not proved" if code == FOUND else "no keys" if proof.keys is None
        else "proved" if code == PROVED else "nothing proved",
        "findings": [each.document(strict) for each in proof.findings[:MOST_LISTED]],
        "findings_left_out": proof.counts.total() - len(proof.findings[:MOST_LISTED]),
        "read": {
            "files": tally.files, "lines": tally.lines, "events": tally.events, "unchained": tally.unchained,
            "foreign": tally.foreign, "half_written": tally.broken, "cut_by_logpush": tally.cut,
            "damaged": tally.damaged,
        },
        "earliest": proof.earliest or None,
        "latest": proof.latest or None,
        "gates": proof.gates,
        "keys": None if proof.keys is None else sorted(proof.keys),
        "register": None if register is None else {
            "gate": register.gate, "read_at": register.read_at, "chains": len(register.rows),
            "copies": len(proof.copies), "since": proof.span.since, "until": proof.span.until,
        },
        "proved": proof.proved,
        "checkpoints": proof.checkpoints,
        "chains": [
            {
                "chain": chain.id, "gate": chain.gate or None, "numbers": chain.numbers,
                "first": chain.first, "last": chain.last, "lines": chain.count, "checkpoints": chain.checkpoints,
                "proved_to": chain.proved if chain.proved >= 0 else None,
                "unproved": chain.tail, "unproved_since": chain.since or None,
                "begun": chain.begun or None, "ended": chain.ended or None,
            }
            for chain in proof.linked[:MOST_LISTED]
        ],
        "unprovable": list(unprovable(proof)),
    }  # fmt: skip
