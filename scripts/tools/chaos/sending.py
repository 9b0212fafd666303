"""The common parts of programs that send: streams, holdings, and logs."""

import asyncio
import gc
import logging
import os
from collections import Counter
from typing import Any

from cluster_pool import ClusterPool, Publisher
from tools.chaos.books import BROADCAST
from tools.chaos.caller import Caller
from tools.chaos.past_stream import PastStream
from tools.chaos.streams import DenseStream, SparseStream
from tools.harness.linux import resident_bytes
from tools.harness.obeying import tell


class Sending:
    """The commands that concern the streams of a program."""

    def __init__(self, sender: ClusterPool | Publisher, name: str) -> None:
        self._caller = Caller(sender, name)
        self._dense = DenseStream(self._caller, name)
        self._sparse = SparseStream(self._caller, name)
        self._past = PastStream(self._caller, name)

    async def begin(
        self,
        targets: list[tuple[str, str]],
        rate: float,
        namespaces: list[str],
        sparse_rate: float,
        large: int,
        past: list[tuple[str, str]],
        past_rate: float,
    ) -> None:
        """Begin the streams: the dense one to ``targets``, the sparse one over ``namespaces``, and
        that to the members with a ``past``."""
        self._dense.targets = targets
        self._dense.begin(rate)
        if namespaces:
            self._sparse.namespaces, self._sparse.large = namespaces, large
            self._sparse.begin(sparse_rate)
        if past:
            self._past.members = past
            self._past.begin(past_rate)

    async def end(self, namespaces: list[str]) -> dict[str, int]:
        """End them; gives the numbers of a last broadcast to the namespaces of the dense one."""
        await self._finish()
        return {name: await self._caller.call(BROADCAST, name) for name in namespaces}

    async def _finish(self) -> None:
        await self._dense.end()
        await self._sparse.end()
        await self._past.end()
        await self._caller.finish()

    async def _stop(self) -> None:
        """End the streams; every call must be answered, though its sender has stopped."""
        await self._finish()
        await self._caller.stop()

    def _held(self, connections: int) -> dict[str, Any]:
        """The holdings of this process beside its connections; tasks also by their coroutine."""
        gc.collect()
        tasks = Counter(getattr(one.get_coro(), "__qualname__", "?") for one in asyncio.all_tasks())
        return {
            "memory": resident_bytes(),
            "tasks": tasks.total() - connections,
            "running": tasks,
            "descriptors": len(os.listdir("/proc/self/fd")) - connections,
            "watched": self._caller.watched,
        }


def tell_left_over() -> None:
    """Report the tasks that go on in a program that has stopped."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        tell("left", sorted(one.get_name() for one in left))


class Telling(logging.Handler):
    """Tells what is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        """Tell the line, and the error that came with it."""
        error = record.exc_info[1] if record.exc_info else None
        tell("logged", [record.getMessage(), repr(error)])


def quiet() -> None:
    """Faults are no news here; what goes wrong by itself is, and is told and printed."""
    logging.captureWarnings(True)
    errors, warnings = logging.ERROR, logging.WARNING
    levels = {"cluster_pool": errors, "asyncio": errors, "py.warnings": warnings}
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(Telling())
        logger.addHandler(logging.StreamHandler())
