"""The rules about connections, which hold with any messages and faults.

Each hears a message once, in order, and nothing of others; broadcasts come in one order to all;
none ends without a reason; and in the end the registry has exactly those that are open. One whose
id was taken over hears nothing that is sent later, but for broadcasts and its own node's messages
before that node is told: the news can be lost with a link, and it need not ask while its lease
has not ended.
"""

import math
from collections import Counter
from collections.abc import Iterator

from tools.chaos.books import ORDERED, OTHERS, SENT_AND_CLOSED, TAKEN_OVER, THEN_CLOSE, Connection
from tools.chaos.index import Index
from tools.chaos.order import out_of_order, without_one_order


def connection_failures(index: Index) -> Iterator[str]:
    """The broken rules, in words."""
    for connection in index.books.connections:
        yield from _heard(index, connection)
        if connection.closed is not None and not _may_end(index, connection):
            yield f"{connection} was closed with {connection.code}"
    for namespace, connections in index.of_namespace.items():
        yield from _one_order(index, namespace, connections)
    yield from _registry(index)


def _heard(index: Index, connection: Connection) -> Iterator[str]:
    for message, times in Counter(connection.heard).items():
        if times > 1:
            yield f"{connection} heard {message} {times} times"
        call = index.calls.get(message)
        if call is None:
            yield f"{connection} heard {message}, which nobody sent"
        elif call.kind in OTHERS:
            yield f"{connection} heard {message}, which was no message"
        elif call.namespace != connection.namespace or call.id not in ("", connection.id):
            yield f"{connection} heard what was for another: {call}"
        elif index.another_has(call, connection) and not index.unaware(call, connection):
            after = call.begun - index.taken_at(connection)
            yield (
                f"{connection} heard what was sent {after:.2f} s after it was taken over: {call}"
                f"{index.amid(call.begun)}"
            )
    for sender, number, before in out_of_order(connection.heard):
        yield f"{connection} heard {number} of {sender} after {before}"


def _may_end(index: Index, connection: Connection) -> bool:
    if connection.node in index.books.killed or connection.left is not None:
        return True
    if connection.code == SENT_AND_CLOSED:
        last = index.calls.get(connection.heard[-1]) if connection.heard else None
        return last is not None and last.kind == THEN_CLOSE
    if connection.code == ORDERED:
        orders = index.closes[connection.namespace, connection.id]
        return any(order.begun < (connection.closed or 0.0) for order in orders)
    return index.taken_at(connection) < math.inf and connection.code == TAKEN_OVER


def _one_order(index: Index, namespace: str, connections: list[Connection]) -> Iterator[str]:
    if len(connections) < 2:
        return
    broadcasts = index.broadcast_messages
    heard = [[one for one in connection.heard if one in broadcasts] for connection in connections]
    circle = without_one_order(heard)
    if circle:
        yield (
            f"no one order of broadcasts in {namespace}: {len(circle)} cannot be put into one,"
            f" among them {circle[0]}"
        )


def _registry(index: Index) -> Iterator[str]:
    registry = index.books.registry
    if registry is None:
        return
    connections = (*index.books.connections, *index.books.past.connections)
    there = {(one.namespace, one.id, one.node) for one in connections if one.closed is None}
    for namespace, id, node in sorted({*registry} ^ there):
        wrong = "open and not registered" if (namespace, id, node) in there else "a ghost"
        yield f"{namespace}/{id} at {node} is {wrong}"
