"""A state machine of clients that go and come back, against what docs/history.md promises.

``CLUSTER_POOL_EXAMPLES=500`` runs that many, at random, instead of the few that are always the
same.
"""

import asyncio
import itertools
from unittest import mock

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.cluster.machine.loop import ProcessLoop, VirtualLoop
from tests.cluster.machine.network import fake_network
from tests.cluster.returns.rules import Rules
from tests.cluster.returns.world import World
from tests.cluster.test_machine import network, some_examples
from tests.clusters import Backend
from tests.servers import BINARIES, RedisServer


class OnFakeredis(Rules):
    """In virtual time, so that nothing depends on the speed of the machine."""

    def open(self) -> asyncio.Runner:
        starts = itertools.count()
        repeatable = mock.patch("cluster_pool.core.identity.new_start", lambda: f"s{next(starts)}")  # noqa: PT008  # each start has a name of its own
        self.stack.enter_context(repeatable)
        self.stack.enter_context(mock.patch("cluster_pool.local.receipts.MANY_MESSAGES", 3))
        runner = self.stack.enter_context(asyncio.Runner(loop_factory=VirtualLoop))
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        self.stack.enter_context(loop.everywhere())
        self.world = World(Backend(None), fake_network)
        return runner


class OnServer(Rules):
    """In real time, on a real server."""

    server: RedisServer
    virtual = False
    patience = 15.0

    def open(self) -> asyncio.Runner:
        self.stack.enter_context(mock.patch("cluster_pool.local.receipts.MANY_MESSAGES", 3))
        runner = self.stack.enter_context(asyncio.Runner(loop_factory=ProcessLoop))
        self.world = World(Backend(self.server), network)
        self.world.raw.flushall()
        return runner


@pytest.mark.slow
def test_on_fakeredis() -> None:
    """Random moves and faults, in virtual time."""
    run_state_machine_as_test(OnFakeredis, settings=some_examples(8, 20))


@pytest.mark.slow
@pytest.mark.parametrize("own_server", [*BINARIES], indirect=True)
def test_on_a_server(own_server: RedisServer) -> None:
    """The same in real time."""
    machine = type("On" + own_server.flavour.title(), (OnServer,), {"server": own_server})
    run_state_machine_as_test(machine, settings=some_examples(2, 8))
