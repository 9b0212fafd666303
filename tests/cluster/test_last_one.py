"""The last-one callback, when the answer to a release is late, lost, or no longer the newest."""

import asyncio
import contextlib

from cluster_pool import BackplaneUnavailableError, Connection
from cluster_pool.testing import FAST
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.network import Network

HOUR = 3600


async def release_unanswered(
    server: RedisServer, node: Pool, proxy: Network, connection: Connection, fired: list[str]
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
async def test_the_callback_fires_when_the_answer_was_lost_with_the_lease(
    own_server: RedisServer,
) -> None:
    """Others reap the node; its retry, under a new lease, finds the result of its release."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,), own_server.network() as proxy:
        url = proxy.url
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
async def test_each_release_that_emptied_the_namespace_fires(own_server: RedisServer) -> None:
    """Another release emptied the namespace again before the first was answered."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,), own_server.network() as proxy:
        url = proxy.url
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
