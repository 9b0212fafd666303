"""Real ``cluster-pool serve`` processes for tests."""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect


class NodeProcess:
    """One node, started when entered and stopped by its pid when left."""

    def __init__(
        self,
        redis: str,
        *arguments: str,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        descriptors: tuple[int, int] | None = None,
    ) -> None:
        """``descriptors`` are its soft and its hard limit."""

        def limit() -> None:
            if descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, descriptors)

        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "cluster_pool", "serve", "--json", "--port", "0"),
                *("--redis", redis, *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            cwd=folder,
            preexec_fn=limit if descriptors else None,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the node did not start: {self.finish()}")
        self.listening: dict[str, Any] = json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.signal(signal.SIGKILL)
        self.finish()

    @property
    def port(self) -> int:
        return int(self.listening["port"])

    def url(self, namespace: str, id: str | None = None) -> str:
        query = "" if id is None else f"?id={id}"
        return f"ws://127.0.0.1:{self.port}/ws/{namespace}{query}"

    def connect(self, namespace: str, id: str | None = None, **options: Any) -> Any:
        """A client, as an async context manager."""
        return connect(self.url(namespace, id), compression=None, **options)

    def get(self, path: str, port: int | None = None) -> tuple[int, str, dict[str, str]]:
        """Status, body and headers of a plain GET."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port or self.port}{path}") as answer:
                return answer.status, answer.read().decode(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), dict(error.headers)

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)

    def finish(self, seconds: float = 40) -> tuple[int, str]:
        """Wait for its end; gives the exit status and what it said on standard error."""
        _, said = self.process.communicate(timeout=seconds)
        return self.process.returncode, said.decode()


async def in_thread(function: Any, *arguments: Any) -> Any:
    """Call what blocks without holding up the loop."""
    return await asyncio.to_thread(function, *arguments)


async def close_code(websocket: ClientConnection) -> int | None:
    """Wait until the other side has closed, and give its code."""
    await websocket.wait_closed()
    return websocket.close_code
