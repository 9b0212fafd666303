"""The names of all keys and channels; no other module spells one.

The names of one namespace have the hash tag ``{NAMESPACE}``, those of none the hash tag ``{~}``, so
that on a Redis Cluster each group is in one slot.
"""

from typing import Final

from cluster_pool.core.ids import NODE_TAG, check_prefix

DEFAULT_PREFIX: Final = "cluster_pool"


def is_of_one(channel: str) -> bool:
    """Whether items of a channel are for one node or one start of it, and may name its member."""
    return "}:start:" in channel or "}:node:" in channel  # no name of ours has braces


def is_probe(channel: str) -> bool:
    """Whether a start probes a shard over this channel."""
    return "}:probe:" in channel


class Keys:
    """Names under one prefix."""

    __slots__ = (
        "_cluster",
        "budget",
        "calm",
        "dead",
        "drains",
        "epoch",
        "headrooms",
        "incarnations",
        "infos",
        "leases",
        "node_prefix",
        "nodes",
        "prefix",
        "resumes",
        "revocations",
        "revoked",
        "start_prefix",
    )

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self.prefix = check_prefix(prefix)
        self._cluster = f"{prefix}:{{{NODE_TAG}}}"
        self.leases = f"{self._cluster}:leases"
        """Sorted set: incarnation by the Redis time in ms at which its lease ends."""
        self.incarnations = f"{self._cluster}:incarnations"
        """Hash: incarnation to node id, kept until the incarnation is reaped."""
        self.nodes = f"{self._cluster}:nodes"
        """Hash: node id to its present incarnation."""
        self.infos = f"{self._cluster}:infos"
        """Hash: incarnation to its node's info, as JSON."""
        self.dead = f"{self._cluster}:dead"
        """Hash: incarnation whose members are being reaped, to its node id."""
        self.epoch = f"{self._cluster}:epoch"
        """String: changes when Redis has lost its state."""
        self.headrooms = f"{self._cluster}:headrooms"
        """Hash: incarnation to the connections per second that it can accept; only of acceptors."""
        self.drains = f"{self._cluster}:drains"
        """Hash with a ttl: node id to its lease on the drain budget."""
        self.calm = f"{self._cluster}:calm"
        """String with a ttl: the drainers' record was lost, and no rate may grow."""
        self.budget = f"{self._cluster}:budget"
        """String: closes per second that the cluster allows its drains; set by operators."""
        self.revoked = f"{self._cluster}:revoked"
        """Sorted set with a ttl: id of a revoked token by the time in ms until which it is."""
        self.revocations = f"{self._cluster}:revocations"
        """Sorted set with a ttl: the same ids, by the Redis time in µs at which that was said."""
        self.resumes = f"{self._cluster}:resumes"
        """String with a ttl: the key of the words of clients that come back, without a secret."""
        self.node_prefix = f"{self._cluster}:node:"
        self.start_prefix = f"{self._cluster}:start:"
        """On one Redis: the channels of what is targeted at members, each of one start."""

    def channel(self, namespace: str) -> str:
        """The channel of broadcasts to ``namespace``: the one that users publish to."""
        return f"{self.prefix}:{{{namespace}}}"

    def events(self, namespace: str) -> str:
        """The channel of joins and leaves."""
        return f"{self.prefix}:{{{namespace}}}:events"

    def inbound(self, namespace: str) -> str:
        """The channel of messages that clients of ``cluster-pool serve`` send."""
        return f"{self.prefix}:{{{namespace}}}:inbound"

    def members(self, namespace: str) -> str:
        """Hash: id to claim, ``incarnation:time:nonce``."""
        return f"{self.prefix}:{{{namespace}}}:members"

    def owners(self, namespace: str) -> str:
        """Hash: incarnation to its count of members, and ``incarnation#`` to their checksum;
        ``events#`` to the number of the last join or leave, ``epoch#`` to the epoch of that."""
        return f"{self.prefix}:{{{namespace}}}:owners"

    def profiles(self, namespace: str) -> str:
        """Hash: id to the time and nonce of its claim, a space, and its profile as JSON, for those
        members that have a profile: see :mod:`.profiles`."""
        return f"{self.prefix}:{{{namespace}}}:profiles"

    def emptied(self, namespace: str) -> str:
        """Hash with a ttl: the claim whose release emptied the namespace, or ``incarnation@start``
        if a process emptied it by reaping, to the Redis time in µs; kept until that node has the
        reply. The last claim that was reaped too, if its node lives on and may release it."""
        return f"{self.prefix}:{{{namespace}}}:emptied"

    def history(self, namespace: str) -> str:
        """Stream with a ttl: the envelopes of the history, if one is recorded; ``history.lua``."""
        return f"{self.prefix}:{{{namespace}}}:history"

    def positions(self, namespace: str) -> str:
        """Hash with a ttl: id to the epoch and number up to which it has received the history, and
        who may read what is targeted at it; ``positions.lua``. Older ones are in another hash."""
        return f"{self.prefix}:{{{namespace}}}:positions"

    def routed_prefix(self, namespace: str) -> str:
        """On a Redis Cluster: the channels of what is targeted at members of ``namespace``, each
        of one start, whose name stands behind this. They are in the slot of the namespace."""
        return f"{self.prefix}:{{{namespace}}}:start:"

    def probe_channel(self, tag: str, start: str) -> str:
        """The channel over which a start probes a shard that has the slot of ``tag``."""
        return f"{self.prefix}:{{{tag}}}:probe:{start}"

    def node_channel(self, node_id: str) -> str:
        """The channel of one node: replies, orders and its probes."""
        return f"{self.node_prefix}{node_id}"

    def start_channel(self, start: str) -> str:
        """The channel of one start: it probes itself over it until the node's channel is its own;
        on one Redis, items targeted at its members."""
        return f"{self.start_prefix}{start}"

    def namespaces(self, incarnation: str) -> str:
        """Set: the namespaces in which this incarnation may hold members."""
        return f"{self._cluster}:namespaces:{incarnation}"

    @staticmethod
    def numbers(channel: str) -> str:
        """Hash beside a channel: its epoch and the number of its last message; beside that of a
        namespace also the setting and the positions of its history."""
        return f"{channel}:numbers"
