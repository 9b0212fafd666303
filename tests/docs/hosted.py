"""Programs of the pages in processes of their own."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from tests.asgi.servers import Server
from tests.support import eventually
from tools.harness.ports import accepts


@contextlib.asynccontextmanager
async def hosted(
    words: Sequence[str],
    folder: Path,
    port: int,
    up: Callable[[Server], bool] = lambda server: accepts(server.port),
) -> AsyncIterator[Server]:
    """A program of Python in a folder, killed at the end if it is still there.

    Args:
        up: whether it is ready for clients.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: ASYNC220  # it forks, and nothing else
            [sys.executable, *words],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        server = Server(process, port, log)

        def ready() -> bool:
            assert process.poll() is None, server.said()
            return up(server)

        try:
            await eventually(ready, 60)
            yield server
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
