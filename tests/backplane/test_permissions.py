"""A user of Redis who may not do all that is needed: what is missing is named, on each server."""

import pytest

from cluster_pool import BackplaneUnavailableError
from tests.clusters import Pool
from tests.servers import RedisServer
from tests.support import async_test

MISSING = [
    *("evalsha", "script|load", "time", "subscribe"),
    *("hset", "zadd", "publish", "set", "hmget", "hincrby", "hlen"),
]
"""Commands that a node sends, and those that its scripts use."""


@pytest.mark.parametrize("command", MISSING)
@async_test
async def test_a_command_that_is_denied_is_named(own_server: RedisServer, command: str) -> None:
    """Also where only a script needs it; and the file with the rights is named, too."""
    own_server.command("ACL", "SETUSER", "cluster_pool", f"-{command}")

    async def use() -> None:
        async with Pool(own_server.url, node_id="node-1") as pool:
            await pool.join("n", "alice")
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
async def test_keys_and_channels_that_are_denied_are_told_apart(
    own_server: RedisServer, rule: str, what: str
) -> None:
    """The patterns of the file fit the default prefix alone."""
    own_server.command("ACL", "SETUSER", "cluster_pool", rule)
    with pytest.raises(BackplaneUnavailableError, match=rf"access (a|one of the) {what}"):
        await Pool(own_server.url).start()


@async_test
async def test_a_command_that_the_server_does_not_have_is_named() -> None:
    """It is too old, or the command was renamed."""
    with (
        RedisServer("valkey", "--rename-command", "EVALSHA", "") as server,
        pytest.raises(BackplaneUnavailableError, match="unknown command 'EVALSHA'") as caught,
    ):
        await Pool(server.url).start()
    assert "without rename-command" in str(caught.value)
