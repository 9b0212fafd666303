"""Clients that want the same id at the same time, at real nodes."""

import asyncio
import contextlib
import json
import signal
import socket

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cluster_pool import Publisher
from cluster_pool.core.takeovers import TOLERATED
from cluster_pool.server.node import NodeServer
from tests.clusters import Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.frames import request
from tools.harness.nodes import NodeProcess, close_code, in_thread
from tools.harness.proxy import Proxy

CLIENTS = 40


@async_test
async def test_exactly_one_of_many_clients_with_one_id_stays(own_server: RedisServer) -> None:
    """Every handshake succeeds, all but one are closed with 4409, on one node and on two."""
    with NodeProcess(own_server.url) as a, NodeProcess(own_server.url) as b:
        for nodes in ((a, a), (a, b)):
            room = f"room{len(set(nodes))}"
            clients = [await asyncio.gather(*[node.connect(room, "x") for node in nodes])]
            clients += [
                await asyncio.gather(*[nodes[n % 2].connect(room, "x") for n in range(CLIENTS)])
            ]
            everyone = [client for group in clients for client in group]
            ends = [asyncio.create_task(close_code(client)) for client in everyone]
            await eventually(lambda ends=ends: sum(end.done() for end in ends) == len(ends) - 1)
            assert {end.result() for end in ends if end.done()} == {4409}
            (last,) = [one for one, end in zip(everyone, ends, strict=True) if not end.done()]
            await last.close()
            await asyncio.gather(*ends)


@async_test
async def test_two_clients_that_fight_for_an_id_cost_little(own_server: RedisServer) -> None:
    """Both nodes slow the fight down, and log it in a line or two; no client is refused."""
    handshakes = 0

    async def fight(node: NodeProcess) -> None:
        nonlocal handshakes
        while True:
            async with node.connect("room", "alice") as client:
                handshakes += 1
                with contextlib.suppress(ConnectionClosed):
                    await client.recv()

    with NodeProcess(own_server.url, "--admin-port", "0") as a, NodeProcess(own_server.url) as b:
        fighting = [asyncio.create_task(fight(node)) for node in (a, b)]
        admin = a.listening["admin_port"]

        async def slowed() -> bool:
            _, status, _ = await in_thread(a.get, "/status", admin)
            return bool(json.loads(status)["delayed_claims"] >= 3)

        await eventually(slowed)
        before = handshakes
        await asyncio.sleep(1.5)  # in which hundreds would have come
        assert handshakes - before < 30
        assert not any(task.done() for task in fighting)
        for task in fighting:
            task.cancel()
        await asyncio.gather(*fighting, return_exceptions=True)
        a.signal(signal.SIGKILL)
        _, said = await in_thread(a.finish)
        assert said.count("taken over again and again") == 1


@async_test
async def test_client_that_leaves_while_its_claim_waits_takes_nothing(
    own_server: RedisServer,
) -> None:
    """Its TCP connection has ended at its turn: the owner stays, nothing is left."""
    async with Pool(own_server.url, node_id="one") as pool:
        node = NodeServer(pool, port=0)
        await node.start()
        try:
            for _ in range(TOLERATED + 4):
                owner = await pool.host("room", "alice")
            waited = pool.statistics()["delayed_claims"]
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", node.port)) as client:
                    client.sendall(request("/ws/room?id=alice"))
            await eventually(lambda: pool.statistics()["delayed_claims"] == waited + 5)
            await eventually(lambda: not pool._parts.ownership._pending)
            assert owner.closed is None
            assert await pool.count("room") == 1
        finally:
            await node.stop()


@async_test
async def test_client_of_a_dead_network_reconnects_at_once_under_reject(
    own_server: RedisServer,
) -> None:
    """Its old connection is silent and open, at this node or at another; its first attempt to come
    attempt to come back wins. Who is there and answers pings keeps its id."""
    reject = ("--on-conflict", "reject")
    with NodeProcess(own_server.url, *reject) as a, NodeProcess(own_server.url, *reject) as b:
        async with Proxy(("127.0.0.1", a.port)) as network, a.connect("room", "present"):
            for number, node in enumerate((a, b)):
                phone = f"phone{number}"
                url = f"ws://127.0.0.1:{network.port}/ws/room?id={phone}"
                stale = await connect(url, compression=None, ping_interval=None)
                network.strand()
                async with node.connect("room", phone) as back, Publisher(own_server.url) as out:
                    assert await out.send("room", phone, "hi", confirm=True)
                    assert await back.recv() == "hi"
                stale.transport.abort()
                with pytest.raises(InvalidStatus) as refused:
                    await node.connect("room", "present")
                assert refused.value.response.status_code == 409
