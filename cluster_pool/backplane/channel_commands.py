"""The commands of pub/sub: plain on one Redis, sharded on a cluster.

On a cluster a channel belongs to a slot, as a key does. It is heard at the primary of that slot
alone, a command names channels of one slot, and the primary ends a subscription by itself when it
gives the slot away. Source: the documentation of Redis, "Sharded Pub/Sub".
"""

from dataclasses import dataclass
from typing import Final

from cluster_pool.backplane.scripts import PUBLISH, SHARDED_PUBLISH


@dataclass(frozen=True, slots=True)
class ChannelCommands:
    """The commands by which channels are published to and subscribed.

    Attributes:
        message: the first word of a push that brings a message.
        replies: the first words of pushes that confirm.
        ended: the one that says that a subscription has ended, b"" where none comes unasked.
        listeners: the subcommand of PUBSUB that counts who listens.
        sharded: whether a channel belongs to a slot.
    """

    publish: str
    subscribe: str
    unsubscribe: str
    message: bytes
    replies: tuple[bytes, bytes]
    ended: bytes
    listeners: str
    sharded: bool


PLAIN: Final = ChannelCommands(
    PUBLISH,
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    b"message",
    (b"subscribe", b"unsubscribe"),
    b"",
    "NUMSUB",
    sharded=False,
)
SHARDED: Final = ChannelCommands(
    SHARDED_PUBLISH,
    "SSUBSCRIBE",
    "SUNSUBSCRIBE",
    b"smessage",
    (b"ssubscribe", b"sunsubscribe"),
    b"sunsubscribe",
    "SHARDNUMSUB",
    sharded=True,
)
