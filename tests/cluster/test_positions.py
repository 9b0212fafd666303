"""How far members have received histories, and when that is stored."""

from typing import Any

import pytest

from cluster_pool import History
from cluster_pool.cluster import positions
from cluster_pool.cluster.positions import Accounts
from tests.clusters import Backend, Pool, connection_of
from tests.support import async_test, eventually

ROOM = "room"
ROOMS = {"room*": History()}


def accounts_of(pool: Pool) -> Accounts:
    return pool._parts.accounts


def stored(backend: Backend, pool: Pool) -> dict[str, int]:
    """The stored numbers by id."""
    with backend.sync_client() as client:
        found = client.hgetall(pool._parts.setup.keys.positions(ROOM))
    return {id.decode(): int(entry.split()[1]) for id, entry in found.items() if id}


@async_test
async def test_received_positions_are_stored(backend: Backend) -> None:
    """Once a second, and again for a member of which nothing was heard."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        websocket = await pool.host(ROOM, "alice")
        for number in range(3):
            await pool.broadcast_message(ROOM, str(number))
        await websocket.wait_sent(3)
        assert stored(backend, pool) == {"alice": 0}
        accounts = accounts_of(pool)
        account = accounts._accounts[connection_of(websocket)]
        await eventually(lambda: [one.number for one in account.written().values()] == [3])
        account.received(account.written())
        await eventually(lambda: stored(backend, pool) == {"alice": 3})
        with backend.sync_client() as client:
            client.delete(pool._parts.setup.keys.positions(ROOM))
        accounts._renew_at = 0
        await eventually(lambda: stored(backend, pool) == {"alice": 3})


@async_test
async def test_accounts_of_connections_that_are_gone_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Their last positions are kept for those that take the ids over, a bounded number of them."""
    monkeypatch.setattr(positions, "MOST_PARTED", 3)
    backend = Backend(None)
    async with backend.pools(1, history=ROOMS) as (pool,):
        accounts = accounts_of(pool)
        for number in range(10):
            websocket = await pool.host(ROOM, f"id-{number}")
            await pool.broadcast_message(ROOM, "text")
            await websocket.wait_sent(1)
            await connection_of(websocket).close()
        await eventually(lambda: not accounts._accounts and not accounts._due)
        assert len(accounts._parted) == 3
        assert (accounts._reached, accounts._evicted) == ({}, {})
        assert set(stored(backend, pool)) == {f"id-{number}" for number in range(10)}


@async_test
async def test_a_membership_that_ended_alone_leaves_the_account() -> None:
    """Its connection goes on in its home."""
    async with Backend(None).pools(1, history=ROOMS) as (pool,):
        connection = connection_of(await pool.host(ROOM, "alice"))
        accounts = accounts_of(pool)
        await connection.join("room-2")
        await connection.leave("room-2")
        await eventually(lambda: len(accounts._accounts[connection].has) == 1)


@async_test
async def test_redis_that_is_away_loses_no_position(backend: Backend) -> None:
    """It is stored when it can be."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        websocket = await pool.host(ROOM, "alice")
        await pool.broadcast_message(ROOM, "text")
        accounts, claims = accounts_of(pool), pool._parts.backplane.claims
        account = accounts._accounts[connection_of(websocket)]
        await eventually(lambda: [one.number for one in account.written().values()] == [1])
        store, tried = accounts._claims.store_positions, list[Any]()

        async def refused(*arguments: Any) -> None:
            tried.append(arguments)
            raise positions.BackplaneUnavailableError("no")

        claims.store_positions = refused  # type: ignore[method-assign]
        account.received(account.written())
        await eventually(lambda: len(tried) > 1)
        claims.store_positions = store  # type: ignore[method-assign]
        await eventually(lambda: stored(backend, pool) == {"alice": 1})
