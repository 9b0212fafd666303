"""Signals to ``serve`` processes whose drain is under way, paused, over, or only announced."""

import asyncio
import signal

import pytest
from websockets.exceptions import InvalidStatus

from cluster_pool import DrainRefusedError, NodeState, Publisher
from cluster_pool.testing import FAST
from tests.cluster.test_drain_faults import ONE_FLAVOUR
from tests.cluster.test_drain_processes import stopped
from tests.clusters import Backend, Pool
from tests.drains import Clients, peak_of
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess


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
async def test_sigterm_during_a_drain_by_order(own_server: RedisServer, paused: bool) -> None:
    """The stop joins the drain, resumes a paused one, and closes evenly by its own deadline."""
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
async def test_sigterm_shortens_a_long_announcement(own_server: RedisServer) -> None:
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
async def test_sigterm_ends_a_drained_node_at_once(own_server: RedisServer) -> None:
    """There is nothing left to drain, nor to announce."""
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
async def test_a_second_signal_during_the_announcement_stops_at_once(
    own_server: RedisServer,
) -> None:
    """Every member is closed with 1012, without further waiting."""
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
            node.signal(signal.SIGINT)
            await clients.all_closed(15)
            (said,) = await stopped(node)
            assert clients.codes == {1012}
            assert "closing everyone who is left now" in said
            assert await state_of(publisher, "a") is None


@ONE_FLAVOUR
@async_test
async def test_ctrl_c_does_not_announce(own_server: RedisServer) -> None:
    """Newcomers are refused from the first moment on, and it takes five seconds at most."""
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


@pytest.mark.slow
@ONE_FLAVOUR
@async_test
async def test_a_drain_that_ends_in_a_stop_cannot_be_cancelled(own_server: RedisServer) -> None:
    """The process ends in any case: a cancellation would only close everyone at once."""
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


@pytest.mark.slow
@ONE_FLAVOUR
@async_test
async def test_the_same_signal_twice_is_one_stop(own_server: RedisServer) -> None:
    """A supervisor may signal the group and then the process; a later repeat hurries the drain."""
    arguments = ("--close-rate", "2", "--grace", "3600", "--announce", "0")
    with NodeProcess(own_server.url), NodeProcess(own_server.url, *arguments) as node:
        async with Clients() as clients:
            await clients.join(node, 40)
            for _ in range(3):
                node.signal(signal.SIGTERM)
                await asyncio.sleep(0.2)
            await eventually(lambda: clients.closed)
            await asyncio.sleep(1.0)
            assert len(clients.closed) < 20
            await asyncio.sleep(2.0)
            node.signal(signal.SIGTERM)
            await clients.all_closed(15)
            (said,) = await stopped(node)
            assert said.count("SIGTERM: draining") == 1
            assert "closing everyone who is left now" in said
            assert clients.codes == {1012}


@ONE_FLAVOUR
@async_test
async def test_repeated_signals_until_the_process_ends_leave_status_0(
    own_server: RedisServer,
) -> None:
    """Also signals that come while the interpreter shuts down."""
    with NodeProcess(own_server.url, "--announce", "0") as node:
        while node.process.poll() is None:
            node.signal(signal.SIGTERM)
            await asyncio.sleep(0.002)
        assert node.finish()[0] == 0


@ONE_FLAVOUR
@pytest.mark.parametrize("others", [(signal.SIGINT,), (signal.SIGHUP,)], ids=["int", "hup"])
@async_test
async def test_a_different_signal_hurries_the_drain_at_any_time(
    own_server: RedisServer, others: tuple[int, ...]
) -> None:
    """No supervisor sends two kinds of signal for one stop."""
    arguments = ("--close-rate", "2", "--grace", "3600", "--announce", "0")
    with NodeProcess(own_server.url), NodeProcess(own_server.url, *arguments) as node:
        async with Clients() as clients:
            await clients.join(node, 40)
            for number in (signal.SIGTERM, *others):
                node.signal(number)
                await asyncio.sleep(0.2)
            await clients.all_closed(15)
            (said,) = await stopped(node)
            assert "closing everyone who is left now" in said
            assert clients.codes == {1012}


@ONE_FLAVOUR
@async_test
async def test_sighup_drains_as_sigterm_does(own_server: RedisServer) -> None:
    """A terminal that closes sends SIGHUP."""
    arguments = ("--close-rate", "20", "--announce", "0")
    with NodeProcess(own_server.url), NodeProcess(own_server.url, *arguments) as node:
        async with Clients() as clients:
            await clients.join(node, 40)
            node.signal(signal.SIGHUP)
            await clients.all_closed(15)
            (said,) = await stopped(node)
            assert "SIGHUP: draining within 25 s" in said
            assert "forced=0" in said
            assert clients.times[-1] - clients.times[0] > 0.5


@ONE_FLAVOUR
@async_test
async def test_a_signal_that_was_ignored_at_the_start_stays_ignored(
    own_server: RedisServer,
) -> None:
    """``nohup`` relies on it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a child inherits that
    try:
        node = NodeProcess(own_server.url, "--announce", "0")
    finally:
        signal.signal(signal.SIGHUP, before)
    with node:
        async with Clients() as clients:
            await clients.join(node, 4)
            node.signal(signal.SIGHUP)
            await asyncio.sleep(0.5)
            assert node.get("/readyz")[0] == 200
            node.signal(signal.SIGTERM)
            await clients.all_closed(30)
            await stopped(node)


@pytest.mark.slow
@ONE_FLAVOUR
@async_test
async def test_a_whole_cluster_that_stops_does_not_keep_the_pace(own_server: RedisServer) -> None:
    """No node is left to take the clients, so the stop does not take the whole grace of 25 s."""
    slow = ("--close-rate", "2")
    with (
        NodeProcess(own_server.url, *slow) as a,
        NodeProcess(own_server.url, *slow) as b,
        NodeProcess(own_server.url, *slow) as c,
    ):
        async with Clients() as clients:
            for node in (a, b, c):
                await clients.join(node, 30)
            began = asyncio.get_running_loop().time()
            for node in (a, b, c):
                node.signal(signal.SIGTERM)
            await clients.all_closed()
            for said in await stopped(a, b, c):
                assert "no node is left that takes newcomers, or will" in said
                assert "forced=0" in said
            assert clients.times[-1] - began < 20, "7 s are the target, 22 were the fault"
            assert clients.codes == {1012}


@pytest.mark.slow
@ONE_FLAVOUR
@async_test
async def test_a_stop_hurries_once_the_last_other_node_leaves(own_server: RedisServer) -> None:
    """The pace was kept for that node; it is not needed any more."""
    with (
        NodeProcess(own_server.url, "--close-rate", "0.5") as a,
        NodeProcess(own_server.url) as last,
    ):
        async with Clients() as clients:
            await clients.join(a, 40)
            a.signal(signal.SIGTERM)
            await eventually(lambda: clients.closed, 15)
            last.signal(signal.SIGTERM)
            await clients.all_closed()
            (said,) = await stopped(a)
            assert "no node is left that takes newcomers, or will" in said
            assert clients.codes == {1012}


@ONE_FLAVOUR
@async_test
async def test_a_grace_from_the_command_line_is_kept_by_the_last_node(
    own_server: RedisServer,
) -> None:
    """Its operator may know which nodes come next."""
    with NodeProcess(own_server.url, "--grace", "8") as node:
        async with Clients() as clients:
            await clients.join(node, 30)
            await asyncio.sleep(3.5)  # it has been alone for a heartbeat
            node.signal(signal.SIGTERM)
            await clients.all_closed()
            (said,) = await stopped(node)
            assert "SIGTERM: draining within 8 s" in said
            assert "no node is left" not in said
            assert clients.times[-1] - clients.times[0] > 3, "8 s, of which 2 are kept"


@async_test
async def test_a_node_without_redis_does_not_count_as_alone(own_server: RedisServer) -> None:
    """It was alone, but cannot know it any more: other nodes may have started."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,):
        assert await one.alone()
        await eventually(one.was_alone)
        async with Pool(backend.redis(), timing=FAST) as other:
            assert not await one.alone()
            await eventually(lambda: not one.was_alone())
            assert not await other.alone()
        await eventually(one.was_alone)
        own_server.kill()
        assert not await one.alone()
