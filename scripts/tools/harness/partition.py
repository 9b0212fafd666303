"""Proxies between the servers of one Redis, by which one of them is cut off from all others."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Self

from tools.harness.ports import HOST
from tools.harness.proxy import Proxy


class Way(NamedTuple):
    """A port of a server: the one that it announces, and its own, perhaps the same."""

    server: int
    announced: int
    port: int


def address_of(server: int) -> str:
    """The address of loopback from which a server calls the others: its ``bind-source-addr``."""
    return f"127.0.0.{server + 2}"


class Partition:
    """The ways between servers, open until one is cut off: nothing reaches it, or leaves it.

    The proxies run in a thread of their own, so a caller may block. Links that were held back are
    reset when the ways are open again: their ends have given them up by then, and a message that
    came over one after all would come twice.

    Args:
        ways: every port at which a server is reached by others.
    """

    def __init__(self, ways: Sequence[Way]) -> None:
        self._wires = [_Wire(way, self._passes) for way in ways]
        self._cut_off: int | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        """Open the ways, unless they are."""
        if self._thread.is_alive():
            return self
        self._thread.start()
        for wire in self._wires:
            self._run(wire.__aenter__())
        return self

    def __exit__(self, *error: object) -> None:
        if self._thread.is_alive():
            for wire in self._wires:
                self._run(wire.__aexit__())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def cut_off(self, server: int | None) -> None:
        """Cut this server off from the others, or none."""
        self._cut_off = server
        for wire in self._wires:
            self._run(wire.look())

    def _passes(self, source: str, target: int) -> bool:
        away = self._cut_off
        return away is None or (target != away and source != address_of(away))

    def _run(self, work: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()


class _Wire(Proxy):
    """A proxy before one port; ``passes`` says whether links of an address to a server are open."""

    def __init__(self, way: Way, passes: Callable[[str, int], bool]) -> None:
        super().__init__((HOST, way.port))
        self.port = way.announced
        self._number = way.server
        self._passes = passes
        self._open: dict[str, asyncio.Event] = {}
        """By the address that links come from."""

    async def look(self) -> None:
        """Hold back the links of each address, or let them be made anew."""
        for source, gate in list(self._open.items()):
            if not self._passes(source, self._number):
                gate.clear()
            elif not gate.is_set():
                gate.set()
                await self.cut(source)

    def _gates(self, source: str) -> tuple[asyncio.Event, asyncio.Event]:
        if source not in self._open:
            self._open[source] = asyncio.Event()
            if self._passes(source, self._number):
                self._open[source].set()
        return self._open[source], self._open[source]
