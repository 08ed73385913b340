"""Publishing: what is written, in which order, and what a person is told."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from airgate.engine import load_bundle, load_pointer
from airgate.policy import publish
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.publish import BUNDLE, POINTER, Published, PublishError
from airgate.policy.seed import STARTER, SeedError


class Memory:
    """A KV namespace that remembers the order of writes."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.written: list[str] = []

    def get(self, key: str) -> str | None:
        return self.values.get(key)

    def put(self, values: Mapping[str, str]) -> None:
        self.values |= values
        self.written += values


@pytest.fixture
def store() -> Memory:
    return Memory()


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STARTER, tmp_path / "seed"))


def put(store: Memory, compiled: Compiled, note: str = "", least: int = 1) -> Published:
    return publish.publish_to(store, compiled, note, least=least, say=lambda _: None)


def test_the_bundle_is_written_before_the_pointer_to_it(store: Memory) -> None:
    compiled = compile_folder(STARTER)
    published = put(store, compiled, "the first")
    assert store.written == [BUNDLE + compiled.sha256, POINTER]
    assert load_bundle(store.values[BUNDLE + compiled.sha256]).version == compiled.sha256[:12]
    pointer = load_pointer(store.values[POINTER])
    assert (pointer.sequence, pointer.bundle) == (1, compiled.sha256)
    assert json.loads(store.values[POINTER])["note"] == "the first"
    assert published.written
    assert "added policy finance-data-publish" in [str(change) for change in published.changes]


def test_the_same_bundle_is_not_written_again(store: Memory) -> None:
    compiled = compile_folder(STARTER)
    put(store, compiled)
    assert put(store, compiled) == Published(1, compiled.sha256, False, ())
    assert len(store.written) == 2


def test_what_changed_is_named(store: Memory, seed: Path) -> None:
    put(store, compile_folder(seed))
    finance = seed / "policies" / "finance.yaml"
    text = finance.read_text("utf-8").replace("id: finance-data-read", "id: finance-read")
    finance.write_text(text.replace('dag: ["finance_*"]', 'dag: ["close_*"]'), "utf-8")
    published = put(store, compile_folder(seed))
    assert published.sequence == 2
    assert [str(change) for change in published.changes] == [
        "changed policy finance-data-publish",
        "removed policy finance-data-read",
        "added policy finance-read",
    ]


def test_going_back_is_an_old_bundle_under_a_new_number(store: Memory, seed: Path) -> None:
    first = put(store, compile_folder(seed))
    (seed / "policies" / "sales.yaml").unlink()
    put(store, compile_folder(seed))
    back = put(store, compile_folder(STARTER))
    assert (back.sequence, back.bundle, back.written) == (3, first.bundle, True)


def test_a_bundle_that_is_gone_or_damaged_is_written_again(store: Memory) -> None:
    compiled = compile_folder(STARTER)
    put(store, compiled)
    for damage in (None, "{}"):
        store.values.pop(BUNDLE + compiled.sha256)
        if damage is not None:
            store.values[BUNDLE + compiled.sha256] = damage
        assert put(store, compiled).written
        assert store.values[BUNDLE + compiled.sha256] == compiled.text


@pytest.mark.parametrize("damaged", ["", "no JSON", "{}", '{"format":2}'])
def test_a_pointer_that_cannot_be_read_is_replaced_under_a_higher_number(store: Memory, damaged: str) -> None:
    store.values[POINTER] = damaged
    assert put(store, compile_folder(STARTER)).sequence > 1_700_000_000


def test_the_number_rises_from_both_the_pointer_and_the_least(store: Memory, seed: Path) -> None:
    assert put(store, compile_folder(seed), least=1000).sequence == 1000
    (seed / "policies" / "sales.yaml").unlink()
    assert put(store, compile_folder(seed), least=1000).sequence == 1001


def test_a_note_that_does_not_fit_is_refused_before_anything_is_written(store: Memory) -> None:
    with pytest.raises(PublishError, match="500 characters"):
        put(store, compile_folder(STARTER), "x" * 501)
    assert store.written == []


def test_the_longest_note_fits(store: Memory) -> None:
    put(store, compile_folder(STARTER), "\u0001" * 500)
    assert load_pointer(store.values[POINTER]).sequence == 1


def test_an_invalid_seed_never_reaches_the_store(seed: Path) -> None:
    (seed / "roles.yaml").unlink()
    with pytest.raises(SeedError, match="no such role"):
        compile_folder(seed)
