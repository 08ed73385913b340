"""`airgate policy migrate`: rewrite policy that was written for an earlier version into the language of now.

What is rewritten is in `airgate.policy.former`. A file is written as a whole or not at all, and only if it then says
what it was meant to say and still has all of its comments.

Exit codes: 0 done, or nothing to do; 1 written, but not all of it, or there is more to do by hand; 2 invalid, and
nothing was written; 3 nobody has said yes.
"""

import copy
import difflib
import functools
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from airgate.environment import DONE, FAILED, INVALID, REFUSED, YesOption
from airgate.policy import former
from airgate.policy.check import INVALID as CHECK_INVALID
from airgate.policy.check import Folder, check, counted, report
from airgate.policy.compile import compile_folder
from airgate.policy.index import canonical
from airgate.policy.output import watched
from airgate.policy.rewriting import (
    Edit,
    Unchangeable,
    add_member,
    drop_item,
    drop_member,
    edited,
    node_at,
    replace_member,
    written,
)
from airgate.policy.seed import (
    STARTER,
    Keys,
    SeedError,
    Source,
    label,
    parse,
    quoted,
    read,
    seed_files,
    understand,
)
from airgate.policy.source import comments, composed

_NOTHING_WRITTEN = "Nothing is written."


@dataclass(frozen=True)
class Grant:
    """`claim: scope, value: X` that becomes `scope: X`, or goes where an earlier grant says the same."""

    keys: Keys  # of the grant
    again: bool  # an earlier grant of the role says the same

    def data(self, file: dict[str, Any]) -> None:
        grants, number = _at(file, self.keys[:-1]), int(self.keys[-1])
        grants[number : number + 1] = [] if self.again else [_said(grants[number])]

    def edits(self, text: str, root: yaml.Node | None, file: dict[str, Any]) -> list[Edit]:
        """Against the text that `root` was made of and `file` was read from."""
        if self.again:
            return [drop_item(text, node_at(root, self.keys[:-1]), int(self.keys[-1]))]
        grant = node_at(root, self.keys)
        first, second = (name for name in _at(file, self.keys) if name != "issuer")
        member = f"scope: {written(text, node_at(grant, ('value',)))}"
        return [replace_member(grant, first, member), drop_member(text, grant, second)]

    def told(self, file: dict[str, Any]) -> str:
        scope = quoted(former.scope(_at(file, self.keys)))
        return (
            f"the scope {scope} grants it, too, where a token has others beside it, and by scope as well as by scp"
            + ("; a grant before it says so already" if self.again else "")
        )


@dataclass(frozen=True)
class Private:
    """An upstream inside of a private network that doesn't say `private: true`."""

    keys: Keys  # of the upstream

    def data(self, file: dict[str, Any]) -> None:
        _at(file, self.keys)["private"] = True

    def edits(self, text: str, root: yaml.Node | None, file: dict[str, Any]) -> list[Edit]:
        return [add_member(text, node_at(root, self.keys), "base", "private: true")]

    def told(self, file: dict[str, Any]) -> str:
        why = former.inside(_at(file, self.keys))
        return f"{why}. Say yes only if the gate is meant to lead there"


Change = Grant | Private


@dataclass
class Rewritten:
    """One file of a seed, and what it says now."""

    path: Path
    source: Source
    text: str
    done: list[Change]
    left: list[Change]  # those that a person has to make

    def told(self, change: Change) -> str:
        """One line: where, and what is another then."""
        line, _ = self.source.values[change.keys]
        return f"{self.source.file}:{line}: {'.'.join(map(str, change.keys[:2]))}: {change.told(self.source.data)}"


def migrate(
    directory: Folder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and write nothing.")
    ] = False,
    yes: YesOption = False,
) -> None:
    """Rewrite policy of earlier versions into today's language: shows each file's changes, and asks.

    Exits with 0 when it's done, 1 when there is more to do by hand, 2 when the seed can't be read, 3 when somebody has
    to say yes.
    """
    root = directory or STARTER
    try:
        files = list(rewritten(root))
    except SeedError as error:
        report(error, _NOTHING_WRITTEN)
        raise typer.Exit(INVALID) from None
    for file in files:
        for change in file.left:
            typer.echo(f"{file.told(change)}; change it by hand: rewriting it would touch more than that")
    if not any(file.done for file in files):
        typer.echo(f"{label(root)}: nothing to rewrite")
        raise typer.Exit(INVALID if _checked(root) == CHECK_INVALID else DONE)
    changed = [file for file in files if file.done]
    if dry_run:
        for file in changed:
            _show(file)
        _try(root, changed)
        return
    accepted = [file for file in changed if _shown_and_accepted(file, yes)]
    number = _write(accepted)
    typer.echo(f"Written: {counted(number, 'file')}." if number else _NOTHING_WRITTEN)
    if number < len(accepted):
        raise typer.Exit(FAILED)
    invalid = bool(number) and _checked(root) == CHECK_INVALID
    if len(accepted) < len(changed):
        raise typer.Exit(REFUSED)
    if invalid:
        typer.echo("What is left above is not for a command to decide; change it by hand.")
    raise typer.Exit(FAILED if invalid else DONE)


def rewritten(root: Path) -> Iterator[Rewritten]:
    """The files of a seed in which something is rewritten, or would have to be. Raises SeedError."""
    if not root.is_dir() or not seed_files(root):
        raise SeedError(read(root).problems)
    sources = {path: Source(label(path)) for path in seed_files(root) if path.suffix == ".yaml"}
    problems = [
        problem
        for path, source in watched(sources.items(), "Reading policy")
        for problem in parse(path, source)
    ]
    if problems:
        raise SeedError(problems)
    for path, source in sources.items():
        changes = list(_changes(source.data))
        if changes:
            text, done = _apply(source, changes)
            yield Rewritten(path, source, text, done, [each for each in changes if each not in done])


def _changes(data: Any) -> Iterator[Change]:
    """What has to change in one file, the last grants of a role first, so that none is in the others' way."""
    for name, role in _entries(data, "roles"):
        found = role.get("granted_to") if isinstance(role, dict) else None
        grants = found if isinstance(found, list) else []
        said = [canonical(_said(grant)) for grant in grants]
        first = {text: number for number, text in reversed(list(enumerate(said)))}
        for number, text in reversed(list(enumerate(said))):
            if former.scope(grants[number]) is not None:
                yield Grant(("roles", name, "granted_to", number), first[text] < number)
    for name, upstream in _entries(data, "upstreams"):
        if former.inside(upstream):
            yield Private(("upstreams", name))


def _entries(data: Any, section: str) -> Iterator[tuple[str, Any]]:
    part = data.get(section) if isinstance(data, dict) else None
    yield from part.items() if isinstance(part, dict) else ()


def _apply(source: Source, changes: list[Change]) -> tuple[str, list[Change]]:
    """The file's text with the changes, and which of them could be made."""
    try:
        return _changed(source, changes), changes
    except Unchangeable:
        pass
    done: list[Change] = []
    text = source.text
    for change in changes:  # each for itself
        now = Source(source.file, text=text)
        understand(now)
        try:
            text = _changed(now, [change])
        except Unchangeable:
            continue
        done.append(change)
    return text, done


def _changed(source: Source, changes: list[Change]) -> str:
    """The text with all of the changes. Raises Unchangeable unless it then says just that."""
    root = composed(source.text)
    text = edited(
        source.text, [edit for change in changes for edit in change.edits(source.text, root, source.data)]
    )
    meant = copy.deepcopy(source.data)
    for change in changes:
        change.data(meant)
    now = Source(source.file, text=text)
    if understand(now) or now.data != meant or comments(text) != comments(source.text):
        raise Unchangeable
    return text


def _at(data: Any, keys: Keys) -> Any:
    return functools.reduce(lambda value, key: value[key], keys, data)


def _said(grant: Any) -> Any:
    """A grant as it is said now."""
    scope = former.scope(grant)
    return grant if scope is None else {"issuer": grant["issuer"], "scope": scope}


def _shown_and_accepted(file: Rewritten, yes: bool) -> bool:
    _show(file)
    if yes:
        return True
    if not sys.stdin.isatty():
        typer.echo(
            f"{file.source.file} is left as it is: look at what would change, and add --yes.", err=True
        )
        return False
    return typer.confirm(f"Write {file.source.file}?")


def _show(file: Rewritten) -> None:
    name, old, new = file.source.file, file.source.text.splitlines(), file.text.splitlines()
    for line in difflib.unified_diff(old, new, name, name, lineterm=""):
        colour = {"+": typer.colors.GREEN, "-": typer.colors.RED}.get(line[:1])
        typer.secho(line, fg=None if line.startswith(("+++", "---")) else colour)
    for change in sorted(file.done, key=lambda change: file.source.values[change.keys]):
        typer.echo(file.told(change))
    typer.echo()


def _write(files: list[Rewritten]) -> int:
    """Write the files, each as a whole. Returns how many were; why not all of them has been said then."""
    for number, file in enumerate(files):
        target = file.path.resolve()
        try:
            if target.read_bytes() != file.source.text.encode("utf-8"):
                raise OSError("it has been changed meanwhile")
            fresh = target.with_name(f".{target.name}.new")
            try:
                fresh.write_bytes(file.text.encode("utf-8"))
                shutil.copymode(target, fresh)
                fresh.replace(target)
            finally:
                fresh.unlink(missing_ok=True)
        except OSError as error:
            why = error.strerror or error
            typer.echo(f"{file.source.file} can't be written: {why}. Run the same command again.", err=True)
            return number
    return len(files)


def _checked(root: Path) -> int:
    """What `check` says of the seed now, and its exit code."""
    try:
        check(root, notes=False)
    except typer.Exit as done:
        return done.exit_code
    return 0


def _try(root: Path, changed: list[Rewritten]) -> None:
    """Say whether the seed would be valid with the changes. Exits with INVALID when it wouldn't."""
    texts = {file.path: file.text for file in changed}
    with tempfile.TemporaryDirectory(prefix="airgate-") as folder:
        for path in seed_files(root):
            copied = Path(folder) / path.relative_to(root)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(texts[path].encode("utf-8") if path in texts else path.read_bytes())
        try:
            compile_folder(Path(folder))
        except SeedError as error:
            there, here = label(Path(folder)), label(root)
            problems = [
                replace(each, file=each.file.replace(there, here), text=each.text.replace(there, here))
                for each in error.problems
            ]
            report(SeedError(problems), f"That is what would be left. {_NOTHING_WRITTEN}")
            raise typer.Exit(INVALID) from None
    typer.echo(
        f"{counted(len(changed), 'file')} would be written, and the seed would be valid. {_NOTHING_WRITTEN}"
    )
