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

import worker

MODULES = Path(__file__).parent
ROOT = Path("/project")


def _lay_out() -> None:
    for folder in ("tests/unit", "airgate/policy"):
        shutil.copytree(MODULES / folder, ROOT / folder)
    shutil.copy(MODULES / "pyproject.toml", ROOT)
    (ROOT / "src").mkdir()  # empty: src/ is this Worker's own modules
    sys.path.append(str(ROOT / "tests" / "unit"))


async def on_fetch(request: Any, env: Any, ctx: Any) -> Any:
    _lay_out()
    import inside

    result = await inside.run(await request.text(), lambda: worker.Runtime(request, env, ctx).verify)
    return Response.new(result)
