"""A Worker that carries out inside.py's order, sent as a request's body, on the embedded workerd.

Its modules are src/, as they are deployed, and pytest with what it needs; the tables come as modules too. The runtime
dies of looking for a file below another file among its modules, which pytest does for every one it collects, so the
tables are copied into its other, ordinary file system before.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from js import Response

import promise
import worker
from javascript import javascript

MODULES = Path(__file__).parent
ROOT = Path("/project")


def _lay_out() -> None:
    for folder in ("tests/unit", "airgate/policy"):
        shutil.copytree(MODULES / folder, ROOT / folder)
    shutil.copy(MODULES / "pyproject.toml", ROOT)
    (ROOT / "src").mkdir()  # empty: src/ is this Worker's own modules
    sys.path.append(str(ROOT / "tests" / "unit"))


async def _answer(request: Any, env: Any, ctx: Any) -> Any:
    _lay_out()
    import inside

    order = await promise.called(request.text, request)
    # A Worker's time never passes a timer that is due. So it stands still from here on, and not from some case on.
    javascript().set_timeout(javascript().clear_timeout, 0)
    result = await inside.run(order, lambda: worker.Runtime(request, env, ctx).verify, promises=True)
    return Response.new(result)


def on_fetch(request: Any, env: Any, ctx: Any) -> Any:
    return promise.run(_answer(request, env, ctx))
