"""The scripts that take and renew leases, on each kind of server."""

import pytest

from cluster_pool.backplane.scripts import sources
from cluster_pool.core.keys import Keys
from tests.clusters import Backend


@pytest.mark.parametrize("draining", [False, True])
def test_a_node_that_rejoins_is_counted_once(backend: Backend, draining: bool) -> None:
    """Its former incarnation lives on for a while, but its headroom does not count any more."""
    keys = Keys(backend.prefix)
    names = [keys.leases, keys.incarnations, keys.nodes, keys.infos, keys.epoch, keys.headrooms]
    with backend.sync_client() as client:
        join = client.register_script(sources()["join"])

        def joined(node: str, incarnation: str, headroom: str) -> int:
            start = incarnation.partition(".")[0]
            arguments = [node, start, incarnation, 10_000, "{}", headroom]
            leases, _, _ = join([*names, keys.drains, keys.dead], arguments)[2]
            return len({name.partition(b".")[0] for name in leases[::2]})

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
