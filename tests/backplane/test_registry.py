"""The registry's scripts on each kind of server: what one call of them does at most."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cluster_pool.backplane.command_connection import ScriptCall
from cluster_pool.backplane.registry import REAPED, Registry
from cluster_pool.backplane.scripts import sources
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from tests.clusters import Backend

DEAD, LIVING = "dead", "living"


def fill(backend: Backend, keys: Keys, members: int) -> None:
    """A namespace ``n`` of which a dead incarnation has all members but each tenth."""
    owners = [DEAD if at % 10 else LIVING for at in range(members)]
    claims = {f"member-{at}": f"{owner}:{at}:{at:x}" for at, owner in enumerate(owners)}
    with backend.sync_client() as client:
        client.hset(keys.members("n"), mapping=claims)
        client.hset(keys.owners("n"), mapping={name: owners.count(name) for name in set(owners)})
        client.hset(keys.owners("n"), mapping={f"{name}#": 0 for name in set(owners)})


@pytest.mark.parametrize("members", [2 * REAPED, 10_000])
def test_a_call_of_the_reaper_removes_no_more_than_it_may(backend: Backend, members: int) -> None:
    """HSCAN gives a small hash whole, and many more than it is asked for where a table shrinks."""
    keys = Keys(backend.prefix)
    fill(backend, keys, members)
    removed = []
    with backend.sync_client() as client:
        scripts = {name: client.register_script(text) for name, text in sources().items()}

        async def script(deadline: float, call: ScriptCall) -> Any:
            reply = scripts[call.name](call.keys, call.arguments)
            removed.append(reply[1])
            return reply

        shard: Any = SimpleNamespace(script=script)
        registry = Registry(shard, keys, Identity(keys))
        total, emptied = asyncio.run(registry.clear("n", DEAD, "gone", 5.0, counted=True))
        left = client.hvals(keys.members("n"))
        assert (total, emptied) == (members - members // 10, False)
        assert len(left) == members // 10
        assert all(claim.startswith(b"living:") for claim in left)
        assert max(removed) <= REAPED
        assert set(client.hkeys(keys.owners("n"))) == {b"living", b"living#", b"events#", b"epoch#"}
        client.delete(keys.members("n"), keys.owners("n"))


def test_releases_that_emptied_a_namespace_are_remembered_in_bounds(backend: Backend) -> None:
    """Each is told again to its retry until it is heard of; the oldest of too many go."""
    keys = Keys(backend.prefix)
    names = [keys.members("n"), keys.owners("n"), keys.emptied("n"), keys.numbers("n")]
    with backend.sync_client() as client:
        release = client.register_script(sources()["release"])
        for at in range(120):
            client.hset(keys.members("n"), mapping={"x": f"a.0:{at}:{at}"})
            assert (
                release(names, ["events", "node", "y", "a.0:1:no", "x", f"a.0:{at}:{at}"]) == b"02"
            )
        assert client.hlen(keys.emptied("n")) == 100
        retry = [part for at in (0, 119, 60) for part in ("x", f"a.0:{at}:{at}")]
        assert release(names, ["events", "node", *retry]) == b"022"
        assert not client.exists(keys.owners("n"))
        client.delete(keys.emptied("n"))


@pytest.mark.parametrize("draining", [False, True])
def test_a_node_that_rejoins_is_counted_once(backend: Backend, draining: bool) -> None:
    """Its former incarnation lives on for a while, and says no more what the node can take."""
    keys = Keys(backend.prefix)
    names = [keys.leases, keys.incarnations, keys.nodes, keys.infos, keys.epoch, keys.headrooms]
    with backend.sync_client() as client:
        join = client.register_script(sources()["join"])

        def joined(node: str, incarnation: str, headroom: str) -> int:
            start = incarnation.partition(".")[0]
            arguments = [node, start, incarnation, 10_000, "{}", headroom]
            return int(join([*names, keys.drains], arguments)[2])

        assert joined("a", "one.0", "200.00") == 1
        assert joined("b", "two.0", "200.00") == 2
        if draining:
            client.hset(keys.drains, "c", "draining")
        assert joined("a", "one.1", "50.00") == 2
        assert client.zcard(keys.leases) == 3
        expected = b"200.00" if draining else b"50.00"
        assert client.hgetall(keys.headrooms) == {b"one.1": expected, b"two.0": b"200.00"}
        assert joined("b", "two.1", "") == 2
        assert client.hkeys(keys.headrooms) == [b"one.1"]
        client.delete(*names, keys.drains)
