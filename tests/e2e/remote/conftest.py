"""Fixtures for tests of the commands against a deployed gate: real wrangler, and a stand-in for Cloudflare's API."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for cloudflare.py, however pytest was told to import

from cloudflare import Cloudflare
from project import Site


@pytest.fixture
def cloudflare() -> Iterator[Cloudflare]:
    """An empty account. In the end nothing may have been asked that the stand-in doesn't know."""
    with Cloudflare() as account:
        yield account
    assert account.unknown == []


@pytest.fixture
def site(tmp_path: Path, cloudflare: Cloudflare) -> Site:
    """A project that was never deployed."""
    return Site(tmp_path / "project", cloudflare)


@pytest.fixture(scope="module")
def make_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Site]]:
    """make_site(): a project in an empty account, for the tests of a module that build on each other."""
    accounts: list[Cloudflare] = []

    def make() -> Site:
        account = Cloudflare()
        account.__enter__()
        accounts.append(account)
        return Site(tmp_path_factory.mktemp("site") / "project", account)

    yield make
    for account in accounts:
        account.__exit__(None, None, None)
        assert account.unknown == []
