"""The ceiling: a pass-through that also rebuilds the headers both ways, as any proxy in Python must.

It checks nothing and logs nothing. Headers are read in one crossing into JavaScript and written in one, as in the gate.
"""

import functools

from js import Array, Object, Response, fetch
from pyodide.ffi import to_js
from upstream import ORIGIN

DROPPED = frozenset({"host", "connection", "keep-alive", "te", "upgrade", "transfer-encoding", "content-length"})
HIDDEN = ("authorization", "airgate-")


@functools.cache
def functions():
    return getattr(Array, "from"), Object.fromEntries, Response.new


async def on_fetch(request, env, ctx):
    array_from, from_entries, new_response = functions()
    method = request.method
    lines = array_from(request.headers).join("\n").split("\n")
    pairs = [line.split(",", 1) for line in lines]
    headers = {
        name: value for name, value in pairs if name not in DROPPED and not name.startswith(HIDDEN)
    }
    options = {"method": method, "headers": headers, "redirect": "manual"}
    body = request.body
    if body is not None:
        options["body"] = body
    path = request.url.split("/", 3)[3]
    answer = await fetch(f"{ORIGIN}/{path}", to_js(options, dict_converter=from_entries))

    lines = array_from(answer.headers).join("\n").split("\n")
    pairs = [line.split(",", 1) for line in lines]
    headers = [pair for pair in pairs if not pair[0].startswith(HIDDEN)]
    headers.append(["via", "1.1 ceiling"])
    return new_response(
        answer.body, to_js({"status": answer.status, "headers": headers}, dict_converter=from_entries)
    )
