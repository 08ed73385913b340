"""`airgate audit schema`: the JSON Schema of every event, for those who read the log with programs of their own."""

import functools
from pathlib import Path

import typer

FILE = Path(__file__).resolve().with_name("event.schema.json")


@functools.cache
def published() -> str:
    return FILE.read_text("utf-8")


def schema() -> None:
    """Print the JSON Schema (2020-12) of the audit log's lines."""
    typer.echo(published(), nl=False)
