"""`airgate keys audit`: the key that a gate signs its audit log with, and the keys that logs are verified with.

The private one is a JWK in a file of its own, which becomes the secret AUDIT_KEY. The public ones stay for as long as
logs are kept that they are to verify, in a file that belongs into version control (airgate/audit/trusted.py).
"""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from airgate.audit.trusted import FILE, LATEST, MOST_KEYS, AuditKey, KeysRefused, read_keys, written
from airgate.engine import AUDIT_KEY, read_object, read_private, thumbprint
from airgate.keys.file import FileRefused, create, replace
from airgate.moments import clock, moment
from airgate.policy.output import console, show, table
from airgate.policy.words import nearest

NOTHING = 2  # exit code: nothing was written
PRIVATE = Path("audit-key.json")
LIMIT = 16_384  # characters of a private file

app = typer.Typer(
    help="Make, rotate and retire the key that a gate signs its audit log with.", no_args_is_help=True
)

Private = Annotated[
    Path, typer.Option("--key", metavar="FILE", help="The private key, which becomes the secret.")
]
Public = Annotated[
    Path, typer.Option("--keys", metavar="FILE", help="The public keys, which logs are verified with.")
]


def new_key(now: float | None = None) -> tuple[str, AuditKey]:
    """A key that nobody had before: the text of its private file, and its public part. `now`: seconds."""
    made = int(time.time() if now is None else now)
    kid = "-"
    while kid.startswith("-"):  # a command would take it for an option
        private: dict[str, Any] = OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate(), as_dict=True)
        kid = thumbprint({name: private[name] for name in ("kty", "crv", "x")})
    key = AuditKey(kid, private["x"], made, None)
    return json.dumps({**key.jwk, "d": private["d"]}, indent=2) + "\n", key


@app.command("new")
def new(private: Private = PRIVATE, public: Public = FILE) -> None:
    """Make the first key of a gate. Its public part is added to the keys that logs are verified with."""
    try:
        known = _public(public) if public.exists() else []
        text, key = new_key()
        create(
            private,
            text,
            f"Another key for its gate: airgate keys audit rotate --key {private}. For another gate give other "
            "names: --key FILE --keys FILE",
        )
        try:
            _save(public, [*known, key])
        except FileRefused:
            private.unlink()
            raise
    except (KeysRefused, FileRefused) as error:
        _fail(error)
    typer.echo(
        f"Written: {private} (readable by you alone; keep it out of version control)\n"
        f"{'Added to' if known else 'Written:'} {public} (public; keep it in version control, as long as the logs)\n\n"
        "Next:\n"
        f"  1. {_put(private)}\n"
        f"  2. Logs are verified from then on: airgate audit verify LOG… --keys {public}\n"
        f"  3. The gate needs no other copy of {private}. Without one nobody can sign in its name: delete it."
    )


@app.command("rotate")
def rotate(private: Private = PRIVATE, public: Public = FILE) -> None:
    """Make the next key of a gate, in the place of the one before. What either has signed is verified."""
    try:
        known = _public(public)
        if len(known) >= MOST_KEYS:
            raise KeysRefused(f"{public} has {len(known)} keys, and can't have more.")
        signing = [one.kid for one in known if one.until is None]
        old = _kid(private) or (signing[0] if len(signing) == 1 else None)
        text, key = new_key()
        _save(public, [*known, key])
        replace(private, text)
    except (KeysRefused, FileRefused) as error:
        _fail(error)
    retire = f"airgate keys audit retire {old or 'KID'} --keys {public}"
    typer.echo(
        f"{key.kid} is the gate's next key; what was signed before stays verified.\n\n"
        "Next:\n"
        f"  1. {_put(private)}\n"
        "  2. Isolates that run go on signing with the old key. Once they have ended, an hour after, retire it:\n"
        f"     {retire}"
    )


@app.command("retire")
def retire(
    kid: Annotated[
        str, typer.Argument(metavar="KID", help="The key, as `airgate keys audit show` names it.")
    ],
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="MOMENT",
            help="What it signed after that doesn't count: 2026-11-22T08:00Z. Now when left out.",
        ),
    ] = None,
    private: Private = PRIVATE,
    public: Public = FILE,
) -> None:
    """Say that a key no longer signs. What it had signed until then stays verified."""
    try:
        known = _public(public)
        named = next((key for key in known if key.kid == kid), None)
        if named is None:
            near = nearest(kid, [key.kid for key in known])
            raise KeysRefused(f"{public} has no key {kid}{near or '.'} It has {_names(known)}.")
        if kid == _kid(private):
            raise KeysRefused(
                f"{kid} is the key in {private}, which the gate signs with. First: airgate keys audit rotate"
            )
        try:
            at = int(time.time()) if until is None else moment(until)
        except ValueError as error:
            raise KeysRefused(f"--until: {error}") from None
        if not 0 <= at < LATEST:
            raise KeysRefused(f"--until: {until} is no time that a key could be retired at")
        if named.until is not None and at > named.until:
            raise KeysRefused(
                f"{kid} was retired at {clock(named.until)} already; that can be made earlier, not later."
            )
        if named.made_at is not None and at < named.made_at:
            raise KeysRefused(f"{kid} was made at {clock(named.made_at)}, after that. Was it never used? Then take "
                              f"it out of {public} by hand.")  # fmt: skip
        _save(public, [key._replace(until=at) if key.kid == kid else key for key in known])
    except (KeysRefused, FileRefused) as error:
        _fail(error)
    typer.echo(f"{kid} is retired: what it signs after {clock(at)} doesn't count.\n\nNext: commit {public}.")


@app.command("show")
def show_(private: Private = PRIVATE, public: Public = FILE) -> None:
    """Show the keys that logs are verified with, and which one is here in private."""
    try:
        known, own = _public(public), _kid(private)
    except KeysRefused as error:
        _fail(error)
    grid = table("kid", "state", "made", "retired")
    for key in known:
        state = "retired" if key.until is not None else f"in {private}" if key.kid == own else "verifies"
        grid.add_row(key.kid, state, _day(key.made_at), "" if key.until is None else clock(key.until))
    show(grid, console())
    if own is not None and own not in {key.kid for key in known}:
        typer.echo(
            f"The key in {private}, {own}, is not in {public}: nothing that it signs is verified.", err=True
        )
    if private.exists() and (mode := private.stat().st_mode & 0o077):
        typer.echo(f"Others than you can read or write {private} ({mode:03o}): chmod 600 {private}", err=True)


def _public(file: Path) -> list[AuditKey]:
    """Raises KeysRefused."""
    if not file.exists():
        raise KeysRefused(f"{file}: no such file. Make a key: airgate keys audit new --keys {file}")
    return list(read_keys(file).values())


def _save(file: Path, keys: Sequence[AuditKey]) -> None:
    """Raises FileRefused."""
    text = written({key.kid: key for key in keys})
    if file.exists():
        replace(file, text, private=False)
        return
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise FileRefused(f"{file}: can't be written: {error.strerror}") from None


def _kid(file: Path) -> str | None:
    """The id of a private key; None when there is no such file. Raises KeysRefused, which holds nothing private."""
    try:
        members = read_object(file.read_text("utf-8"), limit=LIMIT, depth=3)
        key = read_private(members)
        if key.algorithm != "EdDSA" or key.kid is None:
            raise ValueError
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeysRefused(f"{file}: can't be read: {error.strerror}") from None
    except ValueError:  # some messages hold a part of the text
        raise KeysRefused(
            f"{file}: not a private audit key. They are made by: airgate keys audit new --key FILE"
        ) from None
    return key.kid


def _names(keys: Sequence[AuditKey]) -> str:
    return ", ".join(key.kid for key in keys)


def _day(at: int | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"


def _put(file: Path) -> str:
    return f"npx wrangler secret put {AUDIT_KEY} < {file}"


def _fail(error: Exception) -> NoReturn:
    typer.echo(str(error), err=True)
    raise typer.Exit(NOTHING) from None
