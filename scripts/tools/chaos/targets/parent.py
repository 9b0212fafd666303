"""The process that started the embedded server is killed."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tools.chaos.targets.members import until
from tools.chaos.targets.rows import Row

GONE = 1.0
PROGRAM = (
    "from cluster_pool.embedded import EmbeddedServer; import time;"
    "s = EmbeddedServer().start(); print(s.pid, flush=True); time.sleep(60)"
)


async def measure(*, times: int, tell: Callable[[str], None]) -> list[Row]:
    """From the SIGKILL until the server is gone."""
    tell("SIGKILL of the parent of an embedded Valkey")
    gone = [await _kill() for _ in range(times)]
    return [Row("SIGKILL of the parent of an embedded Valkey", "until it is gone", gone, GONE)]


async def _kill() -> float:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", PROGRAM), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    server = int(await parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    killed = time.monotonic()
    gone = await until(lambda: not _alive(server))
    await parent.wait()
    return gone - killed


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
