"""Drains of real ``serve`` processes that are killed, frozen, stalled, or have too little time."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from cluster_pool import Publisher
from tests.cluster.test_drain_faults import ONE_FLAVOUR
from tests.drains import Clients, gap_of, peak_of
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, in_thread

FOREVER = ("--grace", "3600", "--announce", "0")


async def status_of(node: NodeProcess) -> dict[str, Any]:
    """The fields of ``/status``."""
    fields: dict[str, Any] = json.loads(
        (await in_thread(node.get, "/status", node.listening["admin_port"]))[1]
    )
    return fields


async def rates(publisher: Publisher) -> dict[str, float]:
    """Closes per second that each drainer may do."""
    return {drain.node: drain.rate for drain in await publisher.drains()}


async def shared(publisher: Publisher, rate: float) -> None:
    """Wait until two drainers have the whole budget, each a part of it."""

    async def is_so() -> bool:
        share = (await rates(publisher)).values()
        return len(share) == 2 and sum(share) > rate * 0.95 and max(share) < rate * 0.9

    await eventually(is_so)


async def stopped(*nodes: NodeProcess) -> list[str]:
    """Wait until all end with status 0; gives their logs."""
    ends = [await in_thread(node.finish) for node in nodes]
    assert [status for status, _ in ends] == [0] * len(nodes), ends
    return [said for _, said in ends]


@ONE_FLAVOUR
@async_test
async def test_a_killed_drainer_leaves_its_share_to_the_others(own_server: RedisServer) -> None:
    """Within four seconds the others close at the whole budget, and never faster together."""
    rate = 24
    with (
        NodeProcess(own_server.url),
        NodeProcess(own_server.url, "--close-rate", str(rate), *FOREVER, "--node-id", "a") as a,
        NodeProcess(own_server.url, "--close-rate", str(rate), *FOREVER, "--node-id", "b") as b,
    ):
        async with Clients() as of_a, Clients() as of_b, Publisher(own_server.url) as publisher:
            await of_a.join(a, 100)
            await of_b.join(b, 200)
            a.signal(signal.SIGTERM)
            b.signal(signal.SIGTERM)
            await shared(publisher, rate)
            drained = list(of_a.times)
            a.signal(signal.SIGKILL)
            killed_at = asyncio.get_running_loop().time()

            async def whole() -> bool:
                return (await rates(publisher)).get("b", 0) >= rate * 0.99

            await eventually(whole, 12)
            assert asyncio.get_running_loop().time() - killed_at > 1, "a lease was not respected"
            seen = len(of_b.times)
            await eventually(lambda: len(of_b.times) > seen + rate // 2)
            b.signal(signal.SIGTERM)
            await stopped(b)
            ours = [time for time in of_b.times if time <= of_b.times[seen + rate // 2]]
            lag = max(of_a.lag, of_b.lag)
            assert peak_of(drained + ours) <= 1.10 * rate * (1 + lag) + 3


@pytest.mark.slow
@ONE_FLAVOUR
@async_test
async def test_a_drainer_that_is_frozen_and_thawed_does_not_catch_up(
    own_server: RedisServer,
) -> None:
    """It stands still for five seconds; the others use its share meanwhile."""
    rate = 24
    with (
        NodeProcess(own_server.url),
        NodeProcess(own_server.url, "--close-rate", str(rate), *FOREVER, "--node-id", "a") as a,
        NodeProcess(own_server.url, "--close-rate", str(rate), *FOREVER, "--node-id", "b") as b,
    ):
        async with Clients() as of_a, Clients() as of_b, Publisher(own_server.url) as publisher:
            await of_a.join(a, 60)
            await of_b.join(b, 200)
            a.signal(signal.SIGTERM)
            b.signal(signal.SIGTERM)
            await shared(publisher, rate)
            a.signal(signal.SIGSTOP)
            stopped_at = asyncio.get_running_loop().time()
            await asyncio.sleep(5)  # longer than its lease lasts
            seen = len(of_a.times)
            a.signal(signal.SIGCONT)
            await eventually(lambda: len(of_a.times) > seen + 5)
            ours = list(of_a.times)
            times = ours + of_b.times
            for node in (a, b):
                node.signal(signal.SIGTERM)
            await stopped(a, b)
            assert of_a.codes == of_b.codes == {1012}
            assert peak_of(times) <= 1.10 * rate * (1 + max(of_a.lag, of_b.lag)) + 3
            assert gap_of([stopped_at, *ours]) > 4.5
            assert gap_of(times) < 1.5, "the others stalled, too"


@pytest.mark.slow
@ONE_FLAVOUR
@async_test
async def test_a_stalled_event_loop_is_not_made_up_for_by_a_burst(
    own_server: RedisServer, tmp_path: Path
) -> None:
    """A handler blocks the loop for a second; the closes that it delayed come at the usual rate."""
    rate = 40
    (tmp_path / "stalling.py").write_text(
        "import time\n"
        "async def handler(pool, connection):\n"
        "    async for message in connection:\n"
        "        time.sleep(float(message))\n"
    )
    with (
        NodeProcess(own_server.url),
        NodeProcess(
            *(own_server.url, "--close-rate", str(rate), *FOREVER, "--app", "stalling:handler"),
            folder=tmp_path,
        ) as node,
    ):
        async with Clients() as clients:
            await clients.join(node, 100)
            node.signal(signal.SIGTERM)
            await eventually(lambda: len(clients.times) > 20)
            await clients.say("1.0")
            await clients.all_closed()
            await stopped(node)
            assert clients.codes == {1012}
            assert gap_of(clients.times) > 0.9
            assert peak_of(clients.times) <= clients.allowed(rate)
            assert peak_of(clients.times, 0.2) <= 0.06 * rate + clients.allowed(rate, span=0.2)


@ONE_FLAVOUR
@async_test
async def test_a_deadline_too_short_for_the_budget(own_server: RedisServer) -> None:
    """The deadline is kept, evenly and without force; log, counter and progress report it."""
    arguments = ("--close-rate", "10", "--grace", "4", "--admin-port", "0")
    with NodeProcess(own_server.url), NodeProcess(own_server.url, *arguments) as node:
        async with Clients() as clients:
            await clients.join(node, 60)
            node.signal(signal.SIGTERM)
            began = asyncio.get_running_loop().time()
            status: dict[str, Any] = {}

            async def over() -> bool:
                status.update(await status_of(node))
                return bool(status["drain"] and status["drain"]["over_budget"])

            await eventually(over)
            assert status["drains_over_budget"] == 1
            assert status["drain"]["needed"] > status["drain"]["budget"] == 10
            await clients.all_closed()
            (said,) = await stopped(node)
            assert "over the budget of 10: they are kept" in said
            assert "forced=0" in said
            assert "over_budget=True" in said
            assert clients.codes == {1012}
            times = clients.times
            assert times[-1] - began < 4
            mean = len(times) / (times[-1] - times[0])
            assert peak_of(times) <= 1.3 * mean * (1 + clients.lag) + 2


@ONE_FLAVOUR
@async_test
async def test_all_nodes_stop_together(own_server: RedisServer) -> None:
    """No node is left to take the clients: they are closed evenly by the deadline."""
    arguments = ("--grace", "4", "--announce", "0.5")
    with (
        NodeProcess(own_server.url, *arguments) as a,
        NodeProcess(own_server.url, *arguments) as b,
        NodeProcess(own_server.url, *arguments) as c,
    ):
        async with Clients() as clients:
            for node in (a, b, c):
                await clients.join(node, 40)
            began = asyncio.get_running_loop().time()
            for node in (a, b, c):
                node.signal(signal.SIGTERM)
            await clients.all_closed()
            for said in await stopped(a, b, c):
                assert "forced=0" in said
            assert clients.codes == {1012}
            times = clients.times
            assert times[0] - began >= 0.45, "closed while it was announced"
            assert times[-1] - began < 4 + 2
            mean = len(times) / (times[-1] - times[0])
            assert peak_of(times) <= 1.3 * mean * (1 + clients.lag) + 3
