"""The identity of one start of a node or publisher: node id, name of the start, own channel.

Made when something starts, never when it is constructed: of a pool that a module makes and three
processes start, each start is another.
"""

import secrets

from cluster_pool.core.ids import MAX_BYTES, new_node_id, new_start
from cluster_pool.core.keys import Keys


class Identity:
    """One start of one node or publisher.

    A part that needs it is given the identity and reads it when it is used: a node whose id another
    has taken goes on under a new one.

    Args:
        given: the node id that the user chose; None makes one.
    """

    __slots__ = ("_given", "_keys", "node_id", "own_channel", "start", "start_channel")

    def __init__(self, keys: Keys, given: str | None = None) -> None:
        self._keys = keys
        self._given = given
        self.start = new_start()
        """The name of this start, which no other has; it stays when the node id changes."""
        self.start_channel = keys.start_channel(self.start)
        """Where this start hears its probes until the node id is known to be its own."""
        self.node_id = ""
        """Unique among live nodes."""
        self.own_channel = ""
        """Where this node hears what is targeted at its connections, replies and its own probes."""
        self._take(new_node_id() if given is None else given)

    def take_another(self) -> None:
        """Another node has this node id now: go on under a new one."""
        self._take(new_node_id() if self._given is None else varied(self._given))

    def _take(self, node_id: str) -> None:
        self.node_id = node_id
        self.own_channel = self._keys.node_channel(node_id)


def varied(node_id: str) -> str:
    """A node id that begins as ``node_id``, cut if need be, and ends in 32 random bits."""
    ending = f"-{secrets.token_hex(4)}"
    return node_id.encode()[: MAX_BYTES - len(ending)].decode(errors="ignore") + ending
