"""What promise.py promises, on a runtime that has JavaScript: each case is a coroutine that is run by it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import js
from pyodide.ffi import JsException, create_once_callable

import promise
from javascript import javascript
from promise import Limit, begin, called, later, promised, run, settled, sleep, within

resolve, reject = js.Promise.resolve, js.Promise.reject


def never() -> Any:
    return javascript().with_resolvers().promise


async def entered(work: Callable[[], Any]) -> tuple[Any, Any]:
    """What `run` answers, called from JavaScript as a handler is, and what that comes to."""
    answers: list[Any] = []
    settlers = javascript().with_resolvers()

    def enter() -> None:
        try:
            answers.append(run(work()))
        except Exception as error:
            answers.append(error)
        settlers.resolve(True)

    js.setTimeout(create_once_callable(enter), 0)
    await settled(settlers.promise)
    [answer] = answers
    return answer, await settled(answer) if hasattr(answer, "then") else answer


async def raised(work: Any) -> str:
    """The kind of what waiting for something raises; empty when it raises nothing."""
    try:
        await work
    except Exception as error:
        return type(error).__name__
    return ""


async def test_a_value_comes_as_python_s_own() -> None:
    for value in ("text", 7, 1.5, True):
        assert await called(resolve, js.Promise, value) == value


async def test_an_object_stays_javascript_s() -> None:
    assert (await called(resolve, js.Promise, javascript().plain({"a": 1}))).a == 1


async def test_a_promise_that_is_not_settled_yet_is_waited_for() -> None:
    settlers = javascript().with_resolvers()
    js.setTimeout(settlers.resolve, 5, "late")
    assert await settled(settlers.promise) == "late"


async def test_what_begins_is_under_way_at_once() -> None:
    """And two of them go on beside each other."""
    first, second = begin(resolve, js.Promise, 1), begin(resolve, js.Promise, 2)
    assert [await settled(second), await settled(first)] == [2, 1]


async def test_a_rejection_with_an_error_is_a_js_exception_that_can_be_caught() -> None:
    caught = None
    try:
        await called(reject, js.Promise, js.TypeError.new("of a test"))
    except JsException as error:
        caught = error
    assert caught is not None
    assert (caught.name, "of a test" in str(caught)) == ("TypeError", True)
    assert await called(resolve, js.Promise, "and on it goes") == "and on it goes"


async def test_a_rejection_with_no_error_is_an_os_error() -> None:
    for reason in ("a text", 7, None):
        assert await raised(called(reject, js.Promise, reason)) == "OSError"


async def test_a_function_that_throws_at_once_is_a_js_exception() -> None:
    assert await raised(called(js.JSON.parse, js.JSON, "{")) == "JsException"


async def test_many_waits_follow_each_other() -> None:
    total = 0
    for number in range(500):
        total += await called(resolve, js.Promise, number)
    assert total == 500 * 499 / 2


async def test_a_wait_within_its_time_is_as_without() -> None:
    assert await within(5, begin(resolve, js.Promise, 3)) == 3
    assert await raised(within(5, begin(reject, js.Promise, js.Error.new("x")))) == "JsException"


async def test_a_wait_is_over_when_its_time_is_up() -> None:
    assert await raised(within(0.01, never())) == "TimeoutError"


async def test_a_limit_is_of_all_waits_together() -> None:
    limit = Limit(0.03)
    assert await limit.settled(begin(resolve, js.Promise, 1)) == 1
    assert await raised(limit.settled(never())) == "TimeoutError"
    assert await raised(limit.settled(never())) == "TimeoutError"
    limit.end()


async def test_time_that_is_up_before_a_wait_begins_ends_it() -> None:
    limit = Limit(0)
    assert await raised(limit.settled(never())) == "TimeoutError"
    limit.end()


async def test_a_sleep_ends() -> None:
    await sleep(0.005)


async def test_work_that_never_waits_is_done_at_once() -> None:
    async def work() -> int:
        return 7

    assert await entered(work) == (7, 7)


async def test_work_that_waits_is_a_promise_of_its_result() -> None:
    async def work() -> Any:
        return javascript().plain({"a": await called(resolve, js.Promise, 1)})

    assert (await entered(work))[1].a == 1
    assert (await settled(promised(work()))).a == 1


async def test_a_promise_of_work_is_one_even_if_it_never_waits() -> None:
    async def work() -> bool:
        return True

    assert await settled(promised(work())) is True


async def test_work_that_raises_is_a_rejection_that_tells_only_the_kind_and_the_place() -> None:
    async def work(wait: bool) -> None:
        if wait:
            await called(resolve, js.Promise, 1)
        raise ValueError("a secret")

    async def reason(promise: Any) -> str:
        settlers = javascript().with_resolvers()
        promise.then(None, settlers.resolve)
        return str(await settled(settlers.promise))

    for wait in (False, True):
        told = await reason(promised(work(wait)))
        assert told.startswith("ValueError at work:")
        assert "secret" not in told
    assert await raised(settled(promised(work(wait=True)))) == "OSError"


async def test_a_handler_that_raises_at_once_tells_only_the_kind_and_the_place() -> None:
    async def work() -> None:
        raise ValueError("a secret")

    error, _ = await entered(work)
    assert (type(error), error.__cause__, error.__suppress_context__) == (RuntimeError, None, True)
    assert str(error).startswith("ValueError at work:")


async def test_a_step_inside_another_ends_the_interpreter() -> None:
    """There is none, unless a native fault has cut one off."""

    async def work() -> None: ...

    class Aborted(BaseException): ...

    def abort() -> None:
        raise Aborted

    found, promise.os.abort = promise.os.abort, abort
    try:
        run(coroutine := work())
    except Aborted:
        coroutine.close()
    else:
        raise AssertionError("it went on")
    finally:
        promise.os.abort = found


async def test_later_work_begins_behind_what_goes_on_now() -> None:
    seen = []

    async def work() -> None:
        seen.append("work")

    done = promised(later(work()))
    seen.append("now")
    await settled(done)
    assert seen == ["now", "work"]


async def test_work_goes_on_that_nobody_waits_for() -> None:
    seen = []

    async def work() -> None:
        await sleep(0.005)
        seen.append("work")

    promised(work())
    await sleep(0.05)
    assert seen == ["work"]


async def test_what_is_asyncio_s_is_a_rejection_and_no_hang() -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    assert await raised(settled(promised(work()))) == "OSError"


async def results() -> dict[str, str]:
    """How each case ended, by its name."""
    ended: dict[str, str] = {}
    cases: list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = [
        (name, case) for name, case in list(globals().items()) if name.startswith("test_")
    ]
    for name, case in cases:
        try:
            await within(10, promised(_told(case(), name, ended)))
        except Exception as error:
            ended[name] = f"{type(error).__name__}: {error}"
    return ended


async def _told(case: Coroutine[Any, Any, None], name: str, ended: dict[str, str]) -> None:
    try:
        await case
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        ended[name] = f"{type(error).__name__} in line {trace.tb_lineno if trace else '?'}: {error}"
    else:
        ended[name] = "passed"
