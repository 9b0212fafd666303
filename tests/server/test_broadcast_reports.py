"""Broadcasts with ``confirm`` over real processes: clients' receipts, and a node that is frozen."""

import asyncio
import signal

import pytest
from websockets.asyncio.client import connect

from cluster_pool import BroadcastReport, Publisher
from tests.frame_client import TEXT, FrameClient
from tests.server.running import node, url
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import NodeProcess

pytestmark = [
    pytest.mark.real,
    pytest.mark.parametrize("own_server", ["valkey", "cluster"], indirect=True),
]


@async_test
async def test_a_frozen_node_is_silent(own_server: RedisServer) -> None:
    """Its members are not counted, until it runs again."""
    with (
        NodeProcess(own_server.url, "--lease", "60", "--node-id", "one") as one,
        NodeProcess(own_server.url, "--lease", "60", "--node-id", "two") as two,
    ):
        async with (
            Publisher(own_server.url) as publisher,
            one.connect("room", "alice", ping_interval=None) as alice,
            two.connect("room", "bob") as bob,
        ):
            said = await publisher.broadcast_message("room", "1", confirm="client", timeout=20)
            assert said == BroadcastReport(2, received=2)
            one.signal(signal.SIGSTOP)
            for confirm in (True, "client"):
                said = await publisher.broadcast_message("room", "2", confirm=confirm)
                assert (said.nodes, said.silent) == (2, 1)
                assert said.delivered + said.received == 1
                assert not said.complete
            one.signal(signal.SIGCONT)
            said = await publisher.broadcast_message("room", "3", confirm=True, timeout=20)
            assert said == BroadcastReport(2, delivered=2)
            for client in (alice, bob):
                assert [await client.recv() for _ in range(4)] == ["1", "2", "2", "3"]


@async_test
async def test_a_client_that_answers_no_ping_has_timed_out(own_server: RedisServer) -> None:
    """At the deadline, or when it is lost; its node answers in time."""
    async with (
        node(own_server) as (pool, server),
        Publisher(own_server.url) as publisher,
        connect(url(server, "d")),
        FrameClient.connect(url(server, "c")) as silent,
    ):
        said = await publisher.broadcast_message("room", "1", confirm="client", timeout=4)
        assert said == BroadcastReport(1, received=1, timed_out=1)
        sent = asyncio.create_task(
            pool.broadcast_message("room", "2", confirm="client", timeout=60)
        )
        while await silent.until(TEXT) != b"2":
            pass
        silent.reset()
        assert await sent == BroadcastReport(1, received=1, timed_out=1)
