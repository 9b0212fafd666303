"""The embedded cluster: every slot is served, and nothing of it stays."""

import subprocess
import sys
from pathlib import Path

import pytest
from redis.cluster import RedisCluster

from cluster_pool.embedded import EmbeddedUnavailableError
from cluster_pool.embedded_cluster import EmbeddedCluster
from tests.test_embedded import alive, wait_until_dead

pytestmark = pytest.mark.real


def test_it_serves_every_slot_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Keys of each primary can be written as soon as it has started."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with EmbeddedCluster() as cluster:
        places = cluster.url.removeprefix("redis+cluster://").split(",")
        assert len(places) == 3
        host, port = places[0].split(":")
        assert cluster.cli == f"redis-cli -c -p {port}"
        assert cluster.publish == "SPUBLISH"
        with RedisCluster(host=host, port=int(port)) as client:
            for at in range(30):
                assert client.set(f"key{at}", at)
            assert len(client.get_primaries()) == 3
            assert client.dbsize(target_nodes=RedisCluster.PRIMARIES) == 30
        with pytest.raises(EmbeddedUnavailableError, match="already"):
            cluster.start()
        pids = [server.pid for server in cluster._servers]
    for pid in pids:
        wait_until_dead(pid)
    assert list(tmp_path.iterdir()) == []
    cluster.stop()


def test_a_slot_moves_to_another_primary_with_all_its_keys() -> None:
    """A client of redis-py finds them there."""
    with EmbeddedCluster() as cluster:
        port = int(cluster.cli.rpartition(" ")[2])
        with RedisCluster(host="127.0.0.1", port=port) as client:
            for at in range(5):
                client.set(f"{{tag}}key {at}", at)
            before = client.get_node_from_key("tag").port
            assert cluster.move("tag") == client.keyslot("tag")
            assert [client.get(f"{{tag}}key {at}") for at in range(5)] == [
                b"0",
                b"1",
                b"2",
                b"3",
                b"4",
            ]
            assert client.get_node_from_key("tag").port != before


def test_other_ports_are_tried_when_one_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another program takes it between the look-up and the use."""
    real = sys.modules["cluster_pool.embedded"].free_ports
    with EmbeddedCluster() as other:
        taken = [int(place.rpartition(":")[2]) for place in other.url.split(",")]
        looks = [[*taken, *real(3)], real(6)]
        monkeypatch.setattr("cluster_pool.embedded_cluster.free_ports", lambda count: looks.pop(0))
        with EmbeddedCluster() as cluster:
            assert cluster.url != other.url
        assert looks == []


def test_it_dies_with_a_killed_parent() -> None:
    """All three servers."""
    program = (
        "from cluster_pool.embedded_cluster import EmbeddedCluster; import time;"
        "c = EmbeddedCluster().start(); print(*[s.pid for s in c._servers], flush=True);"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 3
    assert all(map(alive, pids))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for pid in pids:
        wait_until_dead(pid)
