"""`airgate keys assertion`: the keys that a gate signs assertions to upstreams with, in a file that becomes a secret.

The file is what ASSERTION_KEYS holds.
"""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from airgate.keys.rotation import STANDARD_OUTPUT, Algorithm, First, KeysError, Out, Use, fail, group, make
from assertion import JWKS, LIFE, SECRET

FILE = Path("assertion-keys.json")


def new(
    issuer: Annotated[str, typer.Option(metavar="URL", help="The gate's address: `iss` of what it signs.")],
    algorithm: First = Algorithm.ES256,
    out: Out = FILE,
) -> None:
    """Make the first key of a gate."""
    try:
        make(USE, _origin(issuer), algorithm, out, "another gate")
    except KeysError as error:
        fail(error)
    if out == STANDARD_OUTPUT:
        return
    typer.echo(
        f"""
Next:
  1. {_put(out)}
  2. In upstreams.yaml, for every upstream that is to get one: assertion: true. Then publish the policy.
  3. Tell the upstream's people: issuer {issuer}, keys at {issuer}{JWKS}, the audience is the
     upstream's name in policy. docs/assertion.md says how to check one."""
    )


def _put(file: Path) -> str:
    return f"npx wrangler secret put {SECRET} < {file}"


def _origin(issuer: str) -> str:
    """An issuer as a gate can have it: scheme and host, so that its keys are found. Raises KeysError."""
    parts = urlsplit(issuer)
    here = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme not in ("https", "http") or not parts.hostname or (parts.scheme == "http" and not here):
        raise KeysError(
            f"{issuer}: give the gate's address, such as https://gate.example.com (http only on this machine)"
        )
    if issuer != (plain := f"{parts.scheme}://{parts.netloc}") or "@" in parts.netloc:
        raise KeysError(f"{issuer}: give the gate's address alone, without slash or path, such as {plain}")
    return issuer


USE = Use(
    command="airgate keys assertion",
    about="Make, rotate and retire the keys that assertions to upstreams are signed with.",
    jwks=JWKS,
    readers="upstreams fetch",
    put=_put,
    announced="""\
  2. Wait until every upstream has fetched the keys again: as long as the slowest keeps them, an hour if unknown.""",
    rotated=f"""\
  2. Upstreams that meet an unknown kid fetch the keys again. One that doesn't refuses calls until it has: for such
     publish the key first, with --announce.
  3. Wait an hour: assertions live for {LIFE} s, but a gate of before may run on.""",
)

app = group(USE, new)
