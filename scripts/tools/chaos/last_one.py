"""Whether the last-one callbacks were true, and none was missing, while nothing was wrong.

During a fault a release waits for Redis, a node that dies tells nobody, and its members are there
until its lease has ended. So what happens near a fault is not judged, nor near the ends of a round.
"""

import math
from collections.abc import Callable, Iterable, Iterator

from tools.chaos.books import BEFORE, LEASE, ORDERED, SENT_AND_CLOSED, SOON, Connection, Emptied
from tools.chaos.index import Index


def last_one_failures(index: Index) -> Iterator[str]:
    """The broken rules, in words."""
    if index.books.emptied is None:
        return
    calm = _calm(index)
    for one in index.books.emptied:
        there = [
            connection
            for connection in index.of_namespace[one.namespace]
            if connection.open_at(one.time - SOON) and connection.open_at(one.time + SOON)
        ]
        if there and calm(one.time):
            yield f"{one.node} was told that it emptied {one.namespace}, and {there[0]} was there"
    for connections in index.of_namespace.values():
        for last in connections:
            if last.closed is not None and calm(last.closed) and _was_last(last, connections):
                yield from _told(index.books.emptied, last, last.closed)


def _calm(index: Index) -> Callable[[float], bool]:
    """Whether at a time nothing was wrong, nor had been lately, and the round went on."""
    calls = index.books.calls
    begin = min((one.begun for one in calls), default=math.inf) + LEASE
    end = max((one.ended for one in calls if one.ended < math.inf), default=0.0) - SOON
    faults = [
        (one.begun - BEFORE - SOON, one.ended + LEASE + SOON)
        for one in index.books.windows
        if one.nodes is None or one.nodes
    ]
    return lambda time: (
        begin < time < end and not any(since < time < until for since, until in faults)
    )


def _told(emptied: Iterable[Emptied], last: Connection, closed: float) -> Iterator[str]:
    times = sum(
        one.namespace == last.namespace and closed - SOON < one.time < closed + SOON
        for one in emptied
    )
    if times != 1:
        yield f"{last} was the last of its namespace to leave, which was told {times} times"


def _was_last(one: Connection, connections: list[Connection]) -> bool:
    """Whether it was given up while nobody else was there, or came or went for a while."""
    if one.closed is None or (one.left is None and one.code not in (SENT_AND_CLOSED, ORDERED)):
        return False
    begin, end = one.closed - SOON, one.closed + SOON
    return one.opened < begin and not any(
        other is not one and other.opened < end and (other.closed is None or other.closed > begin)
        for other in connections
    )
