"""`python -m airgate` is the `airgate` command."""

from airgate.cli import app

app()
