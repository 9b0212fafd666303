"""The subscriber of one generation: receives messages, confirms subscriptions, never reconnects.

It parses no payload: each is handed on unchanged, in the order of arrival.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from cluster_pool.backplane.channel_commands import PLAIN, ChannelCommands
from cluster_pool.backplane.command_connection import Pipe
from cluster_pool.backplane.in_steps import in_steps
from cluster_pool.backplane.logins import Raw
from cluster_pool.backplane.refusals import FAULTS, is_elsewhere, unavailable
from cluster_pool.backplane.slots import slot_of

BATCH = 500
"""Channels per SUBSCRIBE; on a cluster, those of several commands that are written together."""

Channels = Sequence[bytes]
"""Names of channels."""
Groups = Sequence[Channels]
"""Channels that one command may name: on a cluster those of a slot."""


class Subscriber(Pipe):
    """One subscribed socket. ``on_message(channel, payload)`` is called for each message.

    Args:
        on_ended: told of channels that this Redis has given to another one of its cluster; what
            is published from then on is heard there.
    """

    def __init__(
        self,
        connection: Raw,
        on_message: Callable[[bytes, bytes], None],
        commands: ChannelCommands = PLAIN,
        on_ended: Callable[[Channels], None] | None = None,
    ) -> None:
        super().__init__(connection)
        self._on_message = on_message
        self._commands = commands
        self._on_ended = on_ended
        self._unanswered: dict[bytes, int] = {}
        self._leaving: dict[bytes, int] = {}
        """Unsubscriptions of ours that are not confirmed, where others may come unasked."""
        self._asked: deque[set[bytes]] = deque()
        """The commands that are not answered, each with its channels; where a command may be
        refused and the others go on."""
        self._waiters: dict[bytes, list[asyncio.Future[bool]]] = {}
        self._gone = False

    def confirmed(self, channels: Channels) -> list[asyncio.Future[bool]]:
        """Subscribe to channels of one slot; each gives True when Redis has confirmed it, False
        when the socket is gone or the slot is at another Redis."""
        return self._ask((channels,))

    async def in_groups(self, channels: Iterable[bytes]) -> AsyncIterator[Groups]:
        """Split very many channels into parts for :meth:`all_confirmed`.

        All of a slot are in one group: a command for each channel would take a node that has
        100,000 namespaces on a cluster many times as long.
        """
        slots: dict[int, list[bytes]] = {}
        async for part in in_steps(channels):
            if self._commands.sharded:
                _add(part, slots)
            else:
                for group in self._grouped(part):
                    yield [group]
        groups: list[Channels] = []
        size = 0
        for group in slots.values():
            groups.append(group)
            size += len(group)
            if size >= BATCH:
                yield groups
                groups, size = [], 0
        if groups:
            yield groups

    async def all_confirmed(self, groups: Groups) -> None:
        """Subscribe to several channels and wait until each of them is answered."""
        for future in self._ask(groups):
            await future

    async def all_ended(self, channels: Channels) -> bool:
        """Wait until no more messages can come on channels that another server has.

        Returns False when the socket is gone, and messages may be gone with it.
        """
        for future in self._ask(self._grouped(channels), leaving=True):
            await future
        return not self._gone

    def _grouped(self, channels: Channels) -> Groups:
        """Channels that one command may name, together."""
        if not self._commands.sharded:
            return [channels[at : at + BATCH] for at in range(0, len(channels), BATCH)]
        slots: dict[int, list[bytes]] = {}
        _add(channels, slots)
        return list(slots.values())

    def _ask(self, groups: Groups, *, leaving: bool = False) -> list[asyncio.Future[bool]]:
        loop = asyncio.get_running_loop()
        word = self._commands.unsubscribe if leaving else self._commands.subscribe
        futures = []
        for channels in groups:
            for channel in channels:
                future: asyncio.Future[bool] = loop.create_future()
                futures.append(future)
                if self._gone:
                    future.set_result(False)
                    continue
                self._unanswered[channel] = self._unanswered.get(channel, 0) + 1
                self._waiters.setdefault(channel, []).append(future)
                if leaving:
                    self._leaving[channel] = self._leaving.get(channel, 0) + 1
            if not self._gone:
                self._put(word, channels)
        return futures

    def _put(self, word: str, channels: Channels) -> None:
        """Queue one command."""
        if self._commands.sharded:
            self._asked.append(set(channels))
        self.put(word, *channels)

    def unsubscribe(self, channels: Channels) -> None:
        """Unsubscribe channels. A later subscription is confirmed only by its own reply."""
        for channel in channels:
            self._unanswered[channel] = self._unanswered.get(channel, 0) + 1
            if self._commands.ended:
                self._leaving[channel] = self._leaving.get(channel, 0) + 1
        for group in self._grouped(channels):
            self._put(self._commands.unsubscribe, group)

    async def read_forever(self) -> None:
        """Hand on messages. Ends only with an error or by cancellation."""
        read, commands = self.connection.read_response, self._commands
        message = commands.message
        while True:
            try:
                push = await read(disconnect_on_error=False)
            except FAULTS as error:
                if commands.sharded and is_elsewhere(error):
                    self._refused(self._pop_asked(error))
                    continue
                raise unavailable("the subscription failed", error) from error
            if push[0] == message:
                self._on_message(push[1], push[2])
            elif push[0] == commands.ended and not self._left(push[1]):
                self._tell_ended((push[1],))
            elif push[0] in commands.replies:
                self._confirm(push[1])

    async def drop(self) -> None:
        """Close the socket; open confirmations become False."""
        self._gone = True
        for futures in self._waiters.values():
            _answer(futures, confirmed=False)
        self._waiters.clear()
        await super().drop()

    def _left(self, channel: bytes) -> bool:
        """Whether an unsubscription that has arrived answers one of ours."""
        left = self._leaving.pop(channel, 0)
        if left > 1:
            self._leaving[channel] = left - 1
        return left > 0

    def _confirm(self, channel: bytes) -> None:
        if self._asked:
            self._asked[0].discard(channel)
            if not self._asked[0]:
                self._asked.popleft()
        left = self._unanswered.get(channel, 0) - 1
        if left > 0:
            self._unanswered[channel] = left
            return
        self._unanswered.pop(channel, None)
        _answer(self._waiters.pop(channel, ()), confirmed=True)

    def _pop_asked(self, error: BaseException) -> set[bytes]:
        """The channels of the command that an error answers.

        It is the first one for the slot that the error names. None is left when the server ended
        the subscriptions by itself before it read our unsubscription: then its own words were
        taken for the answer.
        """
        slot = getattr(error, "slot_id", None)
        for asked in self._asked:
            if slot is None or slot_of(next(iter(asked)).decode()) == slot:
                self._asked.remove(asked)
                return asked
        return set()

    def _refused(self, channels: set[bytes]) -> None:
        """A command was not executed: the slot of its channels is at another Redis, or at none."""
        for channel in channels:
            self._left(channel)
            left = self._unanswered.pop(channel, 0) - 1
            if left > 0:
                self._unanswered[channel] = left
            _answer(self._waiters.pop(channel, ()), confirmed=False)
        self._tell_ended(list(channels))

    def _tell_ended(self, channels: Channels) -> None:
        if self._on_ended is not None:
            self._on_ended(channels)


def _add(channels: Channels, slots: dict[int, list[bytes]]) -> None:
    """Add channels to those of their slots."""
    for channel in channels:
        slots.setdefault(slot_of(channel.decode()), []).append(channel)


def _answer(futures: Sequence[asyncio.Future[bool]], *, confirmed: bool) -> None:
    for future in futures:
        if not future.done():
            future.set_result(confirmed)
