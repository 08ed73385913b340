"""A policy seed as it stood at a git revision, in a folder of its own for as long as it's needed."""

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from airgate.policy.compile import Compiled, compile_folder
from airgate.policy.seed import SeedError, label
from airgate.policy.words import quoted
from airgate.signing_key import without_key


class RevisionError(Exception):
    """There is no such seed. The message says what to write."""


@contextmanager
def seed_folder(name: str, beside: Path) -> Iterator[tuple[Path, str]]:
    """The folder that a name stands for, and how to call it: a folder, or `beside` at a git revision.

    Raises RevisionError.
    """
    if Path(name).is_dir():
        yield Path(name), label(Path(name))
        return
    root, tree = _locate(name, beside)
    archive = _git(root, "archive", "--format=tar", tree)
    if archive.returncode:
        text = f"{quoted(name)}: that revision has no {label(beside)}: {_last(archive.stderr)}"
        raise RevisionError(text)
    with tempfile.TemporaryDirectory(prefix="airgate-") as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(folder, filter="data")
        yield Path(folder), f"{name}:{label(beside)}"


def compiled(folder: Path, name: str) -> Compiled:
    """Compile the seed; problems are said to be where a person finds them. Raises SeedError."""
    try:
        return compile_folder(folder)
    except SeedError as error:
        inside = label(folder)
        raise SeedError(
            replace(problem, file=name + problem.file.removeprefix(inside)) for problem in error.problems
        ) from None


def _locate(name: str, beside: Path) -> tuple[Path, str]:
    """The repository, and what git calls `beside` at that revision."""
    if not beside.is_dir():
        raise RevisionError(
            f"{quoted(str(beside))}: no such folder; name the folder that holds the policy seed"
        )
    places = _git(beside, "rev-parse", "--show-toplevel", "--show-prefix")
    if places.returncode:
        raise RevisionError(f"{quoted(name)}: no such folder, and {label(beside)} is in no git repository")
    commit = _git(beside, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if commit.returncode:
        raise RevisionError(
            f"{quoted(name)}: neither a folder nor a git revision; write a folder, or HEAD~1, main, a tag, ..."
        )
    root, prefix, *_ = [*places.stdout.decode().splitlines(), ""]
    # Some versions of git repeat --end-of-options before their answer.
    return Path(root), f"{commit.stdout.decode().split()[-1]}:{prefix.rstrip('/')}"


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, check=False, env=without_key()
        )
    except FileNotFoundError:
        raise RevisionError("git is not installed; name two folders instead") from None


def _last(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "git says nothing more"
