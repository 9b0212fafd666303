"""The public calls about connections, before a start and after a stop."""

import time

import pytest

from cluster_pool import (
    AuthenticationError,
    ClusterPool,
    Connection,
    Identity,
    InvalidMessageError,
    NotPermittedError,
    PoolClosedError,
)
from cluster_pool.local import attachment
from cluster_pool.local.grant import Grant
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend
from tests.support import async_test


@async_test
async def test_calls_on_a_pool_that_was_never_started_say_so() -> None:
    pool = ClusterPool()
    connection = Connection("alice", "n", FakeWebSocket())
    for call in (pool.new_connection, pool.remove_connection):
        with pytest.raises(PoolClosedError):
            await call(connection)
    with pytest.raises(PoolClosedError):
        pool.get_connection("n", "alice")
    with pytest.raises(PoolClosedError):
        async with pool.accept(FakeWebSocket(), namespace="n"):
            pass
    assert not pool.has_namespace("n")


@async_test
async def test_a_membership_may_be_ended_after_a_stop() -> None:
    """The node has released it already, so this does nothing; a newcomer is refused."""
    async with Backend(None).pools(1) as (pool,):
        connection = Connection("alice", "n", FakeWebSocket())
        await pool.new_connection(connection)
        assert pool.get_connection("n", "alice") is connection
        await pool.stop()
        await pool.remove_connection(connection)
        with pytest.raises(PoolClosedError):
            await pool.new_connection(connection)


@async_test
async def test_a_connection_whose_identity_has_expired_publishes_nothing() -> None:
    async with Backend(None).pools(1) as (pool,):
        connection = Connection("alice", "n", FakeWebSocket())
        assert await pool.publish_inbound(connection, "hello") == 0
        attachment.grant(connection, Grant(Identity(expires=time.time() - 1), None))
        with pytest.raises(AuthenticationError, match="expired"):
            await pool.publish_inbound(connection, "hello")


@async_test
async def test_a_message_is_published_from_a_member_that_has_not_expired() -> None:
    async with Backend(None).pools(1) as (pool,):
        socket = FakeWebSocket()
        connection = Connection("alice", "n", socket)
        with pytest.raises(NotPermittedError):
            await pool.publish_from(connection, "n", "hello")
        await pool.new_connection(connection)
        assert await pool.publish_from(connection, "n", "hello") == 1
        assert await socket.wait_sent(1) == ["hello"]
        with pytest.raises(NotPermittedError):
            await pool.publish_from(connection, "other", "hello")
        with pytest.raises(InvalidMessageError):
            await pool.publish_from(connection, "n", "\ud800")
        attachment.grant(connection, Grant(Identity(expires=time.time() - 1), None))
        with pytest.raises(AuthenticationError, match="expired"):
            await pool.publish_from(connection, "n", "hello")
