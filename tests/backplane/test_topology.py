"""The shard of each namespace and key: there is only one."""

from types import SimpleNamespace
from typing import Any

from cluster_pool.backplane.topology import SingleTopology
from cluster_pool.core.keys import Keys
from tests.clusters import Backend
from tests.support import async_test


def test_a_namespace_and_its_keys_are_at_one_shard() -> None:
    """So are keys that belong to no namespace, while there is one shard."""
    shard: Any = SimpleNamespace(
        subscriptions=None, connected=None, script=None, publish=None, start=None, stop=None
    )
    keys = Keys()
    topology = SingleTopology(shard, keys)
    assert topology.of("room") is topology.of(keys.members("room")) is shard
    assert topology.of(keys.channel("room")) is topology.home is topology.of(keys.leases)


@async_test
async def test_the_generation_of_a_topology_is_the_one_that_commands_go_over() -> None:
    """Waiting for a generation gives the current one."""
    async with Backend(None).pools(1) as (one,):
        topology = one._parts.backplane.topology
        generation = await topology.connected(None)
        assert generation is topology.current
        assert generation.commands("any") is topology.home.commands
        assert generation.lasts
