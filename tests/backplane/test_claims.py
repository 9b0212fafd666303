"""The scripts that make claims and give them up, on each kind of server."""

from cluster_pool.backplane.scripts import sources
from cluster_pool.core.keys import Keys
from tests.clusters import Backend


def test_the_memory_of_releases_that_emptied_a_namespace_is_bounded(backend: Backend) -> None:
    """Each is reported to its retry until confirmed; above the bound the oldest are forgotten."""
    keys = Keys(backend.prefix)
    names = [
        keys.members("n"),
        keys.owners("n"),
        keys.emptied("n"),
        keys.numbers(keys.channel("n")),
    ]
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
