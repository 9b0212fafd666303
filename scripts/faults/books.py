"""The books of a round: what senders, connections and nodes say, as plain tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

SEND, CONFIRM, BROADCAST, PUBLISH = "send", "send confirmed", "broadcast", "broadcast by PUBLISH"
KINDS = (SEND, CONFIRM, BROADCAST, PUBLISH)

ABNORMAL, TAKEN_OVER = 1006, 4409
BEFORE = 1.0
"""Seconds before a fault in which a message may have set out and not arrived."""


class Call(NamedTuple):
    """One message as its sender saw it; ``id`` is "" for a broadcast.

    ``outcome`` is a SendResult's value; "heard" or "unheard" for a broadcast; "unknown" when the
    call raised with ``maybe_executed`` or its sender was killed meanwhile; "not_sent" otherwise.
    """

    kind: str
    sender: str
    number: int
    namespace: str
    id: str
    begun: float
    ended: float
    outcome: str

    def __str__(self) -> str:
        to = f"{self.namespace}/{self.id}" if self.id else self.namespace
        return f"{self.kind} {self.number} of {self.sender} to {to}, {self.outcome}"


@dataclass(eq=False)
class Connection:
    """One connection as its client saw it; ``heard`` are (sender, number), in order."""

    namespace: str
    id: str
    node: str
    opened: float
    closed: float | None = None
    code: int | None = None
    heard: list[tuple[str, int]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.id} at {self.node}"

    def open_at(self, time: float) -> bool:
        """Whether its client had it open then."""
        return self.opened < time and (self.closed is None or self.closed >= time)


class Reported(NamedTuple):
    """A gap report of a node."""

    node: str
    namespaces: dict[str, int]
    exact: bool


class Window(NamedTuple):
    """A time in which something was broken, and for whom; None for all nodes."""

    begun: float
    ended: float
    nodes: frozenset[str] | None

    def excuses(self, call: Call, nodes: Iterable[str]) -> bool:
        """Whether a call between these nodes may have met the fault."""
        if call.begun > self.ended or call.ended < self.begun - BEFORE:
            return False
        return self.nodes is None or not self.nodes.isdisjoint(nodes)


class Registered(NamedTuple):
    """A member as the registry has it when the round is over."""

    namespace: str
    id: str
    node: str


@dataclass
class Books:
    """All there is to know of a round.

    Attributes:
        killed: nodes that were killed.
        undelivered: by how much the nodes' counters of undelivered and refused messages grew.
        registry: every member; None when it was not asked for.
    """

    calls: Sequence[Call]
    connections: Sequence[Connection]
    gaps: Sequence[Reported] = ()
    windows: Sequence[Window] = ()
    killed: frozenset[str] = frozenset()
    undelivered: int = 0
    registry: Sequence[Registered] | None = None
