"""Many clients come and go at once: batches on the wire, and no long turn of the loop."""

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import uvloop

from cluster_pool import ClusterPool, Publisher, Timing
from cluster_pool.cluster.claim_batcher import GATHER
from cluster_pool.server import collector
from cluster_pool.server.node import NodeServer
from tests.servers import BINARIES, RedisServer
from tests.support import eventually, run_alone
from tools.harness.linux import too_few_descriptors
from tools.harness.programs import Program

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
CROWD = 5_000
MANNER = ("silent", "500")
"""The clients are silent, and so many handshakes are under way at once."""
OTHER_CALLS = 60
"""Heartbeats, probes, broadcasts, and calls of 100 claims or releases if more wait."""
ONE_SERVER = pytest.mark.parametrize("own_server", [next(iter(BINARIES))], indirect=True)
"""The node's loop is looked at, and the calls that it makes: any server will do."""
LONGEST_TURN = 0.15
"""Seconds of CPU. The aim is 0.05; three times that allows for slower machines."""


@pytest.fixture(autouse=True)
def settled_collector() -> Iterator[None]:
    """Python's collector, set as in a node's process; otherwise the test would measure it."""
    before, callbacks = gc.get_threshold(), list(gc.callbacks)
    collector.tune()
    try:
        yield
    finally:
        gc.callbacks[:] = callbacks
        gc.unfreeze()
        gc.set_threshold(*before)


class Turns:
    """The CPU time of the loop's turns, for which all other work had to wait."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        """Look once in a turn, and at most once in a millisecond."""
        while True:
            begun = time.thread_time()
            await asyncio.sleep(0.001)
            self.longest = max(self.longest, time.thread_time() - begun)


@contextlib.asynccontextmanager
async def turns() -> AsyncIterator[Turns]:
    """Watch the turns of the loop."""
    seen = Turns()
    watching = asyncio.create_task(seen.watch())
    try:
        yield seen
        await asyncio.sleep(0.01)  # the turn that is under way counts as well
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@contextlib.contextmanager
def in_batches(server: RedisServer) -> Iterator[None]:
    """Checks that a script runs for as many clients as gathered, and not for each."""
    before, begun = server.script_calls(), time.monotonic()
    yield
    calls = server.script_calls() - before
    assert calls <= (time.monotonic() - begun) / GATHER + OTHER_CALLS
    assert calls <= CROWD / 2


@contextlib.asynccontextmanager
async def crowded(server: RedisServer) -> AsyncIterator[tuple[ClusterPool, Program]]:
    """5,000 WebSockets that came as fast as they can: in batches, and with no long turn."""
    assert not too_few_descriptors(CROWD)
    async with ClusterPool(server.url, node_id="node-1", timing=Timing(timeout=20)) as pool:
        node = NodeServer(pool, port=0, ping_interval=600)  # the crowd answers nothing
        await node.start()
        try:
            with in_batches(server):
                async with turns() as coming:
                    crowd = await Program.start(
                        "tools.harness.crowd", str(node.port), "/ws/n", str(CROWD), *MANNER
                    )
            try:
                assert coming.longest < LONGEST_TURN
                assert await pool.count("n") == CROWD
                yield pool, crowd
            finally:
                await crowd.kill()
        finally:
            await node.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of descriptors is set there")
@ONE_SERVER
@pytest.mark.parametrize("loop", LOOPS)
def test_storm_of_clients_is_claimed_and_released_in_batches(
    own_server: RedisServer, loop: str
) -> None:
    """5,000 WebSockets come as fast as they can and end at once: few calls, no long turn."""

    async def test() -> None:
        async with crowded(own_server) as (pool, crowd):
            with in_batches(own_server):
                async with turns() as going:
                    await crowd.kill()
                    await eventually(lambda: not pool.has_namespace("n"), 30)
            assert going.longest < LONGEST_TURN
            assert await pool.count("n") == 0

    run_alone(test(), LOOPS[loop])


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of descriptors is set there")
@ONE_SERVER
@pytest.mark.parametrize("loop", LOOPS)
def test_clients_cut_off_during_a_broadcast_do_not_stall_the_node(
    own_server: RedisServer, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Unread messages make TCP reset each: all are gone, in batches, and nothing fails."""

    async def test() -> None:
        async with crowded(own_server) as (pool, crowd):
            with in_batches(own_server):
                await pool.broadcast_message("n", "nobody reads this")
                await eventually(lambda: pool.statistics()["delivered"] == CROWD, 30)
                killing = asyncio.create_task(crowd.kill())
                for _ in range(3):  # some are gone, some will be
                    await pool.broadcast_message("n", "nor this")
                await killing
                await eventually(lambda: not pool.has_namespace("n"), 30)
            assert await pool.count("n") == 0

    run_alone(test(), LOOPS[loop])
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of descriptors is set there")
@ONE_SERVER
@pytest.mark.parametrize("loop", LOOPS)
def test_node_stops_while_many_clients_leave(
    own_server: RedisServer, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection whose end waits for its turn is not written to; nothing stays behind."""

    async def test() -> None:
        async with crowded(own_server) as (pool, crowd):
            await pool.broadcast_message("n", "nobody reads this")
            await eventually(lambda: pool.statistics()["delivered"] == CROWD, 30)
            killing = asyncio.create_task(crowd.kill())
            await eventually(lambda: pool.statistics()["connections"] < CROWD)
        await killing
        async with Publisher(own_server.url) as publisher:
            assert await publisher.count("n") == 0

    run_alone(test(), LOOPS[loop])
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
