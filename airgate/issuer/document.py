"""Documents of a provider, fetched as the gate fetches them, and everything about each that a person may want to know.

The gate's rules: status 200, no redirects, as many bytes and seconds as `keys` says. What it would not take is an
OSError here too, with the gate's own words.
"""

import asyncio
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import httpx

from airgate.issuer.words import shown_plain

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass
class Document:
    """One answer, or what came instead of one."""

    url: str
    status: int | None = None
    location: str | None = None  # where a redirect leads
    media: str = ""  # the answer's Content-Type
    body: bytes = b""  # what was read of it
    seconds: float = 0.0
    clock: float | None = None  # the server's clock less this machine's, in seconds
    error: str = ""  # why the gate wouldn't take it

    @property
    def address(self) -> str:
        """The URL as it can be shown: a provider may have written it."""
        return shown_plain(self.url)


@dataclass
class Documents:
    """The port `keys.Fetch`, which keeps what it has fetched."""

    fetched: list[Document] = field(default_factory=list)

    async def __call__(self, url: str, timeout: float, limit: int) -> bytes:
        document = Document(url)
        self.fetched.append(document)
        begin = time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                await _read(document, limit)
        except TimeoutError:
            document.error = f"did not arrive within {timeout:g} s"
        except httpx.HTTPError as error:
            document.error = _said(error)
        except httpx.InvalidURL as error:
            document.error = f"not an address: {error}"
        except ValueError:  # certificates that can't be loaded, a host's name that can't be encoded
            document.error = "the request can't be made"
        except OSError as error:
            document.error = str(error)
        document.seconds = time.monotonic() - begin
        if document.error:
            raise OSError(document.error)
        return document.body

    def last(self, url: str) -> Document | None:
        """What was last fetched from an address."""
        return next((each for each in reversed(self.fetched) if each.url == url), None)


async def _read(document: Document, limit: int) -> None:
    url = httpx.URL(document.url)
    # Proxies of this desk's environment are for the world outside; the local provider is here.
    client = httpx.AsyncClient(follow_redirects=False, timeout=None, trust_env=url.host not in LOCAL)
    async with client, client.stream("GET", url, headers={"Accept": "application/json"}) as answer:
        document.status = answer.status_code
        document.media = answer.headers.get("content-type", "")
        document.location = answer.headers.get("location")
        document.clock = _clock(answer.headers)
        if answer.status_code != httpx.codes.OK:
            raise OSError(f"answered {answer.status_code}")
        async for chunk in answer.aiter_bytes():
            document.body += chunk
            if len(document.body) > limit:
                document.body = document.body[:limit]
                raise OSError(f"longer than {limit} bytes")


def _clock(headers: httpx.Headers) -> float | None:
    """How far the server's clock is ahead of this machine's, if it says; an answer from a cache says its age too."""
    try:
        said = parsedate_to_datetime(headers["date"]).timestamp()
        age = int(headers.get("age", "0"))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return said + age - time.time()


def _said(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
