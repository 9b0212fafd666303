"""Queries about members, nodes and namespaces of the cluster."""

from cluster_pool import (
    Member,
)
from tests.clusters import Backend
from tests.support import async_test


@async_test
async def test_count_members_namespaces_nodes_locate(backend: Backend) -> None:
    """Counts, members, namespaces, nodes and locations are the same from everywhere."""
    async with backend.pools() as (one, two), backend.publisher() as publisher:
        for at in range(1200):
            await (one if at % 2 else two).host("big", f"m{at}")
        await one.host("small", "alice:with/odd €")
        for sender in (one, two, publisher):
            assert await sender.count("big") == 1200
            assert await sender.count("nothing") == 0
            members = [member async for member in sender.members("big")]
            assert {member.id for member in members} == {f"m{at}" for at in range(1200)}
            assert {member.node for member in members} == {"node-1", "node-2"}
            assert await sender.namespaces() == ["big", "small"]
            assert [node.id for node in await sender.nodes()] == ["node-1", "node-2"]
            odd = await sender.locate("small", "alice:with/odd €")
            assert odd == Member("alice:with/odd €", "node-1")
            assert await sender.locate("small", "bob") is None


@async_test
async def test_watch_tells_joins_and_leaves(backend: Backend) -> None:
    """Events come in order, with ids that need escaping in JSON intact."""
    async with backend.pools() as (one, two):
        async with one.watching("n") as events:
            alice = await two.host("n", 'al"ice\\')
            await two.remove_connection(alice.connection)
            first, second = await anext(events), await anext(events)
        assert (first.event, first.id, first.node) == ("join", 'al"ice\\', "node-2")
        assert (second.event, second.id, second.node) == ("leave", 'al"ice\\', "node-2")
