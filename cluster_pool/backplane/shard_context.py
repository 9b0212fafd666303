"""The surroundings of a shard: the objects that a start's shards share, its part, its observer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from cluster_pool.backplane.command_connection import CommandConnection
from cluster_pool.backplane.inbox import Inbox
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.history import HistoryRules, Position
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.results import Gap
from cluster_pool.core.statistics import Counters


class Reached(dict[str, Position]):
    """By namespace, the position up to which members here were given all of its history.

    Attributes:
        on_taken_back: called with a namespace and its last position when Redis has lost all behind
            that, and will give the same positions to other messages.
    """

    on_taken_back: Callable[[str, Position], None] | None = None

    def take_back(self, namespace: str, last: Position) -> None:
        """Redis was restarted, and the history ends there now."""
        here = self.get(namespace)
        if here is not None and here.epoch == last.epoch and here.number > last.number:
            self[namespace] = last
        if self.on_taken_back is not None:
            self.on_taken_back(namespace, last)


@dataclass(frozen=True, slots=True)
class ShardContext:
    """The things that all shards of one start share.

    Attributes:
        inbox: takes what any of them hears.
        sealed: whether items are sealed.
        holds: whether this process holds connections, whose gaps must be exact.
        histories: the rules of this node, which tell that a namespace will have a history.
        reached: see :class:`Reached`.
        numbers: of generations. A shard that takes the place of another one goes on counting, else
            nodes that know the other one would take its messages for old ones.
    """

    keys: Keys
    identity: Identity
    inbox: Inbox
    limits: Limits
    timing: Timing
    counters: Counters
    sealed: bool
    holds: bool
    histories: HistoryRules
    reached: Reached = field(default_factory=Reached)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))


class Part(Protocol):
    """The part of a cluster that a shard other than home serves."""

    def probe_channel(self) -> str:
        """A channel in one of its slots, over which this start probes it."""

    def avoid(self, channel: str) -> None:
        """Give another probe channel from now on: the slot of this one is on its way elsewhere."""

    async def state_lost(self, commands: CommandConnection) -> bool:
        """Whether its server was restarted since this process last lived on it, and may have lost
        its state."""


class ShardObserver(Protocol):
    """Hears the events of a shard, by plain calls from the event loop."""

    def up(self, shard: Any) -> None:
        """A generation hears itself: commands can be sent over it."""

    def down(self, shard: Any) -> None:
        """The generation that was up has ended."""

    def gap(self, gap: Gap) -> None:
        """Messages were missed: told before :meth:`up` of the next generation, or between."""

    def forgotten(self, channel: str) -> None:
        """A channel is no longer subscribed: nothing of it will be heard."""

    def elsewhere(self) -> None:
        """This Redis has given slots to another one of its cluster."""
