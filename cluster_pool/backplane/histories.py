"""Reads histories in pages, whose size is bounded in entries and bytes."""

from collections.abc import AsyncIterator
from typing import Final

from cluster_pool.backplane import history_calls
from cluster_pool.backplane.history_pages import PAGE, Page, page_in
from cluster_pool.backplane.topology import Topology
from cluster_pool.core.history import Position
from cluster_pool.core.keys import Keys

PAGE_BYTES: Final = 1024 * 1024
"""Bytes of a page, at which no more are added; the last entries may exceed it."""


class Histories:
    """Reads the histories of namespaces."""

    def __init__(self, topology: Topology, keys: Keys) -> None:
        self._topology = topology
        self._keys = keys

    async def position(self, namespace: str, deadline: float) -> Position:
        """The position of the last message; that of no epoch if no history is recorded."""
        return (await self._read(namespace, "+", True, 0, deadline)).position

    async def newest_first(self, namespace: str, most: int, deadline: float) -> AsyncIterator[Page]:
        """Pages from the last message back, the first with ``most`` entries at most.

        They end where the history has begun anew meanwhile.
        """
        start: str | None = "+"
        epochs: set[str] = set()
        while start is not None:
            page = await self._read(namespace, start, True, min(most, PAGE), deadline)
            epochs.add(page.position.epoch)
            if len(epochs) > 1:
                break
            start, most = page.more, PAGE
            yield page

    async def after(self, namespace: str, place: Position, deadline: float) -> AsyncIterator[Page]:
        """Pages from the message behind a place on, the oldest first."""
        start: str | None = f"{place.number + 1}-0"
        while start is not None:
            page = await self._read(namespace, start, False, PAGE, deadline)
            start = page.more
            yield page

    async def _read(
        self, namespace: str, start: str, newest_first: bool, most: int, deadline: float
    ) -> Page:
        call = history_calls.read_history(
            self._keys,
            namespace,
            start=start,
            newest_first=int(newest_first),
            most=most,
            most_bytes=PAGE_BYTES,
        )
        return page_in(await self._topology.script(deadline, call))
