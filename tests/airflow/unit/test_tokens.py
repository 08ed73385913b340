"""Tokens are asked for once, renewed early, and shared between processes only where that is safe."""

import json
import multiprocessing
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from airgate_provider import identity, tokens
from airgate_provider.cache_file import CacheFile
from airgate_provider.errors import TokenRefused, TokenUnavailable
from conftest import Answer, Server, granted, jwt


def test_one_process_asks_once_whoever_needs_it(server: Server, settings: Any) -> None:
    server.says(lambda _: granted(jwt(jti=str(len(server.requests)))))
    found: list[str] = []

    def take() -> None:
        found.extend(tokens.get(settings(upstream=name)).value for name in ("ledger", "crm"))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1
    assert len(server.requests) == 1


def test_a_token_is_renewed_before_it_expires(server: Server, settings: Any) -> None:
    server.says(granted("first", expires_in=1), granted("second"))
    assert tokens.get(settings()).value == "first"
    time.sleep(0.85)  # four fifths of its life are over, and it still holds
    assert tokens.get(settings()).value == "second"


def test_the_old_one_serves_while_a_new_one_is_not_to_be_had(server: Server, settings: Any) -> None:
    server.says(granted("first", expires_in=2), Answer(500))
    tokens.get(settings())
    time.sleep(1.65)
    assert tokens.get(settings()).value == "first"
    assert tokens.get(settings()).value == "first"
    assert len(server.requests) == 2  # it is not asked again at once
    time.sleep(0.5)
    with pytest.raises(TokenUnavailable):
        tokens.get(settings())


def test_a_refusal_is_never_bridged_with_an_old_token(server: Server, settings: Any) -> None:
    server.says(granted("first", expires_in=1), Answer(401))
    tokens.get(settings())
    time.sleep(0.85)
    with pytest.raises(TokenRefused):
        tokens.get(settings())


def test_a_token_that_the_gate_does_not_take_is_forgotten(server: Server, settings: Any) -> None:
    server.says(granted("first"), granted("second"))
    first = tokens.get(settings())
    tokens.forget(settings(), first)
    second = tokens.get(settings())
    tokens.forget(settings(), first)  # somebody was late: the second one stays
    assert (second.value, tokens.get(settings()).value) == ("second", "second")


def _take(values: dict[str, Any], connection_of: Any, results: Any) -> None:
    tokens.clear()
    results.put(tokens.get(connection_of(**values)).value)


def test_processes_share_a_cache_file(server: Server, settings: Any, tmp_path: Path) -> None:
    server.says(lambda _: Answer(**{**vars(granted(jwt(jti=str(len(server.requests))))), "pause": 0.3}))
    file = tmp_path / "tokens.json"
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    processes = [
        fork.Process(target=_take, args=({"cache_file": str(file)}, settings, results)) for _ in range(8)
    ]
    for process in processes:
        process.start()
    found = {results.get(timeout=20) for _ in processes}
    for process in processes:
        process.join()
    assert len(found) == 1
    assert len(server.requests) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "s3cret" not in file.read_text()


@pytest.mark.parametrize("how", ["others can read it", "a link", "a folder", "two names", "no such folder"])
def test_an_unsafe_cache_file_is_left_alone(
    server: Server, settings: Any, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tokens.json"
    victim = tmp_path / "victim"
    victim.write_text("{}")
    victim.chmod(0o600)
    if how == "others can read it":
        file.write_text("{}")
        file.chmod(0o644)
    elif how == "a link":
        file.symlink_to(victim)
    elif how == "a folder":
        file.mkdir()
    elif how == "two names":
        file.hardlink_to(victim)
    else:
        file = tmp_path / "missing" / "tokens.json"
    server.says(granted("fetched"))
    assert tokens.get(settings(cache_file=str(file))).value == "fetched"
    assert victim.read_text() == "{}"
    assert "token cache file" in caplog.text
    assert "fetched" not in "".join(each.read_text() for each in tmp_path.iterdir() if each.is_file())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 1}', "\0\0"])
def test_a_broken_cache_file_is_started_anew(
    server: Server, settings: Any, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "tokens.json"
    file.write_text(content)
    file.chmod(0o600)
    server.says(granted("fetched"))
    said = settings(cache_file=str(file))
    assert tokens.get(said).value == "fetched"
    assert json.loads(file.read_text())[said.cache_key]["token"] == "fetched"


def test_a_token_in_the_file_that_the_gate_does_not_take_is_forgotten(
    server: Server, settings: Any, tmp_path: Path
) -> None:
    said = settings(cache_file=str(tmp_path / "tokens.json"))
    server.says(granted("first"), granted("second"))
    first = tokens.get(said)
    tokens.clear()
    assert tokens.get(said).value == "first"
    tokens.forget(said, first)
    assert tokens.get(said).value == "second"


def test_bound_tokens_stay_in_their_process(server: Server, settings: Any, tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    server.says(granted(token_type="DPoP"))
    tokens.get(settings(cache_file=str(file), dpop=True))
    assert not file.exists()


def test_a_file_that_stays_locked_does_not_stop_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    from airgate_provider import cache_file

    monkeypatch.setattr(cache_file, "WAIT_SECONDS", 0.2)
    path = tmp_path / "tokens.json"
    path.touch(mode=0o600)
    with path.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = CacheFile(str(path)).get_or_fetch("k", lambda: identity.Token("own"), lambda _: True)
    assert found.value == "own"
    assert path.read_text() == ""


def test_expired_tokens_leave_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    file = CacheFile(str(path))
    file.get_or_fetch("old", lambda: identity.Token("a", time.time() - 1, time.time() - 2), lambda _: True)
    file.get_or_fetch("new", lambda: identity.Token.living("b", 60), lambda _: True)
    assert list(json.loads(path.read_text())) == ["new"]


def test_a_token_out_of_the_file_is_masked_too(
    server: Server, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked: list[str] = []
    monkeypatch.setattr(tokens, "mask", masked.append)
    server.says(granted("fetched"))
    said = settings(cache_file=str(tmp_path / "tokens.json"))
    tokens.get(said)
    tokens.clear()  # as in another process
    tokens.get(said)
    assert masked == ["fetched", "fetched"]


def test_another_process_uses_the_old_one_too_while_a_new_one_is_not_to_be_had(
    server: Server, settings: Any, tmp_path: Path
) -> None:
    server.says(granted("first", expires_in=2), Answer(500))
    said = settings(cache_file=str(tmp_path / "tokens.json"))
    tokens.get(said)
    tokens.clear()
    time.sleep(1.65)
    assert tokens.get(said).value == "first"
    assert tokens.get(said).value == "first"
    assert len(server.requests) == 2
    time.sleep(0.5)
    tokens.clear()
    with pytest.raises(TokenUnavailable):
        tokens.get(said)


@pytest.mark.parametrize("fails", ["flock", "ftruncate"])
def test_a_file_system_that_fails_does_not_stop_a_task(
    server: Server,
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fails: str,
) -> None:
    import errno
    import fcntl
    import os

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fcntl if fails == "flock" else os, fails, fail)
    server.says(granted("fetched"))
    assert tokens.get(settings(cache_file=str(tmp_path / "tokens.json"))).value == "fetched"
    assert "No space left on device" in caplog.text
