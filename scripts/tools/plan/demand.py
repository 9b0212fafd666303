"""From a load and the measured costs to what Redis has to do. Pure."""

import math
from dataclasses import dataclass
from typing import Final

from tools.plan.costs import Costs

FULL: Final = 0.5
"""The part of a core that is planned with: the rest is for storms, failovers and forks."""
HEARTBEAT: Final = 3.0
"""Seconds."""
PROBE: Final = 1.0
MANY: Final = 1_000
"""Shards, when probes alone fill all of them: Redis advises no more nodes in a cluster."""
COMPARED: Final = 1000
"""Namespaces that a node compares with the registry in a heartbeat, if it has so many; of more than
ten times as many it compares a tenth."""


@dataclass(frozen=True)
class Load:
    """The load of a whole cluster.

    Attributes:
        nodes, connections: of the whole cluster.
        members: of each namespace, spread over the nodes by a load balancer.
        stay: seconds for which a connection lasts.
        sends, broadcasts: messages per second to each connection alone, and to each namespace.
        drain: seconds in which all nodes are restarted, one after another.
    """

    nodes: int
    connections: int
    members: int = 100
    stay: float = 1800.0
    sends: float = 1 / 60
    broadcasts: float = 1 / 60
    drain: float = 3600.0

    @property
    def namespaces(self) -> float:
        """How many there are."""
        return self.connections / self.members

    @property
    def spread(self) -> float:
        """The nodes that have members of one namespace, on average."""
        return self.nodes * (1 - (1 - 1 / self.nodes) ** self.members)

    @property
    def held(self) -> float:
        """The namespaces that one node has members of."""
        return self.namespaces * self.spread / self.nodes

    @property
    def joins(self) -> float:
        """Connections per second that come, and as many that go, in a drain too."""
        return self.connections * (1 / self.stay + 1 / self.drain)


@dataclass(frozen=True)
class Demand:
    """The work of Redis for a load.

    Attributes:
        home: cores that the one slot of leases and nodes needs; it cannot be divided.
        spread: cores for all else, which the slots of a cluster divide.
        shards: primaries that are enough for the second, and for the probes of all nodes.
        subscriptions: channels that all nodes subscribe to.
        memory: bytes of members and subscriptions.
        output: bytes per second from Redis to nodes.
        joins, heartbeats, sends, broadcasts: commands per second: scripts of up to 100 claims or
            releases, renewals and probes, messages.
    """

    home: float
    spread: float
    shards: int
    subscriptions: float
    memory: float
    output: float
    joins: float
    heartbeats: float
    sends: float
    broadcasts: float


def demand(load: Load, costs: Costs) -> Demand:
    """Plan for a load on a cluster, whose messages come one by one."""
    sends = load.connections * load.sends
    broadcasts = load.namespaces * load.broadcasts
    publication = costs.broadcast + costs.subscriber * (load.spread - 1)
    compared = load.nodes * min(load.held, max(COMPARED, load.held / 10)) / HEARTBEAT
    micros = (
        sends * costs.send
        + broadcasts * publication
        + load.joins * (costs.join + costs.leave)
        + compared * costs.compare
    )
    free = FULL - load.nodes * costs.probe / 1e6 / PROBE
    home = load.nodes * (costs.idle + costs.idle_per_node * load.nodes) / 1e6
    spread = micros / 1e6
    shards = max(1, math.ceil(spread / free)) if free > 0 else MANY
    subscriptions = 2 * load.nodes * load.held
    return Demand(
        home=home,
        spread=spread,
        shards=shards,
        subscriptions=subscriptions,
        memory=load.connections * costs.member + subscriptions * costs.subscription,
        output=sends * costs.message
        + broadcasts * load.spread * costs.message
        + load.nodes * (costs.idle_bytes + costs.idle_bytes_per_node * load.nodes),
        joins=2 * load.joins,
        heartbeats=load.nodes * (1 / HEARTBEAT + (shards + 1) / PROBE),
        sends=sends,
        broadcasts=broadcasts,
    )


def most_nodes(costs: Costs) -> int:
    """How many nodes fill their part of the core that has the slot of leases."""
    nodes = 1
    while (nodes + 1) * (costs.idle + costs.idle_per_node * (nodes + 1)) / 1e6 <= FULL:
        nodes += 1
    return nodes
