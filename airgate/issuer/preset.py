"""Presets: what is known of one provider's tokens, as a file of the seed that still has blanks in it.

A preset is one file, `kv-seed/issuers/presets/NAME.yaml.example`: first what it asks for, then, below a line of dashes,
the text of the issuer's file with `{name}` where a value goes. So the preset, its documentation and what it writes are
one thing that reviewers see, and no gate reads it: a seed is made of `*.yaml` files.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from airgate.engine import ALGORITHMS, KINDS
from airgate.policy.seed import STARTER, label, nearest, quoted

FOLDER = STARTER / "issuers" / "presets"
SUFFIX = ".yaml.example"
DASHES = "\n---\n"

_HOST = r"(?=.{1,253}(?::|$))[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+(:[0-9]{1,5})?"
_ADDRESS = r"(https://|http://(127\.0\.0\.1|localhost|\[::1\])(?=[:/]|$))[A-Za-z0-9._~:/@%+=&\[\]-]+"
# What a value may be, and how that is said. Values are put into YAML: none of these forms has a character that could
# begin something else there, except "text", which is quoted.
FORMS: Mapping[str, tuple[re.Pattern[str], str]] = {
    name: (re.compile(pattern), says)
    for name, pattern, says in (
        ("account", r"[0-9]{12}", "twelve digits"),
        ("algorithm", "|".join(sorted(ALGORITHMS)), "one of " + ", ".join(sorted(ALGORITHMS))),
        ("base", rf"{_ADDRESS}(?<!/)", "an https address without a slash at the end"),
        ("count", r"[1-9][0-9]{0,3}", "a whole number from 1 to 9999"),
        ("duration", r"[1-9][0-9]{0,5}[smh]", "a whole number and a unit"),
        ("guid", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "an id in small letters"),
        ("host", _HOST, "a host's name alone, without https:// and without a path"),
        ("idtyp", r"app|user", "app or user"),
        ("kind", "|".join(KINDS), "one of " + ", ".join(KINDS)),
        ("number", r"[1-9][0-9]{0,29}", "a number, not a name"),
        ("text", r"[^\x00-\x1f\x7f]{1,256}", "one line of text"),
        ("url", _ADDRESS, "an https address"),
        ("word", r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "a word of letters, digits and . _ -"),
    )
}
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

_BLANK = re.compile(r"\{([a-z][a-z0-9-]*)\}")
_BESIDE = re.compile(r"[\w/:.-]")  # what makes a blank a part of something longer
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/:@+-]*(?<!:)")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


class PresetError(Exception):
    """There is no such preset, it can't be read, or what it asks for isn't there. The message says what to write."""


@dataclass(frozen=True)
class Option:
    """One value that a preset asks for."""

    name: str
    help: str
    example: str
    default: tuple[str, ...]  # empty without one
    form: str
    many: bool
    optional: bool
    needs: Mapping[str, str]  # options that have to be given with this one, each with the reason

    @property
    def required(self) -> bool:
        return not self.default and not self.optional

    def problem(self, value: str) -> str:
        """What is wrong with a value's form; empty when nothing is."""
        pattern, says = FORMS[self.form]
        if pattern.fullmatch(value) is not None:
            return ""
        return f"--{self.name} {quoted(value)}: expected {says}, such as {self.example}" + _repaired(
            self.form, value
        )


@dataclass(frozen=True)
class Preset:
    """One provider."""

    name: str
    title: str
    options: tuple[Option, ...]
    grants: tuple[str, ...]  # examples for roles.yaml, with {name}
    body: str

    def example(self, values: Mapping[str, Sequence[str]] = {}) -> str:
        """A command line that would do; what has been given is in it."""
        shown = [f"airgate issuer add {self.name}"]
        for option in self.options:
            given = values.get(option.name) or ([option.example] if option.required else [])
            shown += [f"--{option.name} {_argument(value)}" for value in given]
        return " ".join(shown)

    def fill(self, name: str, values: Mapping[str, Sequence[str]]) -> str:
        """The text of the issuer's file. A line whose optional value isn't given becomes a comment.

        `values` has the name of each option that is given, without dashes. Raises PresetError.
        """
        if NAME.fullmatch(name) is None:
            raise PresetError(f"{quoted(name)}: a name is 1 to 63 of a-z, 0-9 and -")
        self._refuse(values)
        filled: dict[str, tuple[str, ...]] = {"name": (name,)}
        for option in self.options:
            filled[option.name] = tuple(values.get(option.name, ())) or option.default
        return "".join(self._line(line, filled) for line in self.body.splitlines(keepends=True))

    def _refuse(self, values: Mapping[str, Sequence[str]]) -> None:
        """Raise PresetError with everything that is missing or wrong, and a line that would do."""
        problems = []
        right: dict[str, Sequence[str]] = {}
        for option in self.options:
            given = values.get(option.name, ())
            wrong = [problem for value in given if (problem := option.problem(value))]
            if len(given) > 1 and not option.many:
                wrong.append(f"--{option.name}: has one value, and {len(given)} are given")
            problems += wrong
            right[option.name] = () if wrong else given
        for option in self.options:
            for needed, why in option.needs.items() if values.get(option.name) else ():
                if not values.get(needed):
                    problems.append(f"--{option.name}: give --{needed} too: {why}")
                    right[needed] = [other.example for other in self.options if other.name == needed]
        missing = [option for option in self.options if option.required and not values.get(option.name)]
        if missing:
            width = max(len(option.name) for option in missing)
            problems.append(f"The preset {self.name} also needs to know:")
            problems += [f"  --{option.name:<{width}}  {option.help}" for option in missing]
        if problems:
            raise PresetError("\n".join([*problems, "For example:", "  " + self.example(right)]))

    def _line(self, line: str, filled: Mapping[str, tuple[str, ...]]) -> str:
        names = _BLANK.findall(line)
        if all(filled[name] for name in names):
            comment = line.lstrip(" ").startswith("#")

            def value(blank: re.Match[str]) -> str:
                around = line[blank.start() - 1 : blank.start()] + line[blank.end() : blank.end() + 1]
                alone = not comment and _BESIDE.search(around) is None
                return self._alone(blank[1], filled[blank[1]]) if alone else ", ".join(filled[blank[1]])

            # In one pass: what a value says is never read again.
            return _BLANK.sub(value, line)
        examples = {option.name: (option.example,) for option in self.options if not filled[option.name]}
        shown = self._line(line, {**filled, **examples})
        text = shown.lstrip(" ")
        return f"{' ' * (len(shown) - len(text))}# {text}"

    def _alone(self, name: str, values: Sequence[str]) -> str:
        """Values where nothing stands beside them: as one scalar, or as the items of a list."""
        bare = {option.name for option in self.options if option.form in ("count", "duration")}
        return ", ".join(values if name in bare else map(_scalar, values))


def presets(folder: Path = FOLDER) -> list[str]:
    """The names of all presets."""
    return sorted(path.name.removesuffix(SUFFIX) for path in folder.glob("*" + SUFFIX))


def preset(name: str, folder: Path = FOLDER) -> Preset:
    """Read one preset. Raises PresetError."""
    path = folder / (name + SUFFIX)
    known = presets(folder)
    if name not in known:
        raise PresetError(f"{quoted(name)}: no such preset{nearest(name, known)}\nKnown: {', '.join(known)}")
    head, dashes, body = path.read_text("utf-8").partition(DASHES)
    if not dashes:
        raise PresetError(f"{label(path)}: a line of three dashes is missing between its two parts")
    try:
        data = yaml.safe_load(head)
        options = tuple(_option(key, each) for key, each in data["options"].items())
        read = Preset(name, str(data["title"]), options, tuple(map(str, data["grants"])), body)
    except (AttributeError, KeyError, TypeError, yaml.YAMLError) as error:
        raise PresetError(f"{label(path)}: its first part isn't that of a preset: {error}") from None
    names = {option.name for option in options}
    unknown = set(_BLANK.findall(body)) - {"name"} - names
    if unknown:
        raise PresetError(f"{label(path)}: {{{min(unknown)}}} is none of its options")
    if unknown := {needed for option in options for needed in option.needs} - names:
        raise PresetError(f"{label(path)}: needs {min(unknown)}, which is none of its options")
    return read


def _option(name: str, data: dict[str, Any]) -> Option:
    default = data.get("default", [])
    defaults = tuple(default) if isinstance(default, list) else (default,)
    option = Option(
        name=name,
        help=data["help"],
        example=str(data.get("example", (*defaults, None)[0])),
        default=defaults,
        form=data.get("form", "text"),
        many=data.get("many", False),
        optional=data.get("optional", False),
        needs=data.get("needs", {}),
    )
    if option.form not in FORMS or option.example == "None":
        raise TypeError(f"{name}: its form or its example is missing")
    return option


def _scalar(value: str) -> str:
    """A text as a YAML scalar that stands anywhere, in a flow list too."""
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _argument(value: str) -> str:
    """A value as a shell reads it."""
    return value if re.fullmatch(r"[\w@%+=:,./-]+", value) else "'" + value.replace("'", "'\\''") + "'"


def _repaired(form: str, value: str) -> str:
    """What was probably meant: `; did you mean example.okta.com?`"""
    tried = {
        "host": re.sub(r"^[a-z]+://|/.*$", "", value.strip().lower()),
        "guid": value.strip().strip("{}").lower(),
        "base": value.rstrip("/"),
        "url": "https://" + value.removeprefix("http://"),
    }.get(form, value.strip())
    return f"; did you mean {tried}?" if tried != value and FORMS[form][0].fullmatch(tried) else ""
