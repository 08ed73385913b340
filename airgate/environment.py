"""Where a gate runs, and its two stores, Workers KV and D1: written and read through wrangler, here as in production.

    env = open_environment("production")
    env.d1("SELECT max(sequence) AS newest FROM pointers")

`local` is the running local stack, `production` the top level of wrangler.toml, every other name one of its [env.NAME].
"""

import fcntl
import json
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from airgate.configuration import DATABASE as D1
from airgate.configuration import LOCAL, Configuration, ConfigurationError, read_configuration
from airgate.configuration import NAMESPACE as KV
from airgate.dev.stack import Stack, StackError, read_stack
from airgate.engine import Trusted, read_trusted
from airgate.node import WranglerFailed, run_wrangler, wrangler

LOCAL_GATE = "airgate-local"
DONE, FAILED, INVALID, REFUSED = 0, 1, 2, 3  # exit codes of every command that writes to an environment
AT_ONCE = 4  # wrangler processes that read side by side

# What wrangler prints, with status 0, for a key that isn't there. A value is printed without the line break.
_MISSING = "Value not found\n"
_PAUSES = (0.2, 0.5, 1.0)  # seconds
_PLAIN = re.compile(r"[A-Za-z0-9_.]*(?:-[A-Za-z0-9_.]+)*")
_TEXT = re.compile(r'"text": ("(?:[^"\\]|\\.)*")')  # of the errors that wrangler prints as JSON
_NOT_THERE = re.compile(r"/storage/kv/namespaces/[^/\s]+/values/\S+ - 404\b")  # of a remote key

EnvOption = Annotated[
    str,
    typer.Option(
        "--env",
        metavar="NAME",
        help="local (the running local stack), production, or another environment of wrangler.toml.",
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask; for pipelines.")]


class EnvironmentMissing(Exception):
    """There is no such environment, or it isn't ready. The message says what to do."""


class Conflict(Exception):
    """D1 refused a statement, because a row stands in its way."""


class _TablesMissing(Exception):
    """The database has no tables yet."""


class Environment(Protocol):
    """One gate's stores. All methods raise NodeMissing and WranglerFailed."""

    @property
    def name(self) -> str:
        """`local`, `production`, `staging`, …"""

    @property
    def gate(self) -> str:
        """The gate's name, which every signed document carries."""

    @property
    def trusted(self) -> Trusted | None:
        """The keys that this gate trusts; None: it takes what is unsigned."""

    @property
    def address(self) -> str | None:
        """The gate's URL, if it's known."""

    def kv_get(self, key: str) -> str | None:
        """The value of a key; None when there is none."""

    def kv_put(self, values: Mapping[str, str]) -> None:
        """Write values under their keys, in one command; not as one: it may break off after some of them."""

    def kv_names(self, prefix: str) -> set[str]:
        """The keys that begin with `prefix`. A local store lists 1000 at most."""

    def d1(self, sql: str) -> list[dict[str, Any]]:
        """Run one statement, and return its rows. Raises Conflict too, and EnvironmentMissing: there are no tables."""


class LocalStores:
    """KV and D1 below a folder, whether a gate uses them or not; one that does trusts no keys."""

    def __init__(self, state: Path) -> None:
        self.name = LOCAL
        self.gate = LOCAL_GATE
        self.address: str | None = None
        self.trusted: Trusted | None = None
        self._state = state

    @property
    def selected(self) -> list[str]:
        """Wrangler's arguments that mean these stores."""
        return ["--local", "--env", LOCAL, "--persist-to", str(self._state)]

    def kv_get(self, key: str) -> str | None:
        return _value(lambda: self._run("kv", "key", "get", key, "--binding", KV))

    def kv_put(self, values: Mapping[str, str]) -> None:
        with _entries(values) as file:
            self._run("kv", "bulk", "put", file, "--binding", KV)

    def kv_names(self, prefix: str) -> set[str]:
        return _names(self._run("kv", "key", "list", "--prefix", prefix, "--binding", KV))

    def d1(self, sql: str) -> list[dict[str, Any]]:
        try:
            return _rows(lambda: self._run("d1", "execute", D1, "--json", "--command", sql))
        except _TablesMissing:
            self._run("d1", "migrations", "apply", D1)
            return _rows(lambda: self._run("d1", "execute", D1, "--json", "--command", sql))

    def _run(self, *arguments: str) -> str:
        """One at a time, for the stores are files. The gate may hold one for a moment: then it is tried again."""
        with (self._state / "wrangler.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for pause in _PAUSES:
                try:
                    return self._wrangler(*arguments)
                except WranglerFailed as error:
                    if not error.locked:
                        raise
                    time.sleep(pause)
            return self._wrangler(*arguments)

    def _wrangler(self, *arguments: str) -> str:
        return run_wrangler([*arguments, *self.selected], home=self._state, embedded=True)


class LocalEnvironment(LocalStores):
    """The running local stack, whose gate trusts the stack's key."""

    def __init__(self, stack: Stack) -> None:
        """Raises EnvironmentMissing: the stack's trusted keys can't be read."""
        super().__init__(stack.state)
        self.stack = stack
        self.address = stack.gate
        self.trusted = _trusted(stack.trusted, "The stack's trusted keys")


class RemoteEnvironment:
    """A deployed Worker's stores, by way of wrangler and whatever account it is logged in to."""

    def __init__(self, configuration: Configuration) -> None:
        """Raises EnvironmentMissing."""
        self.name = configuration.env
        self.gate = configuration.gate
        self.address: str | None = configuration.address
        self._configuration = configuration
        where = f"{configuration.table} of {configuration.file}"
        self.trusted = _trusted(configuration.trusted_keys, f"TRUSTED_KEYS, at {where},")
        if configuration.namespace is None or configuration.database_id is None:
            missing = KV if configuration.namespace is None else D1
            raise EnvironmentMissing(
                f"{where} has no id for {missing} yet, so {self.name} hasn't been deployed. "
                f"Run `airgate deploy {configuration.option()}` first."
            )

    @property
    def selected(self) -> list[str]:
        """Wrangler's arguments that mean these stores."""
        return ["--remote", *self._configuration.selected()]

    def kv_get(self, key: str) -> str | None:
        return _value(lambda: self._run("kv", "key", "get", key, "--text", "--binding", KV))

    def kv_put(self, values: Mapping[str, str]) -> None:
        with _entries(values) as file:
            self._run("kv", "bulk", "put", file, "--binding", KV)

    def kv_names(self, prefix: str) -> set[str]:
        return _names(self._run("kv", "key", "list", "--prefix", prefix, "--binding", KV))

    def d1(self, sql: str) -> list[dict[str, Any]]:
        try:
            return _rows(lambda: self._run("d1", "execute", D1, "--json", "--command", sql))
        except _TablesMissing:
            raise EnvironmentMissing(
                f"The database of {self.name} lacks tables. Run `airgate deploy {self._configuration.option()}`: "
                "it creates them, and leaves what is there."
            ) from None

    def _run(self, *arguments: str) -> str:
        return self._configuration.wrangler(*arguments, "--remote")


def open_environment(name: str) -> Environment:
    """The environment of that name. Raises EnvironmentMissing, which says what to do."""
    try:
        return (
            LocalEnvironment(read_stack()) if name == LOCAL else RemoteEnvironment(read_configuration(name))
        )
    except (StackError, ConfigurationError) as error:
        raise EnvironmentMissing(str(error)) from None


def read_all(env: Environment, keys: Iterable[str]) -> dict[str, str | None]:
    """The values of several keys, read side by side. Raises as Environment.kv_get does."""
    wanted = list(keys)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(wanted, pool.map(env.kv_get, wanted), strict=True))


def quote(text: str) -> str:
    """A text as an SQL expression. Only what nobody can misread is written as it is: wrangler looks into statements,
    and takes one for several, or refuses it, by what stands in its texts."""
    return f"'{text}'" if _PLAIN.fullmatch(text) else f"CAST(X'{text.encode('utf-8').hex()}' AS TEXT)"


def by_hand(env: Environment, sql: str) -> str:
    """The command with which a person runs a statement in an environment's D1, for messages."""
    where = env.selected if isinstance(env, LocalStores | RemoteEnvironment) else []
    arguments = ["d1", "execute", D1, *where, "--command", sql]
    return shlex.join(
        wrangler(arguments, embedded=True) if env.name == LOCAL else ["npx", "wrangler", *arguments]
    )


def confirm(env: Environment, what: str, yes: bool) -> None:
    """Ask before anything but the local stack is changed. `what`: a question. Exits with REFUSED unless it's yes."""
    if yes or env.name == LOCAL:
        return
    if not sys.stdin.isatty():
        typer.echo(f"Nothing was changed: {env.name} is changed only when asked. Add --yes.", err=True)
        raise typer.Exit(REFUSED)
    if not typer.confirm(what):
        typer.echo("Nothing was changed.", err=True)
        raise typer.Exit(REFUSED)


def _trusted(text: str, what: str) -> Trusted | None:
    if not text:
        return None
    try:
        return read_trusted(text)
    except ValueError as error:
        raise EnvironmentMissing(f"{what} can't be read, and the gate can't either: {error}") from None


@contextmanager
def _entries(values: Mapping[str, str]) -> Iterator[str]:
    """A file for `kv bulk put`, for as long as it's needed."""
    with tempfile.TemporaryDirectory(prefix="airgate-") as folder:
        file = Path(folder) / "entries.json"
        entries = [{"key": key, "value": value} for key, value in values.items()]
        file.write_text(json.dumps(entries), encoding="utf-8")
        yield str(file)


def _value(run: Callable[[], str]) -> str | None:
    try:
        text = run()
    except WranglerFailed as error:
        if _NOT_THERE.search(str(error)):
            return None
        raise
    return None if text == _MISSING else text.removesuffix("\n")


def _names(listed: str) -> set[str]:
    return {item["name"] for item in json.loads(listed)}


def _rows(run: Callable[[], str]) -> list[dict[str, Any]]:
    """The rows that `d1 execute --json` prints. Raises WranglerFailed, Conflict and _TablesMissing."""
    try:
        printed = run()
    except WranglerFailed as error:
        if "constraint failed" in str(error):
            raise Conflict(str(error)) from None
        if "no such table" in str(error):
            raise _TablesMissing from None
        told = [json.loads(text) for text in _TEXT.findall(str(error))]
        raise WranglerFailed("D1: " + " ".join(told) if told else str(error)) from None
    rows: list[dict[str, Any]] = json.loads(printed)[0]["results"]
    return rows
