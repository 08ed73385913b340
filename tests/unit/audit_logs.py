"""Audit logs of gates that there never were: real chains, real signatures, and the register that goes with them."""

import gzip
import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from airgate.audit.register import Register, Row
from airgate.audit.trusted import AuditKey
from airgate.engine import pae, read_base64url
from airgate.keys.audit import new_key
from audit import checkpoint_event, opening_event, timestamp
from chain import CHECKPOINT, Chain
from pseudonym import PLAIN

GATE = "airgate-test"
START = 1_795_000_000.0  # seconds since the epoch
STEP = 0.5  # seconds between two lines of a chain


class Signer:
    """The key of a gate."""

    def __init__(self) -> None:
        self.text, self.public = new_key(START - 86_400)
        self._private = Ed25519PrivateKey.from_private_bytes(read_base64url(json.loads(self.text)["d"]))

    @property
    def kid(self) -> str:
        return self.public.kid

    def keys(self, until: int | None = None) -> dict[str, AuditKey]:
        return {self.kid: self.public._replace(until=until)}

    def sign(self, document: str) -> str:
        octets = self._private.sign(pae(CHECKPOINT, document))
        return urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


@dataclass
class Isolate:
    """One isolate: its lines, in the order in which they were written, and its row in the register."""

    name: str
    number: int | None
    signer: Signer
    now: float = START
    lines: list[str] = field(default_factory=list, repr=False)
    row: Row | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.chain = Chain(self.name)
        if self.number is not None:
            self.row = Row(self.number, self.name, int(self.now), -1, "", "", "")
        keys = {"audit": self.signer.kid, "trusted": [], "assertion": []}
        self.put(opening_event(self.now, GATE, "FRA", None, keys, PLAIN))

    def put(self, event: str) -> str:
        self.lines.append(self.chain.link(event))
        self.now += STEP
        return self.lines[-1]

    def decide(self, **members: Any) -> str:
        head = f'{{"event":"decision","schema":2,"time":"{timestamp(self.now)}"'
        said = "".join([f",{json.dumps(name)}:{json.dumps(value)}" for name, value in members.items()])
        return self.put(head + said + "}")

    def document(self) -> str:
        return self.chain.checkpoint(GATE, timestamp(self.now), self.number)

    def checkpoint(self, document: str | None = None) -> str:
        """Sign how far the chain has come; or a document that was made before."""
        said = document or self.document()
        signature = self.signer.sign(said)
        position = json.loads(said)["position"]
        if self.row is not None:
            self.row = replace(
                self.row, position=position, document=said, key=self.signer.kid, signature=signature
            )
        return self.put(checkpoint_event(self.now, said, self.signer.kid, signature))


def isolate(
    signer: Signer, number: int, lines: int = 12, every: int = 4, start: float = START, tail: int = 0
) -> Isolate:
    """An isolate with a checkpoint every few lines, and one at its end but for a tail."""
    made = Isolate(f"{number:032x}", number, signer, start)
    for index in range(1, lines - tail - 1):
        if index % every == 0:
            made.checkpoint()
        else:
            made.decide(request_id=f"{index:032x}", detail=f'of {number}, \u00fc \\ " {index}')
    made.checkpoint()
    for index in range(tail):
        made.decide(request_id=f"{index:032x}")
    return made


def register(isolates: Sequence[Isolate], read_at: float = START + 86_400) -> Register:
    rows = [made.row for made in isolates if made.row is not None]
    return Register(GATE, int(read_at), max((row.number for row in rows), default=0), rows)


def together(isolates: Sequence[Isolate]) -> list[str]:
    """Their lines as one log holds them: in turn."""
    waiting = [list(made.lines) for made in isolates]
    found = []
    while any(waiting):
        for lines in waiting:
            if lines:
                found.append(lines.pop(0))
    return found


def rewritten(lines: Sequence[str], chain: Chain) -> list[str]:
    """Lines with new places: what somebody without a key can make of them."""
    return [chain.link(line[: line.rindex(',"chain":"')] + "}") for line in lines]


# --- what carries logs -------------------------------------------------------------------------------------------


def raw(lines: Sequence[str]) -> bytes:
    return "".join([line + "\n" for line in lines]).encode("utf-8")


def crlf(lines: Sequence[str]) -> bytes:
    return "".join([line + "\r\n" for line in lines]).encode("utf-8")


def prefixed(lines: Sequence[str]) -> bytes:
    return "".join([f"2026-11-22 [mf:inf] {line}\n\nsomething else\n" for line in lines]).encode("utf-8")


def packed(lines: Sequence[str]) -> bytes:
    half = len(lines) // 2
    return gzip.compress(raw(lines[:half])) + gzip.compress(raw(lines[half:]))


def tailed(lines: Sequence[str]) -> bytes:
    """As `wrangler tail --format json` prints it."""
    objects = [_object(lines[at : at + 3], "logs", "message", "level") for at in range(0, len(lines), 3)]
    return "".join([json.dumps(each, indent=2) + "\n" for each in objects]).encode("utf-8")


def pushed(lines: Sequence[str]) -> bytes:
    """As Logpush stores it."""
    objects = [_object(lines[at : at + 3], "Logs", "Message", "Level") for at in range(0, len(lines), 3)]
    return gzip.compress("".join([json.dumps(each) + "\n" for each in objects]).encode("utf-8"))


def _object(lines: Sequence[str], logs: str, message: str, level: str) -> dict[str, Any]:
    entries = [{message: [line], level: "log", "TimestampMs": 1} for line in lines]
    return {
        "EventType": "fetch",
        logs: entries,
        "Exceptions": [],
        "event": {"request": {"url": "https://x/"}},
    }


CARRIERS = {
    "raw": raw,
    "with CRLF": crlf,
    "with text before": prefixed,
    "gzip": packed,
    "wrangler tail": tailed,
    "Logpush": pushed,
}
