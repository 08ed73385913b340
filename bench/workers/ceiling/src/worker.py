"""The ceiling: a pass-through that also rebuilds the headers both ways, as any proxy in Python must.

It checks nothing and logs nothing. It takes every short cut that the gate takes, or it would not be a ceiling: what is
needed of JavaScript is looked up once, headers are read in one crossing, and an answer's are copied without being read.
"""

import functools

from js import Array, Object, Response, fetch
from pyodide.ffi import to_js
from upstream import ORIGIN

DROPPED = frozenset(
    {"host", "connection", "keep-alive", "te", "upgrade", "transfer-encoding", "content-length"}
)
HIDDEN = ("authorization", "airgate-")


@functools.cache
def functions():
    return getattr(Array, "from"), Object.fromEntries, Response.new


async def on_fetch(request, env, ctx):
    array_from, from_entries, new_response = functions()
    pairs = [line.split(",", 1) for line in array_from(request.headers).join("\n").split("\n")]
    headers = {name: value for name, value in pairs if name not in DROPPED and not name.startswith(HIDDEN)}
    options = {"method": request.method, "headers": headers, "redirect": "manual"}
    body = request.body
    if body is not None:
        options["body"] = body
    path = request.url.split("/", 3)[3]
    answer = await fetch(f"{ORIGIN}/{path}", to_js(options, dict_converter=from_entries))

    response = new_response(answer.body, answer)
    headers = response.headers
    if "airgate" in array_from(headers).join():
        for name in list(headers.keys()):
            if name.startswith("airgate-"):
                headers.delete(name)
    headers.set("via", "1.1 ceiling")
    return response
