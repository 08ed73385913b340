"""Publishing: what is written, in which order, and what a person is told."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from airgate.engine import BUNDLE, POINTER, SHARD, load_bundle, load_pointer, load_shard
from airgate.policy import publish
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.publish import Published, PublishError
from airgate.policy.seed import STARTER, SeedError


class Memory:
    """A KV namespace that remembers the order of writes, and what was read."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.written: list[str] = []
        self.seen: list[str] = []

    def get(self, key: str) -> str | None:
        self.seen.append(key)
        return self.values.get(key)

    def names(self, prefix: str) -> set[str]:
        return {key for key in self.values if key.startswith(prefix)}

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


def shards(compiled: Compiled) -> list[str]:
    return [SHARD + digest for digest in compiled.bundle["shards"].values()]


def test_shards_are_written_before_the_bundle_and_the_bundle_before_the_pointer(store: Memory) -> None:
    compiled = compile_folder(STARTER)
    published = put(store, compiled, "the first")
    assert store.written == [*shards(compiled), BUNDLE + compiled.sha256, POINTER]
    bundle = load_bundle(store.values[BUNDLE + compiled.sha256])
    assert bundle.version == compiled.sha256[:12]
    for upstream, digest in bundle.shards.items():
        assert load_shard(store.values[SHARD + digest], upstream).policies == len(compiled.rules[upstream])
    pointer = load_pointer(store.values[POINTER])
    assert (pointer.sequence, pointer.bundle) == (1, compiled.sha256)
    assert json.loads(store.values[POINTER])["note"] == "the first"
    assert published.written
    assert "added policy finance-data-publish" in [str(change) for change in published.changes]
    assert "added policy dashboards-view" in [str(change) for change in published.changes]


def test_the_same_bundle_is_not_written_again(store: Memory) -> None:
    compiled = compile_folder(STARTER)
    put(store, compiled)
    before = list(store.written)
    assert put(store, compiled) == Published(1, compiled.sha256, False, ())
    assert store.written == before


def test_only_shards_that_changed_are_read_and_written(store: Memory, seed: Path) -> None:
    first = compile_folder(seed)
    put(store, first)
    store.written, store.seen = [], []
    finance = seed / "policies" / "finance.yaml"
    finance.write_text(finance.read_text("utf-8").replace('["finance_*"]', '["close_*"]'), "utf-8")
    second = compile_folder(seed)
    put(store, second)
    old, new = (SHARD + compiled.bundle["shards"]["ledger"] for compiled in (first, second))
    assert store.written == [new, BUNDLE + second.sha256, POINTER]
    assert store.seen == [POINTER, BUNDLE + first.sha256, old]


NOTED = (
    "    effect: permit\n    subject:\n      issuer: company\n      kind"  # how sales-accounts-note goes on
)

# name, what to replace in sales.yaml, with what, what a person is told
CHANGES: list[tuple[str, str, str, list[str]]] = [
    ("a condition", '"07:00"', '"08:00"', ["changed policy sales-accounts-note"]),
    ("an obligation", "max_body: 64KB", "max_body: 65KB", ["changed policy sales-accounts-note"]),
    ("a path", "/v1/exports/accounts", "/v2/exports/accounts", ["changed policy sales-accounts-export"]),
    ("an owner", f"owner: sales-systems@example.com\n{NOTED}", f"owner: crm@example.com\n{NOTED}",
     ["changed policy sales-accounts-note"]),
    ("the upstream", "upstream: crm\n      methods: [POST]", "upstream: pager\n      methods: [POST]",
     ["changed policy sales-accounts-note"]),
    ("a name", "id: sales-accounts-export", "id: sales-export",
     ["removed policy sales-accounts-export", "added policy sales-export"]),
    ("only what people read", "description: Exports of accounts", "description: All exports of accounts", []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "expected"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
def test_a_change_is_named_by_its_policy(
    old: str, new: str, expected: list[str], store: Memory, seed: Path
) -> None:
    put(store, compile_folder(seed))
    sales = seed / "policies" / "sales.yaml"
    assert old in sales.read_text("utf-8")
    sales.write_text(sales.read_text("utf-8").replace(old, new, 1), "utf-8")
    published = put(store, compile_folder(seed))
    assert [str(change) for change in published.changes] == expected
    assert published.written == bool(expected)


UPSTREAMS: list[tuple[str, str, str, str]] = [
    ("another base", "https://crm.example.com", "https://crm2.example.com", "changed upstream crm: base"),
    (
        "another secret",
        "UPSTREAM_LEDGER_TOKEN",
        "UPSTREAM_LEDGER_KEY",
        "changed upstream ledger: credentials",
    ),
    ("two settings", "retries: 2", "assertion: true", "changed upstream crm: assertion, retries"),
]


@pytest.mark.parametrize(
    ("old", "new", "expected"), [row[1:] for row in UPSTREAMS], ids=[row[0] for row in UPSTREAMS]
)
def test_what_has_changed_of_an_upstream_is_named(
    old: str, new: str, expected: str, store: Memory, seed: Path
) -> None:
    put(store, compile_folder(seed))
    file = seed / "upstreams.yaml"
    assert old in file.read_text("utf-8")
    file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")
    assert [str(change) for change in put(store, compile_folder(seed)).changes] == [expected]


def test_a_year_later_time_zones_are_worked_out_anew(store: Memory, seed: Path) -> None:
    put(store, compile_folder(seed, now=1_800_000_000))
    published = put(store, compile_folder(seed, now=1_831_536_000))
    assert [str(change) for change in published.changes] == ["changed time zone Europe/Berlin"]


def test_a_shard_that_is_gone_is_written_again(store: Memory) -> None:
    compiled = compile_folder(STARTER)
    put(store, compiled)
    for shard in shards(compiled):
        text = store.values.pop(shard)
        assert put(store, compiled).written
        assert store.values[shard] == text


def test_an_old_shard_that_is_damaged_is_not_believed(store: Memory, seed: Path) -> None:
    first = compile_folder(seed)
    put(store, first)
    store.values[SHARD + first.bundle["shards"]["crm"]] = "{}"
    (seed / "policies" / "sales.yaml").unlink()
    changes = [str(change) for change in put(store, compile_folder(seed)).changes]
    assert "added policy agents-accounts-read" in changes
    assert not [change for change in changes if change.startswith("removed")]


def test_a_list_that_was_cut_does_not_make_shards_missing(
    store: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile_folder(STARTER)
    put(store, compiled)
    monkeypatch.setattr(Memory, "names", lambda self, prefix: {f"{prefix}{number}" for number in range(1000)})
    assert not put(store, compiled).written


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
