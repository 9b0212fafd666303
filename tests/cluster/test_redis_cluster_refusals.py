"""A faulty Redis Cluster: calls that cannot work fail in time, with the reason."""

import asyncio
import re
from collections.abc import Iterator

import pytest
from redis import Redis

from cluster_pool import BackplaneUnavailableError, ClusterPool, SendResult
from cluster_pool.backplane.slots import slot_of
from tests.redis_clusters import away_from_home, cluster_pools, namespaces_of
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.ports import free_ports
from tools.harness.redis_cluster import RedisCluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisCluster]:
    """Three primaries that serve their own slots, whatever the others do."""
    with RedisCluster(replicas=0, node_timeout=20) as cluster:
        for node in cluster.nodes:
            node.call("CONFIG", "SET", "cluster-require-full-coverage", "no")
        yield cluster


@async_test
async def test_a_slot_without_an_owner_affects_no_other(redis: RedisCluster) -> None:
    """Also when a member is there already; it is served again as soon as a node owns it."""
    primary, name = away_from_home(redis)
    neighbours = [one for one in namespaces_of(redis, 2)[primary.port] if one != name]
    async with cluster_pools(redis) as (one, two):
        alice = await two.host(name, "alice")
        for node in redis.nodes:
            node.call("CLUSTER", "DELSLOTS", slot_of(name))
        with pytest.raises(BackplaneUnavailableError):
            await one.send(name, "alice", "x", timeout=0.5)
        with pytest.raises(BackplaneUnavailableError):
            await one.host(name, "bob", timeout=0.5)
        with pytest.raises(BackplaneUnavailableError):
            await one.count(name, timeout=0.5)
        neighbour = neighbours[0]
        await two.host(neighbour, "carol")
        assert await one.send(neighbour, "carol", "y", confirm=True) is SendResult.DELIVERED
        await asyncio.sleep(1)
        assert one.ready
        primary.call("CLUSTER", "ADDSLOTS", slot_of(name))
        await asyncio.to_thread(redis.wait_until_whole)
        await eventually(lambda: not (one.trouble or two.trouble))

        async def heard() -> bool:  # node-2 subscribes the channel again, as soon as it sees it
            return await one.send(name, "alice", "z", confirm=True) is SendResult.DELIVERED

        await eventually(heard)
        assert await alice.wait_sent() == ["z"]
        await one.host(name, "bob", timeout=5)


@async_test
async def test_a_primary_that_refuses_the_login_is_named(redis: RedisCluster) -> None:
    """Namespaces of others go on, and the node stays ready: it serves most of its namespaces."""
    primary, name = away_from_home(redis)
    others = [one for port, (one,) in namespaces_of(redis).items() if port != primary.port]
    async with cluster_pools(redis) as (one, two):
        for other in (*others, name):
            await two.host(other, "alice")
        primary.call("CONFIG", "SET", "requirepass", "a-password")
        try:
            for kind in ("normal", "pubsub"):
                primary_call(primary.server.path, ["CLIENT", "KILL", "TYPE", kind])
            await eventually(lambda: two.trouble, 5)
            assert str(primary.port) in two.trouble
            with pytest.raises(BackplaneUnavailableError):
                await one.send(name, "alice", "x", timeout=0.5)
            for other in others:
                assert await one.send(other, "alice", "y", confirm=True)
            assert two.ready
        finally:
            primary_call(primary.server.path, ["CONFIG", "SET", "requirepass", ""])
        await eventually(lambda: not (one.trouble or two.trouble), 10)
        assert await one.send(name, "alice", "z", confirm=True)


def primary_call(path: object, words: list[str]) -> None:
    """Call a server that requires a password by then."""
    with Redis(unix_socket_path=str(path), password="a-password") as client:
        client.execute_command(*words)


@async_test
async def test_a_node_that_must_take_another_id_gets_its_members_messages(
    redis: RedisCluster,
) -> None:
    """The channels of its start stay, at every primary, and only home's links begin anew."""
    names = [name for (name,) in namespaces_of(redis).values()]
    async with cluster_pools(redis) as (one, two):
        members = {name: await two.host(name, "alice") for name in names}
        two._parts.backplane.identity.change()
        two._parts.node_renamed()
        await eventually(lambda: two._parts.backplane.shard.generation > 1, 10)
        await eventually(lambda: two.ready and not two._parts.ownership.restoration.due, 20)
        for name, member in members.items():
            assert await one.send(name, "alice", "x", confirm=True, timeout=5)
            assert await member.wait_sent() == ["x"]
            primary = redis.primary_of(name)
            channel = f"cluster_pool:{{{name}}}:start:{two._parts.backplane.identity.start}"
            assert primary.call("PUBSUB", "SHARDNUMSUB", channel)[1] == 1


@async_test
async def test_why_no_node_starts_is_said(redis: RedisCluster) -> None:
    """Whether it is no cluster, nobody is there, or a right is missing, which is named."""
    (port,) = free_ports(1)
    no_cluster = f"redis+cluster://127.0.0.1:{port}"
    with RedisServer("valkey", "--port", str(port)) as single:
        single.command("ACL", "SETUSER", "default", "on", "nopass")
        for url, why in (
            ("redis+cluster://127.0.0.1:1", "no node of the cluster .* Connect call failed"),
            (no_cluster, r"this is no Redis Cluster: give it as redis://HOST:PORT"),
        ):
            with pytest.raises(BackplaneUnavailableError, match=why):
                await ClusterPool(url).start()
    for right in ("cluster|slots", "ssubscribe", "evalsha"):
        for node in redis.nodes:
            node.call(
                "ACL", "SETUSER", "user", "reset", "on", ">p", "~*", "&*", "+@all", f"-{right}"
            )
        with pytest.raises(BackplaneUnavailableError, match=re.escape(right)):
            await ClusterPool(redis.url.replace("://", "://user:p@")).start()


@async_test
async def test_a_node_starts_while_a_primary_is_away(redis: RedisCluster) -> None:
    """Unless it is the one that has the leases; what is at the others can be used."""
    away, name = away_from_home(redis)
    here = next(one for port, (one,) in namespaces_of(redis).items() if port != away.port)
    away.server.freeze()
    try:
        async with cluster_pools(redis, 1) as (one,):
            assert one.ready
            assert str(away.port) in one.trouble
            await one.host(here, "alice")
            with pytest.raises(BackplaneUnavailableError):
                await one.host(name, "alice", timeout=0.3)
            away.server.thaw()
            await eventually(lambda: not one.trouble, 10)
            await one.host(name, "alice")
    finally:
        away.server.thaw()
    home = redis.primary_of("{~}")
    home.server.freeze()
    try:
        with pytest.raises(BackplaneUnavailableError, match=str(home.port)):
            await ClusterPool(redis.url).start()
    finally:
        home.server.thaw()
