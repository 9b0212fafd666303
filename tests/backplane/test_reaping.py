"""Data of a dead node are removed in small steps, on each kind of server."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cluster_pool.backplane.command_connection import ScriptCall
from cluster_pool.backplane.reaping import REAPED, Reaping
from cluster_pool.backplane.scripts import sources
from cluster_pool.backplane.topology import SingleTopology
from cluster_pool.backplane.upkeep import Upkeep
from cluster_pool.core.history import HistoryRules
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from tests.clusters import Backend

DEAD, LIVING = "dead", "living"


def fill(backend: Backend, keys: Keys, members: int) -> None:
    """A namespace ``n`` in which a dead incarnation has nine of ten members."""
    owners = [DEAD if at % 10 else LIVING for at in range(members)]
    claims = {f"member-{at}": f"{owner}:{at}:{at:x}" for at, owner in enumerate(owners)}
    with backend.sync_client() as client:
        client.hset(keys.members("n"), mapping=claims)
        client.hset(keys.owners("n"), mapping={name: owners.count(name) for name in set(owners)})
        client.hset(keys.owners("n"), mapping={f"{name}#": 0 for name in set(owners)})


@pytest.mark.parametrize("members", [2 * REAPED, 10_000])
def test_a_call_of_the_reaper_removes_no_more_than_it_may(backend: Backend, members: int) -> None:
    """HSCAN gives a small hash whole, and more than requested where a table shrinks."""
    keys = Keys(backend.prefix)
    fill(backend, keys, members)
    removed = []
    with backend.sync_client() as client:
        scripts = {name: client.register_script(text) for name, text in sources().items()}

        async def script(deadline: float, call: ScriptCall) -> Any:
            reply = scripts[call.name](call.keys, call.arguments)
            removed.append(reply[1])
            return reply

        shard: Any = SimpleNamespace(
            script=script, subscriptions=None, connected=None, publish=None, start=None, stop=None
        )
        topology = SingleTopology(shard, keys)
        identity = Identity(keys)
        upkeep = Upkeep(topology, keys, identity, HistoryRules(None, 3.0))
        reaping = Reaping(topology, keys, identity, upkeep)
        total, emptied = asyncio.run(reaping.clear("n", DEAD, "gone", 5.0, counted=True))
        left = client.hvals(keys.members("n"))
        assert (total, emptied) == (members - members // 10, False)
        assert len(left) == members // 10
        assert all(claim.startswith(b"living:") for claim in left)
        assert max(removed) <= REAPED
        assert set(client.hkeys(keys.owners("n"))) == {b"living", b"living#", b"events#", b"epoch#"}
        client.delete(keys.members("n"), keys.owners("n"))
