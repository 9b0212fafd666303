"""The results of operations."""

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal


class SendResult(enum.Enum):
    """The result of one targeted send. Truthy for DELIVERED, ROUTED, RECEIVED and PARKED."""

    DELIVERED = "delivered"
    """In the outbox of an open connection, ahead of any close."""
    ROUTED = "routed"
    """Handed to the subscription of the node that owns the id."""
    ABSENT = "absent"
    """There is no such member."""
    UNREACHABLE = "unreachable"
    """The owner's node was not subscribed at that moment, or its lease is over and its members are
    not removed yet (also when Redis refuses its heartbeats); nothing was handed over."""
    REFUSED = "refused"
    """The connection is closing, or its outbox is full. In a namespace with a history the message
    may be in that, and comes when the id is there again; so it may after TIMED_OUT."""
    TIMED_OUT = "timed_out"
    """Redis answered; the owner did not within the time-out, or before the sender was stopped. With
    ``confirm="client"`` also: no receipt came in time, or none can come, since the connection was
    lost before. Whether the client has the message is not known."""
    RECEIVED = "received"
    """In the WebSocket stack of the client: it answered a ping that was sent behind the message, or
    the close. Not that its application has handled it. Only with ``confirm="client"``."""
    PARKED = "parked"
    """In the history of the namespace, for an id that was there lately, or whose node is cut off or
    dead: it gets the message when it comes back, or its node does, in order, if the history still
    has it."""

    def __init__(self, value: str) -> None:
        self.truth = value in ("delivered", "routed", "received", "parked")

    def __bool__(self) -> bool:
        return self.truth


@dataclass(frozen=True, slots=True)
class Delivery:
    """The result of a message for a user: numbers of connections. Truthy if any was reached.

    Attributes:
        delivered: in their outboxes, ahead of any close.
        routed: handed to the subscriptions of the nodes that own them, or kept by a history.
        refused: they are closing, or their outboxes are full.
        undelivered: they left meanwhile, or their nodes were not subscribed or are dead.
        timed_out: their nodes did not answer in time, or their clients with ``confirm="client"``.
        received: in the WebSocket stacks of their clients; these are not counted as delivered.
    """

    delivered: int = 0
    routed: int = 0
    refused: int = 0
    undelivered: int = 0
    timed_out: int = 0
    received: int = 0

    @classmethod
    def of(cls, results: Iterable[SendResult]) -> "Delivery":
        """The numbers of these results, one for each connection."""
        counts = Counter(results)
        return cls(
            delivered=counts[SendResult.DELIVERED],
            routed=counts[SendResult.ROUTED] + counts[SendResult.PARKED],
            refused=counts[SendResult.REFUSED],
            undelivered=counts[SendResult.ABSENT] + counts[SendResult.UNREACHABLE],
            timed_out=counts[SendResult.TIMED_OUT],
            received=counts[SendResult.RECEIVED],
        )

    def __bool__(self) -> bool:
        return self.delivered + self.routed + self.received > 0


@dataclass(frozen=True, slots=True)
class BroadcastReport:
    """The result of a broadcast with ``confirm``. Truthy if any connection got the message.

    Attributes:
        nodes: how many Redis handed it to. A foreign subscriber of the channel counts as one.
        delivered: connections in whose outboxes it is, ahead of any close; or that get it with
            what they have missed.
        refused: connections that are closing, or whose outboxes are full.
        received: connections whose clients have it in their WebSocket stacks, with
            ``confirm="client"``; these are not counted as delivered.
        timed_out: connections whose clients sent no receipt in time, or were lost before, with
            ``confirm="client"``. These may have it or not.
        silent: of the nodes, those that did not answer in time. None of their connections is
            counted: these may have it or not.
    """

    nodes: int = 0
    delivered: int = 0
    refused: int = 0
    received: int = 0
    timed_out: int = 0
    silent: int = 0

    def __bool__(self) -> bool:
        return self.delivered + self.received > 0

    @property
    def complete(self) -> bool:
        """Whether every node has answered, and all of their connections have got it. True also if
        there was none."""
        return not (self.refused or self.timed_out or self.silent)


class NodeState(enum.Enum):
    """The states of a node, in the order it goes through them."""

    STARTING = "starting"
    ACTIVE = "active"
    ANNOUNCING = "announcing"
    DRAINING = "draining"
    DRAINED = "drained"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Member:
    """An id in a namespace and the node that owns it.

    Attributes:
        user: the person whose connection it is; None if that is not known.
        info: what the connection tells other members, any JSON value; None for nothing.
    """

    id: str
    node: str
    user: str | None = None
    info: Any = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class Node:
    """One live node as the registry knows it.

    Attributes:
        id: the node id.
        incarnation: the name of its present lease; fresh at each start and at each rejoin.
        state: as of its last heartbeat.
        connections: how many it held at its last heartbeat.
        lease: seconds until its lease ends unless renewed.
    """

    id: str
    incarnation: str
    state: NodeState
    connections: int
    lease: float


@dataclass(frozen=True, slots=True)
class MemberEvent:
    """An event that :meth:`ClusterPool.watch` yields.

    Attributes:
        event: ``"join"``, ``"update"`` (it has another info), ``"leave"``, or ``"lost"``: events
            were lost here, or may have been; read the members again.
        id: the member concerned; "" when events were lost.
        node: the node that owned it; "" when events were lost, or that node is not known any more.
        user, info: those of the member; when it leaves, the last ones.
    """

    event: Literal["join", "update", "leave", "lost"]
    id: str
    node: str
    user: str | None = None
    info: Any = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class PresenceChanges:
    """Changes in the members of a namespace, as :class:`Presence` gives them. Truthy unless empty.

    Attributes:
        joined: new members.
        updated: members that have another info, user or node now.
        left: members that have left, as they were.
        lost: whether events were lost, so that the members were read again. Members may have come
            and gone meanwhile.
    """

    joined: tuple[Member, ...] = ()
    updated: tuple[Member, ...] = ()
    left: tuple[Member, ...] = ()
    lost: bool = False

    def __bool__(self) -> bool:
        return bool(self.joined or self.updated or self.left or self.lost)


@dataclass(frozen=True, slots=True)
class UserEvent:
    """A user came to a namespace or left it.

    Attributes:
        event: ``"join"``: with the first connection. ``"leave"``: with the last one, and a time of
            grace has passed.
        user: as given to :meth:`ClusterPool.accept` or by the identity.
    """

    event: Literal["join", "leave"]
    user: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that this node missed: its subscriber was interrupted, or its inbox was full.

    Attributes:
        namespaces: messages missed per namespace; those targeted at this node's members are under
            the empty name. A plain PUBLISH has no number: one that was missed is not counted.
        exact: False when Redis may have lost its counters meanwhile, or cannot give them yet, or a
            replica that has taken over may lack messages: the numbers are then lower bounds, 0
            among them.
        seconds: how long nothing could be heard.
        cause: why, for a log.
    """

    namespaces: dict[str, int]
    exact: bool
    seconds: float
    cause: str = ""


@dataclass(frozen=True, slots=True)
class DrainReport:
    """The account of a drain.

    Attributes:
        closed: connections closed, whether by handshake or by force.
        forced: of these, the ones that were cut: their client did not answer the close in time.
        seconds: how long it took, its announcement included.
        peak_rate: the most closes begun within any one second, on this node.
        cancelled: it was cancelled half-way; the clients that were left stay connected.
        over_budget: a deadline forced more closes per second than the budget allowed.
    """

    closed: int
    forced: int
    seconds: float
    peak_rate: int
    cancelled: bool = False
    over_budget: bool = False

    def __str__(self) -> str:
        return repr(replace(self, seconds=round(self.seconds, 1)))


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """One node's drain as of its last report, at most a few seconds ago.

    Attributes:
        node: the node id.
        state: ``"draining"``, ``"paused"``, or ``"announcing"`` (a stop without a grace).
        remaining: connections whose close has not begun.
        total: that number when the drain began.
        rate: closes per second that the node may do: its share of the cluster's budget.
        time_left: seconds until all must have begun to close; None without a deadline.
    """

    node: str
    state: str
    remaining: int
    total: int
    rate: float
    time_left: float | None
