"""A bare pass-through: the least that a Python Worker in front of an API can do."""

from js import fetch

from upstream import ORIGIN


async def on_fetch(request, env, ctx):
    path = request.url.split("/", 3)[3]
    return await fetch(f"{ORIGIN}/{path}", request)
