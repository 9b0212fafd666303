"""``cluster-pool serve`` as a process, and WebSocket clients of it."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from cluster_pool.embedded import bound_to_parent

START_TIMEOUT = 20.0
STOP_TIMEOUT = 60.0
AT_ONCE = 100
"""Clients that connect at the same time."""


class Node:
    """A running node."""

    def __init__(self, process: asyncio.subprocess.Process, listening: dict[str, Any]) -> None:
        self.process = process
        self.port = int(listening["port"])
        self.pid = process.pid

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self.process.returncode is None:
            self.process.send_signal(number)

    def url(self, namespace: str, id: str) -> str:
        """Where a client connects."""
        return f"ws://127.0.0.1:{self.port}/ws/{namespace}?id={id}"

    async def clients(self, namespace: str, ids: list[str]) -> list[ClientConnection]:
        """Connect clients that read, and are never the first to close."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(id: str) -> ClientConnection:
            async with gate:
                return await connect(
                    self.url(namespace, id), compression=None, ping_interval=None, open_timeout=60
                )

        return await asyncio.gather(*[one(id) for id in ids])


@contextlib.asynccontextmanager
async def serving(redis: str, name: str, *options: str) -> AsyncIterator[Node]:
    """A node from its start until it is killed, if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *bound_to_parent([sys.executable, "-P", "-m", "cluster_pool", "serve", "--json"]),
        *("--port", "0", "--redis", redis, "--node-id", name, "--log-level", "error", *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT):
            line = await process.stdout.readline()
        yield Node(process, json.loads(line))
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        await process.wait()
