"""The books of a round, to be looked up: who heard a message, whose an id was, who was there."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable

from tools.chaos.books import (
    BROADCAST,
    CLOSE,
    LEASE,
    NEWS,
    PUBLISH,
    SOON,
    UNSURE,
    Books,
    Call,
    Connection,
)
from tools.chaos.sparse import is_sparse


class Index:
    """An index of one round's books, which must not change any more."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.calls = {(call.sender, call.number): call for call in books.calls}
        self.broadcast_messages = {message for message, one in self.calls.items() if not one.id}
        self.heard_by: dict[tuple[str, int], list[Connection]] = defaultdict(list)
        self.of_namespace: dict[str, list[Connection]] = defaultdict(list)
        self._of_id: dict[tuple[str, str], list[Connection]] = defaultdict(list)
        self.broadcasts: dict[str, list[Call]] = defaultdict(list)
        self.closes: dict[tuple[str, str], list[Call]] = defaultdict(list)
        for call in books.calls:
            if call.kind == BROADCAST:
                self.broadcasts[call.namespace].append(call)
            elif call.kind == CLOSE:
                self.closes[call.namespace, call.id].append(call)
        for connection in books.connections:
            self._of_id[connection.namespace, connection.id].append(connection)
            self.of_namespace[connection.namespace].append(connection)
            for message in connection.heard:
                self.heard_by[message].append(connection)

    def taken_at(self, connection: Connection) -> float:
        """When a newer connection of its id was open."""
        siblings = self._of_id[connection.namespace, connection.id]
        newer = (one.opened for one in siblings if one.opened > connection.opened)
        return min(newer, default=math.inf)

    def another_has(self, call: Call, connection: Connection) -> bool:
        """Whether a newer connection had its id from when the call began until all was well.

        One that came and went leaves the id to an older one that is still open.
        """
        ends = [one.ended for one in self.books.windows if one.excuses(call, [connection.node])]
        until = max(call.ended if call.ended < math.inf else call.begun, *ends, call.begun)
        return any(
            one.opened > connection.opened
            and one.open_at(call.begun)
            and (one.closed is None or one.closed > until)
            for one in self._of_id[connection.namespace, connection.id]
        )

    def owners(self, call: Call) -> list[Connection]:
        """The last owner of the id when the call began, and those that took it meanwhile.

        The last one may have ended: if its node died, the registry still names it.
        """
        siblings = self._of_id[call.namespace, call.id]
        before = [one for one in siblings if one.opened < call.begun]
        meanwhile = [one for one in siblings if call.begun <= one.opened <= call.ended]
        newest = sorted(before, key=lambda one: one.opened)[-1:]
        return newest + meanwhile

    def due(self, call: Call) -> list[Connection]:
        """The connections that should get a broadcast."""
        there = [one for one in self.of_namespace[call.namespace] if one.open_at(call.begun)]
        return [one for one in there if self.taken_at(one) > call.begun]

    def excused(self, call: Call, connections: Iterable[Connection], after: float = 0.0) -> bool:
        """Whether something was broken between the sender of a call and these connections."""
        nodes = {call.sender, *(connection.node for connection in connections)}
        return any(window.excuses(call, nodes, after) for window in self.books.windows)

    def unsure(self, call: Call) -> bool:
        """Whether its sender could not know that nobody is registered under the id of a call.

        Redis had lost what was registered a moment ago.
        """
        return call.outcome == "not_sent" and self.excused(call, (), after=UNSURE)

    def stayed(self, call: Call, connection: Connection) -> bool:
        """Whether this connection, open when the call began, was so for as long as it matters."""
        if connection.closed is None:
            return True
        return connection.closed > call.ended + SOON and not self.excused(call, [connection])

    def left(self, call: Call, owners: Iterable[Connection]) -> bool:
        """Whether the client of one of them was leaving, or had just left."""
        return any(
            one.left is not None
            and one.closed is not None
            and one.closed >= call.begun - SOON
            and not self.stayed(call, one)
            for one in owners
        )

    def unaware(self, call: Call, connection: Connection) -> bool:
        """Whether its node, in its lease, may not have known that this one was taken over.

        Its own node sends to it without a question until the news is there, which takes a moment.
        """
        local = call.kind in (BROADCAST, PUBLISH) or call.sender == connection.node
        if call.sender == connection.node and call.begun < self.taken_at(connection) + NEWS:
            return True
        return local and any(
            window.excuses(call, [connection.node])
            and (call.begun - window.begun < LEASE or self.taken_at(connection) >= window.healed)
            for window in self.books.windows
        )

    def amid(self, time: float) -> str:
        """When this was, in words: how long after the begin of what was broken."""
        return "".join(
            f", {time - one.begun:+.1f} s from the begin of {one.ended - one.begun:.1f} s of harm"
            for one in self.books.windows
        )

    def followed(self) -> int:
        """How often a targeted message was heard right behind its sender's broadcast before it."""
        return sum(
            sender == before
            and number == last + 1
            and self._is_pair((before, last), (sender, number))
            for connection in self.books.connections
            for (before, last), (sender, number) in itertools.pairwise(connection.heard)
        )

    def _is_pair(self, first: tuple[str, int], second: tuple[str, int]) -> bool:
        earlier, later = self.calls.get(first), self.calls.get(second)
        if earlier is None or later is None or not is_sparse(later.namespace):
            return False
        return earlier.kind == BROADCAST and bool(later.id)
