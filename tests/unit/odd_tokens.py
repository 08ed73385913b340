"""Tokens that went wrong: good ones changed as text, as bytes, as JSON, and what is no token at all.

All of them are "signed": `judge` presents them to a gate to which every signature is good, so that what is read is
also validated. The only source of chance is the `Random` that is handed in.
"""

import json
from random import Random
from typing import Any

from world import (
    AUDIENCE,
    CLAIMS,
    HEADER,
    ISSUER,
    NOW,
    World,
    b64,
    bearing,
    document,
    inbound,
    run,
    signature,
    token,
)

import gateway
from keys import Key
from model import Reason, Refusal
from state import State

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ODD_TEXT = [
    "",
    ".",
    "..",
    "=",
    "==",
    "+",
    "/",
    "?",
    " ",
    "\t",
    "\n",
    "\0",
    ",",
    ", Bearer ",
    "é",
    "\u212a",
    "\ud800",
    "%2e",
]
ODD_JSON = [
    b"null", b"true", b"false", b"0", b"-0", b"-1", b"1e999", b"-1e999", b"1e-999", b"NaN", b"Infinity", b"-Infinity",
    b"1.", b"01", b"0x1", b"9007199254740992", b"9" * 400, b"9" * 5000, b"1." + b"9" * 3000,
    b'""', b'"\\u0000"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\xff"', b'"\xed\xa0\x80"',
    b'"\xc0\x80"', b'"\\x"', b"'x'", b'"\n"', b'"' + b"x" * 600 + b'"',
    b"[]", b"{}", b"[[]]", b"[1,true,null]", b"[" * 17 + b"]" * 17, b"[" * 3000, b'{"a":' * 17 + b"0" + b"}" * 17,
    b"[" + b'"x",' * 1000 + b'"x"]', b"[" + b"{}," * 400 + b"{}]", b'{"a":1,"a":2}', b'{"":{"":{"":0}}}',
    b'"at+jwt"', b'"JWT"', b'"none"', b'"HS256"', b'"EdDSA"', b'"ID"',
    json.dumps(ISSUER).encode(), json.dumps(AUDIENCE).encode(), json.dumps([AUDIENCE, "x"]).encode(),
    b"%d" % NOW,
]  # fmt: skip
TIMES = [b"%d" % (NOW + seconds) for seconds in (-5000, -61, -59.5, 0, 30, 59, 61, 3600, 5000)]
NAMES = [
    "alg", "kid", "typ", "cty", "crit", "b64", "zip", "enc", "jwk", "jku", "x5u", "x5c", "x5t", "nonce",
    "iss", "aud", "sub", "exp", "nbf", "iat", "jti", "client_id", "azp", "groups", "airflow", "airgate_kind",
    "cnf", "act", "at_hash", "events", "token_use", "hasgroups", "_claim_names", "", "\u00e9", "__proto__",
]  # fmt: skip
ENCODINGS = ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7", "latin-1"]
BYTES = b'{}[]":,\\0 19eE.+-tfnu\x00\x7f\x80\xc3\xff'


def _place(random: Random, value: Any) -> int:
    return random.randint(0, len(value))


def _changed_text(random: Random, text: str) -> str:
    """A text with a stretch of it left out, repeated or replaced."""
    start = _place(random, text)
    end = min(len(text), start + random.choice([0, 1, 2, 4, 30, 300]))
    new = random.choice(
        [
            "",
            random.choice(ALPHABET),
            random.choice(ODD_TEXT),
            text[start:end] * random.choice([2, 3, 50]),
            "." * 3,
        ]
    )
    return text[:start] + new + text[end:]


def _changed_bytes(random: Random, octets: bytes) -> bytes:
    start = _place(random, octets)
    end = min(len(octets), start + random.choice([0, 1, 2, 8, 100]))
    one = bytes([random.choice(BYTES)])
    new = random.choice(
        [b"", one, one * random.choice([2, 20, 2000]), octets[start:end] * random.choice([2, 20])]
    )
    return octets[:start] + new + octets[end:]


def _changed_members(random: Random, members: dict[str, Any]) -> bytes:
    """An object's text, with members left out, replaced, repeated or added; names may stand in it twice."""
    pairs = [(name, json.dumps(value).encode()) for name, value in members.items()]
    for _ in range(random.choice([1, 1, 1, 2, 3, 5])):
        number = random.randrange(len(pairs) + 1)
        change = random.randrange(4)
        if change == 0 or number == len(pairs):
            pairs.insert(number, (random.choice(NAMES), random.choice(ODD_JSON)))
        elif change == 1:
            name = pairs[number][0]
            odd = TIMES if name in ("exp", "nbf", "iat") and random.randrange(2) else ODD_JSON
            pairs[number] = (name, random.choice(odd))
        elif change == 2:
            pairs.insert(number, pairs[number])
        else:
            del pairs[number]
    text = b",".join(json.dumps(name).encode() + b":" + value for name, value in pairs)
    return b"{" + text + b"}"


def _part(random: Random, members: dict[str, Any]) -> bytes:
    octets = json.dumps(members).encode() if random.randrange(4) == 0 else _changed_members(random, members)
    for _ in range(random.choice([0, 0, 0, 0, 1, 2])):
        octets = _changed_bytes(random, octets)
    if random.randrange(40) == 0:
        octets = octets.decode("utf-8", "replace").encode(random.choice(ENCODINGS), "replace")
    return octets


def _many(random: Random) -> bytes:
    """Claims as large as they may be, made of one thing."""
    unit = random.choice(
        [
            b"0,",
            b"1e1,",
            b"{},",
            b"[],",
            b'"",',
            b'"x",',
            b'{"":0},',
            b'"[{",',
            b"[[[]]],",
            b'"\\u0041\\"",',
            b" ",
            b"-0.0,",
        ]
    )
    return b'{"iss":"' + ISSUER.encode() + b'","a":[' + unit * (random.randint(0, 5800) // len(unit)) + b"0]}"


def mutated(random: Random) -> str:
    """One input: mostly a token with one or a few things wrong, seldom a good one, now and then no token at all."""
    kind = random.randrange(10)
    if kind == 0:
        stretches = [
            "".join(random.choices([*ALPHABET, *ODD_TEXT], k=random.choice([1, 5, 40]))) for _ in "123"
        ]
        return ".".join(stretch * random.choice([1, 1, 20, 200]) for stretch in stretches)
    header: bytes = json.dumps(HEADER).encode()
    claims: bytes = json.dumps(CLAIMS).encode()
    if kind in (1, 2, 3):
        header = _part(random, HEADER)
    if kind in (3, 4, 5, 6):
        claims = _part(random, CLAIMS)
    if kind == 7:
        claims = _many(random)
    signed = f"{b64(header)}.{b64(claims)}"
    text = f"{signed}.{b64(signature(signed.encode(), 'one'))}"
    if kind in (8, 9):
        for _ in range(random.choice([1, 1, 1, 2, 4])):
            text = _changed_text(random, text)
    return text


class Lenient(World):
    """A world in which every signature is good."""

    async def verify(self, key: Key, algorithm: str, given: bytes, signed: bytes) -> bool:
        return True


class Subject:
    """A gate to present inputs to, one after the other."""

    def __init__(self, type_: str = "any") -> None:
        bundle = document()
        bundle["issuers"]["company"]["type"] = type_
        self.world = Lenient(bundle)
        self.state = State()
        assert self.judge(token()) is None

    def judge(self, text: str) -> Reason | None:
        """Why the gate refuses an input; None: it accepts. AssertionError when it does what it must never do."""
        self.world.happened.clear()
        result = run(gateway.handle(inbound(**bearing(text)), self.state, self.world))
        line = next(line for line in self.world.of("log") if '"event":"decision"' in line)
        reason = json.loads(line)["reason"]
        assert reason != Reason.INTERNAL, f"{line} for {text!r}"
        if reason is None:
            return None
        assert isinstance(result, Refusal)
        said = line + result.body + "".join(result.headers.values())
        assert not any(part in said for part in text.split(".") if len(part) > 20), f"echoed: {text!r}"
        return Reason(reason)
