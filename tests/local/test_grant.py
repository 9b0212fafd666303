"""The identity of an open connection permits some joins, and expires."""

import asyncio
import time
from typing import Any

import pytest

from cluster_pool import (
    Auth,
    AuthenticationError,
    ClusterPool,
    Connection,
    ConnectionClosedError,
    Identity,
    InvalidValueError,
    NotPermittedError,
    Request,
)
from cluster_pool.local import attachment
from cluster_pool.local.grant import Grant
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend
from tests.support import async_test, eventually


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


def identified(*identities: Identity) -> Auth:
    """Gives one of the identities after the other."""
    following = iter(identities)
    return Auth(authenticate=lambda request: next(following))


@async_test
async def test_a_renewal_leaves_what_only_the_former_identity_permits(backend: Backend) -> None:
    """A room that the application has joined for the connection is none of both."""
    narrow = Identity(user="42", namespace="app", namespaces=["room:8"])
    wide = Identity(user="42", namespace="app", namespaces=["room:*"])
    async with backend.pools(1, auth=identified(wide, narrow)) as (pool,):
        left: list[tuple[str, str]] = []
        async with pool.accept(FakeWebSocket(), id="tab") as connection:
            connection.on("left", lambda *of: left.append(of))
            await connection.join("room:7")
            await connection.join("room:8")
            assert await ClusterPool.join(pool, "app", "tab", "vip")  # type: ignore[arg-type]
            await connection.renew("token")
            assert connection.namespaces == ("app", "room:8", "vip")
            await eventually(lambda: left == [("room:7", "removed")])
            await eventually(lambda: has(pool, "room:7", 0))
            with pytest.raises(NotPermittedError):
                await connection.join("room:7")


@async_test
async def test_a_join_that_is_overtaken_by_a_renewal_is_undone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow = Identity(user="42", namespace="app")
    wide = Identity(user="42", namespace="app", namespaces=["room:*"])
    async with (
        Backend(None).pools(1, auth=identified(wide, narrow)) as (pool,),
        pool.accept(FakeWebSocket(), id="tab") as connection,
    ):
        claim = pool._parts.ownership.claim

        async def slow(*arguments: Any, **options: Any) -> None:
            await claim(*arguments, **options)
            await connection.renew("token")

        monkeypatch.setattr(pool._parts.ownership, "claim", slow)
        with pytest.raises(NotPermittedError):
            await connection.join("room:7")
        assert connection.namespaces == ("app",)
        await eventually(lambda: has(pool, "room:7", 0))


@async_test
async def test_a_closed_connection_is_not_renewed() -> None:
    """Its former token was revoked while the new one was looked at."""
    asked, goes_on = asyncio.Event(), asyncio.Event()

    async def authenticate(request: Request) -> Identity:
        asked.set()
        await goes_on.wait()
        return Identity()

    async with Backend(None).pools(1) as (pool,):
        connection = Connection("tab", "app", FakeWebSocket())
        grant = Grant(Identity(token_id="t"), Auth(authenticate=authenticate))
        attachment.grant(connection, grant)
        await pool.new_connection(connection)
        renewal = asyncio.create_task(connection.renew("token"))
        await asked.wait()
        await pool.revoke("t")
        goes_on.set()
        with pytest.raises(ConnectionClosedError, match="revoked"):
            await renewal


@async_test
async def test_a_token_that_is_no_str_is_refused() -> None:
    """A client may have sent it as JSON."""
    connection = Connection("alice", "n", FakeWebSocket())
    attachment.grant(connection, Grant(Identity(), identified()))
    for token in (5, None, b"x", ["x"], "a b", "é"):
        with pytest.raises(InvalidValueError, match="visible"):
            await connection.renew(token)  # type: ignore[arg-type]


async def has(pool: ClusterPool, namespace: str, members: int) -> bool:
    return await pool.count(namespace) == members
