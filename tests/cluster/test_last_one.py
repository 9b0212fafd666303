"""The last-one callback, when the answer to a release is late, lost, or no longer the newest."""

import asyncio
import contextlib
from typing import Any

import pytest

from cluster_pool import BackplaneUnavailableError, Connection
from cluster_pool.testing import FAST
from tests.cluster.test_faults import abandon, vanish
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.proxy import Proxy

HOUR = 3600


async def release_unanswered(
    server: RedisServer, node: Pool, proxy: Proxy, connection: Connection, fired: list[str]
) -> asyncio.Task[None]:
    """Begin to remove the only member of ``hall``; Redis does it, and its answer is held back."""

    async def remove() -> None:
        with contextlib.suppress(BackplaneUnavailableError):
            await node.remove_connection(
                connection, lambda: fired.append(connection.id), timeout=0.5
            )

    proxy.hold(upwards=False, downwards=True)
    task = asyncio.create_task(remove())
    await eventually(lambda: server.command("EXISTS", "cluster_pool:{hall}:members") == ":0\r\n")
    return task


@async_test
async def test_it_fires_when_the_answer_was_lost_with_the_lease(own_server: RedisServer) -> None:
    """Others reap the node meanwhile; its retry, under a new lease, finds what its release did."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,), Proxy(own_server.path) as proxy:
        url = own_server.through(proxy.port)
        async with Pool(url, node_id="far", timing=FAST) as far:
            empty: list[str] = []
            fired: list[str] = []
            one.on("empty", empty.append)
            alice = await far.join("hall", "alice")
            await far.join("other", "bob")
            removing = await release_unanswered(own_server, far, proxy, alice.connection, fired)
            assert backend.keys()["cluster_pool:{hall}:emptied"] > HOUR * 1000
            await eventually(lambda: empty == ["other"], 30)
            proxy.hold()
            await proxy.cut()
            proxy.heal()
            await removing
            await eventually(lambda: far.ready, 30)
            await eventually(lambda: fired)
            await eventually(lambda: not backend.keys_of("emptied"))
            assert (fired, empty) == (["alice"], ["other"])


@async_test
async def test_each_release_that_emptied_it_fires(own_server: RedisServer) -> None:
    """Though another emptied the namespace again before the first had its answer."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,), Proxy(own_server.path) as proxy:
        url = own_server.through(proxy.port)
        async with Pool(url, node_id="far", timing=FAST) as far:
            fired: list[str] = []
            alice = await far.join("hall", "alice")
            removing = await release_unanswered(own_server, far, proxy, alice.connection, fired)
            for id in ("bob", "carol"):
                member = await one.join("hall", id)
                await one.remove_connection(member.connection, lambda id=id: fired.append(id))
            await proxy.cut()
            proxy.heal()
            await removing
            await eventually(lambda: len(fired) == 3)
            await eventually(lambda: not backend.keys_of("emptied"))
            assert fired == ["bob", "carol", "alice"]


@async_test
async def test_a_reaper_that_emptied_it_leaves_no_callback(own_server: RedisServer) -> None:
    """A release that never arrived emptied nothing: the hook of who reaped it tells, alone."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,), Proxy(own_server.path) as proxy:
        url = own_server.through(proxy.port)
        async with Pool(url, node_id="far", timing=FAST) as far:
            empty: list[str] = []
            fired: list[str] = []
            one.on("empty", empty.append)
            alice = await far.join("hall", "alice")
            (membership,) = alice.connection._memberships
            proxy.hold()
            with contextlib.suppress(BackplaneUnavailableError):
                await far.remove_connection(
                    alice.connection, lambda: fired.append("alice"), timeout=0.2
                )
            await eventually(lambda: empty, 30)
            await proxy.cut()
            proxy.heal()
            await eventually(lambda: far.ready, 30)
            await eventually(lambda: membership.departure.over.done())
            assert (fired, empty) == ([], ["hall"])


@pytest.mark.parametrize("others", [0, 1])
@async_test
async def test_a_reaper_whose_answer_is_lost_asks_again(
    own_server: RedisServer, others: int
) -> None:
    """Though another node has finished with the dead one meanwhile; it tells once, and alone."""
    backend = Backend(own_server)
    async with backend.pools(others) as rest, Proxy(own_server.path) as proxy:
        url = own_server.through(proxy.port)
        async with Pool(url, node_id="far", timing=FAST) as far:
            told: list[str] = []
            for pool in (far, *rest):
                pool.on("empty", told.append)
            for pool in rest:
                await pool._parts.reaper.stop()
            gone = Pool(own_server.url, node_id="gone", timing=FAST)
            await gone.start()
            await gone.join("hall", "bob")
            step = far._parts.reconciler._reaping._reap

            async def unheard(*arguments: Any) -> Any:
                far._parts.reconciler._reaping._reap = step  # type: ignore[method-assign]
                proxy.hold(upwards=False, downwards=True)
                return await step(*arguments)

            far._parts.reconciler._reaping._reap = unheard  # type: ignore[method-assign]
            await vanish(gone)
            members = "cluster_pool:{hall}:members"
            await eventually(lambda: own_server.command("EXISTS", members) == ":0\r\n", 30)
            for pool in rest:
                pool._parts.reaper.start()
                pool._parts.reaper.wake()
                await eventually(lambda: not backend.keys_of("dead"), 30)
            await proxy.cut()
            proxy.heal()
            await eventually(lambda: told, 30)
            await eventually(lambda: not backend.keys_of("emptied"))
            assert told == ["hall"]
            gone._parts.life.state = None  # type: ignore[assignment]  # it is gone: nothing to stop
            await abandon(gone)
