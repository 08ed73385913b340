"""The local stack itself: it starts whole, says what is wrong, and leaves nothing behind."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import jwt
import pytest

from airgate.dev.signing import ALGORITHMS
from airgate.dev.stack import LocalStack, Ports, Stack, StackError, read_stack
from airgate.environment import Conflict, LocalEnvironment, quote
from airgate.node import PROJECT

AIRGATE = [sys.executable, "-m", "airgate"]


def airgate(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would, in a wide terminal without colours."""
    env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **environment}
    return subprocess.run(
        [*AIRGATE, *arguments], cwd=PROJECT, env=env, capture_output=True, text=True, timeout=120
    )


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until(true: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return true()


def test_the_sample_upstream_shows_what_reached_it(stack: Stack) -> None:
    seen = httpx.post(
        stack.sample + "/ledger/v1/x%2Fy?a=1&a=%20", content=b"hello", headers={"X-One": "1"}
    ).json()
    assert (seen["method"], seen["path"], seen["query"]) == ("POST", "/ledger/v1/x%2Fy", "a=1&a=%20")
    assert (seen["body"], seen["body_bytes"], seen["headers"]["x-one"]) == ("hello", 5, "1")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/status/503", 503),
        ("/status/999", 200),
        ("/status/abc", 200),
        ("/slow?ms=odd", 200),
        ("/bytes?n=-1", 200),
        ("/bytes", 200),
        ("/constructor", 200),
        ("/%ff/%00", 200),
        ("/redirect", 302),
        ("/gzip", 200),
        ("/headers", 200),
    ],
)
def test_the_sample_upstream_survives_odd_requests(stack: Stack, path: str, status: int) -> None:
    assert httpx.get(stack.sample + "/any" + path).status_code == status
    assert httpx.get(stack.sample).status_code == 200


def test_the_sample_upstream_streams_bodies_both_ways(stack: Stack) -> None:
    size = 3_000_001
    assert len(httpx.get(f"{stack.sample}/a/bytes?n={size}").content) == size
    assert httpx.post(stack.sample + "/a/echo", content=b"x" * size).content == b"x" * size


def test_the_sample_upstream_survives_a_client_that_leaves(stack: Stack) -> None:
    url = httpx.URL(stack.sample)
    for request in (
        b"GET /bytes?n=100000000 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
        b"nonsense\r\n\r\n",
    ):
        with socket.create_connection((url.host, url.port or 0)) as connection:
            connection.sendall(request)
            connection.recv(10) if request.startswith(b"GET") else None
    assert httpx.get(stack.sample).status_code == 200


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_provider_signs_with_the_algorithm_asked_for(
    stack: Stack, token: Callable[..., str], algorithm: str
) -> None:
    text = token("assistant", algorithm)
    keys = jwt.PyJWKSet.from_dict(httpx.get(stack.provider + "/jwks").json())
    header = jwt.get_unverified_header(text)
    assert (header["alg"], header["typ"]) == (algorithm, "at+jwt")
    claims = jwt.decode(
        text, keys[header["kid"]], [algorithm], audience="https://gate.example.com", issuer=stack.provider
    )
    assert (claims["sub"], claims["groups"], claims["airgate_kind"]) == (
        "assistant",
        ["assistants", "finance-readers"],
        "agent",
    )


def test_a_minted_token_is_signed_by_the_provider_and_says_what_the_test_wants(
    stack: Stack, mint: Callable[..., str]
) -> None:
    keys = jwt.PyJWKSet.from_dict(httpx.get(stack.provider + "/jwks").json())
    text = mint({"sub": "someone"}, alg="ES384", groups=None, headers={"kid": None, "typ": None, "x": 1})
    assert jwt.get_unverified_header(text) == {"alg": "ES384", "x": 1}
    claims = jwt.decode(text, keys["local-es384"], ["ES384"], audience="https://gate.example.com")
    assert claims["sub"] == "someone"
    assert "groups" not in claims
    assert jwt.get_unverified_header(mint())["typ"] == "at+jwt"


def test_the_token_command_prints_a_token_and_nothing_else(stack: Stack) -> None:
    done = airgate("token", "--client", "sales-sync", "--dir", str(stack.directory))
    assert (done.returncode, done.stderr) == (0, "")
    assert jwt.decode(done.stdout.strip(), options={"verify_signature": False})["sub"] == "sales-sync"


def test_an_unknown_client_gets_the_nearest_name(stack: Stack) -> None:
    done = airgate("token", "--client", "finance-elt", AIRGATE_DIR=str(stack.directory))
    assert done.returncode == 1
    assert "Did you mean finance-etl?" in done.stderr
    assert "oncall" in done.stderr


def test_a_token_without_a_stack_says_how_to_start_one(tmp_path: Path) -> None:
    done = airgate("token", "--client", "finance-etl", "--dir", str(tmp_path))
    assert done.returncode == 1
    assert "make dev" in done.stderr


def test_secrets_are_for_the_owner_only(stack: Stack) -> None:
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in stack.directory.iterdir()}
    assert stat.S_IMODE(stack.directory.stat().st_mode) == 0o700
    assert {modes[name] for name in ("stack.json", "provider.json", "provider-keys.json", "gate.json")} == {
        0o600
    }
    secrets = [stack.clients["finance-etl"]["client_secret"], *stack.secrets.values()]
    commands = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "gate.mjs" in commands
    assert not any(secret in commands for secret in secrets)


def test_the_running_stack_can_be_found_by_its_folder(stack: Stack) -> None:
    assert read_stack(stack.directory) == stack


def test_kv_holds_what_was_put(stack: Stack) -> None:
    env = LocalEnvironment(stack)
    env.kv_put({"test/one": '{"ä": 1}', "test/two": "Value not found"})
    assert env.kv_get("test/one") == '{"ä": 1}'
    assert env.kv_get("test/two") == "Value not found"
    assert env.kv_get("test/three") is None
    assert env.kv_names("test/") == {"test/one", "test/two"}


def test_d1_holds_a_row_once_whatever_its_texts_hold(stack: Stack) -> None:
    env = LocalEnvironment(stack)
    text = 'it\'s ä; BEGIN TRANSACTION; -- \n"?1" /*'
    insert = f"INSERT INTO proofs VALUES ({quote(text)}, 1)"
    assert env.d1(insert) == []
    assert env.d1(f"SELECT proof, until FROM proofs WHERE proof = {quote(text)}") == [
        {"proof": text, "until": 1}
    ]
    with pytest.raises(Conflict):
        env.d1(insert)


def test_a_taken_port_is_named_with_its_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = airgate("dev", "--dir", str(tmp_path / "s"), "--provider-port", str(port))
    assert done.returncode == 1
    assert f"Port {port} is taken" in done.stdout
    assert "--provider-port" in done.stdout


def test_a_second_stack_in_the_same_folder_is_refused_and_the_first_lives(stack: Stack) -> None:
    with (
        pytest.raises(StackError, match=r"runs in .* already"),
        LocalStack(stack.directory, ports=Ports(0, 0, 0)),
    ):
        pass
    assert read_stack(stack.directory) == stack
    assert httpx.get(stack.gate + "/-/health").status_code == 200


def test_a_start_that_fails_halfway_ends_what_it_started(tmp_path: Path) -> None:
    groups: list[int] = []

    def fail(started: Stack) -> None:
        groups.extend(process.pid for process in local.processes)
        raise StackError("no policy today")

    local = LocalStack(tmp_path, ports=Ports(0, 0, 0), publish=fail)
    with pytest.raises(StackError, match="no policy today"), local:
        pass
    assert len(groups) == 2
    assert all(map(group_is_gone, groups))


def test_a_process_that_cannot_start_is_named_with_its_log(tmp_path: Path) -> None:
    def take_the_gates_port(started: Stack) -> None:
        url = httpx.URL(started.gate)
        others.append(socket.create_server((url.host, url.port or 0)))

    others: list[socket.socket] = []
    local = LocalStack(tmp_path, ports=Ports(0, 0, 0), publish=take_the_gates_port)
    with (
        pytest.raises(
            StackError, match=r"(?s)The gate ended with status .*gate\.log.*Address already in use"
        ),
        local,
    ):
        pass
    others[0].close()
    assert local.processes == []


class Dev:
    """`airgate dev` in a folder of its own, started and ready."""

    def __init__(self, folder: Path) -> None:
        env = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "AIRGATE_DIR": str(folder)}
        self.file = folder / "stack.json"
        self.output = folder.parent / "output"
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [*AIRGATE, "dev"],
                cwd=PROJECT,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        assert wait_until(lambda: self.file.exists() or self.process.poll() is not None), (
            self.output.read_text()
        )
        self.stack = read_stack(folder)
        self.groups = [pid for name, pid in self.stack.pids.items() if name != "airgate"]

    def ended(self) -> int:
        """Its exit status; by then everything it started must be gone."""
        status = self.process.wait(30)
        assert len(self.groups) == 3
        assert all(map(group_is_gone, self.groups))
        assert not self.file.exists()
        return status


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    """A running `airgate dev`."""
    started = Dev(tmp_path / "stack")
    yield started
    started.process.terminate()
    started.process.wait(30)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_dev_ends_everything_when_it_is_told_to(dev: Dev, number: signal.Signals) -> None:
    assert httpx.get(dev.stack.gate + "/-/health").status_code == 200
    output = dev.output.read_text()
    for address in (dev.stack.gate, dev.stack.provider, dev.stack.sample, str(dev.stack.audit)):
        assert address in output
    assert output.count("curl ") == 3
    dev.process.send_signal(number)
    assert dev.ended() == 0


def test_dev_ends_and_says_why_when_a_child_dies(dev: Dev) -> None:
    os.killpg(dev.stack.pids["sample"], signal.SIGKILL)
    assert dev.ended() == 1
    output = dev.output.read_text()
    assert "The sample ended with status -9" in output
    assert f"listening on {dev.stack.sample}" in output


def test_deploying_uploads_every_module_of_src_and_nothing_else() -> None:
    cache = PROJECT / "src" / "__pycache__"
    cache.mkdir(exist_ok=True)  # what running the unit tests leaves there must not be uploaded
    stale = cache / "stale.cpython-311.pyc"
    stale.write_bytes(b"")
    try:
        done = airgate("deploy", "--dry-run", CLOUDFLARE_API_TOKEN="")
    finally:
        stale.unlink()
    assert done.returncode == 0, done.stderr
    listed = re.findall(r"^│ (\S+) +│ python", done.stdout, re.MULTILINE)
    others = {str(file.relative_to(PROJECT / "src")) for file in (PROJECT / "src").rglob("*.py")} - {
        "worker.py"
    }
    assert others
    assert sorted(listed) == sorted(others)
    assert f"Total ({len(others)} modules)" in done.stdout


def test_the_local_environment_is_never_deployed() -> None:
    done = airgate("deploy", "--env", "local", "--dry-run")
    assert done.returncode == 2
    assert "make dev" in done.stderr


def test_the_tour_passes() -> None:
    done = airgate("demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓") == 8
