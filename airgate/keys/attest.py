"""`airgate keys attest`: the keys that Airflow's API server attests tasks with ([airgate] attest_keys_file).

The issuer in the file is for these commands alone: Airflow goes by attest_issuer.
"""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from airgate.keys.rotation import STANDARD_OUTPUT, Algorithm, First, KeysError, Out, Use, fail, group, make

FILE = Path("attest-keys.json")
MOUNT = "/airgate"  # where the API server publishes the keys


def new(
    issuer: Annotated[
        str,
        typer.Option(metavar="URL", help="The API server's address and /airgate: [airgate] attest_issuer."),
    ],
    algorithm: First = Algorithm.ES256,
    out: Out = FILE,
) -> None:
    """Make the first key of an Airflow."""
    try:
        make(USE, _issuer(issuer), algorithm, out, "another Airflow")
    except KeysError as error:
        fail(error)
    if out == STANDARD_OUTPUT:
        return
    gate = "https://gate.example.com"
    typer.echo(
        f"""
Next:
  1. Put it where the user that runs Airflow's API server can read it, and no task. Tell the API server, and only
     that, with your gate's address in place of {gate}:

     [secrets]
     backend = airgate_provider.backend.AirgateSecretsBackend

     [airgate]
     attest = True
     attest_issuer = {issuer}
     attest_gates = {gate}
     attest_keys_file = {out.absolute()}

  2. Tell the gate, then publish the policy:
     airgate issuer add airflow --base {issuer.removesuffix(MOUNT)} --audience {gate} --algorithm {algorithm}
  docs/attestation.md has the rest."""
    )


def _put(file: Path) -> str:
    return (
        f"Where [airgate] attest_keys_file names {file}, the API server reads it again by itself, if its user may.\n"
        "     Else put it where attest_keys_file, attest_keys_cmd or attest_keys_secret takes the keys from."
    )


def _issuer(said: str) -> str:
    """An issuer as Airflow takes it. Raises KeysError."""
    example = "such as https://airflow.example.com/airgate (http only on this machine)"
    parts = urlsplit(said)
    here = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme not in ("https", "http") or not parts.hostname or (parts.scheme == "http" and not here):
        raise KeysError(f"{said}: give the address of Airflow's API server and {MOUNT}, {example}")
    if not parts.path.endswith(MOUNT) or "?" in said or "#" in said or "@" in parts.netloc:
        raise KeysError(f"{said}: give an address that ends in {MOUNT}, without anything else, {example}")
    return said


USE = Use(
    command="airgate keys attest",
    about="Make, rotate and retire the keys that Airflow attests its tasks with.",
    jwks="/jwks.json",
    readers="the gate fetches",
    put=_put,
    announced="""\
  2. Wait a few minutes, until every API server publishes it and the gate has fetched the keys again.""",
    rotated="""\
  2. Where several API servers run, one may sign before another publishes: publish the key first, with --announce.
  3. Wait ten minutes: no token of the old key lives longer (attest_lifetime).""",
)

app = group(USE, new)
