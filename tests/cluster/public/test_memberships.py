"""Joins, leaves and removals as a user's program calls them, with an event loop or without."""

from cluster_pool import Publisher, SendResult, SyncPublisher
from tests.clusters import Backend, connection_of
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import in_thread


@async_test
async def test_a_pool_and_a_publisher_have_the_same_calls(backend: Backend) -> None:
    """A joined membership may name the connection, too."""
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        alice = await one.host("app", "alice")
        assert await publisher.join("app", "alice", "room", as_id="al") is SendResult.DELIVERED
        assert await one.leave("room", "al", "room") is SendResult.DELIVERED
        assert await publisher.remove_all("nowhere") == 0
        assert connection_of(alice).namespaces == ("app",)


@async_test
async def test_a_sync_publisher_waits_for_the_answers(own_server: RedisServer) -> None:
    """As in a view or a worker, in a thread without an event loop."""
    backend = Backend(own_server)

    def use() -> None:
        with SyncPublisher(own_server.url, prefix=backend.prefix) as publisher:
            assert publisher.join("app", "alice", "room") is SendResult.DELIVERED
            assert publisher.count("room") == 1
            assert publisher.leave("app", "alice", "room") is SendResult.DELIVERED
            assert publisher.count("room") == 0
            assert publisher.remove_all("app") == 1

    async with backend.pools(1) as (one,):
        alice = await one.host("app", "alice")
        await in_thread(use)
        assert await alice.wait_closed() == (1000, "")


def test_both_publishers_name_them_alike() -> None:
    """The asynchronous calls of the one block in the other."""
    for name in ("join", "leave", "remove_all"):
        assert hasattr(Publisher, name)
        assert hasattr(SyncPublisher, name)
