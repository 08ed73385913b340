"""Node and the npm packages that set-up installed beside it: what runs the local stack, and what deploys."""

import os
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

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


class NodeMissing(Exception):
    """Set-up hasn't been run here. The message says what to do."""


class WranglerFailed(Exception):
    """A wrangler command ended with a status other than 0. The message holds its last lines."""


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
    return {**os.environ, **QUIET, **own}


def run_wrangler(arguments: Sequence[str], *, home: Path | None, embedded: bool = False) -> str:
    """Run wrangler in the project and return its standard output. Raises NodeMissing, WranglerFailed."""
    done = subprocess.run(
        wrangler(arguments, embedded=embedded),
        cwd=PROJECT,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise WranglerFailed(f"wrangler {arguments[0]} failed:\n" + "\n".join(said[-15:]))
    return done.stdout
