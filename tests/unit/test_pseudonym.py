"""Pseudonyms: the same for the same subject of the same issuer and nobody else, and none where the key is not right."""

import hashlib
import hmac
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from model import Denied, Reason
from pseudonym import KEY, PLAIN, PREFIX, SHORTEST, SUBJECTS, Names, pseudonym, read_names

SECRET = "k" * SHORTEST
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ISSUERS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)


def test_a_pseudonym_is_an_hmac_that_whoever_has_the_key_can_make_again() -> None:
    expected = hmac.new(b"secret", b"company\0alice", hashlib.sha256).hexdigest()[:32]
    assert pseudonym(b"secret", "company", "alice") == f"pseudonym:{expected}"
    assert read_names("pseudonym", SECRET).of("company", "alice") == pseudonym(
        SECRET.encode(), "company", "alice"
    )


@given(ISSUERS, TEXTS, ISSUERS, TEXTS)
def test_two_have_the_same_one_only_if_they_are_the_same(a: str, one: str, b: str, two: str) -> None:
    same = pseudonym(b"k", a, one) == pseudonym(b"k", b, two)
    assert same is ((a, one) == (b, two))
    assert re.fullmatch(r"pseudonym:[0-9a-f]{32}", pseudonym(b"k", a, one))


@given(ISSUERS, TEXTS, st.text(min_size=SHORTEST), st.text(min_size=SHORTEST))
def test_another_key_gives_another_one(issuer: str, subject: str, one: str, two: str) -> None:
    first, second = read_names("pseudonym", one), read_names("pseudonym", two)
    assume(not first.error and not second.error and one.strip() != two.strip())
    assume(first.key != second.key)
    assert first.of(issuer, subject) != second.of(issuer, subject)


@pytest.mark.parametrize("subjects", [None, "", "plain"])
@pytest.mark.parametrize("key", [None, "", SECRET])
def test_subjects_are_plain_unless_somebody_asks_for_more(subjects: str | None, key: str | None) -> None:
    assert read_names(subjects, key) is PLAIN
    assert PLAIN.of("company", "alice") == "alice"


@pytest.mark.parametrize(
    ("subjects", "key", "said"),
    [
        pytest.param("pseudonym", None, KEY, id="no key"),
        pytest.param("pseudonym", "", KEY, id="an empty key"),
        pytest.param("pseudonym", "k" * (SHORTEST - 1), KEY, id="a short key"),
        pytest.param("pseudonym", " " * 100, KEY, id="a blank key"),
        pytest.param("pseudonym", "k" * (SHORTEST - 1) + "\n", KEY, id="a short key and a line feed"),
        pytest.param("pseudonyms", SECRET, SUBJECTS, id="a setting that nobody knows"),
        pytest.param("Pseudonym", SECRET, SUBJECTS, id="a capital letter"),
        pytest.param(" plain", SECRET, SUBJECTS, id="a space"),
        pytest.param("no text", SECRET, SUBJECTS, id="what stands for a value that is no text"),
    ],
)
def test_a_setting_that_cannot_be_followed_names_nobody(subjects: str, key: str | None, said: str) -> None:
    names = read_names(subjects, key)
    assert said in names.error
    with pytest.raises(Denied) as refused:
        names.of("company", "alice")
    assert refused.value.reason is Reason.INTERNAL
    assert "alice" not in str(refused.value)
    assert key is None or not key.strip() or key.strip() not in names.error


def test_white_space_around_a_key_is_no_part_of_it() -> None:
    assert (
        read_names("pseudonym", f" {SECRET}\n") == read_names("pseudonym", SECRET) == Names(SECRET.encode())
    )


def test_a_key_may_be_of_any_characters() -> None:
    for letter in ("\u00e9", "\U0001f600", "\ud800"):
        assert read_names("pseudonym", letter * SHORTEST).of("company", "alice").startswith(PREFIX)
