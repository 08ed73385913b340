"""A gate's stores in memory, D1 with its real tables; and the gate that reads them, which is the Worker's own code."""

import asyncio
import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from airgate.engine import BUNDLE, SHARD, pinned
from airgate.environment import Conflict
from airgate.issuer.signature import verify
from airgate.node import WranglerFailed
from airgate.policy.policyset import PolicySet
from airgate.signing_key import SigningKey
from bundle import Pointer
from trust import Trusted, read_trusted
from view import View

MIGRATIONS = sorted((Path(__file__).resolve().parents[2] / "migrations").glob("*.sql"))
NOW = 1_800_000_000.0


class Stores:
    """An environment. `writes` names what was written, in its order: keys of KV, and `D1`.

    The write of number `breaks_at` fails: before it has an effect, or, with `after`, behind it. A bulk write to KV is
    as many writes as it has keys.
    """

    address = None

    def __init__(self, *keys: SigningKey, name: str = "staging", gate: str = "airgate-staging") -> None:
        self.name, self.gate = name, gate
        self.trust(keys)
        self.kv: dict[str, str] = {}
        self.database = sqlite3.connect(":memory:", check_same_thread=False)
        self.database.row_factory = sqlite3.Row
        for migration in MIGRATIONS:
            self.database.executescript(migration.read_text("utf-8"))
        self.writes: list[str] = []
        self.reads: list[str] = []
        self.breaks_at: int | None = None
        self.after = False
        self.complaint = ""  # of the gate, when it was last asked

    def trust(self, keys: Iterable[SigningKey]) -> None:
        public = [key.public for key in keys]
        self.trusted_keys = json.dumps({"keys": public}) if public else ""

    @property
    def trusted(self) -> Trusted | None:
        return read_trusted(self.trusted_keys) if self.trusted_keys else None

    def kv_get(self, key: str) -> str | None:
        self.reads.append(key)
        return self.kv.get(key)

    def kv_put(self, values: Mapping[str, str]) -> None:
        for key, value in values.items():
            self._write(key, lambda key=key, value=value: self.kv.update({key: value}))

    def kv_names(self, prefix: str) -> set[str]:
        self.reads.append(prefix + "*")
        return {key for key in self.kv if key.startswith(prefix)}

    def d1(self, sql: str) -> list[dict[str, Any]]:
        if not sql.startswith("INSERT"):
            self.reads.append("D1")
            return self.rows(sql)
        added: list[dict[str, Any]] = self._write("D1", lambda: self.rows(sql))
        return added

    def rows(self, sql: str) -> list[dict[str, Any]]:
        try:
            return [dict(row) for row in self.database.execute(sql).fetchall()]
        except sqlite3.IntegrityError as error:
            raise Conflict(str(error)) from None

    def _write(self, what: str, do: Any) -> Any:
        self.writes.append(what)
        broken = self.breaks_at == len(self.writes)
        if broken and not self.after:
            raise WranglerFailed(f"wrangler failed:\n{what}: fetch failed")
        done = do()
        if broken:
            raise WranglerFailed(f"wrangler failed:\n{what}: fetch failed")
        return done

    def row(self, sequence: int, document: str, key: str = "", signature: str = "") -> None:
        """What somebody writes beside the command."""
        self.database.execute(
            "INSERT INTO pointers VALUES (?, ?, ?, ?)", (sequence, document, key, signature)
        )

    def documents(self) -> list[dict[str, Any]]:
        """The ledger's documents, oldest first."""
        return [
            json.loads(row["document"])
            for row in self.rows("SELECT document FROM pointers ORDER BY sequence")
        ]

    def in_force(self) -> tuple[Pointer, PolicySet] | None:
        """What a gate that has just begun goes by: everything is read and checked as the Worker does. None: nothing."""
        pointer, self.complaint = asyncio.run(View().read(_Reading(self), 1.0))
        if pointer is None:
            return None
        text = pinned(self.kv[BUNDLE + pointer.bundle], pointer.bundle, "the bundle")
        shards = {digest: self.kv.get(SHARD + digest, "") for digest in json.loads(text)["shards"].values()}
        return pointer, PolicySet.load(text, shards)


class _Reading:
    """What the Worker reads by."""

    verify = staticmethod(verify)

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def now(self) -> float:
        return NOW

    def log(self, line: str) -> None:
        raise AssertionError(line)

    def secret(self, name: str) -> str:
        return {"GATE": self._stores.gate, "TRUSTED_KEYS": self._stores.trusted_keys}[name]

    async def database(self, sql: str, values: tuple[int | str, ...], timeout: float) -> str | None:
        row = self._stores.database.execute(sql, values).fetchone()
        return None if row is None else str(row["value"])

    async def kv(self, key: str, timeout: float) -> str | None:
        return self._stores.kv.get(key)
