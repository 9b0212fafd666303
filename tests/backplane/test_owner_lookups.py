"""Unknown owners of sends: their look-ups, the sends that wait for them, and the outcome."""

import asyncio
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

from cluster_pool.backplane.batching import SEND, NamespaceQueue, Operation
from cluster_pool.backplane.owner_lookups import OwnerLookups
from cluster_pool.exceptions import BackplaneUnavailableError
from tests.support import async_test


class View:
    """A view with a count of its readings and known owners, which answers when a test says so."""

    def __init__(self) -> None:
        self.known: set[bytes] = set()
        self.asked: list[tuple[list[bytes], Any]] = []

    def knows(self, incarnations: Collection[bytes], since: int) -> bool:
        return since < 1 and self.known >= set(incarnations)

    def look_up(self, commands: object, incarnations: list[bytes], answer: Any) -> None:
        self.asked.append((incarnations, answer))


class Waiting:
    """A queue that waits, and a record of its being told that it waits no longer."""

    def __init__(self, *, connected: bool = True) -> None:
        self.view = View()
        self.over: list[NamespaceQueue] = []
        shard: Any = SimpleNamespace(commands=object() if connected else None)
        view: Any = self.view
        self.paused: list[NamespaceQueue] = []
        pauses: Any = SimpleNamespace(begin=self.paused.extend)
        self.lookups = OwnerLookups(shard, view, pauses, self.over.extend)
        self.queue = NamespaceQueue("channel", "members", "nodes:", None)
        self.items = [
            Operation(SEND, id, b"item", 9.0, asyncio.get_running_loop().create_future())
            for id in ("a", "b", "behind")
        ]
        self.strangers = dict(zip(self.items, (b"a.0", b"b.0", b""), strict=True))

    def begin(self, reading: int) -> None:
        self.lookups.begin(self.strangers, [self.queue], reading)


@async_test
async def test_items_of_owners_that_were_looked_up_go_again() -> None:
    """The queue counts as in flight meanwhile."""
    waiting = Waiting()
    waiting.begin(1)
    assert (waiting.queue.flying, list(waiting.lookups.queues)) == (1, [waiting.queue])
    ((incarnations, answer),) = waiting.view.asked
    assert incarnations == [b"a.0", b"b.0"]
    answer(None)
    assert waiting.over == [waiting.queue]
    assert (waiting.queue.flying, list(waiting.lookups.queues)) == (0, [])
    assert not any(item.future.done() for item in waiting.items)


@async_test
async def test_a_send_whose_owner_cannot_be_looked_up_was_certainly_not_sent() -> None:
    """Also when the lookup itself may have been carried out."""
    waiting = Waiting()
    waiting.begin(1)
    ((_, answer),) = waiting.view.asked
    answer(BackplaneUnavailableError("the link was lost", maybe_executed=True))
    for item in waiting.items:
        error = item.future.exception()
        assert isinstance(error, BackplaneUnavailableError)
        assert not error.maybe_executed
    assert waiting.over == [waiting.queue]


@async_test
async def test_an_owner_is_not_looked_up_when_the_view_was_read_since_or_the_link_is_lost() -> None:
    """A view that was not read since the send is not trusted. Without the link the queue pauses."""
    waiting, away = Waiting(), Waiting(connected=False)
    waiting.view.known = {b"a.0", b"b.0"}
    waiting.begin(0)
    away.begin(1)
    for one in (waiting, away):
        assert one.view.asked == []
        assert one.queue.flying == 0
    assert (waiting.paused, away.paused) == ([], [away.queue])
    waiting.begin(1)
    assert len(waiting.view.asked) == 1


@async_test
async def test_a_member_that_is_not_registered_again_yet_is_waited_for() -> None:
    """There is no owner to look up: the queue pauses, and sends its items again."""
    waiting = Waiting()
    waiting.strangers = dict.fromkeys(waiting.items, b"")
    waiting.begin(0)
    assert waiting.view.asked == []
    assert waiting.paused == [waiting.queue]
