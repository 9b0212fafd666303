"""5. Joins, leaves, and what a node tells about itself.

Every join and leave is an event that any node or publisher can watch. A node also calls *hooks*,
for what happens to itself.
"""

from cluster_pool import Connection, Member, MemberEvent, NodeState
from cluster_pool.testing import fake_cluster


async def test_joins_and_leaves_can_be_watched() -> None:
    """As they happen, on whichever node."""
    async with fake_cluster(nodes=2) as cluster:
        one, two = cluster
        async with one.watching("room") as events:
            alice, _ = await cluster.connect(1, "room", "alice")
            assert await anext(events) == MemberEvent("join", "alice", "node-2")

            await two.remove_connection(alice)
            assert await anext(events) == MemberEvent("leave", "alice", "node-2")


async def test_a_list_of_members_begins_with_reading_them() -> None:
    """Watch first, then read: a member that joins in between is in one of the two, or in both."""
    async with fake_cluster(nodes=2) as cluster:
        one, _ = cluster
        await cluster.connect(0, "room", "alice")
        async with one.watching("room") as events:
            members = {member.id async for member in one.members("room")}
            await cluster.connect(1, "room", "bob")
            event = await anext(events)
            # Besides "join" and "leave" there is "lost": read the members again.
            assert event.event == "join"
            members.add(event.id)
        assert members == {"alice", "bob"}


async def test_hooks_tell_what_happened_to_a_node() -> None:
    """There are "gap", "takeover", "slow_consumer", "state" and "empty"."""
    async with fake_cluster(nodes=2) as cluster:
        one, _ = cluster
        lost: list[str] = []
        states: list[NodeState] = []

        @one.on("takeover")
        def on_takeover(connection: Connection) -> None:
            lost.append(connection.id)

        one.on("state", states.append)

        _, older = await cluster.connect(0, "room", "alice")
        await cluster.connect(1, "room", "alice")
        await older.wait_closed()
        await one.stop()

    assert lost == ["alice"]
    assert states == [NodeState.STOPPED]


async def test_a_clean_stop_leaves_no_members() -> None:
    """A node that stops gives up what it owns; one that dies is cleared away after its lease."""
    async with fake_cluster(nodes=2) as cluster:
        one, two = cluster
        await cluster.connect(0, "room", "alice")
        _, bob = await cluster.connect(1, "room", "bob")

        await two.stop()

        assert await bob.wait_closed() == (1012, "node is stopping")  # 1012: come back elsewhere
        assert [member async for member in one.members("room")] == [Member("alice", "node-1")]
