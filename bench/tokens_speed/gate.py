"""The gate with nothing around it, in the runtime that is measured. Keys and policy are given, the WebCrypto is real.

given    {"kv": {key: value}, "jwks": text, "tokens": [RS256, each another], "now": seconds since the epoch}
"""

from collections.abc import Coroutine
from typing import Any

from js import crypto
from pyodide.ffi import to_js

import audit
import gateway
import tokens
import worker
from model import Inbound
from state import State

WARM_UP = 6  # rounds: V8 compiles WebAssembly again once it is hot


class _Ports(worker.Runtime):
    """Everything but cryptography comes from memory."""

    __slots__ = ("_given",)

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(None, None, None)
        self._given = given

    def now(self) -> float:
        now: float = self._given["now"]
        return now

    def log(self, line: str) -> None:
        """Nothing: it is not what is measured."""

    async def last(self, work: Coroutine[Any, Any, bool]) -> bool:
        return await work

    async def kv(self, key: str, timeout: float) -> str | None:
        value: str | None = self._given["kv"].get(key)
        return value

    async def fetch(self, url: str, timeout: float, limit: int) -> bytes:
        text: str = self._given["jwks"]
        return text.encode()


class Gate:
    """Steps to be measured. Each takes a number, which picks the token."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.tokens: list[str] = given["tokens"]
        self._ports = _Ports(given)
        self._state = State()
        self._now = self._ports.now()

    async def start(self) -> None:
        """Bring policy and keys here, verify every token once, and know one of them."""
        self._bundle = await self._state.current(self._ports)
        for token in self.tokens:
            seen = await gateway._verify(token, self._bundle, self._state, self._ports, self._now)
        self._state.remember(token, seen, self._bundle)
        headers = {"authorization": f"Bearer {token}", "airgate-dag-id": "finance_close"}
        self._record = audit.Record(
            Inbound("0" * 32, self._now, "GET", "https://gate.example.com/ledger/v1/entries", headers, False)
        )
        self._parsed = [tokens.parse(token) for token in self.tokens]
        self._key, self._handle = seen.key, seen.key.handles["RS256"]

    async def nothing(self, number: int) -> None:
        """What calling a step costs by itself."""

    async def bare(self, number: int) -> None:
        """The least there is: a key that was imported before, what WebCrypto takes, and its answer."""
        parsed = self._parsed[number]
        how = worker._object({"name": "RSASSA-PKCS1-v1_5"})
        good = await crypto.subtle.verify(how, self._handle, to_js(parsed.signature), to_js(parsed.signed))
        assert good is True

    async def verify(self, number: int) -> None:
        """A token that was not seen before: parsed, its key found, verified, validated, its caller identified."""
        await gateway._verify(self.tokens[number], self._bundle, self._state, self._ports, self._now)

    async def seen(self, number: int) -> None:
        """A token that was seen before, and its caller under this request's headers."""
        await gateway._authenticate(self._record, self._bundle, self._state, self._ports, False)

    async def parse(self, number: int) -> None:
        """A part of `verify`."""
        tokens.parse(self.tokens[number])

    async def port(self, number: int) -> None:
        """A part of `verify`: the gate's own way to WebCrypto."""
        parsed = self._parsed[number]
        assert await self._ports.verify(self._key, "RS256", parsed.signature, parsed.signed)


async def in_turn(given: dict[str, Any], rounds: int, spent: Any) -> dict[str, list[float]]:
    """Microseconds of each step in each round, by `spent`, which says how many the process has used.

    One token at a time goes through all steps. A step by itself, over and over, would find the processor's caches full
    of nothing but itself, which no request does.
    """
    gate = Gate(given)
    await gate.start()
    steps = [gate.nothing, gate.bare, gate.verify, gate.seen, gate.parse, gate.port]
    found: dict[str, list[float]] = {step.__name__: [] for step in steps}
    for turn in range(rounds + WARM_UP):
        took = [0.0] * len(steps)
        for number in range(len(gate.tokens)):
            for place, step in enumerate(steps):
                began = spent()
                await step(number)
                took[place] += spent() - began
        if turn >= WARM_UP:
            for step, microseconds in zip(steps, took, strict=True):
                found[step.__name__].append((microseconds - took[0]) / len(gate.tokens))
    return found
