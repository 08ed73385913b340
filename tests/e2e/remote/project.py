"""A project's folder in which commands run as they do for a user, and go to the stand-in for Cloudflare.

They read a wrangler.toml of the test's own (AIRGATE_CONFIG), so the project's stays as it is.
"""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from uuid import uuid4

from cloudflare import Cloudflare, Database, Namespace

from airgate.engine import BUNDLE, SHARD, load_bundle, load_shard, pinned
from airgate.issuer.signature import verify
from airgate.node import PROJECT, environment
from view import View

SECONDS = 170.0  # that one command may take


class Site:
    """A project's folder whose commands go to the stand-in."""

    def __init__(self, folder: Path, cloudflare: Cloudflare) -> None:
        self.cloudflare = cloudflare
        self.folder = folder
        self.toml = folder / "wrangler.toml"
        self.seed = folder / "kv-seed"
        folder.mkdir()
        shutil.copytree(PROJECT / "kv-seed", self.seed)
        shutil.copytree(PROJECT / "migrations", folder / "migrations")
        shutil.copytree(PROJECT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
        self.toml.write_text((PROJECT / "wrangler.toml").read_text("utf-8"), "utf-8")

    def variables(self, **more: str) -> dict[str, str]:
        """A command's environment."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRGATE_")}
        return {
            **kept,
            **environment(self.folder / "home"),
            **self.cloudflare.variables(),
            "AIRGATE_CONFIG": str(self.toml),
            "NODE_COMPILE_CACHE": str(
                self.folder.parents[1] / "compiled"
            ),  # wrangler is started a hundred times
            "COLUMNS": "200",
            "NO_PROXY": "127.0.0.1",
            **more,
        }

    def airgate(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. No terminal: it can't ask."""
        return subprocess.run(
            [sys.executable, "-m", "airgate", *arguments],
            cwd=self.folder,
            env=self.variables(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "airgate", *arguments],
            cwd=self.folder,
            env=self.variables(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def set(self, old: str, new: str) -> None:
        """Replace a text of wrangler.toml, the first time it stands there."""
        text = self.toml.read_text("utf-8")
        assert old in text
        self.toml.write_text(text.replace(old, new, 1), "utf-8")

    def provide(self) -> None:
        """What `airgate deploy` makes, at once: namespace, database with its tables, ids and address."""
        number, database = uuid4().hex, str(uuid4())
        connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        connection.execute(
            "CREATE TABLE d1_migrations (id INTEGER PRIMARY KEY, name TEXT UNIQUE, applied_at TIMESTAMP)"
        )
        for file in sorted((self.folder / "migrations").glob("*.sql")):
            connection.executescript(file.read_text("utf-8"))
            connection.execute("INSERT INTO d1_migrations (name) VALUES (?)", (file.name,))
        self.cloudflare.namespaces[number] = Namespace("airgate-policy")
        self.cloudflare.databases[database] = Database("airgate", "2026-11-21T00:00:00Z", connection)
        self.set("00000000000000000000000000000000", number)
        self.set("00000000-0000-0000-0000-000000000000", database)
        self.set('ADDRESS = ""', f'ADDRESS = "{self.cloudflare.gate("airgate")}"')


def interrupt(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send a signal to a command; what it had printed."""
    process.send_signal(number)
    output, _ = process.communicate(timeout=SECONDS)
    return output


class Isolate:
    """A gate that has just begun: the Worker's own reader of D1 and KV, over the stand-in's."""

    def __init__(self, site: Site) -> None:
        self._values = site.cloudflare.namespace("airgate-policy").values
        self._connection = site.cloudflare.database("airgate").connection
        self._vars = tomllib.loads(site.toml.read_text("utf-8"))["vars"]
        self.verify = verify
        self.lines: list[str] = []

    def believes(self) -> tuple[int, str]:
        """The number and the bundle that it decides by: (0, "") without any. All parts must be there, and whole."""
        self.view = View()
        pointer, complaint = asyncio.run(self.view.read(self, 5))
        assert complaint == "" or pointer is None, complaint
        if pointer is None:
            return 0, ""
        text = self._values[BUNDLE + pointer.bundle].decode()
        bundle = load_bundle(pinned(text, pointer.bundle, "the bundle"))
        for upstream, digest in bundle.shards.items():
            load_shard(pinned(self._values[SHARD + digest].decode(), digest, upstream), upstream)
        return pointer.sequence, pointer.bundle

    def now(self) -> float:
        return time.time()

    def log(self, line: str) -> None:
        self.lines.append(line)

    def secret(self, name: str) -> str:
        return str(self._vars[name])

    async def database(self, sql: str, values: tuple[int | str, ...], timeout: float) -> str | None:
        row = self._connection.execute(sql, values).fetchone()
        return str(row[0]) if row else None

    async def kv(self, key: str, timeout: float) -> str | None:
        value = self._values.get(key)
        return None if value is None else value.decode()
