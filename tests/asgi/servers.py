"""ASGI servers as processes, each with one worker, running :mod:`tests.asgi.app`."""

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import connect

from tests.support import eventually
from tools.harness.ports import HOST, free_port

APP = "tests.asgi.app:app"
PORT = "{port}"
UVICORN = ("uvicorn", APP, "--host", HOST, "--port", PORT, "--ws")
SERVERS: dict[str, tuple[str, ...]] = {
    "uvicorn websockets": (*UVICORN, "websockets"),
    "uvicorn websockets-sansio": (*UVICORN, "websockets-sansio"),
    "uvicorn wsproto": (*UVICORN, "wsproto"),
    "uvicorn ours": (*UVICORN, "cluster_pool.uvicorn:Protocol"),
    "hypercorn": ("hypercorn", APP, "--bind", f"{HOST}:{PORT}", "--error-logfile", "-"),
    "granian": ("granian", "--interface", "asgi", "--host", HOST, "--port", PORT, APP),
    "daphne": ("daphne", "-b", HOST, "-p", PORT, APP),
    "gunicorn": ("gunicorn", APP, "-k", "uvicorn_worker.UvicornWorker", "-b", f"{HOST}:{PORT}"),
    "gunicorn ours": ("gunicorn", APP, "-k", "tests.asgi.worker.Worker", "-b", f"{HOST}:{PORT}"),
}
NEEDS = {
    "uvicorn wsproto": "wsproto",
    "gunicorn": "uvicorn_worker",
    "gunicorn ours": "uvicorn_worker",
}


def installed(name: str) -> bool:
    """Whether a server is installed."""
    wanted = {SERVERS[name][0], NEEDS.get(name, SERVERS[name][0])}
    return all(importlib.util.find_spec(module) is not None for module in wanted)


class Server:
    """A running server."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Any) -> None:
        self.process = process
        self.port = port
        self._log = log

    def connect(self, path: str, **options: Any) -> Any:
        """A client, as an async context manager."""
        return connect(self.url(path), compression=None, proxy=None, **options)

    def url(self, path: str) -> str:
        """The URL of a WebSocket."""
        return f"ws://{HOST}:{self.port}{path}"

    async def get(self, path: str) -> Any:
        """The app's answer to a GET."""

        def ask() -> Any:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=20) as answer:
                return json.load(answer)

        return await asyncio.to_thread(ask)

    async def state(self) -> dict[str, Any]:
        """The states of its endpoints."""
        found: dict[str, Any] = await self.get("/state")
        return found

    def said(self) -> str:
        """All output of the process."""
        self._log.seek(0)
        text: str = self._log.read().decode()
        return text

    def complaints(self) -> list[str]:
        """Its log lines above INFO, and those of a traceback."""
        words = ("WARNING", "ERROR", "CRITICAL", "Traceback", "Exception")
        return [line for line in self.said().splitlines() if any(word in line for word in words)]

    async def ended(self) -> int:
        """Its exit status."""
        return await asyncio.to_thread(self.process.wait, 20)


@contextlib.asynccontextmanager
async def running(
    name: str, redis: str, *options: str, app: str = APP, **environment: str
) -> AsyncIterator[Server]:
    """A server of this name, killed at the end if it is still there."""
    async with contextlib.AsyncExitStack() as stack:
        server = None
        while server is None:
            context = _on(free_port(), name, redis, *options, app=app, **environment)
            with contextlib.suppress(PortTakenError):
                server = await stack.enter_async_context(context)
        yield server


class PortTakenError(Exception):
    """Another process has taken the port that was free."""


@contextlib.asynccontextmanager
async def _on(
    port: int, name: str, redis: str, *options: str, app: str, **environment: str
) -> AsyncIterator[Server]:
    words = [app if word == APP else word for word in SERVERS[name]]
    command = [*[word.replace(PORT, str(port)) for word in words], *options]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: ASYNC220  # it forks, and nothing else
            [sys.executable, "-m", *command],
            stdout=log,
            stderr=log,
            env={**os.environ, "REDIS": redis, **environment},
            start_new_session=True,
        )
        server = Server(process, port, log)

        async def up() -> bool:
            if process.poll() is not None:
                raise PortTakenError if "in use" in server.said() else AssertionError(server.said())
            with contextlib.suppress(OSError):
                return bool((await server.state())["ready"])
            return False

        try:
            await eventually(up, 30)
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
