"""Values that nobody expects, and changes to a JSON document at any place of it."""

from copy import deepcopy
from typing import Any

from language import Dice

NAN, INFINITY = float("nan"), float("inf")
STRANGE: list[Any] = [
    None, True, 7.5, -1, NAN, INFINITY, "", "x", [], ["x"], [None], [[]], [[1]], [{}], [True], [-1], [NAN], {}, {"x": 1}
]  # fmt: skip
VALUES: list[Any] = [
    *STRANGE, 0, 1, 2, 5, 2**53, 2**63, 10**30, 0.0, 1e308, False, "GET", "*", "mon", "permit?", "Europe/Berlin", "/",
    "/**", "/{id}", "subject.id", "resource.x", "10.0.0.0/8", "\x00", "\U0001f600", [0], [0, 0], [1, 0], ["GET"],
    ["/**"], [None] * 5, [{}, None, {}, {}, {}], {"GET": {"": [0, 0]}}, {"": []}, {"**": [None] * 5},
    ["when.dates", None, None], ["target.ids", ["*"]], ["when.ip", ["::/0"]],
    ["when.equals", "resource.id", "query.id", True], ["subject.claims.any", ["a"], ["b"]],
    {"headers": [], "justification": True},
]  # fmt: skip


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Every member of every object and list below: where it is, and its name or number."""
    found: list[tuple[Any, Any]] = []
    todo = [value]
    while todo:
        place = todo.pop()
        members = list(place.items()) if isinstance(place, dict) else list(enumerate(place))
        found += [(place, name) for name, _ in members]
        todo += [member for _, member in members if isinstance(member, dict | list)]
    return found


def mutate(document: Any, dice: Dice) -> None:
    """Change one thing, anywhere."""
    places = spots(document)
    place, name = dice.of([dice.of(places), *places])
    other, at_ = dice.of(places)
    value = place[name]
    what = dice.of(["replace", "remove", "move", "twice", "rename", "nudge", "swap", "empty"])
    if what == "remove":
        del place[name]
    elif what == "move":
        place[name] = deepcopy(other[at_])
    elif what == "twice" and isinstance(place, list):
        place.insert(name, deepcopy(value))
    elif what == "rename" and isinstance(place, dict):
        del place[name]
        place[dice.of(["", "x", "*", "GET", "{id}", "**", "a*", "a", "notify", "more"])] = value
    elif what == "nudge" and type(value) is int:
        place[name] = value + dice.of([1, -1, 1000])
    elif what == "nudge" and isinstance(value, str):
        place[name] = value + dice.of(["x", "*", "/", "."])
    elif what == "swap" and isinstance(place, list):
        place.reverse()
    elif what == "empty" and isinstance(value, dict | list):
        value.clear()
    else:
        place[name] = deepcopy(dice.of(VALUES))
