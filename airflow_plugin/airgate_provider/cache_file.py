"""Tokens shared between the processes of one worker, in a file that only its owner can read. Off unless asked for."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airgate_provider.identity import Token

WAIT_SECONDS = 30.0  # for another process that is asking for a token; longer than one may take
MOST_TOKENS = 64

log = logging.getLogger(__name__)


class CacheFile:
    """A JSON object by cache key: {"<key>": {"token", "expires", "refresh"}}, times in seconds since the epoch."""

    def __init__(self, path: str) -> None:
        self._path = path

    def get_or_fetch(self, key: str, fetch: Callable[[], Token], fresh: Callable[[Token], bool]) -> Token:
        """The token in the file while it is fresh; else a new one, asked for by one process while the others wait.

        A file that is not safe, or not to be had, is left alone and said to be: the token then is fetched as without
        one. Raises what `fetch` does.
        """
        with self._opened() as file:
            if file is None:
                return fetch()
            values = _read(file)
            known = _token(values.get(key))
            if known is not None and fresh(known):
                return known
            token = fetch()
            values[key] = {"token": token.value, "expires": token.expires, "refresh": token.refresh}
            self._keep(file, values)
            return token

    def find(self, key: str) -> Token | None:
        """The token in the file, fresh or not."""
        with self._opened() as file:
            return None if file is None else _token(_read(file).get(key))

    def forget(self, key: str, value: str) -> None:
        """Take a token out, if it is that one."""
        with self._opened() as file:
            if file is None:
                return
            values = _read(file)
            known = _token(values.get(key))
            if known is not None and known.value == value:
                del values[key]
                self._keep(file, values)

    def _keep(self, file: int, values: dict[str, Any]) -> None:
        try:
            _write(file, values)
        except OSError as error:  # a full disk must not cost a task its token
            log.warning("The token cache file %s cannot be written (%s).", self._path, error.strerror)

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        try:
            file = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600
            )
        except OSError as error:
            log.warning("The token cache file %s cannot be used (%s).", self._path, error.strerror)
            yield None
            return
        try:
            if (problem := _unsafe(file)) is not None or (problem := _lock(file)) is not None:
                log.warning("The token cache file %s is not used: %s", self._path, problem)
                yield None
            else:
                yield file
        finally:
            os.close(file)  # and with it goes the lock


def _unsafe(file: int) -> str | None:
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        return "it is no plain file."
    if found.st_uid != os.geteuid():
        return "it belongs to somebody else."
    if found.st_mode & 0o077:
        return f"others can read it (mode {stat.S_IMODE(found.st_mode):04o}; 0600 is right)."
    if found.st_nlink != 1:
        return "it has a second name."
    return None


def _lock(file: int) -> str | None:
    """Wait for it. Why it is not to be had; None when it is."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return f"it stays locked for {WAIT_SECONDS:.0f} s."
            time.sleep(0.02)
        except OSError as error:  # some network file systems
            return f"it cannot be locked ({error.strerror})."
        else:
            return None


def _read(file: int) -> dict[str, Any]:
    os.lseek(file, 0, os.SEEK_SET)
    try:
        values = json.loads(os.read(file, 4 * 1024 * 1024) or b"{}")
    except ValueError:  # half written by a process that was ended
        return {}
    return values if isinstance(values, dict) else {}


def _write(file: int, values: dict[str, Any]) -> None:
    now = time.time()
    kept = {
        key: value
        for key, value in values.items()
        if (token := _token(value)) is not None and (token.expires is None or token.expires > now)
    }
    newest = dict(list(kept.items())[-MOST_TOKENS:])
    text = json.dumps(newest).encode()
    os.ftruncate(file, 0)
    os.lseek(file, 0, os.SEEK_SET)
    while text:
        text = text[os.write(file, text) :]


def _token(value: Any) -> Token | None:
    if not isinstance(value, dict) or not isinstance(value.get("token"), str):
        return None
    expires, refresh = value.get("expires"), value.get("refresh")
    if not all(time is None or isinstance(time, int | float) for time in (expires, refresh)):
        return None
    return Token(value["token"], expires, refresh)
