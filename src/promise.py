"""Coroutines that wait for JavaScript's promises, with no event loop between the two.

Pyodide's asyncio is made of the runtime's timers: every task that begins or goes on waits for one more turn of them. A
coroutine that is run by the promise it waits for needs none, and a request takes a fifth less of the processor
(docs/adr/0022-no-event-loop.md). A coroutine that is run here may await what is in this file, and other coroutines;
nothing of asyncio's.
"""

import os
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any

from audit import where
from javascript import javascript

_LATE = "late"  # why a promise of ours is rejected when time is up

_inside = False  # whether a step is under way


def _enter() -> None:
    """A step begins, called from JavaScript, and none can be inside another."""
    global _inside
    if _inside:  # so a native fault has cut one off: nothing in this interpreter is to be trusted any more
        os.abort()
    _inside = True


def _leave() -> None:
    global _inside
    _inside = False


def begin(function: Any, this: Any, *arguments: Any) -> Any:
    """Call a function of JavaScript's that answers with a promise. Returns that promise. Raises JsException.

    Arguments become JavaScript's: dictionaries plain objects, bytes and lists arrays.
    """
    return begin_applied(javascript().applied(function, this), *arguments)


def begin_applied(applied: Any, *arguments: Any) -> Any:
    """As `begin`, for what `JavaScript.applied` made of a function.

    Of a promise that a call returns Pyodide makes an asyncio future, and of one that stands in an array it does not; so
    it is JavaScript that calls the function, for the one element of an array.
    """
    js = javascript()
    return js.array_from(js.plain([arguments]), applied)[0]


@coroutine
def settled(promise: Any) -> Generator[Any, Any, Any]:
    """What a promise comes to. Raises JsException when it is rejected with an error, OSError when with none."""
    return (yield promise)


@coroutine
def called(function: Any, this: Any, *arguments: Any) -> Generator[Any, Any, Any]:
    """What a function comes to that answers with a promise: `begin` it, and wait as `settled` does."""
    return (yield begin(function, this, *arguments))


async def sleep(seconds: float) -> None:
    js = javascript()
    settlers = js.with_resolvers()
    js.set_timeout(settlers.resolve, int(seconds * 1000))
    await settled(settlers.promise)


class Limit:
    """The time that some waits may take together. `end` it, however they end."""

    __slots__ = ("_late", "_timer")

    def __init__(self, seconds: float) -> None:
        js = javascript()
        self._late = js.with_resolvers()
        self._timer = js.set_timeout(self._late.reject, int(seconds * 1000), _LATE)

    async def settled(self, promise: Any) -> Any:
        """As `settled`. Raises TimeoutError when the time is up before."""
        js = javascript()
        return await called(js.race, js.promise, [promise, self._late.promise])

    def end(self) -> None:
        javascript().clear_timeout(self._timer)


async def within(seconds: float, promise: Any) -> Any:
    """As `settled`. Raises TimeoutError when that takes longer; nobody is told, it goes on."""
    limit = Limit(seconds)
    try:
        return await limit.settled(promise)
    finally:
        limit.end()


class _Work:
    """A coroutine that goes on whenever the promise is settled that it waits for."""

    __slots__ = ("_coroutine", "_settlers")

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = work
        self._settlers: Any = None

    def begin(self) -> Any:
        """What it returns, if it never waits, and otherwise a promise of that."""
        try:
            promise = self._coroutine.send(None)
        except StopIteration as done:
            return done.value
        except Exception as error:  # its text may hold anything
            raise RuntimeError(where(error)) from None
        self._settlers = settlers = javascript().with_resolvers()
        promise.then(self._fulfilled, self._rejected)
        return settlers.promise

    def promise(self) -> Any:
        """A promise of what it returns."""
        self._settlers = settlers = javascript().with_resolvers()
        self._go_on(self._coroutine.send, None)
        return settlers.promise

    def _fulfilled(self, value: Any) -> None:
        _enter()
        try:
            self._go_on(self._coroutine.send, value)
        finally:
            _leave()

    def _rejected(self, reason: Any) -> None:
        if not isinstance(reason, BaseException):
            reason = TimeoutError() if reason == _LATE else OSError("rejected, and not with an error")
        _enter()
        try:
            self._go_on(self._coroutine.throw, reason)
        finally:
            _leave()

    def _go_on(self, step: Any, value: Any) -> None:
        try:
            step(value).then(self._fulfilled, self._rejected)
        except StopIteration as done:
            self._settlers.resolve(done.value)
        except Exception as error:
            self._settlers.reject(where(error))


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine, called from JavaScript. Returns what it returns if it never waits, else a promise of that.

    That has to be an object of JavaScript's, or a text, a number, a truth or None: nothing that would need a proxy.
    """
    _enter()
    try:
        return _Work(work).begin()
    finally:
        _leave()


def promised(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine, from within another. Returns a promise of what it returns, which has to be as for `run`."""
    return _Work(work).promise()


async def later(work: Coroutine[Any, Any, Any]) -> None:
    """The same work, begun with the next turn of the runtime's loop: behind what goes on now."""
    await sleep(0)
    await work
