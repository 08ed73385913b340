"""A policy seed: YAML files below one folder, read with the position of everything in them.

Reading finds what is wrong with the text and the structure (the JSON Schema beside the starter seed);
`airgate.policy.compile` finds what is wrong with the meaning. Both report all that they find.
"""

import difflib
import functools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError

from airgate.node import PROJECT

STARTER = PROJECT / "kv-seed"
SCHEMA = STARTER / "schema" / "airgate.schema.json"
MAX_BYTES = 1_000_000
MAX_DEPTH = 16

SECTIONS = ("issuers", "roles", "upstreams", "policies")

# Known words of the policy language that this version can't honour. Ignoring one could permit too much.
NOT_SUPPORTED = ("when", "obligations")

WHY_NOT = {
    "HS256": "it needs a secret shared with the issuer, and whoever can verify with that can also sign",
    "none": "it means no signature at all",
}

# PyYAML's wheels bring libyaml, about ten times faster than its Python twin; both read the same language.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What nobody sees in a review: control characters, zero-width ones, and those that turn the text's direction.
_UNSEEN = re.compile(
    "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f"
    "\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufffe\\uffff]"
)

Position = tuple[int, int]
Keys = tuple[str | int, ...]


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong, at a place a person can go to. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    path: str  # such as "subject.roles.any"; empty when the whole file is meant
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        return place + (f"{self.path}: " if self.path else "") + self.text


class SeedError(Exception):
    """The seed can't be used. `problems` are sorted by place, each of them once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass
class Source:
    """One file: its value, and where each part of the value begins."""

    file: str
    data: Any = None
    values: dict[Keys, Position] = field(default_factory=dict)
    keys: dict[Keys, Position] = field(default_factory=dict)

    def problem(self, keys: Keys, text: str, *, at_key: bool = False) -> Problem:
        """A problem with the value at `keys`, or with the key itself."""
        positions = self.keys if at_key else self.values
        line, column = positions.get(keys) or self.values.get(keys) or (1, 1)
        path = [key for key in keys if isinstance(key, str)]
        if path[:1] == ["policies"]:
            path = path[1:]
        return Problem(self.file, line, column, ".".join(path), text)


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
        line, column = self.source.keys.get(self.keys) or self.source.values[self.keys]
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


def nearest(word: str, known: Iterable[str]) -> str:
    """A question that names the nearest known word, or an empty string: `; did you mean "ledger"?`"""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{found[0]}"?' if found else ""


def either(words: list[str]) -> str:
    """`a, b or c`"""
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def quoted(value: object) -> str:
    """A value as it's shown in a message: as JSON, on one line, and not too long."""
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def read(root: Path) -> Seed:
    """Read every *.yaml below `root`, but *.cases.yaml and schema/. Problems are in `Seed.problems`."""
    seed = Seed(root)
    if not root.is_dir():
        seed.problems.append(
            Problem(label(root), 0, 0, "", "no such folder; name the folder that holds the policy seed")
        )
        return seed
    files = sorted(
        path for path in root.rglob("*") if path.suffix in (".yaml", ".yml") and _is_seed(path, root)
    )
    if not files:
        seed.problems.append(
            Problem(label(root), 0, 0, "", "holds no .yaml files; name the folder that holds the policy seed")
        )
    for path in files:
        if path.suffix == ".yml":
            seed.problems.append(Problem(label(path), 0, 0, "", "would not be read; name it .yaml"))
            seed.complete = False
            continue
        source = Source(label(path))
        found = _parse(path, source)
        seed.problems += found
        if found:
            seed.complete = False
        elif source.data is not None:
            seed.problems += _structure(source)
            _collect(seed, source)
    return seed


def label(path: Path) -> str:
    """A path as a person would write it: from the folder they are in, when it's below that."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _is_seed(path: Path, root: Path) -> bool:
    inside = path.relative_to(root)
    return (
        path.is_file()
        and inside.parts[0] != "schema"
        and not inside.name.endswith((".cases.yaml", ".cases.yml"))
    )


def _parse(path: Path, source: Source) -> list[Problem]:
    """Fill `source` from the file. A file with problems here is not looked at further."""
    try:
        if path.stat().st_size > MAX_BYTES:
            return [
                Problem(
                    source.file, 0, 0, "", f"is larger than {MAX_BYTES:,} bytes; split it into several files"
                )
            ]
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        return [Problem(source.file, 0, 0, "", f"is not UTF-8 (byte {error.start}); save it as UTF-8")]
    except OSError as error:
        return [Problem(source.file, 0, 0, "", f"can't be read: {error.strerror}")]
    if unseen := _UNSEEN.search(text):
        line = text.count("\n", 0, unseen.start()) + 1
        column = unseen.start() - text.rfind("\n", 0, unseen.start())
        what = f"a character that can't be seen (U+{ord(unseen.group()):04X}); remove it"
        return [Problem(source.file, line, column, "", what)]
    reader = _Reader(source)
    try:
        reader.document(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        reader.problems.append(_syntax(source, text, error))
    except _UnreadableError:
        pass  # it's among the problems
    return reader.problems


def _syntax(source: Source, text: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines()
    what = ", ".join(part for part in (error.context, error.problem) if part)
    if line < len(lines) and lines[line][column : column + 1] == "\t":
        what += "; indent with spaces, not with tabs"
    return Problem(source.file, line + 1, column + 1, "", f"not valid YAML: {what}")


class _UnreadableError(Exception):
    """The rest of a file can't be told apart; the reason is among the reader's problems."""


class _Reader:
    """Builds plain values from YAML events, and notes where each one begins.

    Smaller than YAML: one document, unique keys, no anchors, aliases or tags. Plain words mean what
    they mean in YAML 1.2 (`no` and `on` are text), which is what editors show.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def document(self, events: Iterator[yaml.Event]) -> None:
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._refuse(event, (), "a second document begins here; make it a file of its own")
                    return
            elif isinstance(event, yaml.NodeEvent):
                self.source.data = self._value(event, events, ())

    def _refuse(self, event: yaml.Event, keys: Keys, text: str) -> None:
        path = self.source.problem(keys, "").path
        self.problems.append(Problem(self.source.file, *_position(event), path, text))

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], keys: Keys) -> Any:
        self.source.values[keys] = _position(event)
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, keys, f"*{event.anchor}: no aliases; write it out, for reviewers to see")
            return None
        if isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)):
            if event.anchor is not None:
                self._refuse(event, keys, f"&{event.anchor}: no anchors; write it out wherever it applies")
            if event.tag is not None:
                tag = event.tag.replace("tag:yaml.org,2002:", "!!")
                self._refuse(event, keys, f"{tag}: no tags; write the plain value")
        if isinstance(event, yaml.ScalarEvent):
            return event.value if event.style else _plain(event.value)
        if len(keys) > MAX_DEPTH:
            self._refuse(event, keys, f"nested more than {MAX_DEPTH} levels deep")
            raise _UnreadableError
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, keys)
        return self._mapping(events, keys)

    def _sequence(self, events: Iterator[yaml.Event], keys: Keys) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._value(event, events, (*keys, len(items))))
        return items

    def _mapping(self, events: Iterator[yaml.Event], keys: Keys) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            if not isinstance(event, yaml.ScalarEvent):
                self._refuse(event, keys, "a key must be a word; text with braces or brackets needs quotes")
                raise _UnreadableError
            if event.anchor is not None or event.tag is not None:
                self._refuse(event, keys, "no anchors or tags on a key; write the plain word")
            inner = (*keys, event.value)
            if event.value in members:
                line, column = self.source.keys[inner]
                self._refuse(event, inner, f'"{event.value}" stands here twice, first at {line}:{column}')
            self.source.keys[inner] = _position(event)
            members[event.value] = self._value(next(events), events, inner)
        return members


def _position(event: yaml.Event) -> Position:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


_NUMBER = re.compile(r"[-+]?(\d{1,18}|\d*\.\d+([eE][-+]?\d+)?)")


def _plain(text: str) -> object:
    """An unquoted word, by the core schema of YAML 1.2."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if _NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    return text


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
                text = f"{quoted(name)}: this name is taken, by {known[name].place}; choose another"
                seed.problems.append(source.problem((*keys, "id") if by_id else keys, text, at_key=not by_id))
            else:
                known[name] = Entry(source, keys, data)


@functools.cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(SCHEMA.read_text("utf-8")))


def _structure(source: Source) -> Iterator[Problem]:
    """What the JSON Schema has against the file, in words."""
    for error in _validator().iter_errors(source.data):
        keys: Keys = tuple(error.absolute_path)
        value, want, schema = _parts(error)
        if "propertyNames" in error.absolute_schema_path:
            yield source.problem((*keys, value), _explain(error), at_key=True)
        elif error.validator == "additionalProperties":
            known = list(schema["properties"])
            for key in (key for key in value if key not in known):
                yield source.problem((*keys, key), _unknown_key(key, known), at_key=True)
        elif error.validator == "required":
            yield source.problem(keys, _missing([key for key in want if key not in value], schema))
        elif error.validator == "dependentRequired":
            for key, needs in want.items():
                for needed in needs if key in value else ():
                    yield source.problem(
                        keys, f'"{needed}" is missing; "{key}" is unique only together with it'
                    )
        elif error.validator == "uniqueItems":
            number = next(i for i, item in enumerate(value) if item in value[:i])
            yield source.problem((*keys, number), f"{quoted(value[number])}: stands here twice")
        else:
            yield source.problem(keys, _explain(error))


def _unknown_key(key: str, known: list[str]) -> str:
    if key in NOT_SUPPORTED:
        return (
            f'"{key}" is not supported by this version; ignoring it could permit too much, so it is refused'
        )
    return f"{quoted(key)}: no such key here" + (nearest(key, known) or f"; known here: {', '.join(known)}")


def _missing(missing: list[str], schema: dict[str, Any]) -> str:
    text = " and ".join(f'"{key}"' for key in missing) + (
        " is missing" if len(missing) == 1 else " are missing"
    )
    return f"{text}; {schema['description']}" if "description" in schema else text


def _explain(error: ValidationError) -> str:
    """One schema error as a sentence: what is there, and what would be right."""
    value, want, schema = _parts(error)
    shown, hint = quoted(value), schema.get("description", "")
    if error.validator == "type":
        return _wrong_type(value, [want] if isinstance(want, str) else want, hint)
    if error.validator == "enum":
        if str(value) in WHY_NOT and "RS256" in want:
            return f"{shown}: refused, since {WHY_NOT[str(value)]}; use {either(want)}"
        return f"{shown}: expected {either(want)}" + (nearest(value, want) if isinstance(value, str) else "")
    if error.validator in ("minItems", "minProperties"):
        return f"is empty; leave the key out, or write {hint or 'at least one'}"
    if error.validator in ("maxLength", "maxItems"):
        return f"{shown}: longer than {want}"
    if error.validator == "anyOf":
        return f"says nothing; write {either([branch['required'][0] for branch in want])}"
    return f"{shown}: {hint or error.message}"


def _parts(error: ValidationError) -> tuple[Any, Any, Any]:
    return error.instance, error.validator_value, error.schema


def _wrong_type(value: object, want: list[str], hint: str) -> str:
    words = {"string": "text", "array": "a list", "object": "a mapping", "boolean": "true or false"}
    expected = either([words[name] for name in want])
    text = f"is empty; expected {expected}" if value is None else f"{quoted(value)}: expected {expected}"
    if want == ["array"] and isinstance(value, str):
        text += f": [{value}]"
    elif "string" in want and isinstance(value, int | float) and "unit" not in hint:
        text += f'; is it a word? Then quote it: "{quoted(value)}"'
    return text + (f" ({hint})" if hint else "")
