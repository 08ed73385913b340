"""Workers KV of the local stack, written and read the way production's is: through wrangler."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from airgate.dev.stack import Stack
from airgate.node import run_wrangler

BINDING = "POLICY"

# What this wrangler prints, with status 0, for a key that isn't there. A value is printed without the line break.
MISSING = "Value not found\n"


def kv_put(stack: Stack, values: Mapping[str, str]) -> None:
    """Write UTF-8 values under their keys, all in one command. A running gate sees them on its next read.

    Raises airgate.node.NodeMissing and airgate.node.WranglerFailed.
    """
    entries = [{"key": key, "value": value} for key, value in values.items()]
    with tempfile.TemporaryDirectory(prefix="airgate-") as folder:
        file = Path(folder) / "entries.json"
        file.write_text(json.dumps(entries), encoding="utf-8")
        run_wrangler(["kv", "bulk", "put", str(file), *_where(stack)], home=stack.state, embedded=True)


def kv_get(stack: Stack, key: str) -> str | None:
    """The value of a key, or None when there is none. Raises as kv_put does."""
    arguments = ["kv", "key", "get", key, *_where(stack)]
    text = run_wrangler(arguments, home=stack.state, embedded=True)
    return None if text == MISSING else text


def kv_names(stack: Stack, prefix: str) -> set[str]:
    """All keys that begin with `prefix`. Raises as kv_put does."""
    arguments = ["kv", "key", "list", "--prefix", prefix, *_where(stack)]
    return {item["name"] for item in json.loads(run_wrangler(arguments, home=stack.state, embedded=True))}


def _where(stack: Stack) -> list[str]:
    return ["--binding", BINDING, "--env", "local", "--local", "--persist-to", str(stack.state)]
