"""A YAML text changed in a few places, and the same everywhere else: comments, order, quotes, ends of lines.

Places are nodes of the text as `source.composed` gives them. Layouts that can't be changed without touching more than
what is meant raise `Unchangeable`.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import yaml

from airgate.policy.source import Keys

_REST = re.compile(r"[ \t]*(#[^\r\n]*)?(?=\r?\n|\Z)")  # of a line, behind what is looked at
_COMMA = re.compile(r"\s*,")


class Unchangeable(Exception):
    """It is written in a way that a person has to change."""


class Edit(NamedTuple):
    """A part of a text, by its characters from 0, and what takes its place."""

    begin: int
    end: int
    text: str


def edited(text: str, edits: Iterable[Edit]) -> str:
    """The text with all the changes. Raises Unchangeable when two touch the same part."""
    parts, done = [], 0
    for edit in sorted(edits):
        if edit.begin < done:
            raise Unchangeable
        parts += [text[done : edit.begin], edit.text]
        done = edit.end
    return "".join([*parts, text[done:]])


def node_at(node: yaml.Node | None, keys: Keys) -> yaml.Node:
    """The node that these keys lead to. Raises KeyError or IndexError."""
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            node = _members(node)[str(key)][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            node = node.value[key]
        else:
            raise KeyError(key)
    if node is None:
        raise KeyError(keys)
    return node


def written(text: str, node: yaml.Node) -> str:
    """A node as it is written."""
    return text[node.start_mark.index : _end(node)]


def replace_member(mapping: yaml.Node, name: str, member: str) -> Edit:
    """Another member, `key: value`, in the place of one."""
    key, value = _members(mapping)[name]
    return Edit(key.start_mark.index, _end(value), member)


def drop_member(text: str, mapping: yaml.Node, name: str) -> Edit:
    """A member taken out that isn't the first one."""
    pairs = list(_members(mapping).values())
    number = [key.value for key, _ in pairs].index(name)
    key, value = pairs[number]
    return _dropped(text, mapping, pairs[number - 1][1] if number else None, key, value)


def drop_item(text: str, sequence: yaml.Node, number: int) -> Edit:
    """An item taken out that isn't the first one."""
    items = sequence.value
    return _dropped(text, sequence, items[number - 1] if number else None, items[number], items[number])


def add_member(text: str, mapping: yaml.Node, after: str, member: str) -> Edit:
    """One more member, `key: value`, behind the one that is called `after`."""
    key, value = _members(mapping)[after]
    end = _end(value)
    if _in_brackets(mapping):
        return Edit(end, end, f", {member}")
    _, indent = _line(text, key.start_mark.index)
    if indent.strip():
        raise Unchangeable
    end = _rest(text, end).end()
    return Edit(end, end, f"{_newline(text)}{indent}{member}")


def _members(mapping: yaml.Node) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    if not isinstance(mapping, yaml.MappingNode):
        raise Unchangeable
    return {key.value: (key, value) for key, value in mapping.value}


def _dropped(
    text: str, within: yaml.Node, before: yaml.Node | None, first: yaml.Node, last: yaml.Node
) -> Edit:
    """What goes from `first` to `last`, behind `before`."""
    if before is None:
        raise Unchangeable
    begin, end = first.start_mark.index, _end(last)
    if _in_brackets(within):
        start = _end(before)
        comma = _COMMA.match(text, start, begin)
        if comma is None:
            raise Unchangeable
        between = text[comma.end() : begin]
        return Edit(start, end, between if between.strip() else "")  # a comment stays
    start, indent = _line(text, begin)
    if indent.strip(" \t-") or indent.count("-") > isinstance(within, yaml.SequenceNode):
        raise Unchangeable
    rest = _rest(text, end)
    if rest[1]:
        return Edit(start, rest.end(), f"{indent.partition('-')[0]}{rest[1]}")
    newline = 2 if text.startswith("\r\n", rest.end()) else rest.end() < len(text)
    return Edit(start, rest.end() + newline, "")


def _end(node: yaml.Node) -> int:
    """Behind a node's last character: the marks of lists and mappings of many lines stand at what comes next."""
    if isinstance(node, yaml.ScalarNode):
        if node.style in ("|", ">"):
            raise Unchangeable
    elif not _in_brackets(node) and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    return end


def _in_brackets(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and bool(node.flow_style)


def _line(text: str, index: int) -> tuple[int, str]:
    """Where the line begins, and what stands on it up to there."""
    begin = text.rfind("\n", 0, index) + 1
    return begin, text[begin:index]


def _rest(text: str, index: int) -> re.Match[str]:
    """What stands behind on the line: blanks, and a comment or none."""
    rest = _REST.match(text, index)
    if rest is None:
        raise Unchangeable
    return rest


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"
