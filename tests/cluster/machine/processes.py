"""The nodes of a small cluster, as processes that may be frozen, cut off and killed, and time."""

import asyncio
import itertools
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cluster_pool.core.keys import Keys
from tests.cluster.machine.loop import Process
from tests.clusters import Backend, Pool


@dataclass(eq=False, repr=False)
class Node:
    """A node that runs, is frozen, or has ended."""

    name: str
    network: Any
    process: Process
    pool: Pool
    ended: float = math.inf
    """When it stopped or crashed."""

    def __repr__(self) -> str:
        return self.name

    @property
    def alive(self) -> bool:
        return self.ended == math.inf

    @property
    def running(self) -> bool:
        return self.alive and not self.process.frozen


N = TypeVar("N", bound=Node)


@dataclass(eq=False)
class Processes(Generic[N]):
    """``network(backend)`` makes a network for one node; without ``troubles`` all is calm."""

    backend: Backend
    network: Callable[[Backend], Coroutine[Any, Any, Any]]
    nodes: list[N] = field(default_factory=list)
    troubles: set[str] = field(default_factory=set)
    under_way: set[asyncio.Task[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.keys = Keys(self.backend.prefix)
        self.raw = self.backend.sync_client()
        self._numbers = itertools.count()

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def calm(self) -> bool:
        return not self.troubles

    @property
    def alive(self) -> list[N]:
        return [node for node in self.nodes if node.alive]

    @property
    def running(self) -> list[N]:
        return [node for node in self.nodes if node.running]

    async def disturb(self, node: N, how: str) -> None:
        """It stands still or loses Redis: freeze, cut, refuse, hold, hold down, hold up."""
        if how == "freeze":
            node.process.freeze()
        elif how in ("cut", "refuse"):
            await getattr(node.network, how)()
        else:
            node.network.hold(upwards=how != "hold down", downwards=how != "hold up")

    async def mend(self, node: N) -> None:
        """End every fault of a node that goes on."""
        await node.network.accept()
        node.network.heal()
        node.process.thaw()

    def _begin(self, node: N, work: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        task = node.process.spawn(work)
        task.set_name(name)
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)
        return task

    async def within(self, seconds: float, *tasks: asyncio.Task[Any]) -> None:
        """Wait for tasks that must end by then, with any result."""
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            assert not late, f"not within {seconds} s: {late}"

    async def until(self, holds: Callable[[], str], seconds: float) -> None:
        """Wait until ``holds()`` has nothing to object."""
        end, pause = self.now + seconds, 0.001
        while objection := holds():
            assert self.now < end, f"still after {seconds} s: {objection}"
            await asyncio.sleep(pause)
            pause = min(pause * 2, seconds / 20)
