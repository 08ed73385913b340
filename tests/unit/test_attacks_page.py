"""docs/attacks.md names tests: they are there, and so is every attack's."""

import re

import pytest

from airgate.node import PROJECT

PAGE = (PROJECT / "docs" / "attacks.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and line != "| attack | tests |"]
NAMED = sorted(set(re.findall(r"`((?:unit|e2e)/[\w/]+\.py)::(\w+)`", PAGE)))


def test_every_attack_has_a_test() -> None:
    assert len(ROWS) >= 20
    for row in ROWS:
        assert "::test_" in row, row


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_the_page_names_is_there(file: str, name: str) -> None:
    text = (PROJECT / "tests" / file).read_text("utf-8")
    assert re.search(rf"^def {name}\(", text, re.MULTILINE), f"tests/{file} has no {name}"
