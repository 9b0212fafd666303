"""A state machine of random calls and faults on a cluster, against a model of the ownership.

``CLUSTER_POOL_EXAMPLES=500`` runs that many, at random, instead of the few that are always the
same.
"""

import asyncio
import itertools
import os
from typing import ClassVar
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from cluster_pool import Timing
from tests.cluster.machine.duels import Duels
from tests.cluster.machine.loop import ProcessLoop, VirtualLoop
from tests.cluster.machine.network import fake_network
from tests.cluster.machine.world import World
from tests.clusters import Backend
from tests.servers import RedisServer
from tools.harness.network import Network

SHORT = Timing(timeout=2.0, lease=1.5, heartbeat=0.4, probe=0.3, linger=0.1, close=1.0)
EXAMPLES = int(os.environ.get("CLUSTER_POOL_EXAMPLES", "0"))


def some_examples(examples: int, steps: int) -> settings:
    """The same ones every time, or as many as the environment asks for."""
    return settings(
        max_examples=EXAMPLES or examples,
        stateful_step_count=steps,
        derandomize=not EXAMPLES,
        database=None,
        print_blob=True,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


class OnFakeredis(Duels):
    """In virtual time, so that nothing depends on the speed of the machine."""

    def open(self) -> asyncio.Runner:
        starts = itertools.count()
        repeatable = mock.patch("cluster_pool.core.identity.new_start", lambda: f"s{next(starts)}")  # noqa: PT008  # each start has a name of its own
        self.stack.enter_context(repeatable)
        runner = self.stack.enter_context(asyncio.Runner(loop_factory=VirtualLoop))
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        self.stack.enter_context(loop.everywhere())
        self.world = World(Backend(None), fake_network)
        self.stack.callback(self.world.raw.close)
        return runner


def restart(world: World) -> None:
    """Redis is killed, and comes back empty."""
    assert world.backend.server is not None
    world.wiped()
    world.backend.server.kill()
    world.backend.server.start()


class OnServer(Duels):
    """In real time: what is due is late when the machine is slow, hence the patience."""

    server: RedisServer
    patience = 10.0
    recovery = 20.0
    longest_wait = 1.0
    punctual = False
    wounds: ClassVar = {**Duels.wounds, "restart": restart}

    def open(self) -> asyncio.Runner:
        runner = self.stack.enter_context(asyncio.Runner(loop_factory=ProcessLoop))
        self.world = World(Backend(self.server), network, timing=SHORT)
        self.world.raw.flushall()
        self.stack.callback(self.world.raw.close)
        return runner


async def network(backend: Backend) -> Network:
    """The network of one node on a real server, which serves at once."""
    made: Network = backend.server.network()
    return await made.__aenter__()


@pytest.mark.slow
def test_on_fakeredis() -> None:
    """Random calls and faults, in virtual time."""
    run_state_machine_as_test(OnFakeredis, settings=some_examples(30, 25))


def test_on_a_server(own_server: RedisServer) -> None:
    """The same in real time, with restarts of a real server."""
    machine = type("On" + own_server.flavour.title(), (OnServer,), {"server": own_server})
    run_state_machine_as_test(machine, settings=some_examples(3, 12))
