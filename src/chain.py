"""A chain of audit lines: each holds its place, the hash of the one before, and its own (docs/audit-proof.md).

The hash is over the line's bytes as they are written, so that nobody needs to know how an event would be written out
again. It covers everything before `,"hash":"`, the place and the hash of the line before among it. A checkpoint is a
statement about one line of the chain, signed; with it all lines before that one are as they were.
"""

from hashlib import sha256
from json.encoder import encode_basestring_ascii as _quote

CHECKPOINT = "application/vnd.airgate.checkpoint+json"  # the kind that is signed (trust.pae)
GENESIS = "0" * 64  # `previous` of the first line
ROOM = 260  # bytes that the place adds to a line, at most


class Chain:
    """One isolate's lines, in the order in which they were written. `id`: 32 hex digits, drawn at random."""

    __slots__ = ("head", "id", "length")

    def __init__(self, name: str) -> None:
        self.id = name
        self.length = 0  # lines so far
        self.head = GENESIS  # the hash of the last one

    def link(self, event: str) -> str:
        """The line that an event becomes. `event`: a JSON object with members, in ASCII."""
        covered = f'{event[:-1]},"chain":"{self.id}","position":{self.length},"previous":"{self.head}"'
        self.head = sha256(covered.encode("ascii")).hexdigest()
        self.length += 1
        return f'{covered},"hash":"{self.head}"}}'

    def checkpoint(self, gate: str, time: str, number: int | None) -> str:
        """The document that is signed: how far the chain has come. `number`: the chain's in the register."""
        return (
            f'{{"gate":{_quote(gate)},"chain":"{self.id}","position":{self.length - 1},"hash":"{self.head}"'
            f',"time":"{time}","number":{"null" if number is None else number}}}'
        )
