"""Pages of a history, and what of them is within its bounds."""

from cluster_pool import History
from cluster_pool.backplane.histories import Histories
from cluster_pool.backplane.history_pages import Page
from cluster_pool.core.envelope import Header
from cluster_pool.core.history import Entry, Position
from tests.clusters import Backend
from tests.support import async_test


def test_messages_beyond_the_bounds_are_not_held() -> None:
    """The stream has more than the setting allows."""
    page = Page(Position("9", 50), History(messages=10, seconds=2), 10_000, [], None)

    def held(number: int, time: int = 9000) -> bool:
        return page.is_held(Entry(time, Header("9", 1, 1, "start", 1, number), b"", 0), number)

    assert held(50)
    assert held(41)
    assert not held(40)
    assert held(50, time=8000)
    assert not held(50, time=7999)


@async_test
async def test_pages_go_back_to_the_first_entry(backend: Backend) -> None:
    """The first has as many entries as were asked for; unreadable entries are left out."""
    async with backend.pools(1, history={"n": History()}) as (pool,):
        await pool.host("n", "alice")
        backplane = pool._parts.backplane
        histories = Histories(backplane.topology, backplane.setup.keys)
        deadline = backplane.loop.time() + 30
        (none,) = [page async for page in histories.newest_first("other", 5, deadline)]
        assert none.position == Position("", 0)
        assert none.entries == []
        for number in range(7):
            await pool.broadcast_message("n", str(number))
        with backend.sync_client() as client:
            client.xadd(backplane.setup.keys.history("n"), {"t": "1"}, id="8-0")
        pages = [page async for page in histories.newest_first("n", 5, deadline)]
        assert [[entry.header.position for entry in page.entries] for page in pages] == [
            [7, 6, 5, 4],
            [3, 2, 1],
        ]
        assert {page.position for page in pages} == {await histories.position("n", deadline)}
        assert pages[0].history == History()
