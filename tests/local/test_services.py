"""The flusher: outboxes filled in one tick are written once, at its end."""

import asyncio

from cluster_pool.local.services import Flusher, LooseFlusher
from tests.support import async_test


@async_test
async def test_outboxes_filled_in_one_tick_are_written_together() -> None:
    """In order, once; one filled during the write is written in the next tick."""
    written: list[list[str]] = []

    def write(connections: list[str]) -> None:
        written.append(connections)
        if connections == ["a", "b", "c"]:
            flusher.add("d")

    flusher = Flusher(write)
    flusher.add("a")
    flusher.add_all(["b", "c"])
    flusher.add_all([])
    assert written == []
    await asyncio.sleep(0)
    assert written == [["a", "b", "c"]]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert written == [["a", "b", "c"], ["d"]]


def test_connections_without_a_pool_are_written_by_their_own_loop() -> None:
    """A loop that never runs again keeps no outbox of another."""
    written: list[list[str]] = []
    flusher = LooseFlusher(written.append)

    async def add(name: str) -> None:
        flusher.add(name)

    stopped = asyncio.new_event_loop()
    stopped.run_until_complete(add("never"))
    stopped.close()
    written.clear()

    async def main() -> None:
        flusher.add("here")
        await asyncio.sleep(0)
        assert written == [["here"]]

    asyncio.run(main())
