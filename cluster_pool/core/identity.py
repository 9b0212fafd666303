"""The identity of one start of a node or publisher: node id, name of the start, own channel.

Made at a start, not at construction: a pool that a module makes may be started by three processes,
and each start needs its own identity.
"""

import secrets

from cluster_pool.core.ids import MAX_BYTES, new_node_id, new_start
from cluster_pool.core.keys import Keys


class Identity:
    """One start of one node or publisher.

    The parts of a node keep the identity, not the node id: a node whose id another node has now
    goes on under a new one.

    Args:
        given: the node id that the user chose; None makes one.
        claimed: whether the node id needs no lease, and is this start's at once.

    Attributes:
        claimed: whether the node id is known to be this start's.
    """

    __slots__ = ("_given", "_keys", "claimed", "node_id", "own_channel", "start", "start_channel")

    def __init__(self, keys: Keys, given: str | None = None, *, claimed: bool = True) -> None:
        self.claimed = claimed
        self._keys = keys
        self._given = given
        self.start = new_start()
        """The name of this start, which no other has; it stays when the node id changes."""
        self.start_channel = keys.start_channel(self.start)
        """The channel of this start's probes until the node id is known to be its own. On one Redis
        it is that of items targeted at members of this start."""
        self.node_id = ""
        """Unique among live nodes."""
        self.own_channel = ""
        """The channel of replies and orders for this node, and of its own probes."""
        self._use(new_node_id() if given is None else given)

    @property
    def probe_channel(self) -> str:
        """The channel over which this start probes itself."""
        return self.own_channel if self.claimed else self.start_channel

    def change(self) -> None:
        """Another node has this node id now: go on under a new one."""
        self._use(new_node_id() if self._given is None else varied(self._given))

    def _use(self, node_id: str) -> None:
        self.node_id = node_id
        self.own_channel = self._keys.node_channel(node_id)


def varied(node_id: str) -> str:
    """A node id that begins with ``node_id``, cut if it is too long, and ends in 32 random bits."""
    ending = f"-{secrets.token_hex(4)}"
    return node_id.encode()[: MAX_BYTES - len(ending)].decode(errors="ignore") + ending
