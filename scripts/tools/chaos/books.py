"""The books of a round: what senders, connections and nodes say, as plain tables."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tools.chaos.sparse import is_sparse

SEND, CONFIRM, BROADCAST, PUBLISH = "send", "send confirmed", "broadcast", "broadcast by PUBLISH"
THEN_CLOSE = "send then close"
KINDS = (SEND, CONFIRM, BROADCAST, PUBLISH)
SPARSE_KINDS = (SEND, CONFIRM, THEN_CLOSE, BROADCAST)
COMMAND = "command"
"""Prefix of the senders that are each a run of the command line."""
COMMAND_KINDS = (SEND, CONFIRM, BROADCAST)
ROWS = (
    *KINDS,
    *(f"sparse {kind}" for kind in SPARSE_KINDS),
    *(f"{COMMAND} {kind}" for kind in COMMAND_KINDS),
)
"""The rows of the account: the dense stream's, the sparse one's, and the command line's."""
CLOSE, COUNT, MEMBERS, LOCATE = "close", "count", "members", "locate"
OTHERS = (CLOSE, COUNT, MEMBERS, LOCATE)
"""Calls that carry no message."""

CROWDS, UNREAD = ("crowd-0", "crowd-1", "crowd-2"), "unread"
"""Namespaces of members without a WebSocket, one for each third of the slots of a Redis Cluster,
and of clients that never read: no books are kept."""
ABNORMAL, TAKEN_OVER = 1006, 4409
SENT_AND_CLOSED, ORDERED = 4001, 4002
"""The codes with which a send-then-close and a close end a connection."""
BEFORE = 1.0
"""Seconds before a fault in which a message may have set out and not arrived."""
LEASE = 10.0
"""Seconds of a node's lease."""
NEWS = 1.0
"""Seconds that the news of a takeover may take to a node whose loop is busy, without faults."""
UNSURE = 6.0
"""Seconds for which nobody is called absent after Redis has lost what was registered."""
SOON = 5.0
"""Seconds within which all happens that a message or a leave sets off, without faults."""


class Call(NamedTuple):
    """One call, mostly a message, as its sender saw it; ``id`` is "" for a broadcast.

    ``outcome`` is a SendResult's value; "heard" or "unheard" for a broadcast; what the registry
    said behind a "="; "unknown" when the call raised with ``maybe_executed``, was never answered or
    its sender was killed meanwhile; "not_sent" otherwise. ``why`` is the error that it raised.
    """

    kind: str
    sender: str
    number: int
    namespace: str
    id: str
    begun: float
    ended: float
    outcome: str
    why: str = ""

    @property
    def row(self) -> str:
        """Where it stands in the account."""
        if self.sender.startswith(COMMAND):
            return f"{COMMAND} {self.kind}"
        return f"sparse {self.kind}" if is_sparse(self.namespace) else self.kind

    def __str__(self) -> str:
        to = f"{self.namespace}/{self.id}" if self.id else self.namespace
        why = f" ({self.why})" if self.why else ""
        return f"{self.kind} {self.number} of {self.sender} to {to}, {self.outcome}{why}"


@dataclass(eq=False)
class Connection:
    """One connection as its client saw it.

    ``heard`` are (sender, number), in order; ``left`` is when its client ended it by itself;
    ``began`` is when it asked for it, as ``user``, and ``tried`` are the nodes that it asked in
    vain. ``recovered`` is what it was told of its past.
    """

    namespace: str
    id: str
    node: str
    opened: float
    closed: float | None = None
    left: float | None = None
    code: int | None = None
    heard: list[tuple[str, int]] = field(default_factory=list)
    began: float = 0.0
    user: str = ""
    recovered: str = ""
    tried: list[str] = field(default_factory=list)

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
    """A time in which something was broken, and for whom; None for all nodes.

    It was broken until ``healed``, and all was well again when the window ended. ``forgets``: Redis
    may have lost of its state what it had taken.
    """

    begun: float
    ended: float
    nodes: frozenset[str] | None
    healed: float = math.inf
    forgets: bool = False

    def excuses(self, call: Call, nodes: Iterable[str], after: float = 0.0) -> bool:
        """Whether a call between these nodes may have met the fault, or what it left behind."""
        if call.begun > self.ended + after or call.ended < self.begun - BEFORE:
            return False
        return self.nodes is None or not self.nodes.isdisjoint(nodes)


class Emptied(NamedTuple):
    """A node was told that a release of its own emptied a namespace."""

    node: str
    namespace: str
    time: float


class Unanswered(NamedTuple):
    """A call that had no answer in time, by the clock of its own process."""

    sender: str
    about: str
    found: float
    seconds: float


class Registered(NamedTuple):
    """A member as the registry has it when the round is over."""

    namespace: str
    id: str
    node: str


class Past(NamedTuple):
    """The calls to namespaces with a history, and the connections there."""

    calls: Sequence[Call] = ()
    connections: Sequence[Connection] = ()


@dataclass
class Books:
    """All there is to know of a round.

    Attributes:
        killed: nodes that were killed.
        undelivered: by how much the nodes' counters of undelivered and refused messages grew.
        registry: every member; None when it was not asked for.
        unanswered: calls without an answer at their deadline and a second.
        emptied: last-one callbacks; None when nobody was asked.
        restless: what programs still did when nobody asked them for anything.
        roamed: members that were in a room in the end.
        people: connections of users that stood in the end.
        unkept: how many messages beside these calls may be missing, by the namespace that a gap
            names: those to users, and kicks.
        past: the calls to namespaces with a history, and the connections there: both are only here.
    """

    calls: Sequence[Call]
    connections: Sequence[Connection]
    gaps: Sequence[Reported] = ()
    windows: Sequence[Window] = ()
    killed: frozenset[str] = frozenset()
    undelivered: int = 0
    registry: Sequence[Registered] | None = None
    unanswered: Sequence[Unanswered] = ()
    restless: Sequence[str] = ()
    emptied: Sequence[Emptied] | None = None
    roamed: int = 0
    people: int = 0
    unkept: Mapping[str, int] = field(default_factory=dict)
    past: Past = field(default_factory=Past)
