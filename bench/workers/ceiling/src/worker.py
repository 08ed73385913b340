"""The ceiling: a pass-through that also rebuilds the headers both ways, as any proxy in Python must.

It checks nothing and logs nothing: one comprehension over the headers each way, one object for each call.
"""

from js import Object, Response, fetch
from pyodide.ffi import to_js

from upstream import ORIGIN

DROPPED = frozenset(
    {"host", "connection", "keep-alive", "te", "upgrade", "transfer-encoding", "content-length"}
)
HIDDEN = ("authorization", "airgate-")


async def on_fetch(request, env, ctx):
    headers = {
        name: value for name, value in request.headers if name not in DROPPED and not name.startswith(HIDDEN)
    }
    options = {"method": request.method, "headers": headers, "redirect": "manual"}
    body = request.body
    if body is not None:
        options["body"] = body
    path = request.url.split("/", 3)[3]
    answer = await fetch(f"{ORIGIN}/{path}", to_js(options, dict_converter=Object.fromEntries))

    headers = {name: value for name, value in answer.headers if not name.startswith("airgate-")}
    headers["via"] = "1.1 ceiling"
    options = {"status": answer.status, "headers": headers}
    return Response.new(answer.body, to_js(options, dict_converter=Object.fromEntries))
