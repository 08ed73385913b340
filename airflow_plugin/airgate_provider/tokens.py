"""The tokens of this process: fetched once for all its tasks, pages and hooks, renewed early, shared if asked for."""

from __future__ import annotations

import logging
import os
import threading
import time

from airgate_provider import identity
from airgate_provider.cache_file import CacheFile
from airgate_provider.errors import TokenUnavailable
from airgate_provider.identity import Token
from airgate_provider.settings import Settings

RENEW_AGAIN_SECONDS = 30.0  # between two tries to renew a token that still holds

log = logging.getLogger(__name__)

_tokens: dict[str, Token] = {}
_locks: dict[str, threading.Lock] = {}
_lock = threading.Lock()
_failed: dict[str, float] = {}  # when renewing failed last
_refused: dict[str, float] = {}  # attested: when the newest token ends that the gate has refused


def get(settings: Settings) -> Token:
    """The token of a connection: the one at hand, or a new one. Raises TokenRefused, TokenUnavailable."""
    key = settings.cache_key
    _adopt(settings, key)
    token = _tokens.get(key)
    if token is not None and token.fresh:
        return token
    with _lock_of(key):
        token = _tokens.get(key)  # somebody else may have been faster
        if token is not None and (token.fresh or _tried_lately(key, token)):
            return token
        try:
            renewed = _shared(settings, key)
        except TokenUnavailable as error:
            token = token or _found(settings, key)
            if token is None or not token.holds:
                raise
            _tokens[key] = token
            _failed[key] = time.time()
            log.warning("The token at hand is used for now; a new one was not to be had: %s", error)
            return token
        _tokens[key] = renewed
        _failed.pop(key, None)
        return renewed


def forget(settings: Settings, token: Token) -> None:
    """The gate does not take this token any more: the next get() asks for another one."""
    key = settings.cache_key
    with _lock_of(key):
        if (known := _tokens.get(key)) is not None and known.value == token.value:
            del _tokens[key]
        if settings.identity == "attested":
            _refused[key] = max(_refused.get(key, 0.0), token.expires or 0.0)
        if (file := _file(settings)) is not None:
            file.forget(key, token.value)


def clear() -> None:
    """Forget all tokens of this process."""
    _tokens.clear()
    _failed.clear()
    _refused.clear()


def _adopt(settings: Settings, key: str) -> None:
    """A token that came with its connection is taken when it is newer than the one at hand, or than a refused one."""
    token = identity.handed(settings)
    if token is None or token.expires is None:
        return
    with _lock_of(key):
        known = _tokens.get(key)
        newest = max(_refused.get(key, 0.0), (known.expires or 0.0) if known is not None else 0.0)
        if token.expires > newest:
            _tokens[key] = token


def _shared(settings: Settings, key: str) -> Token:
    if (file := _file(settings)) is None:
        token = identity.fetch(settings)
    else:
        token = file.get_or_fetch(key, lambda: identity.fetch(settings), lambda known: known.fresh)
    mask(token.value)
    return token


def _found(settings: Settings, key: str) -> Token | None:
    """The token that another process left, be it due for renewal."""
    token = None if (file := _file(settings)) is None else file.find(key)
    if token is not None:
        mask(token.value)
    return token


def _file(settings: Settings) -> CacheFile | None:
    # A token that is bound to a key is of no use without it, and the key stays in its process.
    return CacheFile(settings.cache_file) if settings.cache_file and not settings.dpop else None


def mask(secret: str) -> None:
    """Keep a secret out of task logs, whoever prints it."""
    from airflow.providers.common.compat.sdk import mask_secret

    mask_secret(secret)


def _tried_lately(key: str, token: Token) -> bool:
    return token.holds and time.time() - _failed.get(key, 0.0) < RENEW_AGAIN_SECONDS


def _lock_of(key: str) -> threading.Lock:
    with _lock:
        return _locks.setdefault(key, threading.Lock())


def _after_fork() -> None:
    """A lock that another thread of the parent held would stay locked for ever in the child."""
    global _lock
    _lock = threading.Lock()
    _locks.clear()


os.register_at_fork(after_in_child=_after_fork)
