"""What the API server publishes of the issuer: its discovery document and its public keys, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from airgate_provider import attest_keys
from airgate_provider.backend import AirgateSecretsBackend

# Short, so that a key which is put first has been seen before; the gate fetches again for a key that it doesn't know.
CACHING = {"Cache-Control": "public, max-age=60"}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """An API server that is to attest and can't, does not start: AttestInvalid names the setting."""
    from airgate_provider import sessions

    attest_keys.settings()
    check_backend()
    sessions.start()
    yield
    sessions.stop()


def check_backend() -> None:
    """Raises AttestInvalid where nothing would put the tokens into connections."""
    from airflow.configuration import ensure_secrets_loaded

    if not any(isinstance(backend, AirgateSecretsBackend) for backend in ensure_secrets_loaded()):
        raise attest_keys.AttestInvalid(
            "[secrets] backend (AIRFLOW__SECRETS__BACKEND) is not airgate_provider.backend.AirgateSecretsBackend: it "
            "puts the tokens into connections. A backend that you have already goes into its backend_kwargs."
        )


@cache
def app() -> FastAPI:
    """The app that is mounted under /airgate."""
    made = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @made.get("/.well-known/openid-configuration")
    def discovery() -> Any:
        return JSONResponse(attest_keys.metadata(), headers=CACHING)

    @made.get("/jwks.json")
    def jwks() -> Any:
        return JSONResponse(attest_keys.jwks(), headers=CACHING)

    return made
