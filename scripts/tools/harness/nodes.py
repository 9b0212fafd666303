"""Real ``cluster-pool serve`` processes."""

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
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


class Fleet:
    """Nodes, each of which can be replaced by a new process on the same ports."""

    def __init__(
        self,
        redis: str,
        names: Sequence[str],
        stack: contextlib.ExitStack,
        *options: str,
        folder: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._redis = redis
        self._stack = stack
        self._options = options
        self._folder = folder
        self._environment = environment
        self.nodes = {name: self._start(name, 0, 0) for name in names}

    def _start(self, name: str, port: int, agent: int) -> NodeProcess:
        ports = ("--port", str(port), "--agent-port", str(agent))
        words = ("--node-id", name, *ports, *self._options)
        node = NodeProcess(self._redis, *words, folder=self._folder, environment=self._environment)
        return self._stack.enter_context(node)

    def agent_port(self, name: str) -> int:
        """Where HAProxy asks how it is."""
        return int(self.nodes[name].listening["agent_port"])

    @property
    def addresses(self) -> list[tuple[int, int]]:
        """Port and agent port of each."""
        return [(node.port, self.agent_port(name)) for name, node in self.nodes.items()]

    async def replace(
        self, name: str, watch: Callable[[str], None] | None = None, seconds: float = 40
    ) -> None:
        """SIGTERM, wait for a clean end, start anew; ``watch`` is called all the while."""
        old, ports = self.nodes[name], (self.nodes[name].port, self.agent_port(name))
        old.signal(signal.SIGTERM)
        async with asyncio.timeout(seconds):
            while old.process.poll() is None:
                if watch is not None:
                    await in_thread(watch, name)
                await asyncio.sleep(0.01)
        status, said = await in_thread(old.finish)
        assert status == 0, said
        await in_thread(self.start_again, name, *ports)

    def start_again(self, name: str, port: int, agent_port: int) -> None:
        """Start a node that has ended, on these ports."""
        self.nodes[name] = self._start(name, port, agent_port)


async def in_thread(function: Any, *arguments: Any) -> Any:
    """Call what blocks without holding up the loop."""
    return await asyncio.to_thread(function, *arguments)


async def close_code(websocket: ClientConnection) -> int | None:
    """Wait until the other side has closed, and give its code."""
    await websocket.wait_closed()
    return websocket.close_code
