"""The books of a round, to be looked up: who heard a message, whose an id was, who was there."""

import math
from collections import defaultdict
from collections.abc import Iterable

from faults.books import Books, Call, Connection


class Index:
    """Of one round's books, which must not change any more."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.calls = {(call.sender, call.number): call for call in books.calls}
        self.heard_by: dict[tuple[str, int], list[Connection]] = defaultdict(list)
        self.of_namespace: dict[str, list[Connection]] = defaultdict(list)
        self._of_id: dict[tuple[str, str], list[Connection]] = defaultdict(list)
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

    def owners(self, call: Call) -> list[Connection]:
        """Who last had the id when the call began, and those that took it meanwhile.

        The one may have ended: until another takes the id the registry names it, if its node died.
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

    def excused(self, call: Call, connections: Iterable[Connection]) -> bool:
        """Whether something was broken between the sender of a call and these connections."""
        nodes = {call.sender, *(connection.node for connection in connections)}
        return any(window.excuses(call, nodes) for window in self.books.windows)
