"""What a Cloudflare account holds of a gate, asked and made through wrangler.

Every method raises NodeMissing and WranglerFailed; WranglerFailed says what Cloudflare has answered.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airgate.configuration import DATABASE, Configuration
from airgate.node import WranglerFailed

# What wrangler says when it isn't the network: nobody is logged in, or not with what it takes.
REFUSED = re.compile(
    r"Authentication error|code: 10000|code: 9109|CLOUDFLARE_API_TOKEN|[Nn]ot logged in|code: 6111"
)

_NO_TABLE = "no such table"
_NO_WORKER = re.compile(r'Worker "[^"]*" not found|does not exist on your account')
_CREATED = {
    "kv": re.compile(r'^\s*"?id"?\s*[=:]\s*"([0-9a-f]{32})"', re.MULTILINE),
    "d1": re.compile(r'^\s*"?database_id"?\s*[=:]\s*"([0-9a-f-]{36})"', re.MULTILINE),
}


@dataclass(frozen=True)
class Uploaded:
    """A version of the Worker that was uploaded, and is deployed."""

    version_id: str
    addresses: tuple[str, ...]  # https://… where it answers; routes with a pattern are not among them


class Account:
    """The account that wrangler is logged in to, seen from one environment of wrangler.toml."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration

    def names(self) -> list[str]:
        """The names of the accounts that the login reaches; none when there is no login."""
        said = json.loads(self._run("whoami", "--json"))
        return [str(each["name"]) for each in said.get("accounts", ())] if said.get("loggedIn") else []

    def namespaces(self) -> dict[str, str]:
        """The titles of all KV namespaces, by id."""
        return {each["id"]: each["title"] for each in json.loads(self._run("kv", "namespace", "list"))}

    def databases(self) -> dict[str, str]:
        """The names of all D1 databases, by id."""
        return {each["uuid"]: each["name"] for each in json.loads(self._run("d1", "list", "--json"))}

    def secrets(self) -> set[str] | None:
        """The names of the Worker's secrets; None when there is no Worker."""
        try:
            return {each["name"] for each in json.loads(self._run("secret", "list"))}
        except WranglerFailed as error:
            if _NO_WORKER.search(str(error)):
                return None
            raise

    def migrated(self) -> set[str]:
        """The names of the migrations that the database has had."""
        try:
            rows = self._rows("SELECT name FROM d1_migrations")
        except WranglerFailed as error:
            if _NO_TABLE in str(error):
                return set()
            raise
        return {str(row["name"]) for row in rows}

    def create_namespace(self, title: str) -> str:
        """Make a KV namespace. Its id."""
        return _created("kv", title, self._run("kv", "namespace", "create", title))

    def create_database(self, name: str) -> str:
        """Make a D1 database. Its id."""
        return _created("d1", name, self._run("d1", "create", name))

    def migrate(self) -> None:
        """Apply the migrations that the database hasn't had."""
        self._run("d1", "migrations", "apply", DATABASE, "--remote")

    def upload(self, version: str) -> Uploaded:
        """Upload the Worker, which serves at once, with VERSION set to a label."""
        with tempfile.TemporaryDirectory(prefix="airgate-") as folder:
            report = Path(folder) / "report.ndjson"
            self._run(
                "deploy", "--var", f"VERSION:{version}", variables={"WRANGLER_OUTPUT_FILE_PATH": str(report)}
            )
            lines = report.read_text("utf-8").splitlines() if report.is_file() else []
        entries: list[dict[str, Any]] = [json.loads(line) for line in lines]
        told = next((each for each in entries if each.get("type") == "deploy"), {})
        targets = [each for each in told.get("targets") or () if str(each).startswith("https://")]
        return Uploaded(str(told.get("version_id") or ""), tuple(targets))

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(
            self._run("d1", "execute", DATABASE, "--remote", "--json", "--command", sql)
        )[0]["results"]
        return rows

    def _run(self, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
        return self.configuration.wrangler(*arguments, variables=variables)


def migrations(folder: Path) -> list[str]:
    """The names of the migrations in a folder, in the order in which they are applied."""
    return sorted(file.name for file in folder.glob("*.sql"))


def refused(error: WranglerFailed) -> bool:
    """Whether Cloudflare, or wrangler itself, has turned the login down; else it couldn't be asked."""
    return bool(REFUSED.search(str(error)))


def why(error: Exception) -> str:
    """In a few words why the account couldn't be asked."""
    text = str(error)
    if isinstance(error, WranglerFailed) and refused(error):
        return "it turns the login down"
    if "fetch failed" in text or text.rstrip().endswith("A request to the Cloudflare API failed."):
        return "no connection"  # the second is how wrangler says it of KV
    last = text.rstrip().splitlines()[-1:] or [type(error).__name__]
    return re.sub(r"^\W*\[?ERROR\]?\s*", "", last[0]).strip(" .")


def _created(kind: str, name: str, said: str) -> str:
    match = _CREATED[kind].search(said)
    if match is None:
        raise WranglerFailed(f"wrangler has made {name}, and didn't say its id:\n{said.strip()}")
    return match[1]
