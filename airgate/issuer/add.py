"""`airgate issuer add PRESET [NAME]`: write an issuer's file from a preset, and check the seed that it is then part of.

Every preset is a command of its own, so that `airgate issuer add okta --help` says what Okta needs.
Exit codes: 0 written, 1 written but the seed has problems elsewhere, 2 nothing is written.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from airgate.issuer.preset import Option, Preset, PresetError, preset, presets
from airgate.policy.check import report
from airgate.policy.compile import compile_folder
from airgate.policy.seed import STARTER, Problem, SeedError, label, read
from airgate.policy.words import several

WRITTEN, ELSEWHERE, NOTHING = 0, 1, 2

Name = Annotated[
    str, typer.Argument(metavar="[NAME]", help="What policies call it; the preset's name when left out.")
]
Seed = Annotated[Path, typer.Option("--seed", metavar="DIR", help="The folder that holds the seed.")]


def commands() -> typer.Typer:
    """A command for each preset. One that can't be read still has its command, which says why."""
    app = typer.Typer(
        help="Write an issuer's file from a preset: `airgate issuer add PRESET --help` says what it needs.",
        no_args_is_help=True,
    )
    for name in presets():
        try:
            known = preset(name)
        except PresetError as error:
            app.command(name, help="Can't be read.")(_broken(str(error)))
        else:
            app.command(name, help=known.title + ".")(_command(known))
    return app


def listing() -> None:
    """List the presets: the providers whose tokens are known here, each with a line that adds it."""
    for name in presets():
        try:
            known = preset(name)
        except PresetError as error:
            typer.echo(f"{name}\n  {error}")
        else:
            typer.echo(f"{name:<24}{known.title}\n{'':<24}{known.example()}")
    typer.echo("\ndocs/issuers.md says what to set up at each provider, and what to know about its tokens.")


def add(known: Preset, name: str, values: Mapping[str, Sequence[str]], seed: Path) -> list[Problem]:
    """Write the issuer's file into the seed. Returns what was wrong with the seed before.

    Raises PresetError, and SeedError when the file makes something wrong. It isn't there then.
    """
    text = known.fill(name, values)
    if not seed.is_dir():
        raise PresetError(f"{label(seed)}: no such folder; name the folder that holds the policy seed")
    before = _problems(seed)
    file = issuer_file(seed, name)
    try:
        file.parent.mkdir(exist_ok=True)
        with file.open("x", encoding="utf-8") as output:
            output.write(text)
    except FileExistsError:
        raise PresetError(
            f"{label(file)} is there already, and is left as it is. Give another name: "
            f"airgate issuer add {known.name} {name}-2 ..."
        ) from None
    except OSError as error:
        raise PresetError(f"{label(file)}: can't be written: {error.strerror}") from None
    if made := [problem for problem in _problems(seed) if problem not in before]:
        file.unlink()
        raise SeedError(made)
    return before


def issuer_file(seed: Path, name: str) -> Path:
    """Where an issuer's file stands."""
    return seed / "issuers" / f"{name}.yaml"


def _problems(seed: Path) -> list[Problem]:
    try:
        compile_folder(seed)
    except SeedError as error:
        return error.problems
    return []


def _command(known: Preset) -> Callable[..., None]:
    """The function that typer makes the preset's command of: its parameters are the preset's options."""

    def run(**given: Any) -> None:
        name, seed = given.pop("name"), given.pop("seed")
        values = {
            option.name: ([value] if isinstance(value, str) else value)
            for option in known.options
            if (value := given[_parameter(option.name)])
        }
        _run(known, name, values, seed)

    parameters = {
        "name": (Name, known.name),
        **{
            _parameter(option.name): (
                Annotated[
                    list[str] if option.many else str,
                    typer.Option(f"--{option.name}", metavar="TEXT", help=_help(option), show_default=False),
                ],
                [] if option.many else "",
            )
            for option in known.options
        },
        "seed": (Seed, STARTER),
    }
    run.__annotations__ = {key: annotation for key, (annotation, _) in parameters.items()}
    vars(run)["__signature__"] = inspect.Signature(
        [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for key, (annotation, default) in parameters.items()
        ]
    )
    return run


def _broken(error: str) -> Callable[[], None]:
    def run() -> None:
        typer.echo(error, err=True)
        raise typer.Exit(NOTHING)

    return run


def _parameter(option: str) -> str:
    return "of_" + option.replace("-", "_")


def _help(option: Option) -> str:
    if option.required:
        also = "Needed"
    else:
        also = f"Left out: {', '.join(option.default)}" if option.default else "May be left out"
    also += "".join(f"; needs --{needed}" for needed in option.needs)
    return f"{option.help}. {also}" + ("; may be given several times." if option.many else ".")


def _run(known: Preset, name: str, values: Mapping[str, Sequence[str]], seed: Path) -> None:
    try:
        before = add(known, name, values, seed)
    except PresetError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(NOTHING) from None
    except SeedError as error:
        report(error, "Nothing is written.")
        raise typer.Exit(NOTHING) from None
    typer.echo(f"Written: {label(issuer_file(seed, name))}")
    if open_to := _open_to(seed):
        typer.echo(
            f"These permits ask for no role and no issuer, so they may hold for its callers: {open_to}"
        )
    typer.echo(_next(known, name, seed))
    if before:
        typer.echo()
        report(SeedError(before), "That was so before.")
        raise typer.Exit(ELSEWHERE)


def _open_to(seed: Path) -> str:
    """The permits that callers of a new issuer could use without any role."""
    permits = []
    for id_, entry in read(seed).policies.items():
        subject, roles = entry.at("subject"), entry.at("subject", "roles")
        asks = isinstance(roles, dict) and not roles.keys().isdisjoint({"any", "all"})
        if (
            entry.at("effect") == "permit"
            and isinstance(subject, dict)
            and "issuer" not in subject
            and not asks
        ):
            permits.append(id_)
    return several(permits) if permits else ""


def _next(known: Preset, name: str, seed: Path) -> str:
    where = "" if seed == STARTER else f" --seed {label(seed)}"
    folder = "" if seed == STARTER else f" {label(seed)}"
    grants = "\n".join(f"         - {grant.replace('{name}', name)}" for grant in known.grants)
    return f"""
No role is granted by this yet. Next:
  1. What to set up at the provider: docs/issuers.md, "{known.name}".
  2. Ask the provider for its keys, and try a token of it:
       airgate issuer check {name}{where} --token FILE
  3. Grant roles in roles.yaml, such as:
       granted_to:
{grants}
  4. airgate policy check{folder}, airgate policy diff, and a review.
  5. airgate policy publish{folder} --env production"""
