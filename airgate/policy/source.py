"""One YAML file, read strictly, and the place of everything in it for whoever has to be told what is wrong.

Smaller than YAML: one document, unique keys, no anchors, aliases or tags. Plain words mean what they mean in YAML 1.2
(`no` and `on` are text), which is what editors show.
"""

import contextlib
import functools
import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from airgate.policy.words import LONGEST, quoted

MAX_BYTES = 1_000_000
MAX_DEPTH = 16
ENTRY = 2  # how many keys lead to an entry: its section, and its name or number
MOST_PROBLEMS = 100  # of a file's text; who has so many has one, made again and again

# PyYAML's wheels bring libyaml, about ten times faster than its Python twin; both read the same language.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What nobody sees in a review: control characters, zero-width ones, and those that turn the text's direction.
UNSEEN = re.compile(
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
    """One file: its value and its text. Where each part of the value begins is found when it is first asked for."""

    file: str
    data: Any = None
    text: str = ""
    entries: dict[Keys, Position] = field(
        default_factory=dict
    )  # where each issuer, role, upstream, policy begins

    @property
    def values(self) -> dict[Keys, Position]:
        """Where each value begins."""
        return _places(self.text).values

    @property
    def keys(self) -> dict[Keys, Position]:
        """Where the key of each member of a mapping begins."""
        return _places(self.text).keys

    def problem(self, keys: Keys, text: str, *, at_key: bool = False) -> Problem:
        """A problem with the value at `keys`, or with the key itself."""
        places = _places(self.text)
        positions = places.keys if at_key else places.values
        line, column = positions.get(keys) or places.values.get(keys) or (1, 1)
        return Problem(self.file, line, column, _path(keys), text)


def parse(path: Path, source: Source) -> list[Problem]:
    """Fill `source` from the file, to the character. A file with problems here is not looked at further."""
    try:
        if path.stat().st_size > MAX_BYTES:
            text = f"is larger than {MAX_BYTES:,} bytes; split it into several files"
            return [Problem(source.file, 0, 0, "", text)]
        source.text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        return [Problem(source.file, 0, 0, "", f"is not UTF-8 (byte {error.start}); save it as UTF-8")]
    except OSError as error:
        return [Problem(source.file, 0, 0, "", f"can't be read: {error.strerror}")]
    return understand(source)


def understand(source: Source) -> list[Problem]:
    """Fill `source` from its text."""
    text = source.text
    if unseen := UNSEEN.search(text):
        line = text.count("\n", 0, unseen.start()) + 1
        column = unseen.start() - text.rfind("\n", 0, unseen.start())
        what = f"a character that can't be seen (U+{ord(unseen.group()):04X}); remove it"
        return [Problem(source.file, line, column, "", what)]
    reader = _Reader(source.file)
    try:
        source.data = reader.document(yaml.parse(text, Loader=_LOADER))
        source.entries = reader.entries
    except yaml.MarkedYAMLError as error:
        reader.problems.append(_syntax(source.file, text, error))
    except _UnreadableError:
        pass  # it's among the problems
    return reader.problems


def _path(keys: Keys) -> str:
    path = [key for key in keys if isinstance(key, str)]
    return ".".join(path[1:] if path[:1] == ["policies"] else path)


def _syntax(file: str, text: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines()
    what = ", ".join(part for part in (error.context, error.problem) if part)
    if line < len(lines) and lines[line][column : column + 1] == "\t":
        what += "; indent with spaces, not with tabs"
    return Problem(file, line + 1, column + 1, "", f"not valid YAML: {what}")


class _UnreadableError(Exception):
    """The rest of a file can't be told apart; the reason is among the reader's problems."""


class _Reader:
    """Builds plain values from YAML events."""

    def __init__(self, file: str = "") -> None:
        self._file = file
        self.problems: list[Problem] = []
        self.entries: dict[Keys, Position] = {}

    def document(self, events: Iterator[yaml.Event]) -> Any:
        data, documents = None, 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._refuse(event, (), "a second document begins here; make it a file of its own")
                    break
            elif isinstance(event, yaml.NodeEvent):
                data = self._value(event, events, ())
        return data

    def _refuse(self, event: yaml.Event, keys: Keys, text: str) -> None:
        self.problems.append(Problem(self._file, *_position(event), _path(keys), text))
        if len(self.problems) >= MOST_PROBLEMS:
            raise _UnreadableError

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], keys: Keys) -> Any:
        if type(event) is yaml.ScalarEvent and event.anchor is None and event.tag is None:
            return event.value if event.style else plain(event.value)
        if isinstance(event, yaml.AliasEvent):
            text = f"*{str(event.anchor)[:LONGEST]}: no aliases; write it out, for reviewers to see"
            self._refuse(event, keys, text)
            return None
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            if event.anchor is not None:
                text = f"&{event.anchor[:LONGEST]}: no anchors; write it out wherever it applies"
                self._refuse(event, keys, text)
            if event.tag is not None:
                tag = event.tag.replace("tag:yaml.org,2002:", "!!")[:LONGEST]
                self._refuse(event, keys, f"{tag}: no tags; write the plain value")
        if isinstance(event, yaml.ScalarEvent):
            return event.value if event.style else plain(event.value)
        if len(keys) > MAX_DEPTH:
            self._refuse(event, keys, f"nested more than {MAX_DEPTH} levels deep")
            raise _UnreadableError
        if len(keys) == ENTRY:
            self.entries.setdefault(keys, _position(event))
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
        first: dict[str, yaml.Event] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            if not isinstance(event, yaml.ScalarEvent):
                self._refuse(event, keys, "a key must be a word; text with braces or brackets needs quotes")
                raise _UnreadableError
            if event.anchor is not None or event.tag is not None:
                self._refuse(event, keys, "no anchors or tags on a key; write the plain word")
            inner = (*keys, event.value)
            if event.value in first:
                line, column = _position(first[event.value])
                text = f"{quoted(event.value)} stands here twice, first at {line}:{column}"
                self._refuse(event, inner, text)
            first[event.value] = event
            self._key(event, inner)
            members[sys.intern(event.value)] = self._value(next(events), events, inner)
        return members

    def _key(self, event: yaml.Event, keys: Keys) -> None:
        if len(keys) == ENTRY:
            self.entries[keys] = _position(event)


class _Places(_Reader):
    """Notes where everything begins. Costs more than the reading, so only files with problems are read again for it."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[Keys, Position] = {}
        self.keys: dict[Keys, Position] = {}

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], keys: Keys) -> Any:
        self.values[keys] = _position(event)
        return super()._value(event, events, keys)

    def _key(self, event: yaml.Event, keys: Keys) -> None:
        self.keys[keys] = _position(event)


@functools.lru_cache(maxsize=4)  # problems come file by file
def _places(text: str) -> _Places:
    places = _Places()
    with contextlib.suppress(yaml.MarkedYAMLError, _UnreadableError):  # what comes before has its place
        places.document(yaml.parse(text, Loader=_LOADER))
    return places


def composed(text: str) -> yaml.Node | None:
    """The nodes of a text that has been found to have no problems; their marks count characters from 0."""
    return yaml.compose(text, Loader=_LOADER)


def comments(text: str) -> list[str]:
    """The comments of such a text."""
    found, end = [], 0
    for token in yaml.scan(text, Loader=_LOADER):
        if isinstance(token, yaml.ScalarToken | yaml.StreamEndToken):
            found += _COMMENT.findall(text, end, token.start_mark.index)
            end = token.end_mark.index
    return found


def _position(event: yaml.Event) -> Position:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)


_COMMENT = re.compile(r"#[^\r\n]*")  # where no scalar stands, nothing else has this sign
_NUMBER = re.compile(r"[-+]?(\d{1,18}|\d*\.\d+([eE][-+]?\d+)?)")
_BEGINS_NUMBER = frozenset("+-.0123456789")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def plain(text: str) -> object:
    """An unquoted word, by the core schema of YAML 1.2. A number too large for JSON stays text."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in _BEGINS_NUMBER and _NUMBER.fullmatch(text):
        if "." not in text:
            return int(text)
        number = float(text)
        return number if math.isfinite(number) else text
    return text
