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


def get(settings: Settings) -> Token:
    """The token of a connection: the one at hand, or a new one. Raises TokenRefused, TokenUnavailable."""
    key = settings.cache_key
    token = _tokens.get(key)
    if token is not None and _fresh(token):
        return token
    with _lock_of(key):
        token = _tokens.get(key)  # somebody else may have been faster
        if token is not None and (_fresh(token) or _tried_lately(key, token)):
            return token
        try:
            renewed = _shared(settings, key)
        except TokenUnavailable as error:
            token = token or _found(settings, key)
            if token is None or not _holds(token):
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
        if (file := _file(settings)) is not None:
            file.forget(key, token.value)


def clear() -> None:
    """Forget all tokens of this process."""
    _tokens.clear()
    _failed.clear()


def _shared(settings: Settings, key: str) -> Token:
    if (file := _file(settings)) is None:
        token = identity.fetch(settings)
    else:
        token = file.get_or_fetch(key, lambda: identity.fetch(settings), _fresh)
    _mask(token.value)
    return token


def _found(settings: Settings, key: str) -> Token | None:
    """The token that another process left, be it due for renewal."""
    token = None if (file := _file(settings)) is None else file.find(key)
    if token is not None:
        _mask(token.value)
    return token


def _file(settings: Settings) -> CacheFile | None:
    # A token that is bound to a key is of no use without it, and the key stays in its process.
    return CacheFile(settings.cache_file) if settings.cache_file and not settings.dpop else None


def _mask(secret: str) -> None:
    """Keep a secret out of task logs, whoever prints it."""
    from airflow.providers.common.compat.sdk import mask_secret

    mask_secret(secret)


def _fresh(token: Token) -> bool:
    return token.refresh is None or time.time() < token.refresh


def _holds(token: Token) -> bool:
    return token.expires is None or time.time() < token.expires


def _tried_lately(key: str, token: Token) -> bool:
    return _holds(token) and time.time() - _failed.get(key, 0.0) < RENEW_AGAIN_SECONDS


def _lock_of(key: str) -> threading.Lock:
    with _lock:
        return _locks.setdefault(key, threading.Lock())


def _after_fork() -> None:
    """A lock that another thread of the parent held would stay locked for ever in the child."""
    global _lock
    _lock = threading.Lock()
    _locks.clear()


os.register_at_fork(after_in_child=_after_fork)
