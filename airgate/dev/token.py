"""`airgate token`: an access token from the local stack's provider, for trying things with curl.

With `--dpop METHOD URL` the token is bound to a key that is made for it (RFC 9449), and what is printed are the headers
for one call: `airgate token --client finance-etl --dpop GET /ledger/v1/entries | curl -H @- …`.
"""

import difflib
import hashlib
import secrets
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Annotated, Any

import httpx
import jwt
import typer
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from airgate.dev.signing import ALGORITHMS
from airgate.dev.stack import AUDIENCE, DEFAULT_DIRECTORY, Stack, StackError, read_stack


def token(
    client: Annotated[str, typer.Option("--client", help="Who asks; one of the local provider's clients.")],
    algorithm: Annotated[
        str, typer.Option(help="What the provider signs with: " + ", ".join(ALGORITHMS) + ".")
    ] = "RS256",
    dpop: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="METHOD URL",
            help="Bind the token to a new key, and print the headers of one call made within a minute. "
            "The URL may be a path on the stack's gate.",
        ),
    ] = None,
    directory: Annotated[
        Path,
        typer.Option("--dir", envvar="AIRGATE_DIR", help="The stack's folder, as given to `airgate dev`."),
    ] = DEFAULT_DIRECTORY,
) -> None:
    """Print an access token of one of the local provider's clients."""
    try:
        stack = read_stack(directory)
        if dpop is None:
            typer.echo(fetch_token(stack, client, algorithm))
            return
        key, (method, url) = ProofKey(), dpop
        bound = fetch_token(stack, client, algorithm, key)
        address = _address(stack, url)
        typer.echo(f"Authorization: DPoP {bound}\nDPoP: {key.proof(method.upper(), address, bound)}")
    except StackError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


class ProofKey:
    """A P-256 key that tokens are bound to, and the proofs that show who holds it (RFC 9449)."""

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        self.jwk: dict[str, Any] = ECAlgorithm.to_jwk(self._private.public_key(), as_dict=True)

    def proof(self, method: str, url: str, token: str | None = None, **changes: Any) -> str:
        """A proof for one request (§4.2): beside that token, or at a token endpoint beside none.

        `changes` adds claims or replaces them, and None leaves one out.
        """
        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": url.partition("#")[0].partition("?")[0],
            "iat": int(time.time()),
        }
        if token is not None:
            digest = hashlib.sha256(token.encode("ascii")).digest()
            claims["ath"] = urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
        kept = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return jwt.encode(kept, self._private, "ES256", {"typ": "dpop+jwt", "jwk": self.jwk})


def fetch_token(stack: Stack, client: str, algorithm: str = "RS256", bound_to: ProofKey | None = None) -> str:
    """Ask the provider's token endpoint for a client's token (RFC 6749 §4.4). Raises StackError."""
    if client not in stack.clients:
        raise StackError(_unknown("client", client, list(stack.clients)))
    if algorithm not in ALGORITHMS:
        raise StackError(_unknown("algorithm", algorithm, list(ALGORITHMS)))
    who, endpoint = stack.clients[client], stack.provider + "/token"
    proof = {} if bound_to is None else {"DPoP": bound_to.proof("POST", endpoint)}
    try:
        answer = httpx.post(
            endpoint,
            data={"grant_type": "client_credentials", "resource": AUDIENCE},
            auth=(who["client_id"], who["client_secret"]),
            headers={"Sign-With": algorithm, **proof},
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


def _address(stack: Stack, url: str) -> str:
    """The address of a call, which may be given by its path alone. Raises StackError."""
    if url.startswith("/"):
        return stack.gate + url
    if not url.lower().startswith(("http://", "https://")):
        raise StackError(
            f"{url} is no address. Give one that begins with http:// or https://, or a path: /{url}."
        )
    return url


def _unknown(noun: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"There is no {noun} {name}.{hint} Known: {', '.join(known)}."
