"""Clients that never read: others are served, and a node that has such clients stops in time."""

import signal
import time

import pytest

from cluster_pool import Publisher, SendResult
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness import crowd
from tools.harness.nodes import NodeProcess, close_code, in_thread
from tools.harness.programs import program

pytestmark = pytest.mark.real

COUNT, GRACE = 100, 10.0
OPTIONS = ("--outbox-bytes", "65536", "--grace", f"{GRACE:g}", "--log-level", "error")
LARGE = "x" * 65536


@pytest.mark.slow
@async_test
async def test_clients_that_never_read_are_cut_and_hold_up_no_stop(own_server: RedisServer) -> None:
    """A client that reads gets every confirmed send; SIGTERM is obeyed in the grace."""
    with NodeProcess(own_server.url, "--node-id", "one", *OPTIONS) as node:
        stuck = ("tools.harness.crowd", str(node.port), "/ws/stuck", str(COUNT), crowd.STUCK)

        async with Publisher(own_server.url) as publisher, node.connect("room", "reads") as reader:

            async def fill() -> None:
                await publisher.broadcast_message("stuck", LARGE)
                sent = await publisher.send("room", "reads", "there?", confirm=True)
                assert sent is SendResult.DELIVERED
                assert await reader.recv() == "there?"

            async def cut() -> bool:
                await fill()
                return await publisher.count("stuck") == 0

            async with program(*stuck):
                await eventually(cut, 30)
            async with program(*stuck):
                await publisher.broadcast_message("stuck", LARGE)
                assert await publisher.count("stuck") == COUNT
                begun = time.monotonic()
                node.signal(signal.SIGTERM)
                assert await close_code(reader) == 1012
                status, said = await in_thread(node.finish)
                assert (status, said) == (0, "")
                assert time.monotonic() - begun < GRACE + 5
            assert await publisher.count("stuck") == 0
            assert [one async for one in publisher.members("stuck")] == []
            assert await publisher.nodes() == []
