"""`airgate keys new|show|trust`: the keys of those who publish policy and change who has access.

The private key stays with whoever signs. A gate holds the public ones in TRUSTED_KEYS, a variable of its Worker, where
nobody who can only write KV or D1 can add one. Exit codes: 0 done; 2 nothing was written.
"""

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from airgate.configuration import LOCAL, PRODUCTION, ConfigurationError, environments, read_configuration
from airgate.engine import read_object, read_trusted, thumbprint
from airgate.keys.file import FileRefused, create, replace
from airgate.keys.variable import assignment, with_variable
from airgate.policy.output import console, show, table
from airgate.policy.words import nearest
from airgate.signing_key import (
    FILE_VARIABLE,
    GRANT,
    LIMIT,
    PUBLISH,
    KeyMissing,
    SigningKey,
    read_file,
    read_public,
)

INVALID = 2  # exit code: nothing was written
FILE = Path("signing-key.json")
STANDARD_OUTPUT = Path("-")
VARIABLE = "TRUSTED_KEYS"


class May(StrEnum):
    PUBLISH = PUBLISH
    GRANT = GRANT


class KeysRefused(Exception):
    """The command can't do what it was asked, and has written nothing. The message says what to do instead."""


def new(
    name: Annotated[
        str,
        typer.Option(
            metavar="NAME", help='Who signs with it, as history and audit show it: "release pipeline".'
        ),
    ],
    may: Annotated[
        list[May],
        typer.Option(help="publish: put policy in force. grant: give access, and lift revocations. Or both."),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="Where to write it; - prints it, private part and all."),
    ] = FILE,
) -> None:
    """Make a key to sign with: policy that is published, or access that is granted."""
    try:
        key = SigningKey.new(name, may)
        if out == STANDARD_OUTPUT:
            typer.echo(key.text, nl=False)
            return
        create(out, key.text, "Give another name: --out FILE")
    except (ValueError, FileRefused) as error:
        _fail(error)
    typer.echo(f"Written: {out} (readable by you alone; keep it out of version control)")
    typer.echo(f"{key.kid} may {' and '.join(key.may)} as {key.name}.")
    typer.echo(
        f"""
Next:
  1. Let the gate trust it:   airgate keys trust {out} --write, review wrangler.toml, airgate deploy
  2. Sign with it:            export {FILE_VARIABLE}={out.absolute()}
Instead of a key of before? Keep that one trusted until policy is published with this one: docs/access.md, "Keys"."""
    )


def show_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A signing key, or the public part of one.")],
    public: Annotated[
        bool, typer.Option("--public", help="Print the public part, for whoever runs `airgate keys trust`.")
    ] = False,
) -> None:
    """Show the public part of a signing key, and where it is trusted."""
    try:
        members, jwk = _public(file)
    except KeysRefused as error:
        _fail(error)
    if public:
        typer.echo(json.dumps(jwk, ensure_ascii=False))
        return
    if "d" in members:
        with suppress(KeyMissing):
            read_file(file)  # says so when others can read it
    made = members.get("iat")
    days = ""
    if type(made) is int and 0 <= made < 2**32:
        old = int(time.time() - made) // 86_400
        days = f"{datetime.fromtimestamp(made, UTC):%Y-%m-%d}, {'today' if old < 1 else f'{old} days ago'}"
    screen = console()
    grid = table("", "")
    grid.show_header = False
    for label, value in {
        "kid": jwk["kid"],
        "name": jwk["name"],
        "may": " and ".join(jwk["may"]),
        "made": days,
        "thumbprint": thumbprint({each: jwk[each] for each in ("kty", "crv", "x")}),
        "private part": "here" if "d" in members else "elsewhere",
        "trusted in": ", ".join(_where_trusted(jwk)) or "no environment of wrangler.toml",
    }.items():
        if value:
            grid.add_row(label, value)
    show(grid, screen)


def trust(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...", help="Signing keys, or their public parts, that are to be trusted too."
        ),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="KID", help="A key that is to be trusted no longer."),
    ] = None,
    env: Annotated[
        str, typer.Option("--env", metavar="NAME", help="Of which environment of wrangler.toml.")
    ] = PRODUCTION,
    write: Annotated[
        bool, typer.Option("--write", help="Write it into wrangler.toml; otherwise it is only printed.")
    ] = False,
) -> None:
    """Say whose signatures a gate believes: TRUSTED_KEYS in wrangler.toml, public parts only.

    Without a FILE it shows who is trusted now. Nothing changes at a gate before `airgate deploy`.
    """
    try:
        if env == LOCAL:
            raise KeysRefused("The local stack makes and trusts a key of its own; name another environment.")
        settings = read_configuration(env)
        before = _trusted(settings.trusted_keys)
        keys = _without(before, remove or [])
        for file in files or []:
            jwk = _public(file)[1]
            keys = _with(keys, jwk, file)
        text = _variable(keys)
        if write and (files or remove):
            toml = settings.file.read_bytes().decode("utf-8")  # with the line ends that it has
            changed = with_variable(toml, None if env == PRODUCTION else env, VARIABLE, text)
            replace(settings.file, changed, private=False)
    except (ConfigurationError, KeysRefused, FileRefused, ValueError, OSError) as error:
        _fail(error)
    where = settings.file.name + ("" if env == PRODUCTION else f" under [env.{env}.vars]")
    _tell(keys, settings.gate)
    if not files and not remove:
        return
    typer.echo(
        f"Written: {VARIABLE} in {where}."
        if write
        else f"For {where}, which --write does:\n\n{assignment(VARIABLE, text)}"
    )
    _advise(before, keys, "" if env == PRODUCTION else f" --env {env}", write)


def _tell(keys: list[dict[str, Any]], gate: str) -> None:
    if not keys:
        typer.echo(f"{gate} trusts nobody: it takes unsigned policy, and no grants.\n")
        return
    screen = console()
    grid = table("kid", "name", "may")
    for jwk in keys:
        grid.add_row(jwk["kid"], jwk["name"], " and ".join(jwk["may"]))
    show(grid, screen)


def _advise(before: list[dict[str, Any]], after: list[dict[str, Any]], env: str, written: bool) -> None:
    """What is to be done next, in its order."""
    gone = [jwk for jwk in before if jwk["kid"] not in {each["kid"] for each in after}]
    steps = [] if written else ["Write it: the same command with --write"]
    if any(PUBLISH in jwk["may"] for jwk in gone):
        steps.append(
            """Before you deploy: publish once more with a key that stays, unless that was done. What a removed key has
     signed is believed no longer, the policy in force included: a fresh instance of the gate refuses every call.
     Who signed it: airgate policy history"""
            + (env or f" --env {PRODUCTION}")
        )
    if any(GRANT in jwk["may"] for jwk in gone):
        steps.append(
            """Grants, and lifts of revocations, that a removed key has signed end with the deployment. Who signed what:
     airgate grant list. Give again what is still needed, with a key that stays."""
        )
    if not before and after:
        steps.append(
            "If a policy is in force that nobody has signed: publish it again with one of these keys, then"
        )
    steps.append(f"airgate deploy{env}")
    typer.echo("\nNext:\n" + "\n".join(f"  {number}. {step}" for number, step in enumerate(steps, 1)))


def _public(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A file's members, and what a gate is to hold of it. Raises KeysRefused, whose message holds nothing private."""
    try:
        members = read_object(file.read_text("utf-8"), limit=LIMIT, depth=3)
    except FileNotFoundError:
        raise KeysRefused(
            f"{file}: no such file. Make a key: airgate keys new --name NAME --may publish --out {file}"
        ) from None
    except OSError as error:
        raise KeysRefused(f"{file}: can't be read: {error.strerror}") from None
    except ValueError:  # not UTF-8, or not JSON; some messages hold a part of the text
        raise KeysRefused(f"{file}: not a key: it isn't one JSON object.") from None
    if "keys" in members:
        raise KeysRefused(
            f"{file}: holds several keys, not one that `airgate keys new` has made. "
            f"Keys for assertions to upstreams are shown by: airgate keys assertion show {file}"
        )
    try:
        return members, read_public(members)
    except ValueError as error:
        raise KeysRefused(
            f"{file}: not a signing key: {error}. They are made by: airgate keys new --name NAME --may publish"
        ) from None


def _where_trusted(jwk: dict[str, Any]) -> Iterable[str]:
    try:
        names = environments()
    except ConfigurationError:
        return
    for name in names:
        with suppress(ConfigurationError, ValueError):
            if any(each["x"] == jwk["x"] for each in _trusted(read_configuration(name).trusted_keys)):
                yield name


def _trusted(text: str) -> list[dict[str, Any]]:
    """The keys that stand in the variable. Raises KeysRefused when the gate couldn't read them."""
    if not text:
        return []
    try:
        read_trusted(text)
    except ValueError as error:
        raise KeysRefused(f"{VARIABLE} can't be read, nor could the gate: {error}") from None
    keys: list[dict[str, Any]] = json.loads(text)["keys"]
    return keys


def _with(keys: list[dict[str, Any]], jwk: dict[str, Any], file: Path) -> list[dict[str, Any]]:
    """With one more key, or with what is new about one that was there. Raises KeysRefused."""
    if any(each["kid"] == jwk["kid"] and each["x"] != jwk["x"] for each in keys):
        raise KeysRefused(f"{file}: another key of the id {jwk['kid']} is trusted. Make a new one.")
    if any(each["kid"] == jwk["kid"] for each in keys):
        return [jwk if each["kid"] == jwk["kid"] else each for each in keys]
    return [*keys, jwk]


def _without(keys: list[dict[str, Any]], remove: list[str]) -> list[dict[str, Any]]:
    """Raises KeysRefused for a kid that isn't there."""
    known = [str(jwk["kid"]) for jwk in keys]
    for kid in remove:
        if kid not in known:
            raise KeysRefused(
                f"{kid} is not trusted{nearest(kid, known) or '.'} Trusted: {', '.join(known) or 'nobody'}."
            )
    return [jwk for jwk in keys if jwk["kid"] not in remove]


def _variable(keys: list[dict[str, Any]]) -> str:
    """The text of TRUSTED_KEYS: one key a line, so that a change can be reviewed. Raises KeysRefused."""
    if not keys:
        return ""
    lines = [
        json.dumps(jwk, ensure_ascii=False, separators=(",", ":")).replace("'", "\\u0027") for jwk in keys
    ]
    text = '\n{"keys":[\n' + ",\n".join(lines) + "\n]}\n"
    try:
        read_trusted(text)
    except ValueError as error:
        raise KeysRefused(
            f"The gate would not take these keys: {error}. Take one away: --remove KID"
        ) from None
    return text


def _fail(error: Exception) -> NoReturn:
    typer.echo(str(error), err=True)
    raise typer.Exit(INVALID) from None
