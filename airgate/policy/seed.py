"""A policy seed: the YAML files below one folder, by section and name.

Reading finds what is wrong with the text (`source`) and the structure (`structure`); `meaning` finds what is wrong with
what they say. All report all that they find.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from airgate.engine import MOST_POLICIES
from airgate.policy.output import watched
from airgate.policy.source import Keys, Position, Problem, SeedError, Source, parse, understand
from airgate.policy.structure import SCHEMA, STARTER, structure
from airgate.policy.words import either, listed, nearest, quoted

__all__ = [
    "SCHEMA",
    "STARTER",
    "Entry",
    "Keys",
    "Position",
    "Problem",
    "Seed",
    "SeedError",
    "Source",
    "either",
    "label",
    "listed",
    "nearest",
    "parse",
    "quoted",
    "read",
    "seed_files",
    "structure",
    "understand",
]

MOST_FILES = 10_000
MOST_BYTES = 250_000_000  # of all files together
MOST_PROBLEMS = 500
MORE = f"{MOST_PROBLEMS} problems and more; the rest is not looked at"

SECTIONS = ("issuers", "roles", "upstreams", "policies")


@dataclass
class Entry:
    """One issuer, role, upstream or policy, and where it stands."""

    source: Source
    keys: Keys
    data: dict[str, Any]

    def at(self, *keys: str | int) -> Any:
        """The value at `keys`, or None: what is wrong with the structure has been said already."""
        value: Any = self.data
        for key in keys:
            if isinstance(value, dict):
                value = value.get(str(key))
            elif isinstance(value, list) and isinstance(key, int):
                value = value[key]
            else:
                return None
        return value

    def names(self, *keys: str | int) -> Iterator[tuple[Keys, str]]:
        """Each name at `keys` with its place, whether it stands alone or in a list."""
        value = self.at(*keys)
        if isinstance(value, str):
            yield keys, value
        elif isinstance(value, list):
            for number, item in enumerate(value):
                if isinstance(item, str):
                    yield (*keys, number), item

    def problem(self, keys: Keys, text: str) -> Problem:
        return self.source.problem(self.keys + keys, text)

    @property
    def place(self) -> str:
        line, column = self.source.entries.get(self.keys) or self.source.values[self.keys]
        return f"{self.source.file}:{line}:{column}"


@dataclass
class Seed:
    """Everything that the files of a seed hold, by section and name."""

    root: Path
    issuers: dict[str, Entry] = field(default_factory=dict)
    roles: dict[str, Entry] = field(default_factory=dict)
    upstreams: dict[str, Entry] = field(default_factory=dict)
    policies: dict[str, Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    complete: bool = True  # False: a file couldn't be read, so a name that isn't here may be there

    def give_up(self, text: str) -> None:
        """Say why the rest isn't read."""
        self.problems.append(Problem(label(self.root), 0, 0, "", text))
        self.complete = False


def read(root: Path) -> Seed:
    """Read every *.yaml below `root`, but *.cases.yaml and schema/. Problems are in `Seed.problems`."""
    seed = Seed(root)
    if not root.is_dir():
        seed.give_up("no such folder; name the folder that holds the policy seed")
        return seed
    files = seed_files(root)
    if not files:
        seed.give_up("holds no .yaml files; name the folder that holds the policy seed")
    elif len(files) > MOST_FILES:
        seed.give_up(f"holds more than {MOST_FILES:,} files; is it the folder of the policy seed?")
    elif sum(path.stat().st_size for path in files) > MOST_BYTES:
        seed.give_up(f"its files hold more than {MOST_BYTES:,} bytes; is it the folder of the policy seed?")
    else:
        _read(seed, files)
    return seed


def _read(seed: Seed, files: list[Path]) -> None:
    policies = 0
    for path in watched(files, "Reading policy"):
        if len(seed.problems) >= MOST_PROBLEMS:
            seed.give_up(MORE)
            return
        if path.suffix == ".yml":
            seed.problems.append(Problem(label(path), 0, 0, "", "would not be read; name it .yaml"))
            seed.complete = False
            continue
        source = Source(label(path))
        found = parse(path, source)
        seed.problems += found
        if found:
            seed.complete = False
            continue
        if isinstance(source.data, dict) and isinstance(source.data.get("policies"), list):
            policies += len(source.data["policies"])
        if policies > MOST_POLICIES:
            seed.give_up(f"holds more than {MOST_POLICIES:,} policies; a gate reads no more")
            return
        if source.data is not None:
            seed.problems += islice(structure(source), MOST_PROBLEMS)
            _collect(seed, source)


def label(path: Path) -> str:
    """A path as a person would write it: from the folder they are in, when it's below that."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def seed_files(root: Path) -> list[Path]:
    """The files below `root` that make up a seed, and those that look as if they did (*.yml)."""
    return sorted(
        path for path in root.rglob("*") if path.suffix in (".yaml", ".yml") and _is_seed(path, root)
    )


def _is_seed(path: Path, root: Path) -> bool:
    inside = path.relative_to(root)
    return (
        path.is_file()
        and inside.parts[0] != "schema"
        and inside.name != "invariants.yaml"
        and not inside.name.endswith((".cases.yaml", ".cases.yml"))
    )


def _collect(seed: Seed, source: Source) -> None:
    """Put the file's entries under their names; a name that is taken is a problem."""
    if not isinstance(source.data, dict):
        return
    for section in SECTIONS:
        known: dict[str, Entry] = getattr(seed, section)
        part = source.data.get(section)
        if isinstance(part, dict):
            pairs: list[tuple[Any, Any]] = list(part.items())
        elif isinstance(part, list):
            pairs = list(enumerate(part))
        else:
            continue
        for key, item in pairs:
            data = item if isinstance(item, dict) else {}
            by_id = section == "policies"
            name = data.get("id") if by_id else key
            if not isinstance(name, str):
                continue
            keys: Keys = (section, key)
            if name in known:
                if len(seed.problems) < MOST_PROBLEMS:
                    text = f"{quoted(name)}: this name is taken, by {known[name].place}; choose another"
                    seed.problems.append(
                        source.problem((*keys, "id") if by_id else keys, text, at_key=not by_id)
                    )
            else:
                known[name] = Entry(source, keys, data)
