"""A file of keys that sign one after the other: made, rotated, retired and shown, whoever signs with them.

It holds {"issuer": ..., "keys": [private JWK, ...]}. The first private key signs, and all are published; `iat` in a
key, when it was made, is for these commands alone. The gate's own code reads every file before it is written.
"""

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

import airgate.engine  # noqa: F401  the gate's own code can be imported from here on
from airgate.keys.file import FileRefused, create, replace
from airgate.policy.output import console, show, table
from airgate.policy.words import nearest
from assertion import MOST_KEYS, AssertionKeys, read_keys
from dpop import thumbprint

NOTHING = 2  # exit code: nothing was written
STANDARD_OUTPUT = Path("-")

_PUBLIC = ("kty", "crv", "x", "y")


class Algorithm(StrEnum):
    ES256 = "ES256"
    EDDSA = "EdDSA"


class KeysError(Exception):
    """The command can't do what it was asked, and has written nothing. The message says what to do instead."""


class State(StrEnum):
    """What becomes of a key, in the order of its life."""

    ANNOUNCED = "announced"  # published, and signs from the next rotation on
    SIGNS = "signs"
    REPLACED = "replaced"  # published, and its private part is still here
    RETIRED = "retired"  # published, and nothing else


class Held(NamedTuple):
    """One key of a file."""

    jwk: dict[str, Any]
    state: State

    @property
    def kid(self) -> str:
        return str(self.jwk["kid"])

    @property
    def made_at(self) -> float | None:
        return _made_at(self.jwk)

    @property
    def thumbprint(self) -> str:
        return thumbprint(_public(self.jwk))


class Use(NamedTuple):
    """Who signs with a file's keys: what the commands say of it."""

    command: str  # `airgate keys ...`, without what to do
    about: str
    jwks: str  # where the public keys are, below the issuer
    readers: str  # who fetches those, and the verb
    put: Callable[[Path], str]  # how a file that has changed gets to whoever signs with it
    announced: str  # what to wait for until an announced key may sign
    rotated: str  # and until a replaced one may be retired


File = Annotated[Path, typer.Argument(metavar="FILE", help="The file that `new` has made.")]
First = Annotated[Algorithm, typer.Option(help="ES256 is known everywhere; EdDSA is quicker to sign.")]
Out = Annotated[
    Path, typer.Option("--out", metavar="FILE", help="Where to write it; - prints it, private keys and all.")
]


def group(use: Use, new: Callable[..., None]) -> typer.Typer:
    """The commands for one use: `new`, its own, and those that are alike for all."""
    app = typer.Typer(help=use.about, no_args_is_help=True)

    @app.callback()
    def used(context: typer.Context) -> None:
        context.obj = use

    app.command("new")(new)
    app.command("rotate")(rotate)
    app.command("retire")(retire)
    app.command("show")(show_)
    return app


def make(use: Use, issuer: str, algorithm: Algorithm, out: Path, other: str) -> None:
    """Write a file with its first key, or print it. `other`: whose another file would be. Raises KeysError."""
    text = _text(issuer, [_new(algorithm)])
    if out == STANDARD_OUTPUT:
        typer.echo(text, nl=False)
        return
    try:
        create(
            out,
            text,
            f"Another key for it: {use.command} rotate {out}. For {other} give another name: --out FILE",
        )
    except FileRefused as error:
        raise KeysError(str(error)) from None
    typer.echo(
        f"Written: {out} (readable by you alone; keep it out of version control, and a copy of it safe)"
    )


def fail(error: KeysError | FileRefused) -> NoReturn:
    """Say why nothing was written, and end."""
    typer.echo(str(error), err=True)
    raise typer.Exit(NOTHING) from None


def rotate(
    context: typer.Context,
    file: File,
    algorithm: Annotated[
        Algorithm | None, typer.Option(help="Of the new key; as the one that signs now when left out.")
    ] = None,
    announce: Annotated[
        bool,
        typer.Option("--announce", help="Only publish the new key: it signs after `rotate` once more."),
    ] = False,
) -> None:
    """Let a new key sign. The old one stays published, so what it has signed can still be checked."""
    use: Use = context.obj
    try:
        issuer, held = _read(use, file)
        announced = [one for one in held if one.state is State.ANNOUNCED]
        if announced and announce:
            raise KeysError(
                f"{announced[0].kid} is announced already. Let it sign: {use.command} rotate {file}"
            )
        if announced and algorithm is not None:
            raise KeysError(
                f"{announced[0].kid} is announced, and is what signs next. Leave --algorithm out."
            )
        signing = next(one for one in held if one.state is State.SIGNS)
        others = [one.jwk for one in held if one.state is not State.SIGNS]
        if announced:
            jwks = [announced[0].jwk, signing.jwk, *[jwk for jwk in others if jwk is not announced[0].jwk]]
        else:
            made = _new(algorithm or _algorithm(signing.jwk), after=signing.made_at)
            if made["kid"] in {one.kid for one in held}:
                raise KeysError(f"{file} has a key of that id already. Try again.")
            jwks = [signing.jwk, made, *others] if announce else [made, signing.jwk, *others]
        if len(jwks) > MOST_KEYS:
            raise KeysError(
                f"{file} has {len(held)} keys, of {MOST_KEYS} at most. "
                f"Remove old ones first: {use.command} retire {file}"
            )
        replace(file, _text(issuer, jwks))
    except (KeysError, FileRefused) as error:
        fail(error)
    if announce:
        typer.echo(f"{jwks[1]['kid']} is published from now on; {signing.kid} goes on signing.")
        then = f"{use.announced}\n  3. Let it sign: {use.command} rotate {file}"
    else:
        typer.echo(f"{jwks[0]['kid']} signs from now on; {signing.kid} stays published.")
        then = f"{use.rotated} Then retire the old key:\n     {use.command} retire {file}"
    typer.echo(f"\nNext:\n  1. {use.put(file)}\n{then}")


def retire(
    context: typer.Context,
    file: File,
    kid: Annotated[
        str, typer.Option("--kid", metavar="ID", help="This one. Left out: all that were replaced.")
    ] = "",
) -> None:
    """Take the private part of replaced keys away; of retired ones the oldest, as a whole."""
    use: Use = context.obj
    try:
        issuer, held = _read(use, file)
        private, removed = _leaving(use, file, held, kid)
        jwks = [
            {name: value for name, value in one.jwk.items() if name != "d"} if one in private else one.jwk
            for one in held
            if one not in removed
        ]
        replace(file, _text(issuer, jwks))
    except (KeysError, FileRefused) as error:
        fail(error)
    for one in private:
        typer.echo(f"{one.kid} can't sign any more; it stays published.")
    for one in removed:
        typer.echo(f"{one.kid} is gone: what it has signed is refused once {use.readers} the keys again.")
    typer.echo(f"\nNext:\n  1. {use.put(file)}")
    if private:
        typer.echo(f"  2. When nobody can have anything more that it has signed: {use.command} retire {file}")


def show_(context: typer.Context, file: File) -> None:
    """Show the public part: which key signs, how old each is."""
    use: Use = context.obj
    try:
        issuer, held = _read(use, file)
    except KeysError as error:
        fail(error)
    screen = console()
    screen.print(f"{issuer}\nkeys at {issuer}{use.jwks}\n", markup=False)
    grid = table("kid", "algorithm", "state", "made", "age", "thumbprint")
    now = time.time()
    for one in held:
        made = one.made_at
        grid.add_row(
            one.kid,
            _algorithm(one.jwk),
            one.state,
            "" if made is None else f"{datetime.fromtimestamp(made, UTC):%Y-%m-%d}",
            "" if made is None else _age(now - made),
            one.thumbprint,
        )
    show(grid, screen)
    if (mode := file.stat().st_mode & 0o077) != 0:
        typer.echo(f"Others than you can read or write {file} ({mode:03o}): chmod 600 {file}", err=True)


def _leaving(use: Use, file: Path, held: Sequence[Held], kid: str) -> tuple[list[Held], list[Held]]:
    """The keys that lose their private part, and those that go. Raises KeysError."""
    if kid:
        named = [one for one in held if one.kid == kid]
        if not named:
            near = nearest(kid, [one.kid for one in held])
            known = ", ".join(one.kid for one in held)
            raise KeysError(f"{file} has no key {kid}{near or '.'} It has {known}.")
        if named[0].state is State.SIGNS:
            raise KeysError(f"{kid} is what signs. Let another one sign first: {use.command} rotate {file}")
        going = named[0].state is not State.REPLACED
        return ([], named) if going else (named, [])
    replaced = [one for one in held if one.state is State.REPLACED]
    retired = [one for one in held if one.state is State.RETIRED]
    if not replaced and not retired:
        raise KeysError(f"{file} has no key that was replaced. First: {use.command} rotate {file}")
    return (replaced, []) if replaced else ([], retired[-1:])


def _age(seconds: float) -> str:
    days, hours = int(max(0.0, seconds)) // 86_400, int(max(0.0, seconds)) // 3600
    if hours < 48:
        return f"{hours} h"
    return f"{days} days"


def _made_at(jwk: dict[str, Any]) -> float | None:
    made = jwk.get("iat")
    return None if isinstance(made, bool) or not isinstance(made, int | float) else min(max(made, 0), 2**32)


def _public(jwk: dict[str, Any]) -> dict[str, str]:
    return {name: jwk[name] for name in _PUBLIC if name in jwk}


def _algorithm(jwk: dict[str, Any]) -> Algorithm:
    return Algorithm.ES256 if jwk["kty"] == "EC" else Algorithm.EDDSA


def _new(algorithm: Algorithm, after: float | None = None) -> dict[str, Any]:
    """A private JWK, with the day and its thumbprint's beginning as its id. `after`: when the last one was made."""
    made: dict[str, Any]
    if algorithm is Algorithm.ES256:
        made = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
    else:
        made = OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate(), as_dict=True)
    now = max(int(time.time()), 0 if after is None else int(after) + 1)
    kid = f"{datetime.fromtimestamp(now, UTC):%Y%m%d}-{thumbprint(_public(made))[:8]}"
    return {"kid": kid, "iat": now, **_public(made), "d": made["d"]}


def _parsed(text: str) -> AssertionKeys:
    """Read by the gate's own code. Raises KeysError."""
    try:
        return read_keys(text)
    except ValueError as error:
        raise KeysError(str(error)) from None


def _text(issuer: str, jwks: Sequence[dict[str, Any]]) -> str:
    """The file's text, which will be taken. Raises KeysError."""
    text = json.dumps({"issuer": issuer, "keys": jwks}, indent=2) + "\n"
    _parsed(text)
    return text


def _read(use: Use, file: Path) -> tuple[str, list[Held]]:
    """The issuer and the keys of a file. Raises KeysError."""
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        raise KeysError(
            f"{file}: no such file. Make one: {use.command} new --issuer URL --out {file}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise KeysError(f"{file}: can't be read: {why}") from None
    try:
        keys = _parsed(text)
    except KeysError as error:
        raise KeysError(f"{file}: {error}") from None
    jwks = json.loads(text)["keys"]
    return keys.issuer, [Held(jwk, state) for jwk, state in zip(jwks, _states(jwks), strict=True)]


def _states(jwks: Sequence[dict[str, Any]]) -> list[State]:
    """Of each key. The first private one signs; what was made after it has yet to."""
    signing = next(number for number, jwk in enumerate(jwks) if "d" in jwk)
    since = _made_at(jwks[signing]) or 0
    states = []
    for number, jwk in enumerate(jwks):
        if number == signing:
            states.append(State.SIGNS)
        elif "d" not in jwk:
            states.append(State.RETIRED)
        else:
            states.append(State.ANNOUNCED if (_made_at(jwk) or 0) > since else State.REPLACED)
    return states
