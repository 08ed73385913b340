"""A gigabyte each way: passed on as it comes, never held."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

MB = 1024 * 1024
GIGABYTE = 1024  # MB
MOST = 100  # MB that the gate may grow by meanwhile

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


def resident(group: int) -> float:
    """Megabytes of memory of the workerd in a process group."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if os.getpgid(int(folder.name)) == group and (folder / "comm").read_text() == "workerd\n":
                    lines = (folder / "status").read_text().splitlines()
                    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
            except (OSError, StopIteration):
                continue  # it has ended
    raise AssertionError("no workerd runs there")


@contextmanager
def flat(group: int) -> Iterator[None]:
    before, peak, over = resident(group), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.05):
            peak = max(peak, resident(group))

    watcher = threading.Thread(target=watch)
    begun = time.monotonic()
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    print(f"{before:.0f} to {peak:.0f} MB in {time.monotonic() - begun:.1f} s")
    assert peak > 0, "too fast to look at"
    assert peak - before < MOST, f"grew from {before:.0f} to {peak:.0f} MB"


@needs_proc
@pytest.mark.parametrize("path", ["/patient", "/measured"])
def test_a_gigabyte_comes(lab: Any, path: str) -> None:
    lab.ask(f"{path}/x?play=source&n=8")
    with flat(lab.process.pid), lab.connected() as connection:
        head = f"GET {path}/x?play=source&n={GIGABYTE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        connection.sendall(f"{head}Authorization: Bearer {lab.token}\r\n\r\n".encode())
        buffer = bytearray(4 * MB)
        got = 0
        while count := connection.recv_into(buffer):
            got += count
    assert GIGABYTE * MB < got < GIGABYTE * MB + 2000


@needs_proc
@pytest.mark.parametrize("path", ["/patient", "/measured"])
def test_a_gigabyte_goes(lab: Any, path: str) -> None:
    piece = b"a" * (4 * MB)
    with flat(lab.process.pid), lab.connected() as connection:
        head = f"PUT {path}/x?play=sink HTTP/1.1\r\nHost: x\r\nContent-Length: {GIGABYTE * MB}\r\n"
        connection.sendall(f"{head}Authorization: Bearer {lab.token}\r\n\r\n".encode())
        for _ in range(GIGABYTE // 4):
            connection.sendall(piece)
        answer = lab.receive(connection)
    assert (answer.status, answer.body) == (200, str(GIGABYTE * MB).encode())


@needs_proc
def test_bodies_without_end_that_nobody_reads_are_not_held(lab: Any, hostile: Any) -> None:
    with flat(lab.process.pid):
        for number in range(5):
            with lab.connected() as connection:
                head = f"GET /plain/x?play=endless HTTP/1.1\r\nHost: x\r\nX-Call: endless-{number}\r\n"
                connection.sendall(f"{head}Authorization: Bearer {lab.token}\r\n\r\n".encode())
                assert connection.recv(1)
                time.sleep(0.3)  # the upstream sends as much as it can
        end = time.monotonic() + 5
        while not all(hostile.left.get(f"endless-{number}") for number in range(5)):
            assert time.monotonic() < end, "the upstream's connections stay open"
            time.sleep(0.05)
