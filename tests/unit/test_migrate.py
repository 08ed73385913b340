"""`airgate policy migrate`: what is rewritten, what stays as it was, and what is left to people."""

import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language import examples
from typer.testing import CliRunner, Result

from airgate.policy import app
from airgate.policy.compile import compile_folder
from airgate.policy.migrate import rewritten
from airgate.policy.seed import STARTER, SeedError, Source, understand
from airgate.policy.source import comments

HEAD = """\
issuers:
  company: {issuer: https://login.example.com, audiences: [https://gate.example.com], algorithms: [RS256]}
"""
ROLE = "roles:\n  clerk:\n    description: d\n    granted_to:\n"
UPSTREAMS = "upstreams:\n"


@pytest.fixture
def seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for a seed, in the folder that a person is in."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "seed"
    folder.mkdir()
    return folder


def write(seed: Path, **files: str) -> None:
    for name, text in files.items():
        (seed / f"{name}.yaml").write_bytes(text.encode("utf-8"))


def run(*arguments: str, answers: str = "") -> Result:
    return CliRunner().invoke(app, ["migrate", "seed", *arguments], input=answers)


def data(text: str) -> Any:
    source = Source("a.yaml", text=text)
    assert understand(source) == []
    return source.data


LAYOUTS = [
    (
        "a grant on one line",
        ROLE + "      - {issuer: company, claim: scope, value: a.b}  # who\n",
        ROLE + "      - {issuer: company, scope: a.b}  # who\n",
    ),
    (
        "a grant by scp, and by the way to it",
        ROLE + '      - {claim: [scp], value: "a", issuer: company}\n',
        ROLE + '      - {scope: "a", issuer: company}\n',
    ),
    (
        "the value first",
        ROLE + "      - {value: a, issuer: company, claim: scope}\n",
        ROLE + "      - {scope: a, issuer: company}\n",
    ),
    (
        "a grant of several lines",
        ROLE + "      - issuer: company\n        claim: scope\n        value: a\n",
        ROLE + "      - issuer: company\n        scope: a\n",
    ),
    (
        "a claim as a list of several lines, and comments everywhere",
        ROLE + "      # 1\n      - claim: # 2\n        - scp  # 3\n        # 4\n        value: 'a'  # 5\n        # 6\n"
        "        issuer: company  # 7\n",
        None,  # comment 2 would go
    ),
    (
        "comments beside and between",
        ROLE + "      # 1\n      - claim: scope  # 2\n        # 3\n        value: 'a'  # 4\n        issuer: company\n",
        ROLE + "      # 1\n      - scope: 'a'  # 2\n        # 3\n        # 4\n        issuer: company\n",
    ),
    (
        "braces over several lines",
        ROLE + "      - {issuer: company,  # 1\n         claim: scope,  # 2\n         value: a}  # 3\n",
        ROLE + "      - {issuer: company,  # 1\n         scope: a  # 2\n         }  # 3\n",
    ),
    (
        "ends of lines as Windows has them, and none at the end",
        HEAD.replace("\n", "\r\n") + ROLE.replace("\n", "\r\n") + "      - claim: scope\r\n        issuer: company\r\n"
        "        value: a",
        HEAD.replace("\n", "\r\n") + ROLE.replace("\n", "\r\n") + "      - scope: a\r\n        issuer: company\r\n",
    ),
    (
        "letters of all alphabets before it",
        "# äöü 🙂 αβγ\n" + ROLE.replace("d\n", "'🙂 é'\n") + "      - {issuer: company, claim: scope, value: a}\n",
        "# äöü 🙂 αβγ\n" + ROLE.replace("d\n", "'🙂 é'\n") + "      - {issuer: company, scope: a}\n",
    ),
    (
        "one scope by both claims is one grant",
        ROLE + "      - {issuer: company, claim: scope, value: a}\n"
        "      - {issuer: company, claim: scp, value: a}  # so\n"
        "      - {issuer: company, subject: s}\n",
        ROLE + "      - {issuer: company, scope: a}\n      # so\n      - {issuer: company, subject: s}\n",
    ),
    (
        "and where today's word for it stands there already",
        ROLE.rstrip() + " [{issuer: company, scope: a}, {issuer: company, claim: scp, value: a}]\n",
        ROLE.rstrip() + " [{issuer: company, scope: a}]\n",
    ),
    (
        "other scopes, other issuers and other roles are others",
        ROLE + "      - {issuer: company, claim: scope, value: a}\n      - {issuer: other, claim: scope, value: a}\n"
        "      - {issuer: company, claim: scope, value: b}\n"
        "  other:\n    granted_to: [{issuer: company, claim: scope, value: a}]\n",
        ROLE + "      - {issuer: company, scope: a}\n      - {issuer: other, scope: a}\n"
        "      - {issuer: company, scope: b}\n"
        "  other:\n    granted_to: [{issuer: company, scope: a}]\n",
    ),
    (
        "an upstream in a private network",
        UPSTREAMS + "  ledger:\n    # 1\n    base: https://ledger.internal  # 2\n    # 3\n    owner: o\n",
        UPSTREAMS + "  ledger:\n    # 1\n    base: https://ledger.internal  # 2\n    private: true\n"
        "    # 3\n    owner: o\n",
    ),
    (
        "one on a line, at a private address",
        UPSTREAMS + "  ledger: {owner: o, base: 'https://[fd00::1]:8443/x'}",
        UPSTREAMS + "  ledger: {owner: o, base: 'https://[fd00::1]:8443/x', private: true}",
    ),
    (
        "its base at the end of the file",
        UPSTREAMS + "  ledger:\r\n    owner: o\r\n    base: https://10.1.2.3",
        UPSTREAMS + "  ledger:\r\n    owner: o\r\n    base: https://10.1.2.3\r\n    private: true",
    ),
    (
        "some of it by hand",
        ROLE + "      - {issuer: company, claim: scope, value: a}\n      - issuer: company\n        claim: scope\n"
        "        value: >-\n          b\n      - {issuer: company, claim: scope, value: c}\n",
        ROLE + "      - {issuer: company, scope: a}\n      - issuer: company\n        claim: scope\n"
        "        value: >-\n          b\n      - {issuer: company, scope: c}\n",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), [pytest.param(*row[1:], id=row[0]) for row in LAYOUTS])
def test_a_layout_stays_what_it_was_around_what_is_rewritten(seed: Path, old: str, new: str | None) -> None:
    write(seed, a=old)
    [file] = rewritten(seed)
    if new is None:
        assert (file.text, file.done) == (old, [])
    else:
        assert file.text == new
    assert bool(file.left) == (new is None or ">-" in old)
    write(seed, a=file.text)
    assert [again.done for again in rewritten(seed)] in ([], [[]])


KEPT = [
    ("a text of several scopes", ROLE + "      - {issuer: company, claim: scope, value: a b}\n"),
    ("a number for a scope", ROLE + "      - {issuer: company, claim: scope, value: 7}\n"),
    ("a scope longer than there are", ROLE + f"      - {{issuer: company, claim: scope, value: {'a' * 257}}}\n"),
    ("a claim within scope", ROLE + "      - {issuer: company, claim: [scope, a], value: a}\n"),
    ("another claim", ROLE + "      - {issuer: company, claim: scopes, value: a}\n"),
    ("a grant with more to say", ROLE + "      - {issuer: company, claim: scope, value: a, subject: s}\n"),
    ("an upstream that says that it is private", UPSTREAMS + "  x: {base: https://10.0.0.1, private: true}\n"),
    ("one that says that it isn't", UPSTREAMS + "  x: {base: https://10.0.0.1, private: false}\n"),
    ("one behind a binding", UPSTREAMS + "  x: {base: https://10.0.0.1, via: VIA_X}\n"),
    ("a public one", UPSTREAMS + "  x: {base: https://api.example.com}\n"),
    ("one on this machine", UPSTREAMS + "  x: {base: http://127.0.0.1:9500}\n"),
    ("one in the clear, which is refused anyhow", UPSTREAMS + "  x: {base: http://10.0.0.1}\n"),
    ("sections that are none", "roles: [a]\nupstreams: x\n"),
    ("a role and an upstream that are none", "roles: {a: x, b: {granted_to: x}}\nupstreams: {x: []}\n"),
    ("an empty file", ""),
]  # fmt: skip


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in KEPT])
def test_what_is_not_of_an_earlier_version_is_left_alone(seed: Path, text: str) -> None:
    write(seed, a=text)
    assert list(rewritten(seed)) == []


def laid_out(dice: random.Random, grants: list[tuple[str, Any, str]], bases: list[str]) -> str:
    """A file with these grants and upstreams, and comments numbered where there may be some."""
    notes = iter(range(1000))

    def note() -> str:
        return dice.choice(["", "", f"  # {next(notes)}: x"])

    def line() -> str:
        return dice.choice(["", "", f"      # {next(notes)}, claim: scope\n"])

    lines = [ROLE]
    for issuer, claim, value in grants:
        quote = dice.choice(["", "'", '"'])
        flow = f"[{claim[0]}]" if isinstance(claim, list) else claim
        pairs = [f"issuer: {issuer}", f"claim: {flow}", f"value: {quote}{value}{quote}"]
        dice.shuffle(pairs)
        lines.append(line())
        if dice.random() < 0.5:
            between = [f",{note()}\n         " if dice.random() < 0.3 else ", " for _ in pairs]
            lines.append(
                "      - {"
                + "".join(map("".join, zip(pairs, [*between[:2], ""], strict=True)))
                + f"}}{note()}\n"
            )
        else:
            lines += [
                f"      {'-' if number == 0 else ' '} {pair}{note()}\n{line()}"
                for number, pair in enumerate(pairs)
            ]
    lines.append(UPSTREAMS)
    for number, base in enumerate(bases):
        pairs = [f"base: {base}", "owner: o@example.com"]
        dice.shuffle(pairs)
        if dice.random() < 0.5:
            lines.append(f"  u{number}: {{{', '.join(pairs)}}}{note()}\n")
        else:
            lines += [f"  u{number}:{note()}\n", *(f"{line()}    {pair}{note()}\n" for pair in pairs)]
    text = HEAD + "".join(lines)
    return text.replace("\n", dice.choice(["\n", "\n", "\r\n"]))


@given(
    st.randoms(use_true_random=False),
    st.lists(
        st.tuples(
            st.just("company"),
            st.sampled_from(["scope", "scp", ["scope"], ["scp"], "groups"]),
            st.sampled_from(["a", "a.b", "c:d", "https://x.example.com/y", "e#f"]),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda grant: repr(grant),
    ),
    st.lists(
        st.sampled_from(["https://a.internal", "https://10.0.0.9/x", "https://b.example.com"]),
        min_size=1,
        max_size=3,
    ),
)
@settings(max_examples=examples(300), deadline=None)
def test_however_it_is_laid_out_it_means_what_was_meant_and_keeps_its_comments(
    tmp_path_factory: pytest.TempPathFactory,
    dice: random.Random,
    grants: list[tuple[str, Any, str]],
    bases: list[str],
) -> None:
    seed = tmp_path_factory.mktemp("seed")
    old = laid_out(dice, grants, bases)
    write(seed, a=old)
    meant: list[dict[str, Any]] = []
    for issuer, claim, value in grants:
        said = {"issuer": issuer, "claim": claim, "value": value} if claim == "groups" else {
            "issuer": issuer, "scope": value}  # fmt: skip
        if said not in meant:
            meant.append(said)
    private = [not base.endswith(".com") for base in bases]
    needed = any(private) or any(claim != "groups" for _, claim, _ in grants)
    files = list(rewritten(seed))
    assert bool(files) == needed
    for file in files:
        assert comments(file.text) == comments(old)
        if file.left:  # a comment inside of a grant that goes
            assert len(meant) < len(grants)
            continue
        now = data(file.text)
        assert now["roles"]["clerk"]["granted_to"] == meant
        assert [upstream.get("private", False) for upstream in now["upstreams"].values()] == private
        write(seed, a=file.text)
        assert list(rewritten(seed)) == []
        compile_folder(seed)


# The command.

OLD = HEAD + ROLE + "      - {issuer: company, claim: scope, value: a}\n"
NEW = HEAD + ROLE + "      - {issuer: company, scope: a}\n"
INSIDE = UPSTREAMS + "  ledger: {base: https://ledger.internal, owner: o@example.com}\n"
SAID = INSIDE.replace("internal,", "internal, private: true,")


def texts(seed: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in sorted(seed.iterdir())}


def test_each_file_is_shown_and_with_yes_written(seed: Path) -> None:
    write(seed, a=OLD, b=INSIDE, c="# nothing\n")
    done = run("--yes")
    assert done.exit_code == 0
    assert texts(seed) == {"a.yaml": NEW, "b.yaml": SAID, "c.yaml": "# nothing\n"}
    for said in (
        "--- seed/a.yaml\n+++ seed/a.yaml\n",
        "\n-      - {issuer: company, claim: scope, value: a}\n+      - {issuer: company, scope: a}\n",
        'seed/a.yaml:7: roles.clerk: the scope "a" grants it, too, where a token has others beside it',
        'seed/b.yaml:2: upstreams.ledger: "https://ledger.internal": names that end with .internal are known in a '
        "private network only. Say yes only if the gate is meant to lead there",
        "Written: 2 files.",
        "seed: 1 issuer, 1 role, 1 upstream, 0 policies (0 permit, 0 forbid)",
    ):
        assert said in done.output
    again = run("--yes")
    assert (again.exit_code, again.output.splitlines()[0]) == (0, "seed: nothing to rewrite")


def test_a_dry_run_shows_all_and_writes_nothing(seed: Path) -> None:
    write(seed, a=OLD, b=INSIDE)
    done = run("--dry-run", "--yes")
    assert done.exit_code == 0
    assert "+      - {issuer: company, scope: a}" in done.output
    assert done.output.endswith(
        "2 files would be written, and the seed would be valid. Nothing is written.\n"
    )
    assert texts(seed) == {"a.yaml": OLD, "b.yaml": INSIDE}


def test_without_yes_and_a_person_nothing_is_written(seed: Path) -> None:
    write(seed, a=OLD)
    done = run(answers="y\n")
    assert done.exit_code == 3
    assert "seed/a.yaml is left as it is: look at what would change, and add --yes." in done.output
    assert done.stdout.endswith("Nothing is written.\n")
    assert texts(seed) == {"a.yaml": OLD}


def test_a_person_is_asked_about_every_file(seed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(seed, a=OLD, b=INSIDE)
    terminal = type("Terminal", (), {"isatty": lambda self: True})
    monkeypatch.setattr("airgate.policy.migrate.sys", type("Sys", (), {"stdin": terminal()}))
    done = run(answers="y\nn\n")
    assert "Write seed/a.yaml? [y/N]: y\n" in done.output
    assert "Write seed/b.yaml? [y/N]: n\n" in done.output
    assert "Written: 1 file.\n" in done.output
    assert done.exit_code == 3
    assert texts(seed) == {"a.yaml": NEW, "b.yaml": INSIDE}
    assert run(answers="y\n").exit_code == 0
    assert texts(seed) == {"a.yaml": NEW, "b.yaml": SAID}


BY_HAND = HEAD + ROLE + "      - {issuer: company, claim: scope, value: a b}\n"


def test_what_a_person_has_to_decide_is_said(seed: Path) -> None:
    write(seed, a=BY_HAND, b=INSIDE)
    done = run("--dry-run")
    assert done.exit_code == 2
    assert "seed/a.yaml:7:34: roles.clerk.granted_to.claim" in done.output
    assert "That is what would be left. Nothing is written." in done.output
    done = run("--yes")
    assert done.exit_code == 1
    assert done.output.endswith("change it by hand.\n")
    assert texts(seed) == {"a.yaml": BY_HAND, "b.yaml": SAID}
    assert run("--yes").exit_code == 2  # nothing to rewrite any more, and not valid


def test_a_layout_that_would_lose_something_is_left_to_a_person(seed: Path) -> None:
    text = HEAD + ROLE + "      - issuer: company\n        claim: scope\n        value: >-\n          a\n"
    write(seed, a=text)
    done = run("--yes")
    assert done.exit_code == 2
    assert done.output.startswith('seed/a.yaml:7: roles.clerk: the scope "a" grants it')
    assert (
        "; change it by hand: rewriting it would touch more than that\nseed: nothing to rewrite\n"
        in done.output
    )
    assert texts(seed) == {"a.yaml": text}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param(
            {"a": OLD, "b": "a: [\n"}, "seed/b.yaml:2:1: not valid YAML", id="a file that is no YAML"
        ),
        pytest.param({"a": OLD, "b": "a: &x 1\nb: *x\n"}, "no aliases", id="an alias"),
        pytest.param({}, "holds no .yaml files", id="no files"),
    ],
)
def test_of_a_seed_that_cannot_be_read_nothing_is_rewritten(
    seed: Path, files: dict[str, str], said: str
) -> None:
    write(seed, **files)
    done = run("--yes")
    assert done.exit_code == 2
    assert said in done.output
    assert texts(seed) == {f"{name}.yaml": text for name, text in files.items()}


def test_a_file_is_written_as_a_whole_or_not_at_all(seed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(seed, a=OLD, b=INSIDE)
    (seed / "a.yaml").chmod(0o640)
    real = Path.replace

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == "b.yaml":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    done = run("--yes")
    assert done.exit_code == 1
    assert "seed/b.yaml can't be written: No space left on device. Run the same command again." in done.output
    assert "Written: 1 file.\n" in done.output
    assert texts(seed) == {"a.yaml": NEW, "b.yaml": INSIDE}  # and nothing beside them
    assert (seed / "a.yaml").stat().st_mode & 0o777 == 0o640


def test_a_file_that_has_changed_meanwhile_is_not_overwritten(
    seed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(seed, a=OLD)

    def another_hand(question: str) -> bool:
        write(seed, a=OLD + "# mine\n")
        return True

    terminal = type("Terminal", (), {"isatty": lambda self: True})
    monkeypatch.setattr("airgate.policy.migrate.sys", type("Sys", (), {"stdin": terminal()}))
    monkeypatch.setattr("typer.confirm", another_hand)
    done = run()
    assert done.exit_code == 1
    assert "it has been changed meanwhile" in done.output
    assert texts(seed) == {"a.yaml": OLD + "# mine\n"}


def test_check_names_the_command_where_it_helps_and_nowhere_else(seed: Path) -> None:
    rewrites = "airgate policy migrate rewrites this"
    for text, helps in ((OLD, True), (INSIDE, True), (BY_HAND, False), (INSIDE.replace("internal,", "internal, "
                        "private: false,"), False)):  # fmt: skip
        write(seed, a=text)
        with pytest.raises(SeedError) as caught:
            compile_folder(seed)
        assert (rewrites in str(caught.value)) == helps
        assert bool([file for file in rewritten(seed) if file.done]) == helps


def test_the_starter_policies_need_nothing(tmp_path: Path) -> None:
    seed = Path(shutil.copytree(STARTER, tmp_path / "seed"))
    assert list(rewritten(seed)) == []


def test_thousands_of_grants_are_rewritten_at_once(seed: Path) -> None:
    many = "".join(f"      - {{issuer: company, claim: scope, value: s{number}}}\n" for number in range(2000))
    write(seed, a=HEAD + ROLE + many)
    [file] = rewritten(seed)
    assert len(file.done) == 2000
    assert len(re.findall("scope: s", file.text)) == 2000
