"""An isolate's audit log in the world of the tests: its lines, and the work behind answers, which is stepped by hand.

Every port of the journal suspends before it has an effect and again behind it, so that anything may happen in between.
"""

import json
from collections.abc import Callable, Coroutine, Generator
from hashlib import sha256
from typing import Any

from world import ED25519, World, b64, signature

from audit import timestamp
from chain import CHECKPOINT, GENESIS
from journal import KEY, Journal
from trust import pae

# RFC 8037, appendix A.1: the private part of world.ED25519.
PRIVATE = {**ED25519, "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", "kid": "audit-1"}
BEFORE, BEHIND, ODD = (
    "before",
    "behind",
    "odd",
)  # where a port fails: with no effect, behind it, or with nonsense


class _Pause:
    """Suspends, and tells where."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __await__(self) -> Generator[str, None, None]:
        yield self._place


class Job:
    """One run of settle()."""

    def __init__(self, wait: float, work: Coroutine[Any, Any, None]) -> None:
        self.wait = wait
        self.work = work
        self.place = "begun"  # where it is suspended


class Isolate(World):
    """The ports of a journal. `faults`: how a port fails, by its name: where, and with what."""

    def __init__(self, signs: bool = True, **secrets: Any) -> None:
        super().__init__()
        self.journal = Journal()
        self.secrets = {**({KEY: json.dumps(PRIVATE)} if signs else {}), **secrets}
        self.written: list[str] = []
        self.jobs: list[Job] = []  # under way
        self.lost: list[Job] = []  # that the runtime has ended
        self.begun = 0  # jobs, so far
        self.faults: dict[str, tuple[str, Any]] = {}

    def log(self, line: str) -> None:
        self.written.append(self.journal.take(line))
        wait = self.journal.due(self.clock)
        if wait is not None:
            self.begun += 1
            self.jobs.append(Job(wait, self.journal.settle(wait, self)))

    def begin(self) -> "Isolate":
        self.journal.begin(self)
        return self

    def say(self, times: int = 1) -> None:
        """Write some lines."""
        for _ in range(times):
            self.log(f'{{"event":"decision","time":"{timestamp(self.clock)}","number":{len(self.written)}}}')

    async def _through(self, port: str, effect: Callable[[], Any]) -> Any:
        await _Pause(f"{port}: before")
        where, what = self.faults.get(port, ("", None))
        if where == BEFORE:
            raise what
        if where == ODD:
            return what
        done = effect()
        await _Pause(f"{port}: behind")
        if where == BEHIND:
            raise what
        return done

    async def sleep(self, seconds: float) -> None:
        self._enter("sleep", seconds)
        await _Pause("sleep")

    async def database(self, sql: str, values: tuple[Any, ...], timeout: float) -> str | None:
        self._enter("database", (sql, values, timeout))
        told: str | None = await self._through("database", lambda: self.d1.answer(sql, values))
        return told

    async def sign(self, key: Any, signed: bytes) -> bytes:
        made: bytes = await self._through("sign", lambda: signature(signed, key.kid))
        return made

    async def store(self, name: str, text: str, timeout: float) -> None:
        def put() -> None:
            assert self.bucket is not None
            self.bucket[name] = text

        self._enter("store", (name, text, timeout))
        await self._through("store", put)

    def step(self, job: Job) -> bool:
        """Let a job go on to where it waits next. Returns whether it goes on there."""
        try:
            job.place = job.work.send(None)
        except StopIteration:
            self.jobs.remove(job)
            return False
        return True

    def lose(self, job: Job) -> None:
        """End a job as the runtime does: nothing of it runs any more."""
        self.jobs.remove(job)
        self.lost.append(job)  # a reference to it stays, or Python would run what is behind its `finally`

    def finish(self, most: int = 1000) -> int:
        """Let every job come to its end, those that they begin too. Returns how many steps that took."""
        for steps in range(most):
            if not self.jobs:
                return steps
            self.step(self.jobs[0])
        raise AssertionError(f"{most} steps, and no end")

    def close(self) -> None:
        for job in [*self.jobs, *self.lost]:
            job.work.close()

    def events(self, event: str) -> list[dict[str, Any]]:
        read = [json.loads(line) for line in self.written]
        return [line for line in read if line["event"] == event]

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the register that are this chain's."""
        assert self.journal.chain is not None
        return [row for row in self.d1.chains.values() if row["chain"] == self.journal.chain.id]

    def stored(self) -> set[str]:
        """The lines that are in the bucket."""
        return {line for text in (self.bucket or {}).values() for line in text.split("\n")[:-1]}

    def check(self) -> int:
        """The chain from its first line to its last, and every checkpoint. Returns how far the checkpoints reach."""
        assert self.journal.chain is not None
        previous, covered, hashes = GENESIS, -1, []
        for position, line in enumerate(self.written):
            assert line.isascii()
            assert line.isprintable()
            assert len(line) <= 8192
            read = json.loads(line)
            assert list(read)[-4:] == ["chain", "position", "previous", "hash"]
            assert (read["chain"], read["position"]) == (self.journal.chain.id, position)
            assert (read["event"] == "opening") is (position == 0)
            covers, mark, _ = line.rpartition(',"hash":"')
            assert mark
            assert (read["previous"], read["hash"]) == (previous, sha256(covers.encode()).hexdigest())
            previous = read["hash"]
            hashes.append(previous)
            if read["event"] == "checkpoint":
                statement = json.loads(read["document"])
                assert statement["position"] < position
                assert statement["hash"] == hashes[statement["position"]]
                assert statement["chain"] == read["chain"]
                assert read["signature"] == b64(signature(pae(CHECKPOINT, read["document"]), read["key"]))
                covered = max(covered, statement["position"])
        return covered
