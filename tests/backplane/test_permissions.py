"""A user of Redis without a needed permission: the error names it, on each server."""

from functools import partial

import pytest

from cluster_pool import BackplaneUnavailableError
from tests.clusters import Pool
from tests.servers import CLUSTER_ACL, RedisServer
from tests.support import async_test
from tools.harness.redis_cluster import RedisCluster

MISSING = [
    *("evalsha", "script|load", "time", "subscribe"),
    *("hset", "zadd", "publish", "set", "hmget", "hincrby", "hlen"),
]
"""Commands that a node sends, and those that its scripts use."""


@pytest.mark.parametrize("command", MISSING)
@async_test
async def test_a_command_that_is_denied_is_named(own_server: RedisServer, command: str) -> None:
    """Also where only a script needs it; the file with the rights is named, too."""
    own_server.command("ACL", "SETUSER", "cluster_pool", f"-{command}")

    async def use() -> None:
        async with Pool(own_server.url, node_id="node-1") as pool:
            await pool.host("n", "alice")
            await pool.broadcast_message("n", "hello")
            await pool.count("n")

    with pytest.raises(BackplaneUnavailableError) as caught:
        await use()
    assert f"no permissions to run the '{command}' command" in str(caught.value).lower()
    assert "deploy/redis.acl has the rights" in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "what"), [("resetkeys", "key"), ("resetchannels", "channel")], ids=["keys", "channels"]
)
@async_test
async def test_denied_keys_and_denied_channels_are_distinguished(
    own_server: RedisServer, rule: str, what: str
) -> None:
    """The patterns of the file fit the default prefix alone."""
    own_server.command("ACL", "SETUSER", "cluster_pool", rule)
    with pytest.raises(BackplaneUnavailableError, match=rf"access (a|one of the) {what}"):
        await Pool(own_server.url).start()


@pytest.mark.parametrize("command", ["EVALSHA", "ZMSCORE"])
@async_test
async def test_a_command_that_the_server_does_not_have_is_named(command: str) -> None:
    """It is too old, or the command was renamed; the start says so, not the first use."""
    with (
        RedisServer("valkey", "--rename-command", command, "") as server,
        pytest.raises(BackplaneUnavailableError, match=f"unknown command '{command}'") as caught,
    ):
        await Pool(server.url).start()
    assert "needs Redis 6.2 or later" in str(caught.value)


@async_test
async def test_a_cluster_without_sharded_channels_is_refused() -> None:
    """Redis has them since 7.0."""
    make = partial(RedisServer, "valkey", acl=CLUSTER_ACL)
    with (
        RedisCluster(make, "--rename-command", "SSUBSCRIBE", "", replicas=0) as cluster,
        pytest.raises(BackplaneUnavailableError, match="unknown command 'SSUBSCRIBE'") as caught,
    ):
        await Pool(cluster.url).start()
    assert "for a cluster 7.0 or later" in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "what"), [("-hset", "'hset' command"), ("resetpass", "WRONGPASS")]
)
@async_test
async def test_a_refusal_by_one_shard_alone_is_named(rule: str, what: str) -> None:
    """For a missing permission or a wrong password: the other shards work."""
    make = partial(RedisServer, "valkey", acl=CLUSTER_ACL)
    with RedisCluster(make, replicas=0) as cluster:
        home = cluster.primary_of("{~}")
        other = next(one for one in cluster.primaries if one is not home)
        name, well = (
            next(f"n{at}" for at in range(99) if (cluster.primary_of(f"{{n{at}}}") is other) is bad)
            for bad in (True, False)
        )
        other.call("ACL", "SETUSER", "cluster_pool", rule)
        async with Pool(cluster.url, node_id="node-1") as pool:
            with pytest.raises(BackplaneUnavailableError, match=what) as caught:
                await pool.host(name, "alice")
            assert "check the user" in str(caught.value) or "redis.acl" in str(caught.value)
            await pool.host(well, "alice")
            assert await pool.count(well) == 1
