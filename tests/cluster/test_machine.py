"""A state machine over all that may happen to a cluster, against a model of who owns what.

``CLUSTER_POOL_EXAMPLES=500`` runs that many, at random, instead of the few that are always the
same.
"""

import asyncio
import itertools
import os
from unittest import mock

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from cluster_pool.testing import FAST
from tests.cluster.machine.loop import VirtualLoop
from tests.cluster.machine.network import FakeNetwork
from tests.cluster.machine.rules import Rules
from tests.cluster.machine.world import World
from tests.clusters import Backend

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


class OnFakeredis(Rules):
    """In virtual time, so that nothing depends on the speed of the machine."""

    def open(self) -> asyncio.Runner:
        starts = itertools.count()
        repeatable = mock.patch("cluster_pool.cluster.sender.new_start", lambda: f"s{next(starts)}")  # noqa: PT008  # each start has a name of its own
        self.stack.enter_context(repeatable)
        runner = self.stack.enter_context(asyncio.Runner(loop_factory=VirtualLoop))
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        self.stack.enter_context(loop.everywhere())
        self.world = World(Backend(None), FAST, fake_network)
        self.stack.callback(self.world.raw.close)
        return runner


async def fake_network(backend: Backend) -> FakeNetwork:
    """The network of one node on fakeredis."""
    assert backend.fake is not None
    return FakeNetwork(backend.fake)


def test_on_fakeredis() -> None:
    """Whatever happens, in whatever order."""
    run_state_machine_as_test(OnFakeredis, settings=some_examples(30, 25))
