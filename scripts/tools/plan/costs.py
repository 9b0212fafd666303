"""The measured costs from which is planned; docs/scaling.md has the rows of the bench."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Costs:
    """Costs to Redis, of one each: µs of CPU, or bytes.

    Attributes:
        idle, idle_per_node: a node that does nothing, by the second; and for each node that the
            cluster has.
        idle_bytes, idle_bytes_per_node: bytes to such a node, by the second.
        probe: a node's probe of one primary, by the second.
        compare: comparing one namespace with the registry.
        send: a send alone in its call, on a cluster.
        broadcast: a broadcast alone in its call, to one node.
        subscriber: each further node that hears it.
        join, leave: one member, while many come and go.
        message: bytes of one message to a node.
        member: bytes of one member.
        subscription: bytes of one channel that a node subscribes to.
    """

    idle: float
    idle_per_node: float
    idle_bytes: float
    idle_bytes_per_node: float
    probe: float
    compare: float
    send: float
    broadcast: float
    subscriber: float
    join: float
    leave: float
    message: float
    member: float
    subscription: float


MEASURED: Final = Costs(
    idle=829,
    idle_per_node=0.09,
    idle_bytes=411,
    idle_bytes_per_node=12.3,
    probe=208,
    compare=27,
    send=92,
    broadcast=43,
    subscriber=2.3,
    join=53,
    leave=40,
    message=250,
    member=105,
    subscription=500,
)
"""On the machine of the page, with messages of 128 bytes and ids of 36."""
