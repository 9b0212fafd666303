"""The commands of pub/sub: those that each kind of server accepts, and its pushes."""

import pytest

from cluster_pool.backplane.channel_commands import PLAIN, SHARDED, ChannelCommands
from tests.servers import RedisServer


@pytest.mark.parametrize("commands", [PLAIN, SHARDED])
def test_a_server_knows_the_commands(own_server: RedisServer, commands: ChannelCommands) -> None:
    """One Redis has both kinds of channels, so both can be tried there."""
    confirmed = own_server.command(commands.subscribe, "channel")
    assert commands.replies[0].decode() in confirmed
    assert own_server.command(commands.publish, "channel", "x").startswith(":0")
    assert ":0" in own_server.command("PUBSUB", commands.listeners, "channel")
    assert commands.replies[1].decode() in own_server.command(commands.unsubscribe, "channel")


def test_only_a_cluster_ends_subscriptions_by_itself() -> None:
    """Its channels are in slots."""
    assert (PLAIN.ended, PLAIN.sharded) == (b"", False)
    assert (SHARDED.ended, SHARDED.sharded) == (SHARDED.replies[1], True)
