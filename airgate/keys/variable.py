"""A variable of wrangler.toml, changed where it stands: comments, order and everything else of the file are kept."""

import re
import tomllib

_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)
_STRING = r"""(?:'{3}.*?'{3}|"{3}.*?"{3}|'[^'\n]*'|"(?:[^"\\\n]|\\.)*")"""


def assignment(name: str, text: str) -> str:
    """The variable as wrangler.toml holds it. `text` is empty, or lines that begin with a line break."""
    return f"{name} = '''{text}'''" if text else f'{name} = ""'


def with_variable(toml: str, env: str | None, name: str, text: str) -> str:
    """The file's text with a variable set. `env`: None for the top level; `text`: as for `assignment`.

    ValueError when the file is written in a way in which only a person should change it.
    """
    wanted = tomllib.loads(toml)
    section = wanted if env is None else wanted.setdefault("env", {}).setdefault(env, {})
    section.setdefault("vars", {})[name] = text.removeprefix("\n")
    header = "[vars]" if env is None else f"[env.{env}.vars]"
    changed = _changed(toml, header, name, assignment(name, text))
    try:
        right = tomllib.loads(changed) == wanted
    except tomllib.TOMLDecodeError:
        right = False
    if not right:
        raise ValueError(
            f"wrangler.toml has its variables elsewhere than under {header}, so it's left as it is. "
            f"Leave --write out, and put the text of {name} there by hand."
        )
    return changed


def _changed(toml: str, header: str, name: str, line: str) -> str:
    table = re.search(rf"^[ \t]*{re.escape(header)}[^\n]*\n", toml, re.MULTILINE)
    if table is None:
        return f"{toml.rstrip()}\n\n{header}\n{line}\n"
    following = _TABLE.search(toml, table.end())
    end = following.start() if following else len(toml)
    there = re.compile(rf"^[ \t]*{name}[ \t]*=[ \t]*{_STRING}", re.MULTILINE | re.DOTALL)
    found = there.search(toml, table.end(), end)
    if found is None:
        return f"{toml[: table.end()]}{line}\n{toml[table.end() :]}"
    return toml[: found.start()] + line + toml[found.end() :]
