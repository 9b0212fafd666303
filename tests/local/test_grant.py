"""The identity of an open connection permits some joins, and expires."""

import time

import pytest

from cluster_pool import AuthenticationError, Connection, Identity, NotPermittedError
from cluster_pool.local import attachment
from cluster_pool.local.grant import Grant
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend
from tests.support import async_test


@async_test
async def test_a_connection_joins_what_its_identity_permits() -> None:
    alice = Identity(user="42", namespace="app", namespaces=["room:*"])
    async with (
        Backend(None).pools(1) as (pool,),
        pool.accept(FakeWebSocket(), id="tab", identity=alice) as connection,
    ):
        await connection.join("room:7")
        with pytest.raises(NotPermittedError, match="no namespace 'secrets'"):
            await connection.join("secrets")
        assert connection.namespaces == ("app", "room:7")


@async_test
async def test_a_connection_whose_identity_has_expired_joins_nothing() -> None:
    connection = Connection("alice", "n", FakeWebSocket())
    grant = Grant(Identity(expires=time.time() - 1), None)
    attachment.grant(connection, grant)
    assert grant.expired
    with pytest.raises(AuthenticationError, match="expired"):
        await connection.join("room:7")
