"""`airgate token`: an access token from the local stack's provider, for trying things with curl."""

import difflib
from pathlib import Path
from typing import Annotated

import httpx
import typer

from airgate.dev.signing import ALGORITHMS
from airgate.dev.stack import AUDIENCE, DEFAULT_DIRECTORY, Stack, StackError, read_stack


def token(
    client: Annotated[str, typer.Option("--client", help="Who asks; one of the local provider's clients.")],
    algorithm: Annotated[
        str, typer.Option(help="What the provider signs with: " + ", ".join(ALGORITHMS) + ".")
    ] = "RS256",
    directory: Annotated[
        Path,
        typer.Option("--dir", envvar="AIRGATE_DIR", help="The stack's folder, as given to `airgate dev`."),
    ] = DEFAULT_DIRECTORY,
) -> None:
    """Print an access token of one of the local provider's clients."""
    try:
        typer.echo(fetch_token(read_stack(directory), client, algorithm))
    except StackError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def fetch_token(stack: Stack, client: str, algorithm: str = "RS256") -> str:
    """Ask the provider's token endpoint for a client's token (RFC 6749 §4.4). Raises StackError."""
    if client not in stack.clients:
        raise StackError(_unknown("client", client, list(stack.clients)))
    if algorithm not in ALGORITHMS:
        raise StackError(_unknown("algorithm", algorithm, list(ALGORITHMS)))
    who = stack.clients[client]
    try:
        answer = httpx.post(
            stack.provider + "/token",
            data={"grant_type": "client_credentials", "resource": AUDIENCE},
            auth=(who["client_id"], who["client_secret"]),
            headers={"Sign-With": algorithm},
            timeout=10,
            trust_env=False,
        )
    except httpx.TransportError as error:
        raise StackError(
            f"The local provider at {stack.provider} doesn't answer ({error}). Run `make dev` again."
        ) from None
    if answer.status_code != httpx.codes.OK:
        raise StackError(
            f"The local provider refused a token for {client} ({answer.status_code}): {answer.text}"
        )
    text: str = answer.json()["access_token"]
    return text


def _unknown(noun: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"There is no {noun} {name}.{hint} Known: {', '.join(known)}."
