"""Reads the broadcasts of the past from histories, for applications and newcomers."""

from collections.abc import Iterator
from math import inf
from typing import Any, NamedTuple

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.backplane.history_pages import Page
from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.history import (
    NOWHERE,
    Entry,
    HistoryMessage,
    Position,
    check_last,
)
from cluster_pool.core.ids import check_id, check_namespace, check_user
from cluster_pool.core.past import Reader, broadcast_for
from cluster_pool.core.seals import BOUND, ROUTED


class _Found(NamedTuple):
    """A message, its sender, and that sender's counter."""

    sender: str
    counter: int
    message: HistoryMessage


class HistoryReading:
    """Reads histories for one node or publisher.

    With a secret only items with a valid seal are read. A seal is bound to the namespace and the
    time of publication; by a counter that does not grow an item is known that was recorded again.
    """

    def __init__(self, backplane: Backplane) -> None:
        self._deadline = backplane.deadline
        self._histories = backplane.histories
        self._keys = backplane.setup.keys
        self._seals = backplane.setup.seals
        self._counters = backplane.setup.counters
        self._broken = backplane.shard.receiver.broken

    async def position(self, namespace: str, timeout: float | None) -> str:
        """The position of the last message, "" if no history is recorded."""
        deadline = self._deadline(timeout)
        return str(await self._histories.position(check_namespace(namespace), deadline))

    async def latest(
        self,
        namespace: str,
        last: int,
        as_id: str | None,
        user: str | None,
        timeout: float | None,
    ) -> list[HistoryMessage]:
        """The last broadcasts, the oldest first, without those that leave the reader out."""
        deadline = self._deadline(timeout)
        namespace, last = check_namespace(namespace), check_last(last)
        reader = Reader(
            None if as_id is None else check_id(as_id), None if user is None else check_user(user)
        )
        return (await self.tail(namespace, last, reader, deadline))[1]

    async def tail(
        self, namespace: str, last: int, reader: Reader, deadline: float, most_bytes: float = inf
    ) -> tuple[Position, list[HistoryMessage]]:
        """The position of the last message, and the last ones for a reader, the oldest first.

        Args:
            most_bytes: of messages, at which no more are read; the result may exceed it.
        """
        found: list[_Found] = []
        position: Position | None = None
        async for page in self._histories.newest_first(namespace, last, deadline):
            position = position or page.position
            for entry in page.entries:
                if len(found) < last:
                    found += self._messages(namespace, page, entry, reader)
            size = sum(len(one.message.message) for one in found)
            if len(found) >= last or size >= most_bytes:
                break
        return position or NOWHERE, self._once(found[:last])

    def opened(
        self, namespace: str, entry: Entry, newest: dict[str, int]
    ) -> Iterator[tuple[Position, list[Any]]]:
        """The items of an entry that can be read, in order; see :class:`.Entry`.

        Args:
            newest: with a secret, the counter of the newest item of each sender; of entries that
                were read before.
        """
        channel = self._keys.channel(namespace)
        try:
            items = list(entry.placed())
        except BrokenEnvelopeError as error:
            self._broken(error, channel)
            return
        sender = entry.header.sender_start
        for position, found in items:
            try:
                counter, item = self._opened(channel, entry, found[2] if entry.targeted else found)
            except (BrokenEnvelopeError, LookupError) as error:
                self._broken(_broken(error), channel)
                continue
            if self._seals is not None and counter <= newest.get(sender, 0):
                self._counters.dropped_forged += 1
                continue
            newest[sender] = counter
            yield position, [*found[:2], item] if entry.targeted else item

    def _messages(
        self, namespace: str, page: Page, entry: Entry, reader: Reader
    ) -> Iterator[_Found]:
        """The broadcasts of an entry, the newest first."""
        if entry.targeted:
            return
        channel = self._keys.channel(namespace)
        try:
            items = list(entry.placed())
        except BrokenEnvelopeError as error:
            self._broken(error, channel)
            return
        for position, sealed in reversed(items):
            try:
                counter, item = self._opened(channel, entry, sealed)
                found = broadcast_for(reader, item)
            except BrokenEnvelopeError as error:
                self._broken(error, channel)
                continue
            if found is not None and page.is_held(entry, position.number):
                message, *author = found
                read = HistoryMessage(str(position), message, entry.time / 1000, *author)
                yield _Found(entry.header.sender_start, counter, read)

    def _opened(self, channel: str, entry: Entry, sealed: list[Any]) -> tuple[int, list[Any]]:
        """The counter of an item, 0 without a secret, and the item."""
        if self._seals is None:
            return 0, sealed
        scopes = {ROUTED: self._keys.node_prefix} if entry.targeted else {BOUND: channel}
        published = 1000 * entry.time
        try:
            return self._seals.open_recorded(
                scopes, entry.header.sender_start, sealed, published, published
            )
        except BrokenEnvelopeError:
            self._counters.dropped_forged += 1
            raise

    def _once(self, found: list[_Found]) -> list[HistoryMessage]:
        """The messages, the oldest first, without those that were recorded again."""
        found.reverse()
        if self._seals is None:
            return [one.message for one in found]
        newest: dict[str, int] = {}
        messages = []
        for sender, counter, message in found:
            if counter > newest.get(sender, 0):
                newest[sender] = counter
                messages.append(message)
            else:
                self._counters.dropped_forged += 1
        return messages


def _broken(error: Exception) -> BrokenEnvelopeError:
    return error if isinstance(error, BrokenEnvelopeError) else BrokenEnvelopeError("content")
