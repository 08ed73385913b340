"""Node and the npm packages that set-up installed beside it: what runs the local stack, and what deploys."""

import os
import re
import signal
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from airgate.signing_key import without_key

PROJECT = Path(__file__).resolve().parent.parent

# No questions, no statistics, no look for a newer version: a command must do the same thing on every machine. The
# registry address is one that refuses at once; the embedded wrangler has no other switch for its update check.
QUIET = {
    "CI": "1",
    "NO_COLOR": "1",
    "NO_UPDATE_NOTIFIER": "1",
    "WRANGLER_HIDE_BANNER": "true",
    "WRANGLER_SEND_METRICS": "false",
    "npm_config_registry": "http://127.0.0.1:9/",
}

PATIENCE = (
    180.0  # seconds for a wrangler command: one that asks the account for ever would hold up a pipeline
)
LINES = 15  # of what wrangler says when it fails

# Of a local store that others use at the same time. It says no more than that sometimes.
_LOCKED = re.compile(r"SQLITE_BUSY|500 Internal Server Error|internal error")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Beside what went wrong: where its log is, where to report it, its version, and which of its own lines failed.
_BESIDE = re.compile(
    r"\s*(🪵|📎|at |If you think this is a bug|Note that there is a newer|\(error handler also|APIError: )"
)


class NodeMissing(Exception):
    """Set-up hasn't been run here. The message says what to do."""


class WranglerFailed(Exception):
    """A wrangler command ended with a status other than 0. The message holds its last lines."""

    def __init__(self, text: str, *, locked: bool = False) -> None:
        self.locked = locked  # perhaps another process held the local store just then
        super().__init__(text)


def node() -> Path:
    """The environment's own Node, never one from PATH. Raises NodeMissing."""
    program = Path(sysconfig.get_path("scripts")) / "node"
    if not program.is_file():
        raise NodeMissing(f"There is no Node in {program.parent}. Run `make setup` in {PROJECT}.")
    return program


def wrangler(arguments: Sequence[str], *, embedded: bool = False) -> list[str]:
    """The command line that runs wrangler: the current one, or the one that carries its runtime. Raises NodeMissing."""
    package = "wrangler-embedded" if embedded else "wrangler"
    script = PROJECT / "node_modules" / package / "bin" / "wrangler.js"
    if not script.is_file():
        raise NodeMissing(f"The npm package {package} is not installed. Run `make setup` in {PROJECT}.")
    return [str(node()), str(script), *arguments]


def environment(home: Path | None) -> Mapping[str, str]:
    """Environment variables for a Node process that asks nobody anything.

    It keeps its own files (settings, logs) below `home`, or where it always does when that is None.
    """
    own = {} if home is None else {"XDG_CONFIG_HOME": str(home)}
    return {**without_key(), **QUIET, **own}


def run_wrangler(
    arguments: Sequence[str],
    *,
    home: Path | None,
    embedded: bool = False,
    variables: Mapping[str, str] | None = None,
    timeout: float = PATIENCE,
) -> str:
    """Run wrangler in the project and return its standard output. Raises NodeMissing, WranglerFailed.

    `variables` are added to its environment. After `timeout` seconds it is ended.
    """
    with subprocess.Popen(
        wrangler(arguments, embedded=embedded),
        cwd=PROJECT,
        env={**environment(home), **(variables or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # it starts processes of its own, which end with it
    ) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise WranglerFailed(f"wrangler {arguments[0]} did not end within {timeout:.0f} s.") from None
            raise
    if process.returncode != 0:
        told = "\n".join(said(output + errors)[-LINES:])
        raise WranglerFailed(
            f"wrangler {arguments[0]} failed:\n{told}",
            locked=embedded and _LOCKED.search(output + errors) is not None,
        )
    return output


def said(text: str) -> list[str]:
    """Of what wrangler prints, the lines that tell what went wrong, each once."""
    lines = (line.rstrip() for line in _COLOUR.sub("", text).splitlines())
    return list(dict.fromkeys(line for line in lines if line and not _BESIDE.match(line)))
