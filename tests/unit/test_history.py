"""History, rollback and status: what is told of the ledger, and what can be put back."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from stores import Stores
from typer.testing import CliRunner

from airgate.engine import BUNDLE, HEAD, POINTER_TYPE, SHARD
from airgate.policy import history, rollback, status
from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.index import canonical
from airgate.policy.release import Release, plan, put_in_force
from airgate.policy.seed import STARTER
from airgate.signing_key import SigningKey

KEY = SigningKey.new("release pipeline", ["publish"])
RETIRED = SigningKey.new("the pipeline before", ["publish"])
COMMIT = "3f2a91c0d1e2f3a4b5c6d7e8f90123456789abcd"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter set, with a policy changed."""
    folder = Path(shutil.copytree(STARTER, tmp_path_factory.mktemp("edited") / "seed"))
    file = folder / "policies" / "finance.yaml"
    file.write_text(file.read_text("utf-8").replace('["finance_*"]', '["close_*"]'), "utf-8")
    return folder


@pytest.fixture(scope="module")
def edited(folder: Path) -> Compiled:
    return compile_folder(folder)


@pytest.fixture(scope="module")
def starter() -> Compiled:
    return compile_folder(STARTER)


def put(store: Stores, compiled: Compiled, note: str, key: SigningKey = KEY, of: int | None = None) -> None:
    put_in_force(store, plan(store, Release(compiled, note, COMMIT, of)), key)


@pytest.fixture
def store(starter: Compiled, edited: Compiled) -> Stores:
    """Numbers 1 and 2 are of a key that isn't trusted any more, 2 and 3 of another bundle."""
    store = Stores(RETIRED)
    put(store, starter, "the first", RETIRED)
    put(store, edited, "close\x1b[31m DAGs", RETIRED)
    store.trust([KEY])
    put(store, edited, "the same, signed anew")
    put(store, starter, "it was too much", of=1)
    return store


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(store: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """run("history", *arguments): the exit code, and what is said, on the environment `store`."""
    app = typer.Typer()
    file = tmp_path / "key.json"
    file.write_text(KEY.text)
    file.chmod(0o600)
    for name, module in (("history", history), ("rollback", rollback), ("status", status)):
        app.command(name)(getattr(module, name))
        monkeypatch.setattr(module, "open_environment", {"staging": store}.__getitem__)
    monkeypatch.setenv("AIRGATE_KEY", str(file))

    def invoke(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*arguments, "--env", "staging"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result.exit_code, result.output

    return invoke


def lines(output: str) -> list[str]:
    """Each line with single blanks, and without minutes."""
    moment = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC")
    return [moment.sub("WHEN", " ".join(line.split())) for line in output.splitlines()]


def test_history_tells_who_when_why_what_and_which_commit(run: Run) -> None:
    code, output = run("history", "-n", "2")
    assert code == 0
    said = lines(output)
    assert said[0] == "number published by policies commit why"
    assert said[1] == "4 WHEN release pipeline 26 ~1 3f2a91c0d back to number 1: it was too much"
    assert said[2] == "3 WHEN release pipeline 26 +26 3f2a91c0d the same, signed anew"
    assert "Older ones: airgate policy history --env staging -n 10" in said
    assert "verified" not in output


def test_history_says_which_entries_nobody_vouches_for(run: Run) -> None:
    said = lines(run("history")[1])
    doubt = f"doesn't count: it is signed by a key that is not trusted here, '{RETIRED.kid}'"
    assert (
        f"2 ! WHEN the pipeline before (not verified) 26 ~1 3f2a91c0d {doubt} (close\ufffd[31m DAGs)" in said
    )
    assert any(line.startswith("2 entries can't be verified (!).") for line in said)


def test_history_tells_of_numbers_that_are_gone(run: Run, store: Stores) -> None:
    store.database.execute("DELETE FROM pointers WHERE sequence IN (2, 3)")
    said = lines(run("history")[1])
    assert said[2] == "2-3 not there"
    assert "Numbers are missing: D1 has lost rows, or somebody has deleted them." in said


def test_history_shows_a_row_that_cannot_be_read(run: Run, store: Stores) -> None:
    store.row(5, "\x1b[2J")
    assert lines(run("history")[1])[1].startswith("5 ! doesn't count: it can't be read: ")


def test_history_of_an_empty_ledger_says_how_to_begin(run: Run, store: Stores) -> None:
    store.database.execute("DELETE FROM pointers")
    assert "is empty: airgate policy publish --env staging" in run("history")[1]


def test_history_for_programs_is_an_object_a_line(run: Run, starter: Compiled) -> None:
    code, output = run("history", "--json")
    objects = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert code == 0
    assert [(each["sequence"], each["verified"]) for each in objects] == [
        (4, True),
        (3, True),
        (2, False),
        (1, False),
    ]
    assert objects[0] | {"published_at": 0} == {
        "sequence": 4, "env": "staging", "gate": "airgate-staging", "bundle": starter.sha256, "published_at": 0,
        "published_by": "release pipeline", "note": "it was too much", "commit": COMMIT, "policies": 26, "added": 0,
        "changed": 1, "removed": 0, "of": 1, "key": KEY.kid, "verified": True, "counts": True, "doubt": None,
    }  # fmt: skip
    assert "not trusted here" in objects[3]["doubt"]


def test_a_gate_that_trusts_no_keys_has_a_history_that_nobody_vouches_for(run: Run, store: Stores) -> None:
    store.trust([])
    output = run("history")[1]
    assert "!" not in output
    assert "airgate-staging trusts no keys: nobody vouches for who published." in output


def in_force(store: Stores) -> tuple[int, str]:
    found = store.in_force()
    assert found is not None
    return found[0].sequence, found[0].bundle


def test_going_back_is_an_old_bundle_under_a_new_number(run: Run, store: Stores, edited: Compiled) -> None:
    code, output = run("rollback", "--yes", "--reason", "rather not")
    assert code == 0
    assert "Back to number 3, of release pipeline, " in output
    assert "changed  policy finance-data-publish\n  workload.dag: finance_* → close_*\n" in output
    assert "staging, number 5: 26 policies, bundle " in output
    assert "Published number 5 to staging" in output
    assert in_force(store) == (5, edited.sha256)
    document = store.documents()[-1]
    assert (document["of"], document["note"], document["commit"]) == (3, "rather not", COMMIT)
    assert (document["policies"], document["changed"]) == (26, 1)


def test_going_back_twice_is_where_one_was(run: Run, store: Stores, starter: Compiled) -> None:
    run("rollback", "--yes")
    run("rollback", "--yes")
    assert in_force(store) == (6, starter.sha256)
    assert [each["of"] for each in store.documents()[-2:]] == [3, 4]


def test_nothing_is_written_when_that_is_in_force_already(run: Run, store: Stores) -> None:
    store.writes.clear()
    code, output = run("rollback", "4", "--yes")
    assert (code, store.writes) == (0, [])
    assert "Nothing changed: number 4 is in force already." in output


def test_what_kv_remembers_above_d1_is_what_is_gone_back_from(
    run: Run, store: Stores, edited: Compiled, starter: Compiled
) -> None:
    store.database.execute("DELETE FROM pointers WHERE sequence = 4")
    code, output = run("rollback", "3", "--yes")
    assert (code, in_force(store)) == (0, (5, edited.sha256))
    assert "Published number 5 to staging" in output
    store.database.execute("DELETE FROM pointers WHERE sequence = 5")
    code, output = run("rollback", "5", "--yes")  # in force, but D1 has lost it
    assert (code, in_force(store)) == (0, (6, edited.sha256))
    assert store.documents()[-1]["of"] == 5


REFUSED = [
    ("a number that isn't there", "9", 2, "The ledger of staging has no number 9."),
    ("one that nobody vouches for", "2", 3, "Publish it from git instead: commit 3f2a91c0d."),
]


@pytest.mark.parametrize(
    ("number", "code", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_cannot_be_gone_back_to_is_told(
    number: str, code: int, said: str, run: Run, store: Stores
) -> None:
    store.writes.clear()
    came, output = run("rollback", number, "--yes")
    assert (came, store.writes) == (code, [])
    assert said in output


def test_what_is_no_longer_whole_is_not_put_back(run: Run, store: Stores, edited: Compiled) -> None:
    store.writes.clear()
    for key in [BUNDLE + edited.sha256, *(SHARD + digest for digest in edited.stored)]:
        text = store.kv.pop(key)
        code, output = run("rollback", "--yes")
        assert (code, store.writes) == (1, [])
        assert f"{key}, is not in KV. Publish it from git instead: commit 3f2a91c0d." in output
        store.kv[key] = text.replace("{", "{ ", 1)
        assert "is not what it was: its hash is another." in run("rollback", "--yes")[1]
        store.kv[key] = text
    assert run("rollback", "--yes")[0] == 0


def test_where_only_one_set_was_ever_in_force_there_is_no_way_back(
    run: Run, store: Stores, starter: Compiled
) -> None:
    store.database.execute("DELETE FROM pointers WHERE sequence < 4")
    code, output = run("rollback", "--yes")
    assert code == 2
    assert f"Nothing but bundle {starter.sha256[:12]} has ever been in force on staging." in output


def test_going_back_is_asked_for(run: Run, store: Stores) -> None:
    store.writes.clear()
    code, output = run("rollback")
    assert (code, store.writes) == (3, [])
    assert "Add --yes." in output


# Status


@pytest.fixture
def answers(store: Stores, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """answers(document): what the gate's health page says from now on; an exception: it can't be reached."""

    def answer(document: Any) -> None:
        def get(url: str, **_: object) -> httpx.Response:
            assert url == "https://gate.example.com/-/health"
            if isinstance(document, Exception):
                raise document
            return httpx.Response(200, json=document)

        monkeypatch.setattr(store, "address", "https://gate.example.com", raising=False)
        monkeypatch.setattr(httpx, "get", get)

    return answer


def test_where_all_agree_status_is_0(run: Run, answers: Callable[[Any], None]) -> None:
    bundle = {"sequence": 4, "version": "0123456789ab"}
    answers({"status": "ok", "version": "1.4.0", "bundle": bundle, "view": {"age": 1.5}})
    code, output = run("status")
    said = lines(output)
    assert code == 0
    assert said[0] == "staging: gate airgate-staging"
    assert re.fullmatch(
        r"in force number 4, bundle [0-9a-f]{12}, signed by release pipeline \d+ s ago, commit 3f2a91c0d: "
        "back to number 1: it was too much",
        said[1],
    )
    assert said[2:6] == [
        "KV's copy the same",
        "gate ok, version 1.4.0, at https://gate.example.com",
        "has number 4, bundle 0123456789ab, its view 1.5 s old",
        "kv-seed the same as in force",
    ]


def test_a_gate_whose_address_nobody_knows_is_not_asked(run: Run) -> None:
    code, output = run("status")
    assert code == 0
    assert "gate not asked: " in "\n".join(lines(output))


def test_drift_is_told_by_name(run: Run, folder: Path) -> None:
    code, output = run("status", str(folder))
    assert code == 1
    assert "differs from what is in force (1 difference): changed policy finance-data-publish" in output
    assert f"airgate policy publish {folder} --env staging --dry-run" in output


WRONG: list[tuple[str, Callable[[Stores], object], str]] = [
    ("the copy is behind", lambda store: store.kv.update({HEAD: store.kv["older"]}), "KV's copy number 3"),
    ("no copy", lambda store: store.kv.pop(HEAD), "KV's copy not there, or unreadable"),
    ("a row beside the command", lambda store: store.row(5, "{}"), "number 5 doesn't count: it can't be read"),
    ("rows are lost", lambda store: store.rows("DELETE FROM pointers WHERE sequence = 4"), "D1 has lost rows up to 4"),
    ("all rows are lost", lambda store: store.rows("DELETE FROM pointers"), "D1 has lost rows up to 4"),
    ("no keys", lambda store: store.trust([]), "trusts no keys: whoever can write to D1 can publish"),
    ("a bundle is gone", lambda store: store.kv.pop(BUNDLE + "other"), "can't be compared: its bundle"),
]  # fmt: skip


@pytest.mark.parametrize(("harm", "said"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_is_wrong_is_told_with_what_to_do(
    harm: Callable[[Stores], object], said: str, run: Run, store: Stores, folder: Path, starter: Compiled
) -> None:
    row = store.rows("SELECT document, key, signature FROM pointers WHERE sequence = 3")[0]
    store.kv["older"] = json.dumps(row)
    if said.startswith("can't be compared"):
        del store.kv[BUNDLE + starter.sha256]
        code, output = run("status", str(folder))
    else:
        harm(store)
        code, output = run("status")
    assert code == 1
    assert said in "\n".join(lines(output))
    assert re.search(r"airgate (policy publish|keys trust)", output)


def test_two_documents_that_were_signed_for_one_number_are_told(
    run: Run, store: Stores, starter: Compiled
) -> None:
    row = store.rows("SELECT document FROM pointers WHERE sequence = 4")[0]
    text = canonical(json.loads(row["document"]) | {"note": "the loser of a race"})
    signature = KEY.sign(POINTER_TYPE, text)
    store.kv[HEAD] = json.dumps({"document": text, "key": KEY.kid, "signature": signature})
    code, output = run("status")
    assert code == 1
    assert "another document of number 4, and rightly signed as well" in output
    assert "find out who" in output


GATES: list[tuple[str, Any, str]] = [
    ("can't be reached", httpx.ConnectError("refused"), "https://gate.example.com can't be reached: refused"),
    ("is something else", {"hello": 1}, "answers 200, and not as a gate does"),
    ("fails", {"status": "failing"}, "gate failing, at https://gate.example.com"),
    ("is behind", {"status": "ok", "bundle": {"sequence": 3, "version": "x"}}, "has number 3, bundle x"),
    ("complains", {"status": "ok", "bundle": {"sequence": 4, "version": "x", "error": "ledger: no"}}, "ledger: no"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "said"), [row[1:] for row in GATES], ids=[row[0] for row in GATES])
def test_a_gate_that_is_not_well_is_told(
    document: Any, said: str, run: Run, answers: Callable[[Any], None]
) -> None:
    answers(document)
    code, output = run("status")
    assert code == 1
    assert said in "\n".join(lines(output))


def test_the_token_goes_to_the_gate(
    run: Run, answers: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers({"status": "ok"})
    sent: list[dict[str, str]] = []
    get = httpx.get

    def watched(url: str, headers: dict[str, str], timeout: float) -> httpx.Response:
        sent.append(headers)
        return get(url)

    monkeypatch.setattr(httpx, "get", watched)
    (tmp_path / "token").write_text("abc\n")
    run("status", "--token-file", str(tmp_path / "token"))
    run("status")
    assert sent == [{"Authorization": "Bearer abc"}, {}]
