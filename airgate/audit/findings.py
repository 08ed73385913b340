"""What verifying can find: its kinds, which of them mean that the log isn't what the gate wrote, and what they mean."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A kind of finding."""

    failure: bool  # False: it comes with ordinary delivery and ordinary logs, and fails with --strict only
    meaning: str  # a sentence, for whoever meets it


KINDS = {
    # What is wrong with the lines themselves.
    "altered": Kind(True, "The line is not what the gate wrote."),
    "missing": Kind(True, "Lines were there, and aren't any more."),
    "beginning missing": Kind(
        True, "The chain began while these logs were being written, and its beginning isn't in them."
    ),
    "conflicting": Kind(True, "Two different lines have the same place; the gate wrote one of them at most."),
    "unlinked": Kind(True, "A line was rewritten with a hash of its own, but without those around it."),
    "misplaced": Kind(True, "A chain begins with its opening, and has no other one."),
    "unplaced": Kind(True, "An event without a place in a chain can be anybody's."),
    "no time": Kind(True, "A line without a time as the gate writes it: the gate did not write it."),
    "damaged": Kind(True, "A packed file that can't be unpacked to its end: nobody knows what is not there."),
    # What is wrong with checkpoints.
    "forged": Kind(True, "A checkpoint that the gate didn't sign."),
    "unknown key": Kind(
        True, "Either the key file lacks a key of the gate's, or somebody else has signed with their own."
    ),
    "retired key": Kind(True, "A key that was retired has signed: whoever kept it may have written this."),
    "backdated": Kind(
        True, "A checkpoint dated before its key was made: whoever has the key wrote it later than it says."
    ),
    "spliced": Kind(True, "A checkpoint was moved here from another chain."),
    "replayed": Kind(True, "An old checkpoint was put where a newer one should be."),
    "contradicted": Kind(True, "Lines that a signed checkpoint covers were rewritten, hashes and all."),
    "overdue": Kind(
        True,
        "The gate signs within seconds. Lines that nobody signed for minutes may be anybody's, or its key was gone.",
    ),
    "never signed": Kind(
        True, "The gate signs a chain from its first seconds on. Nobody signed for this one: it can be anybody's."
    ),
    "unsigned": Kind(True, "The gate had no key then (AUDIT_KEY), so nothing proves these lines."),
    # What the register says.
    "vanished": Kind(True, "The register knows a chain of this time that the logs lack."),
    "cut": Kind(True, "The log of a chain ends before lines that the gate has signed for."),
    "register gap": Kind(True, "Rows were deleted from the register, perhaps with the chains they stood for."),
    "register wrong": Kind(True, "A row of the register is not what the gate wrote."),
    "register cut": Kind(True, "The gate itself found its row in the register deleted."),
    "register set back": Kind(True, "An older copy of the register has a row that is gone by now, or said more."),
    "other gate": Kind(True, "A chain of another gate than the one that was asked for."),
    "unregistered": Kind(True, "Whole chains without a row may have been made up, or their row was deleted."),
    # What is ordinary.
    "doubled": Kind(False, "The same line more than once: what delivers logs may deliver twice."),
    "reordered": Kind(False, "Lines in another order than they were written in: they say themselves which."),
    "begins before": Kind(False, "The chain was there before these logs begin."),
    "open end": Kind(False, "The last lines of a chain, which no checkpoint covers: they could be cut or rewritten."),
    "not yet signed": Kind(
        False, "Chains of a few seconds that nobody signed for: they can be anybody's. An isolate that ends at once "
        "leaves one."
    ),
    "half-written": Kind(False, "A line that was cut off. If it was an event, its position is missing."),
    "unchained": Kind(False, "Events of an older gate, which had no chains. Nothing proves them."),
    "number skipped": Kind(
        False, "A number between those of these chains. It may stand for a chain that vanished: take the register."
    ),
    "perhaps vanished": Kind(False, "A chain that may have had nothing to say in the time of these logs."),
    "perhaps cut": Kind(
        False, "The gate has signed for more of this chain, after the time of these logs. It was silent until then, or "
        "was cut: verify it with the logs that follow, or with a register from the end of that time."
    ),
    "several gates": Kind(False, "The key file counts for all of them. Say which gate's log it is: --gate NAME."),
    "register behind": Kind(
        False, "The log has newer checkpoints than the register. D1 was away, or somebody has set the row back."
    ),
    "not registered": Kind(
        False, "The register was read before this chain began, is another gate's, or the gate could not reach it."
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """Something to say about a chain, or about a line of none."""

    kind: str
    chain: str | None
    position: int | None  # of the first line that it is about
    where: str | None  # file:line of that
    text: str
    count: int = 1  # lines, or whatever it is about

    @property
    def failure(self) -> bool:
        return KINDS[self.kind].failure

    def document(self, strict: bool) -> dict[str, Any]:
        """For --json."""
        return {**asdict(self), "failure": self.failure or strict}
