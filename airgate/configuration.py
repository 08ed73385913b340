"""wrangler.toml as the commands read it: the Worker of an environment, its vars, and where its state is.

`production` is the file's top level, any other name an [env.NAME]. AIRGATE_CONFIG names another file than the
project's own, for those who keep their ids and keys in a repository of their own; `main` and `migrations_dir` in it
are relative to it.
"""

import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from airgate.engine import UNNAMED_GATE
from airgate.node import PROJECT, run_wrangler

LOCAL = "local"
PRODUCTION = "production"
NAMESPACE = "POLICY"  # the binding of the KV namespace
DATABASE = "STATE"  # and that of the D1 database

_HEADER = re.compile(r"\s*\[{1,2}(?P<table>[^\[\]]+)\]{1,2}\s*(#.*)?$")
_MEMBER = re.compile(r"""\s*(?P<name>[\w-]+)\s*=\s*["'](?P<value>[^"'\\]*)["']""")


class ConfigurationError(Exception):
    """wrangler.toml isn't there, can't be read, or lacks the environment. The message says what to do."""


@dataclass(frozen=True)
class Configuration:
    """One environment of wrangler.toml. Ids are None while they are missing, or zeros."""

    file: Path
    env: str
    worker: str
    vars: Mapping[str, Any]
    bindings: frozenset[str]  # the names of all there are, of any kind
    counters: frozenset[str]  # the account's counters that its rate limits use
    namespace: str | None
    database: str | None  # its name; None when nothing is bound to STATE
    database_id: str | None
    migrations: Path

    @property
    def label(self) -> str:
        """The file as it is best called from the current folder."""
        here = Path.cwd()
        return str(self.file.relative_to(here) if self.file.is_relative_to(here) else self.file)

    @property
    def gate(self) -> str:
        """The gate's name, which every signed document holds."""
        return str(self.vars.get("GATE") or UNNAMED_GATE)

    @property
    def address(self) -> str | None:
        """The gate's URL without a slash at its end, where the file says it."""
        return str(self.vars.get("ADDRESS") or "").rstrip("/") or None

    @property
    def trusted_keys(self) -> str:
        """The text of TRUSTED_KEYS; empty when nobody is trusted yet."""
        return str(self.vars.get("TRUSTED_KEYS") or "")

    @property
    def table(self) -> str:
        """Where the environment's settings stand in the file, for messages."""
        return "the top level" if self.env == PRODUCTION else f"[env.{self.env}]"

    def option(self) -> str:
        """What follows a command's name to mean this environment, for messages."""
        return f"--env {self.env}"

    def selected(self) -> list[str]:
        """Wrangler's arguments that select this file and environment.

        An explicit empty name says "the top level" and keeps wrangler from asking which environment is meant.
        """
        return ["--config", str(self.file), "--env", "" if self.env == PRODUCTION else self.env]

    def wrangler(self, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
        """Run current wrangler for this environment. Its output; raises NodeMissing, WranglerFailed."""
        return run_wrangler([*arguments, *self.selected()], home=None, variables=variables)

    def write_namespace(self, number: str) -> "Configuration":
        """Write the id of the KV namespace into the file. Raises ConfigurationError."""
        return self._write("kv_namespaces", NAMESPACE, "id", number)

    def write_database(self, number: str) -> "Configuration":
        """Write the id of the D1 database into the file. Raises ConfigurationError."""
        return self._write("d1_databases", DATABASE, "database_id", number)

    def write_address(self, address: str) -> "Configuration":
        """Write the gate's URL into the file. Raises ConfigurationError."""
        return self._write("vars", None, "ADDRESS", address)

    def _write(self, table: str, binding: str | None, member: str, value: str) -> "Configuration":
        """Replace one value, and nothing else of the file: comments and order are its author's."""
        text = self.file.read_bytes().decode("utf-8")
        name = table if self.env == PRODUCTION else f"env.{self.env}.{table}"
        edited = _replaced(text, name, binding, member, value)
        wanted = tomllib.loads(text)
        own = wanted if self.env == PRODUCTION else wanted["env"][self.env]
        place = own.get(table, {}) if binding is None else _bound(own.get(table, ()), binding)
        place[member] = value
        if edited is None or _loaded(edited) != wanted:
            brackets = f"[{name}]" if binding is None else f"[[{name}]]"
            where = f' of {brackets}, where binding = "{binding}",' if binding else f" of {brackets}"
            raise ConfigurationError(
                f'{self.file} isn\'t laid out as expected. Write {member} = "{value}" there yourself, as a member'
                f"{where} and run the command again."
            )
        target = self.file.resolve()
        fresh = target.with_name(target.name + ".new")
        fresh.write_text(edited, "utf-8", newline="")
        shutil.copymode(target, fresh)
        fresh.replace(target)
        return read_configuration(self.env)


def configuration_file() -> Path:
    """The wrangler.toml that counts: AIRGATE_CONFIG, else the project's own."""
    named = os.environ.get("AIRGATE_CONFIG")
    return Path(named).absolute() if named else PROJECT / "wrangler.toml"


def read_configuration(env: str) -> Configuration:
    """The settings of an environment. Raises ConfigurationError."""
    file = configuration_file()
    top = _read(file)
    own = top
    if env != PRODUCTION:
        others = top.get("env", {})
        if env not in others:
            names = ", ".join(sorted({PRODUCTION, *others}))
            raise ConfigurationError(
                f"{file} has no environment {env}; there are {names}. Name one of them, or add [env.{env}]."
            )
        own = others[env]
    name = str(top.get("name", "airgate"))
    kv = _bound(own.get("kv_namespaces", ()), NAMESPACE)
    d1 = _bound(own.get("d1_databases", ()), DATABASE)
    return Configuration(
        file=file,
        env=env,
        worker=name if env == PRODUCTION else str(own.get("name") or f"{name}-{env}"),
        vars=own.get("vars", {}),
        bindings=frozenset(_names(own)),
        counters=frozenset(str(each.get("namespace_id")) for each in own.get("ratelimits", ())),
        namespace=_id(kv.get("id")),
        database=d1.get("database_name"),
        database_id=_id(d1.get("database_id")),
        migrations=file.parent / str(d1.get("migrations_dir", "migrations")),
    )


def environments() -> list[str]:
    """The names of all environments, production first. Raises ConfigurationError."""
    return [PRODUCTION, *_read(configuration_file()).get("env", {})]


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"There is no {file}. AIRGATE_CONFIG names the wrangler.toml to use; without it, it's the project's own."
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} can't be read: {error}. Mend it, or set AIRGATE_CONFIG.") from None


def _names(own: Mapping[str, Any]) -> Iterator[str]:
    """The names under which an environment's settings bind something: the lists' items have `binding`, or `name`."""
    for items in own.values():
        for each in items if isinstance(items, list) else ():
            if isinstance(each, dict) and (name := each.get("binding") or each.get("name")):
                yield str(name)


def _bound(bindings: Any, name: str) -> dict[str, Any]:
    return next((each for each in bindings if each.get("binding") == name), {})


def _loaded(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _replaced(text: str, table: str, binding: str | None, member: str, value: str) -> str | None:
    """The text with the value of one member of a table replaced; None where there is no line for it.

    Of tables with the same name, the one that has `binding`. The result is compared with what was wanted: what this
    doesn't understand of TOML goes wrong there, and not in the file.
    """
    lines = text.splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if _HEADER.match(line)] + [len(lines)]
    for start, end in pairwise(starts):
        header = _HEADER.match(lines[start])
        block = range(start + 1, end)
        named = binding is None or any(
            match["name"] == "binding" and match["value"] == binding
            for number in block
            if (match := _MEMBER.match(lines[number]))
        )
        if header is None or header["table"].replace(" ", "") != table or not named:
            continue
        for number in block:
            match = _MEMBER.match(lines[number])
            if match and match["name"] == member:
                first, last = match.span("value")
                lines[number] = lines[number][:first] + value + lines[number][last:]
                return "".join(lines)
    return None


def _id(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip("0-") else None
