"""Signals to ``serve`` processes whose drain is under way, paused, over, or only announced."""

import asyncio
import signal

import pytest
from websockets.exceptions import InvalidStatus

from cluster_pool import DrainRefusedError, NodeState, Publisher
from tests.cluster.test_drain_faults import ONE_FLAVOUR
from tests.cluster.test_drain_processes import stopped
from tests.drains import Clients, peak_of
from tests.nodes import NodeProcess
from tests.servers import RedisServer
from tests.support import async_test, eventually


async def state_of(publisher: Publisher, node: str) -> NodeState | None:
    """The state of a node as the cluster sees it; None when it is not there."""
    return next((one.state for one in await publisher.nodes() if one.id == node), None)


async def becomes(publisher: Publisher, node: str, state: NodeState) -> None:
    """Wait until a node is in a state."""

    async def is_so() -> bool:
        return await state_of(publisher, node) is state

    await eventually(is_so)


@ONE_FLAVOUR
@pytest.mark.parametrize("paused", [False, True], ids=["draining", "paused"])
@async_test
async def test_sigterm_during_a_manual_drain(own_server: RedisServer, paused: bool) -> None:
    """The stop joins it, resumes it if it was paused, and closes evenly by its own deadline."""
    with (
        NodeProcess(own_server.url),
        NodeProcess(own_server.url, "--node-id", "a", "--grace", "4") as node,
    ):
        async with Clients() as clients, Publisher(own_server.url) as publisher:
            await clients.join(node, 60)
            await publisher.drain_node("a", 4, announce=0)
            await eventually(lambda: clients.closed)
            if paused:
                await publisher.pause_drain("a")
            node.signal(signal.SIGTERM)
            began = asyncio.get_running_loop().time()
            await clients.all_closed()
            (said,) = await stopped(node)
            assert clients.codes == {1012}
            assert "closing everyone who is left now" not in said
            assert "forced=0" in said
            assert clients.times[-1] - began < 4
            assert peak_of(clients.times, 0.5) <= clients.allowed(60 / 2, span=0.5) + 5


@ONE_FLAVOUR
@async_test
async def test_sigterm_during_a_long_announcement(own_server: RedisServer) -> None:
    """The stop announces no longer than its own grace allows."""
    with (
        NodeProcess(own_server.url),
        NodeProcess(own_server.url, "--node-id", "a", "--grace", "4") as node,
    ):
        async with Clients() as clients, Publisher(own_server.url) as publisher:
            await clients.join(node, 40)
            await publisher.drain_node("a", 1000, announce=3600)
            await becomes(publisher, "a", NodeState.ANNOUNCING)
            node.signal(signal.SIGTERM)
            await clients.all_closed()
            (said,) = await stopped(node)
            assert clients.codes == {1012}
            assert "closing everyone who is left now" not in said


@ONE_FLAVOUR
@async_test
async def test_sigterm_on_a_drained_node(own_server: RedisServer) -> None:
    """There is nothing left to drain, nor to announce: it ends."""
    with (
        NodeProcess(own_server.url),
        NodeProcess(own_server.url, "--node-id", "a", "--announce", "10") as node,
    ):
        async with Clients() as clients, Publisher(own_server.url) as publisher:
            await clients.join(node, 10)
            await publisher.drain_node("a", 100, announce=0)
            await becomes(publisher, "a", NodeState.DRAINED)
            await clients.all_closed()
            node.signal(signal.SIGTERM)
            (said,) = await stopped(node)
            assert said.count("drained:") == 1
            assert await state_of(publisher, "a") is None


@ONE_FLAVOUR
@async_test
async def test_a_second_signal_during_the_announcement(own_server: RedisServer) -> None:
    """It stops at once: everyone hears 1012, and nobody waits for anything."""
    with (
        NodeProcess(own_server.url),
        NodeProcess(
            own_server.url, "--node-id", "a", "--grace", "3600", "--announce", "1800"
        ) as node,
    ):
        async with Clients() as clients, Publisher(own_server.url) as publisher:
            await clients.join(node, 40)
            node.signal(signal.SIGTERM)
            await becomes(publisher, "a", NodeState.ANNOUNCING)
            assert not clients.closed
            node.signal(signal.SIGTERM)
            await clients.all_closed(15)
            (said,) = await stopped(node)
            assert clients.codes == {1012}
            assert "closing everyone who is left now" in said
            assert await state_of(publisher, "a") is None


@ONE_FLAVOUR
@async_test
async def test_ctrl_c_does_not_announce(own_server: RedisServer) -> None:
    """Newcomers are turned away from the first moment on, and it takes five seconds at most."""
    arguments = ("--close-rate", "1", "--grace", "3600", "--announce", "1800")
    with NodeProcess(own_server.url), NodeProcess(own_server.url, *arguments) as node:
        async with Clients() as clients:
            await clients.join(node, 40)
            node.signal(signal.SIGINT)
            began = asyncio.get_running_loop().time()
            await eventually(lambda: node.get("/readyz")[0] == 503)
            with pytest.raises(InvalidStatus) as caught:
                await node.connect("room", "late")
            assert caught.value.response.status_code == 503
            await clients.all_closed(15)
            (said,) = await stopped(node)
            assert "SIGINT: draining within 5 s" in said
            assert "forced=0" in said
            assert clients.codes == {1012}
            times = clients.times
            assert times[-1] - began < 15
            assert peak_of(times, 0.5) < 0.5 * len(times), "it was no drain"


@ONE_FLAVOUR
@async_test
async def test_a_drain_that_ends_in_a_stop_cannot_be_cancelled(own_server: RedisServer) -> None:
    """The process ends in any case: a cancel would only close everyone at once."""
    with (
        NodeProcess(own_server.url),
        NodeProcess(own_server.url, "--node-id", "a", "--announce", "0", "--grace", "4") as node,
    ):
        async with Clients() as clients, Publisher(own_server.url) as publisher:
            await clients.join(node, 40)
            node.signal(signal.SIGTERM)
            await eventually(lambda: clients.closed)
            with pytest.raises(DrainRefusedError, match="its process is ending"):
                await publisher.cancel_drain("a")
            await clients.all_closed()
            (said,) = await stopped(node)
            assert "cancelled=False" in said
            assert clients.codes == {1012}
