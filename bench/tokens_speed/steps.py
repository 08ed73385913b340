"""A Worker that does one step of gate.py so many times a request. It is timed from outside: its clock stands still."""

import json
from typing import Any

from gate import Gate
from js import Response

_gate: list[Gate] = []


async def on_fetch(request: Any, env: Any, ctx: Any) -> Any:
    asked = json.loads(await request.text())
    if "given" in asked:
        _gate[:] = [Gate(asked["given"])]
        await _gate[0].start()
    else:
        step, amount = getattr(_gate[0], asked["step"]), len(_gate[0].tokens)
        for number in range(asked["times"]):
            await step(number % amount)
    return Response.new("done")
