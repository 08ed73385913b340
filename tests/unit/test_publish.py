"""Publishing: what is written, in which order, what is left when it breaks off, and what a person is told."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from stores import Stores
from typer.testing import CliRunner

from airgate import acts
from airgate.engine import BUNDLE, HEAD, POINTER_TYPE, SHARD, load_bundle, load_shard
from airgate.policy import publish
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.index import canonical
from airgate.policy.ledger import user
from airgate.policy.release import Published, PublishError, Release, commit_of, plan, put_in_force
from airgate.policy.seed import STARTER, SeedError
from airgate.signing_key import SigningKey

KEY = SigningKey.new("release pipeline", ["publish"])
OTHER = SigningKey.new("somebody", ["publish"])
GRANTER = SigningKey.new("on call", ["grant"])


@pytest.fixture
def store() -> Stores:
    return Stores(KEY)


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STARTER, tmp_path / "seed"))


@pytest.fixture(scope="module")
def starter() -> Compiled:
    return compile_folder(STARTER)


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """The starter set, with policies about two upstreams changed."""
    folder = Path(shutil.copytree(STARTER, tmp_path_factory.mktemp("edited") / "seed"))
    replace(folder / "policies" / "finance.yaml", '["finance_*"]', '["close_*"]')
    replace(folder / "policies" / "sales.yaml", '"07:00"', '"08:00"')
    return compile_folder(folder)


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


def put(store: Stores, compiled: Compiled, note: str = "", key: SigningKey | None = KEY) -> Published:
    return put_in_force(store, plan(store, Release(compiled, note)), key)


def shards(compiled: Compiled) -> list[str]:
    return [SHARD + digest for digest in compiled.bundle["shards"].values()]


def in_force(store: Stores) -> tuple[int, str]:
    """The number and bundle that a gate which has just begun takes, and could decide by."""
    found = store.in_force()
    return (0, "") if found is None else (found[0].sequence, found[0].bundle)


def test_shards_and_bundle_are_written_before_the_row_and_the_row_before_its_copy(
    store: Stores, starter: Compiled
) -> None:
    published = put(store, starter, "the first")
    assert store.writes == [*shards(starter), BUNDLE + starter.sha256, "D1", HEAD]
    bundle = load_bundle(store.kv[BUNDLE + starter.sha256])
    for upstream, digest in bundle.shards.items():
        assert load_shard(store.kv[SHARD + digest], upstream).policies == len(starter.rules[upstream])
    [document] = store.documents()
    names = {rule.id for rules in starter.rules.values() for rule in rules}
    assert document | {"published_at": 0} == {
        "format": 4, "gate": "airgate-staging", "sequence": 1, "bundle": starter.sha256, "published_at": 0,
        "published_by": "release pipeline", "note": "the first", "commit": "", "policies": len(names),
        "added": len(names), "changed": 0, "removed": 0, "of": None,
    }  # fmt: skip
    assert published.written
    assert "added policy finance-data-publish" in [str(change) for change in published.changes]
    assert in_force(store) == (1, starter.sha256)
    [row] = store.rows("SELECT document, key, signature FROM pointers")
    assert json.loads(store.kv[HEAD]) == row


def test_the_same_bundle_is_not_published_again(store: Stores, starter: Compiled) -> None:
    put(store, starter)
    store.writes.clear()
    assert put(store, starter) == Published(1, starter.sha256, False)
    assert store.writes == []


def test_of_what_is_in_force_only_shards_that_have_changed_are_read(
    store: Stores, starter: Compiled, edited: Compiled
) -> None:
    put(store, starter)
    store.reads.clear()
    put(store, edited)
    old = {SHARD + digest for digest in starter.bundle["shards"].values() if digest not in edited.stored}
    assert len(old) > 0
    assert sorted(store.reads) == sorted(["D1", HEAD, BUNDLE + starter.sha256, *old])


@pytest.mark.parametrize("after", [False, True], ids=["before its effect", "behind its effect"])
def test_broken_off_at_any_write_the_old_or_the_new_set_is_in_force_and_the_same_command_goes_on(
    after: bool, starter: Compiled, edited: Compiled
) -> None:
    writes = len(edited.stored) + 3
    seen = set()
    for number in range(1, writes + 1):
        store = Stores(KEY)
        put(store, starter)
        store.writes.clear()
        store.breaks_at, store.after = number, after
        with pytest.raises(PublishError) as refused:
            put(store, edited)
        assert "un the same command again" in str(refused.value)
        now = in_force(store)
        assert now in [(1, starter.sha256), (2, edited.sha256)]
        assert not store.complaint
        seen.add(now)
        store.breaks_at = None
        again = put(store, edited)
        assert (again.sequence, again.bundle) == (2, edited.sha256)
        assert again.written is (now[0] == 1)
        assert in_force(store) == (2, edited.sha256)
        assert json.loads(json.loads(store.kv[HEAD])["document"])["sequence"] == 2
    assert seen == {(1, starter.sha256), (2, edited.sha256)}
    store = Stores(KEY)
    store.breaks_at = writes + 1
    assert put(store, edited).written  # so these were all of its writes


BROKEN = [
    (1, "Nothing has changed on staging"),
    (-2, "Whether number 2 is in force on staging is not known"),
    (-1, "Number 2 is in force on staging; KV's copy of its row could not be written"),
]


@pytest.mark.parametrize(("write", "said"), BROKEN, ids=["to KV", "to D1", "the copy"])
def test_what_breaks_off_says_what_is_in_force(
    write: int, said: str, store: Stores, starter: Compiled, edited: Compiled
) -> None:
    put(store, starter)
    store.writes.clear()
    store.breaks_at = write if write > 0 else len(edited.stored) + 4 + write
    with pytest.raises(PublishError, match=re.escape(said)) as refused:
        put(store, edited)
    assert refused.value.status == 1
    assert "fetch failed" in str(refused.value)


def test_an_interruption_is_told_like_a_failure(
    store: Stores, starter: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(values: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "kv_put", interrupt)
    with pytest.raises(PublishError, match=r"Interrupted\. Nothing has changed on staging"):
        put(store, starter)


def test_of_two_who_publish_at_once_the_second_is_told_of_the_first(
    store: Stores, starter: Compiled, edited: Compiled
) -> None:
    theirs, ours = plan(store, Release(starter, "the\nfirst\x1b[2J")), plan(store, Release(edited))
    put_in_force(store, theirs, KEY)
    with pytest.raises(
        PublishError, match="Somebody else was first: release pipeline published number 1"
    ) as told:
        put_in_force(store, ours, KEY)
    assert told.value.status == 3
    assert "UTC: the first\ufffd[2J. Yours is not in force." in str(told.value)
    assert in_force(store) == (1, starter.sha256)
    assert put(store, edited).sequence == 2


def test_a_row_that_arrives_twice_is_not_somebody_else_s(
    store: Stores, starter: Compiled, edited: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = store.d1

    def twice(sql: str) -> list[dict[str, Any]]:
        if sql.startswith("INSERT"):
            once(sql)
        return once(sql)

    monkeypatch.setattr(store, "d1", twice)
    for number, compiled in ((1, starter), (2, edited)):
        published = put(store, compiled)
        assert (published.sequence, published.written) == (number, True)
        assert in_force(store) == (number, compiled.sha256)
        assert json.loads(json.loads(store.kv[HEAD])["document"])["sequence"] == number


def test_a_row_of_that_number_which_appears_meanwhile_is_a_conflict(
    store: Stores, starter: Compiled, edited: Compiled
) -> None:
    put(store, starter)
    ours = plan(store, Release(edited))
    put(store, edited, "theirs")
    put(store, starter, "and back")
    with pytest.raises(PublishError, match="published number 3") as told:
        put_in_force(store, ours, KEY)
    assert told.value.status == 3


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
    old: str, new: str, expected: list[str], store: Stores, seed: Path
) -> None:
    put(store, compile_folder(seed))
    sales = seed / "policies" / "sales.yaml"
    assert old in sales.read_text("utf-8")
    sales.write_text(sales.read_text("utf-8").replace(old, new, 1), "utf-8")
    published = put(store, compile_folder(seed))
    assert [str(change) for change in published.changes] == expected
    assert published.written == bool(expected)
    counts = {
        verb: sum(line.startswith(verb) for line in expected) for verb in ("added", "changed", "removed")
    }
    assert not expected or {name: store.documents()[1][name] for name in counts} == counts


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
    old: str, new: str, expected: str, store: Stores, seed: Path
) -> None:
    put(store, compile_folder(seed))
    replace(seed / "upstreams.yaml", old, new)
    assert [str(change) for change in put(store, compile_folder(seed)).changes] == [expected]


def test_a_year_later_time_zones_are_worked_out_anew(store: Stores, seed: Path) -> None:
    put(store, compile_folder(seed, now=1_800_000_000))
    published = put(store, compile_folder(seed, now=1_831_536_000))
    assert [str(change) for change in published.changes] == ["changed time zone Europe/Berlin"]


def test_what_is_gone_from_kv_or_damaged_is_written_again_under_the_same_number(
    store: Stores, starter: Compiled
) -> None:
    put(store, starter)
    for key in [*shards(starter), BUNDLE + starter.sha256, HEAD]:
        text = store.kv.pop(key)
        published = put(store, starter)
        assert (published.sequence, published.written, published.mended) == (1, False, (key,))
        assert store.kv[key] == text
    store.kv[BUNDLE + starter.sha256] = "{}"
    put(store, starter)
    assert in_force(store) == (1, starter.sha256)


def test_a_list_that_was_cut_says_nothing_of_what_is_there(
    store: Stores, starter: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, starter)
    del store.kv[shards(starter)[0]]
    monkeypatch.setattr(store, "kv_names", lambda prefix: {f"{prefix}{number}" for number in range(1000)})
    put(store, starter)
    assert in_force(store) == (1, starter.sha256)


def test_what_is_in_force_and_damaged_is_compared_with_by_nobody(
    store: Stores, starter: Compiled, edited: Compiled
) -> None:
    put(store, starter)
    changed = next(digest for digest in starter.stored if digest not in edited.stored)
    store.kv[SHARD + changed] = "{}"
    planned = plan(store, Release(edited))
    assert planned.before is None
    assert "its hash is another" in planned.unread
    assert put_in_force(store, planned, KEY).sequence == 2
    assert in_force(store) == (2, edited.sha256)


def test_the_number_rises_above_what_kv_remembers_when_d1_has_lost_rows(
    store: Stores, starter: Compiled, edited: Compiled
) -> None:
    put(store, starter)
    put(store, edited)
    store.database.execute("DELETE FROM pointers")
    planned = plan(store, Release(starter))
    assert planned.ledger.lost
    assert planned.before is not None
    assert planned.before.sha256 == edited.sha256
    assert put_in_force(store, planned, KEY).sequence == 3
    assert in_force(store) == (3, starter.sha256)


def test_the_very_set_that_d1_has_lost_is_published_anew(store: Stores, starter: Compiled) -> None:
    put(store, starter)
    store.database.execute("DELETE FROM pointers")
    assert (put(store, starter).sequence, in_force(store)) == (2, (2, starter.sha256))


def test_a_copy_in_kv_that_nobody_trusted_has_signed_counts_for_nothing(
    store: Stores, starter: Compiled
) -> None:
    forger = Stores(OTHER)
    for _ in range(2):
        put(forger, starter, key=OTHER)
    store.kv[HEAD] = forger.kv[HEAD]
    assert put(store, starter).sequence == 1


FOREIGN: list[tuple[str, Callable[[Stores, str], None], str]] = [
    ("not signed", lambda store, text: store.row(2, text), "it is not signed"),
    ("unreadable", lambda store, text: store.row(2, "{}"), "it can't be read"),
    ("signed by another", lambda store, text: store.row(2, text, OTHER.kid, OTHER.sign("x", text)), "not trusted here"),
    ("signed wrongly", lambda store, text: store.row(2, text, KEY.kid, KEY.sign("x", text)), "is wrong"),
    ("of another gate", lambda store, text: store.row(2, *elsewhere(text)), "it is for another gate, 'airgate'"),
    ("the row before, again", lambda store, text: store.row(2, *old(store)), "it is the document of number 1"),
]  # fmt: skip


def elsewhere(text: str) -> tuple[str, str, str]:
    """Rightly signed, for production."""
    text = canonical(json.loads(text) | {"gate": "airgate"})
    return text, KEY.kid, KEY.sign(POINTER_TYPE, text)


def old(store: Stores) -> tuple[str, str, str]:
    row = store.rows("SELECT document, key, signature FROM pointers WHERE sequence = 1")[0]
    return row["document"], row["key"], row["signature"]


@pytest.mark.parametrize(("write", "said"), [row[1:] for row in FOREIGN], ids=[row[0] for row in FOREIGN])
def test_a_row_that_the_gate_refuses_is_told_and_published_above(
    write: Callable[[Stores, str], None], said: str, store: Stores, starter: Compiled, edited: Compiled
) -> None:
    put(store, starter)
    document = store.documents()[0] | {"sequence": 2, "bundle": edited.sha256}
    write(store, json.dumps(document))
    planned = plan(store, Release(starter))
    assert planned.ledger.in_force is not None
    assert planned.ledger.in_force.number == 1
    [complaint] = publish.complaints(planned)
    assert said in complaint
    assert "Number 2" in complaint
    assert put_in_force(store, planned, KEY).sequence == 3
    assert in_force(store) == (3, starter.sha256)
    assert not store.complaint


def test_a_row_under_the_highest_number_there_can_be_is_to_be_taken_away(
    store: Stores, starter: Compiled
) -> None:
    store.row(2**53, "{}")
    with pytest.raises(PublishError, match="DELETE FROM pointers WHERE sequence >= 9007199254740992"):
        put(store, starter)
    assert store.writes == []


def test_a_set_that_stands_there_unsigned_is_signed_when_there_is_a_key(starter: Compiled) -> None:
    store = Stores()
    assert put(store, starter, key=None).sequence == 1
    assert not put(store, starter, key=None).written
    assert put(store, starter, key=KEY).sequence == 2
    store.trust([KEY])
    assert in_force(store) == (2, starter.sha256)
    assert not put(store, starter, key=KEY).written


def test_a_key_can_be_taken_away_once_its_successor_has_published_the_same_set(starter: Compiled) -> None:
    store = Stores(KEY, OTHER)
    assert put(store, starter, key=KEY).sequence == 1
    assert not put(store, starter, key=KEY).written
    published = put(store, starter, key=OTHER)
    assert (published.sequence, published.written, published.changes) == (2, True, ())
    store.trust([OTHER])
    assert in_force(store) == (2, starter.sha256)
    assert not store.complaint


REFUSED = [
    ("no key", None, "it is not signed"),
    ("a key that isn't trusted", OTHER, "signed by a key that is not trusted here"),
    ("a key that may not publish", GRANTER, "may grant, not publish"),
]


@pytest.mark.parametrize(("key", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_the_gate_would_not_believe_is_not_written(
    key: SigningKey | None, said: str, starter: Compiled
) -> None:
    store = Stores(KEY, GRANTER)
    with pytest.raises(PublishError, match=said) as refused:
        put(store, starter, key=key)
    assert (refused.value.status, store.writes) == (3, [])


def test_the_name_is_the_one_under_which_the_gate_knows_the_key(store: Stores, starter: Compiled) -> None:
    renamed = SigningKey(KEY.kid, "me", KEY.may, KEY.made_at, KEY.private)
    put(store, starter, key=renamed)
    assert store.documents()[0]["published_by"] == "release pipeline"


def test_a_note_that_does_not_fit_is_refused_before_anything_is_written(
    store: Stores, starter: Compiled
) -> None:
    with pytest.raises(PublishError, match="500 characters") as refused:
        put(store, starter, "x" * 501)
    assert (refused.value.status, store.writes) == (2, [])


def test_a_note_that_is_no_text_is_refused_before_anything_is_written(
    store: Stores, starter: Compiled
) -> None:
    with pytest.raises(PublishError, match="not UTF-8") as refused:
        put(store, starter, "\udcff")
    assert (refused.value.status, store.writes) == (2, [])


def test_who_published_is_told_on_one_line_whatever_a_row_says(starter: Compiled) -> None:
    store = Stores()
    put(store, starter, key=None)
    row = store.documents()[0] | {"sequence": 2, "published_by": "a\x1b[2J\nb"}
    store.row(2, canonical(row))
    assert "of a\ufffd[2J b, " in publish.before(plan(store, Release(starter)))


def test_the_longest_note_fits(store: Stores, starter: Compiled) -> None:
    put(store, starter, "\u0001" * 500)
    assert in_force(store) == (1, starter.sha256)


def test_an_invalid_seed_never_reaches_the_store(seed: Path) -> None:
    (seed / "roles.yaml").unlink()
    with pytest.raises(SeedError, match="no such role"):
        compile_folder(seed)


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_is_that_of_the_folder_and_says_whether_it_has_been_changed_since(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "seed"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text("a")
    assert commit_of(folder) == ""
    git(folder, "init", "--quiet")
    assert commit_of(folder) == ""
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "a")
    commit = git(folder, "rev-parse", "HEAD")
    assert commit_of(folder) == commit
    (folder.parent / "elsewhere").write_text("b")
    assert commit_of(folder) == commit
    (folder / "b.yaml").write_text("b")
    assert commit_of(folder) == commit + "+"
    assert commit_of(tmp_path / "nowhere") == ""


def test_git_is_not_told_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "git"
    program.write_text(f'#!/bin/sh\nenv > "{tmp_path}/told"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("AIRGATE_KEY_JSON", KEY.text)
    commit_of(tmp_path)
    told = (tmp_path / "told").read_text()
    assert "PATH=" in told
    assert "AIRGATE_KEY_JSON" not in told


# The command


@pytest.fixture
def run(store: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """run(seed, *arguments): the exit code, and what is said, on the environment `store`."""
    app = typer.Typer()
    app.command()(publish.publish)
    file = tmp_path / "key.json"
    file.write_text(KEY.text)
    file.chmod(0o600)
    monkeypatch.setattr(publish, "open_environment", lambda name: store)
    for name in ("AIRGATE_KEY", "AIRGATE_KEY_JSON"):
        monkeypatch.delenv(name, raising=False)

    def invoke(seed: Path, *arguments: str) -> tuple[int, str]:
        key = ["--key", str(file)] if store.trusted is not None else []
        result = CliRunner().invoke(app, [str(seed), "--env", "staging", *key, *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result.exit_code, result.output

    return invoke


def test_the_command_shows_what_is_new_and_puts_it_in_force(
    run: Callable[..., tuple[int, str]], store: Stores, seed: Path
) -> None:
    assert run(seed, "--yes")[0] == 0
    replace(seed / "policies" / "finance.yaml", 'dag: ["finance_*"]', 'dag: ["finance_*", "revenue_*"]')
    code, output = run(seed, "--yes", "--note", "revenue too")
    assert code == 0
    assert "staging, number 2: " in output
    assert "In force: number 1, of release pipeline" in output
    assert (
        "changed  policy finance-data-publish\n  workload.dag: finance_* → [finance_*, revenue_*]\n" in output
    )
    assert "  + permits more: POST /ledger/v1/entries\n" in output
    assert "New access: " in output
    assert "Published number 2 to staging: bundle " in output
    assert ", signed by release pipeline." in output
    assert in_force(store) == (2, compile_folder(seed).sha256)
    assert store.documents()[1]["note"] == "revenue too"
    code, output = run(seed, "--yes")
    assert (code, "Nothing changed: number 2, bundle " in output) == (0, True)


def test_the_same_words_on_both_sides_are_no_change(
    run: Callable[..., tuple[int, str]], store: Stores, seed: Path
) -> None:
    run(seed, "--yes")
    replace(seed / "upstreams.yaml", "retries: 2", "retries: 3")
    _, output = run(seed, "--dry-run")
    assert output.count("changed  ") == 1
    assert "changed  upstream crm\n  retries: 2 → 3\n" in output
    assert "No new access: proved for every call there could be." in output


def test_a_dry_run_writes_nothing_and_needs_no_key(
    run: Callable[..., tuple[int, str]], store: Stores, seed: Path
) -> None:
    code, output = run(seed, "--dry-run", "--key", "nowhere")
    assert (code, store.writes) == (0, [])
    assert "Nothing is in force yet." in output
    assert "Nothing is written: this is what would happen.\n" in output
    run(seed, "--yes")
    assert "Nothing would change: number 1 is this very policy.\n" in run(seed, "--dry-run")[1]


def test_the_same_set_under_another_key_is_said_to_be_the_same(
    run: Callable[..., tuple[int, str]], store: Stores, seed: Path, tmp_path: Path
) -> None:
    store.trust([KEY, OTHER])
    run(seed, "--yes")
    (tmp_path / "other.json").write_text(OTHER.text)
    code, output = run(seed, "--yes", "--key", str(tmp_path / "other.json"))
    assert code == 0
    assert "It is the same policy; the row in the ledger will be new, and so will its signature." in output
    assert "Published number 2 to staging: bundle " in output
    assert ", signed by somebody." in output


def test_without_a_key_nothing_is_written(
    run: Callable[..., tuple[int, str]], store: Stores, seed: Path
) -> None:
    code, output = run(seed, "--yes", "--key", "nowhere.json")
    assert (code, store.writes) == (2, [])
    assert "nowhere.json: no such file" in output


ACTS = [
    ("a revocation by an issuer", {"act": "revoke", "match": {"issuer": "gone", "subject": "a"}}, "issuer gone"),
    ("a grant to an issuer's", {"to": {"issuer": "gone", "subject": "a"}, "gives": {"role": "oncall"}}, "issuer gone"),
    ("a grant to a role", {"to": {"role": "gone"}, "gives": {"role": "finance-reader"}}, "role gone"),
    ("a grant of a role", {"to": {"role": "finance-reader"}, "gives": {"role": "gone"}}, "role gone"),
    ("a grant of a permit", {"to": {"role": "finance-reader"}, "gives": {"policy": "gone"}}, "policy gone"),
    ("a revocation of a subject", {"act": "revoke", "match": {"subject": "gone"}}, None),
    ("a grant of what is there",
     {"to": {"issuer": "company", "subject": "a"}, "gives": {"policy": "finance-data-publish"}}, None),
    ("one that is over", {"act": "revoke", "at": 1, "until": 2, "match": {"issuer": "gone"}}, None),
]  # fmt: skip


@pytest.mark.parametrize(("members", "lacking"), [row[1:] for row in ACTS], ids=[row[0] for row in ACTS])
def test_acts_in_force_that_would_lose_their_effect_are_told(
    members: dict[str, Any],
    lacking: str | None,
    run: Callable[..., tuple[int, str]],
    seed: Path,
    store: Stores,
) -> None:
    now = int(time.time())
    store.trust([KEY, GRANTER])
    act = {"act": "grant", "at": now, "until": now + 600, "by": "b", "reason": "r"} | members
    act |= {"gate": store.gate} | ({"from": now} if act["act"] == "grant" else {})
    name = acts.write(store, canonical(act), GRANTER)
    store.writes.clear()
    code, output = run(seed, "--dry-run")
    assert (code, store.writes) == (0, [])
    assert (f"{name[:12]} will have no effect: this policy has no {lacking}. See airgate " in output) is bool(
        lacking
    )
    assert ("will have no effect" in output) is bool(lacking)


def test_without_a_terminal_nothing_is_changed_unless_it_is_asked_for(
    run: Callable[..., tuple[int, str]], store: Stores, seed: Path
) -> None:
    code, output = run(seed)
    assert (code, store.writes) == (3, [])
    assert "Add --yes." in output


def test_a_case_that_fails_stops_it(run: Callable[..., tuple[int, str]], store: Stores, seed: Path) -> None:
    replace(seed / "policies" / "finance.yaml", 'dag: ["finance_*"]', 'dag: ["close_*"]')
    code, output = run(seed, "--yes")
    assert (code, store.writes) == (2, [])
    assert re.search(r"finance\.cases\.yaml:\d+:\d+: .+\n  decision: expected permit", output)
    assert f"failed, so nothing was written. To look closer: airgate policy test {seed}\n" in output


def test_an_invalid_seed_is_told_as_check_tells_it(
    run: Callable[..., tuple[int, str]], store: Stores, seed: Path
) -> None:
    (seed / "roles.yaml").unlink()
    code, output = run(seed, "--yes")
    assert (code, store.writes) == (2, [])
    assert "no such role" in output
    assert "Nothing was written.\n" in output


def test_a_gate_that_trusts_no_keys_takes_it_unsigned_and_a_person_is_warned(
    run: Callable[..., tuple[int, str]], store: Stores, seed: Path
) -> None:
    store.trust([])
    code, output = run(seed, "--yes")
    assert code == 0
    assert "not signed" in output
    assert "airgate-staging trusts no keys" in output
    assert store.documents()[0]["published_by"] == user()
