"""Claims by their paths: what is there, what scopes are, and what can be compared."""

from typing import Any

import pytest

from claims import LONGEST, MOST_VALUES, at, said, strings, texts
from model import Denied, Reason

CLAIMS: dict[str, Any] = {
    "groups": ["a"],
    "realm": {"access": {"roles": ["r"]}, "none": None},
    "realm.access": "dotted",
    "https://example.com/roles": ["n"],
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param(("groups",), ["a"], id="a name"),
        pytest.param(("realm", "access", "roles"), ["r"], id="a name within a name"),
        pytest.param(("realm.access",), "dotted", id="a name with a dot is one name"),
        pytest.param(("https://example.com/roles",), ["n"], id="a name that is an address"),
        pytest.param(("realm", "none"), None, id="null is not there"),
        pytest.param(("realm", "none", "roles"), None, id="nothing is below null"),
        pytest.param(("groups", "a"), None, id="nothing is below a list"),
        pytest.param(("realm.access", "roles"), None, id="nothing is below a text"),
        pytest.param(("other",), None, id="another name"),
    ],
)
def test_a_claim_by_its_path(path: tuple[str, ...], value: Any) -> None:
    assert at(CLAIMS, path) == said(CLAIMS, path) == value


SCOPES = [
    pytest.param({}, None, id="none said"),
    pytest.param({"scope": "read write"}, ["read", "write"], id="RFC 9068: one text"),
    pytest.param({"scope": ""}, [], id="an empty text is no scope"),
    pytest.param({"scope": " read  write "}, ["read", "write"], id="spaces alone are no scope"),
    pytest.param({"scope": "read\twrite"}, ["read\twrite"], id="only a space separates"),
    pytest.param({"scp": ["read", "write"]}, ["read", "write"], id="Okta: a list under scp"),
    pytest.param({"scp": "read write"}, ["read", "write"], id="Entra: a text under scp"),
    pytest.param({"scp": ["read write"]}, ["read write"], id="an entry of a list is one scope"),
    pytest.param({"scope": "read", "scp": ["write"]}, ["read"], id="the standard's name wins"),
    pytest.param({"scope": None, "scp": ["write"]}, None, id="also where it says null"),
    pytest.param(
        {"scope": {"read": True}}, {"read": True}, id="an object is handed on, for others to refuse"
    ),
]


@pytest.mark.parametrize("path", [("scope",), ("scp",)])
@pytest.mark.parametrize(("claims", "found"), SCOPES)
def test_scopes_each_by_itself(claims: dict[str, Any], found: Any, path: tuple[str, ...]) -> None:
    assert said(claims, path) == found


def test_a_scope_claim_deeper_down_is_a_claim_like_any_other() -> None:
    assert said({"resource": {"scope": "read write"}}, ("resource", "scope")) == "read write"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        pytest.param("a b", ("a b",), id="a text is one value"),
        pytest.param(["a", "b"], ("a", "b"), id="a list of texts"),
        pytest.param([], (), id="an empty list"),
        pytest.param(["a"] * MOST_VALUES, ("a",) * MOST_VALUES, id="as many as there may be"),
        pytest.param(["a"] * (MOST_VALUES + 1), None, id="one more"),
        pytest.param(["a", 1], None, id="a number among them"),
        pytest.param([["a"]], None, id="a list in the list"),
        pytest.param({"a": 1}, None, id="an object"),
        pytest.param(True, None, id="true"),
        pytest.param(1, None, id="a number"),
        pytest.param(None, None, id="null"),
    ],
)
def test_strings(value: Any, found: tuple[str, ...] | None) -> None:
    if found is None:
        with pytest.raises(Denied) as refused:
            strings(value)
        assert refused.value.reason is Reason.TOKEN_CLAIMS
    else:
        assert strings(value) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        pytest.param("a", ("a",), id="a text"),
        pytest.param([True, False, 7, "7"], ("true", "false", "7", "7"), id="as JSON writes them"),
        pytest.param("x" * LONGEST, ("x" * LONGEST,), id="the longest"),
        pytest.param("x" * (LONGEST + 1), None, id="a longer one"),
        pytest.param(1.5, None, id="a fraction"),
        pytest.param(None, None, id="null"),
        pytest.param({}, None, id="an object"),
        pytest.param(["x"] * (MOST_VALUES + 1), None, id="too many"),
    ],
)
def test_texts(value: Any, found: tuple[str, ...] | None) -> None:
    assert texts(value) == found
