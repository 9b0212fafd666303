"""Admission of newcomers in each state of a node, and what a failed claim leaves behind."""

import pytest

from cluster_pool import (
    ClusterPoolError,
    Connection,
    IdTakenError,
    NodeDrainingError,
    NodeState,
    PoolClosedError,
    SendResult,
)
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend
from tests.support import async_test


@async_test
async def test_newcomers_are_taken_while_the_node_is_active_or_announces() -> None:
    """In other states the error says which it is."""
    async with Backend(None).pools(1) as (one,):
        assert one._parts is not None
        life = one._parts.life
        for state in NodeState:
            life.state = state
            newcomer = Connection(state.value, "n", FakeWebSocket())
            if state in (NodeState.ACTIVE, NodeState.ANNOUNCING):
                await one.new_connection(newcomer)
                continue
            drains = state in (NodeState.DRAINING, NodeState.DRAINED)
            expected = NodeDrainingError if drains else PoolClosedError
            with pytest.raises(expected, match=f"node node-1 is {state.value}"):
                await one.new_connection(newcomer)
        life.state = NodeState.ACTIVE


@async_test
async def test_a_connection_that_was_refused_belongs_to_no_pool() -> None:
    """It may join again, under another rule; a member may not."""
    async with Backend(None).pools(1) as (one,):
        await one.host("n", "alice")
        newcomer = Connection("alice", "n", FakeWebSocket())
        with pytest.raises(IdTakenError):
            await one.new_connection(newcomer, on_conflict="reject", timeout=0.3)
        assert one._parts is not None
        assert one._parts.table.memberships_of(newcomer) == ()
        await one.new_connection(newcomer)
        with pytest.raises(ClusterPoolError, match="is a member already"):
            await one.new_connection(newcomer)
        await one.remove_connection(newcomer)
        assert await one.count("n") == 0


@async_test
async def test_a_member_of_one_pool_is_not_removed_at_another() -> None:
    """A removal there would end its inbound messages, and it would stay a member."""
    async with Backend(None).pools(2) as (one, two):
        alice = await one.host("n", "alice")
        connection = alice.connection  # type: ignore[attr-defined]
        with pytest.raises(ClusterPoolError, match="another pool"):
            await two.remove_connection(connection)
        assert await two.send("n", "alice", "hello", confirm=True) is SendResult.DELIVERED
        await one.remove_connection(connection)
        assert await one.count("n") == 0
