"""The channels that one start wants, with reference counts, over all its generations.

Keeps the subscriber of each generation in step with them. Payloads go to :mod:`.receiver`, which
counts them.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from cluster_pool.backplane.calls import Deadline, deadline_in
from cluster_pool.backplane.channel_counters import ChannelCounters, counter_in
from cluster_pool.backplane.command_connection import CommandConnection
from cluster_pool.backplane.generation import Generations
from cluster_pool.backplane.health import Health
from cluster_pool.backplane.in_steps import overlapped
from cluster_pool.backplane.receiver import Receiver
from cluster_pool.backplane.subscriber import BATCH, Groups, Subscriber
from cluster_pool.backplane.subscription import Subscription, end_all
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import is_of_one
from cluster_pool.core.numbers import Counter, ServerChange
from cluster_pool.exceptions import BackplaneUnavailableError

DRAIN = 1.0
"""Seconds to wait for the last messages of a Redis that has given slots away."""


class Subscriptions:
    """The wanted channels of one start at one Redis.

    The first of them is the one over which this start probes itself.

    Args:
        probe_channel: gives that channel, as it shall be from the next generation on.
        forgotten: called with each channel that is no longer wanted here.
        elsewhere: called when Redis has ended subscriptions by itself: their slot has moved.
    """

    def __init__(
        self,
        identity: Identity,
        generations: Generations,
        health: Health,
        receiver: Receiver,
        probe_channel: Callable[[], str],
        forgotten: Callable[[str], None],
        elsewhere: Callable[[], None],
    ) -> None:
        self._identity = identity
        self._probe_channel = probe_channel
        self._elsewhere = elsewhere
        self._generations = generations
        self._health = health
        self._receiver = receiver
        self._counters = ChannelCounters(receiver)
        self._forgotten = forgotten
        self._subscriber: Subscriber | None = None
        self._names: dict[bytes, str] = {}
        self._users: dict[str, int] = {}
        """The number of references to each channel."""
        self._own: Subscription | None = None
        """The subscription to the channel over which this start probes itself."""
        self._former: Subscription | None = None
        """The one before, over which a probe may still be on its way."""
        self._resubscribed: set[str] = set()
        """Channels whose counters are being read, and that were not dropped meanwhile."""
        self._read: list[tuple[str, Counter]] = []
        """Counters of channels that were subscribed again within this generation."""
        self.ended: set[str] = set()
        """Wanted channels whose subscription this Redis has ended by itself."""

    @property
    def probed(self) -> str:
        """The channel over which this start probes itself."""
        return "" if self._own is None else self._own.channel

    # -- references ------------------------------------------------------------------------

    def add(self, channel: str, *, counted: str = "") -> Subscription:
        """Add a reference to a channel; :meth:`Subscription.confirmed` subscribes it.

        Args:
            counted: the hash of owners in which the joins and leaves of this channel are counted;
                "" for a channel of messages.
        """
        if counted:
            self._receiver.events[channel] = counted
        self._users[channel] = self._users.get(channel, 0) + 1
        self._names[channel.encode()] = channel
        return Subscription(self, channel)

    @property
    def channels(self) -> list[str]:
        """All wanted channels."""
        return list(self._users)

    @property
    def size(self) -> int:
        """How many are wanted."""
        return len(self._users)

    def listens(self, channel: str) -> bool:
        """Whether ``channel`` is wanted."""
        return channel in self._users

    def drop(self, channels: Iterable[str]) -> None:
        """Drop one reference to each channel; without any it is unsubscribed and forgotten."""
        unwanted = []
        for channel in channels:
            left = self._users.pop(channel, 0) - 1
            if left > 0:
                self._users[channel] = left
                continue
            name = channel.encode()
            if self._names.pop(name, None) is None:  # all was dropped at the end
                continue
            unwanted.append(name)
            self._resubscribed.discard(channel)
            self.ended.discard(channel)
            self._receiver.forget(channel)
            self._forgotten(channel)
        if self._subscriber is not None and unwanted:
            self._subscriber.unsubscribe(unwanted)

    def drop_all(self) -> None:
        """Drop all references: this start ends."""
        self._names, self._users = {}, {}
        self._own = self._former = None

    async def confirm(self, channel: str, deadline: Deadline) -> None:
        """Subscribe a wanted channel; see :meth:`Subscription.confirmed`."""
        await self.confirm_all((channel,), deadline)

    async def confirm_all(self, channels: Sequence[str], deadline: Deadline) -> None:
        """Subscribe wanted channels of one slot; see :meth:`Subscription.confirmed`."""
        names = [channel.encode() for channel in channels]
        while True:
            generation = await self._generations.connected(deadline)
            subscriber = self._subscriber
            if subscriber is None:
                continue
            try:
                async with self._generations.ending_at(deadline, maybe_executed=False):
                    for confirmed in subscriber.confirmed(names):
                        if not await confirmed:
                            why = f"{channels[0]} is in a slot that has moved"
                            raise BackplaneUnavailableError(why)
                    commands = generation.commands(channels[0])
                    asked = [self._counters.ask(commands, channel) for channel in channels]
                    for channel, call in zip(channels, asked, strict=True):
                        self._receiver.begin(channel, await counter_in(call))
                return
            except BackplaneUnavailableError:
                if generation.lasts:
                    raise

    # -- hearing ---------------------------------------------------------------------------

    def hear(self, name: bytes, payload: bytes) -> None:
        """One payload has arrived."""
        channel = self._names.get(name)
        if channel is not None:
            self._receiver.hear(channel, payload)

    # -- generations -----------------------------------------------------------------------

    async def begin(self, subscriber: Subscriber) -> None:
        """Subscribe every wanted channel in a new generation."""
        self._want_own()
        self._subscriber = subscriber
        self.ended.clear()
        self._resubscribed.clear()
        parts = subscriber.in_groups(self._names)
        await overlapped(self._confirm_part(subscriber, groups) async for groups in parts)

    async def _confirm_part(self, subscriber: Subscriber, groups: Groups) -> None:
        await self._health.soon(subscriber.all_confirmed(groups))
        self._resubscribed.update(*self._heard(groups))

    def end(self) -> None:
        """The generation has ended, and its subscriber with it."""
        self._subscriber = None
        self._read.clear()

    def _want_own(self) -> None:
        """Put the start's own channel first; after a change of the node id it is another one."""
        channel = self._probe_channel()
        formers = [self._former]
        self._former = None
        if self._own is None or self._own.channel != channel:
            formers.append(self._own)
            others, self._names = self._names, {}
            self._own = self.add(channel)
            self._names.update(others)
        end_all(one for one in formers if one is not None)

    async def hear_own(self, deadline: float) -> None:
        """Subscribe the channel of the node id, which is now this start's, and probe over it.

        Before, this start does not listen to that channel: a successor counts who does, to find out
        whether its predecessor lives. The channel of the start was probed over until now. It stays
        subscribed: on one Redis, items for members come over it.

        Raises:
            BackplaneUnavailableError: not confirmed by ``deadline``.
        """
        self.add(self._identity.start_channel)
        self._identity.claimed = True
        own = self.add(self._identity.own_channel)
        await own.confirmed(deadline)
        self._probe_over(own)

    def _probe_over(self, own: Subscription) -> None:
        """Probe over another channel, unless a new generation has begun with it."""
        former = own if self.probed == own.channel else self._former
        if former is not own:
            self._former, self._own = self._own, own
        if former is not None:
            former.end()

    def heard_probe(self, channel: str) -> None:
        """A probe over ``channel`` was heard: none is on its way over the former channel."""
        if self._former is not None and channel == self.probed:
            self._former.end()
            self._former = None

    async def read_counters(
        self, commands: CommandConnection, subscriber: Subscriber
    ) -> list[tuple[str, Counter]]:
        """Read the counters of all channels that :meth:`begin` has subscribed."""
        parts = subscriber.in_groups(self._names)
        counted = (self._counted(commands, self._heard(groups)) async for groups in parts)
        return list(chain.from_iterable(await overlapped(counted)))

    def _heard(self, groups: Groups) -> list[list[str]]:
        """The channels of groups that are wanted and that Redis has not ended meanwhile."""
        names = [[name for name in map(self._names.get, group) if name] for group in groups]
        heard = [[name for name in group if name not in self.ended] for group in names]
        return [group for group in heard if group]

    async def _counted(
        self, commands: CommandConnection, groups: list[list[str]]
    ) -> list[tuple[str, Counter]]:
        return await self._health.soon(self._counters.read(commands, groups))

    async def compare(self, counters: list[tuple[str, Counter]], change: ServerChange) -> None:
        """Compare counters with what was heard, after all that they count has arrived.

        A channel that was dropped meanwhile is left out: it may be wanted again by now, and its
        counter was read before that. ``change`` is that since these channels were interrupted.

        Those over which targeted messages come are the first: histories may have what they missed.
        """
        now = self._health.redis_time()
        ordered = sorted(counters, key=lambda one: not is_of_one(one[0]))
        for at in range(0, len(ordered), BATCH):
            for channel, counter in ordered[at : at + BATCH]:
                if channel in self._resubscribed:
                    self._receiver.resubscribed(channel, counter, change, now)
                    self._counters.note(channel, counter)
            await asyncio.sleep(0)

    async def read_again(
        self, commands: CommandConnection, subscriber: Subscriber
    ) -> list[tuple[str, Counter]]:
        """Read counters that could not be read; gives those that can, for :meth:`compare`."""
        found: list[tuple[str, Counter]] = []
        some = [channel.encode() for channel in self._counters.pop_unread()]
        async for groups in subscriber.in_groups(some):
            found += await self._counted(commands, self._heard(groups))
        return [one for one in found if self._counters.note(*one)]

    # -- slots that move ---------------------------------------------------------------------

    def end_by_itself(self, names: Iterable[bytes]) -> None:
        """Note subscriptions that Redis has ended by itself: their slots are elsewhere now."""
        channels = [channel for channel in map(self._names.get, names) if channel is not None]
        for channel in channels:
            self._receiver.ended(channel)
        self.ended.update(channels)
        if channels:
            self._elsewhere()

    async def probe_again(self) -> None:
        """Probe over another channel, if the slot of the present one is elsewhere; raises
        BackplaneUnavailableError when that is not confirmed."""
        channel = self._probe_channel()
        if self._generations.current is None or self.probed in ("", channel):
            return
        own = self.add(channel)
        try:
            await own.confirmed(deadline_in(DRAIN))
        except BaseException:
            own.end()
            raise
        self._probe_over(own)

    def hand_over(self, channels: Iterable[str], other: "Subscriptions") -> list[str]:
        """Subscribe these channels at another Redis of the cluster, which has their slots now.

        The other one must then :meth:`resubscribe` the result; its gap has what was missed.
        """
        moved = [channel for channel in channels if channel in self._users]
        for channel in moved:
            other._adopt(channel, self._users.pop(channel))
            self._names.pop(channel.encode(), None)
            self._resubscribed.discard(channel)
            self.ended.discard(channel)
            self._receiver.hand_over(channel, other._receiver)
            self._forgotten(channel)
        return moved

    async def drain(self, channels: Iterable[str]) -> None:
        """Wait until all messages of these channels were received, while the socket works.

        Their slots are elsewhere, so that this Redis publishes nothing more there.
        """
        subscriber = self._subscriber
        left = [channel for channel in channels if channel not in self.ended]
        if subscriber is not None and left:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN):
                    if await subscriber.all_ended([channel.encode() for channel in left]):
                        for channel in left:
                            self._receiver.ended(channel)

    def _adopt(self, channel: str, users: int) -> None:
        self._users[channel] = self._users.get(channel, 0) + users
        self._names[channel.encode()] = channel

    async def resubscribe(self, channels: Iterable[str]) -> None:
        """Subscribe wanted channels once more, and read their counters; see
        :meth:`pop_resubscribed`. Without a generation the next one does it.

        Raises BackplaneUnavailableError when the generation ends meanwhile.
        """
        subscriber, commands = self._subscriber, self._generations.commands
        wanted = [channel for channel in channels if channel in self._users]
        if subscriber is None or not wanted:
            return
        if commands is None:  # this generation is coming up, and may have begun without them
            self.ended.update(wanted)
            self._elsewhere()
            return
        self.ended.difference_update(wanted)
        async for groups in subscriber.in_groups(channel.encode() for channel in wanted):
            await self._health.soon(subscriber.all_confirmed(groups))
            heard = self._heard(groups)
            self._resubscribed.update(*heard)
            self._read += await self._counted(commands, heard)

    def pop_resubscribed(self) -> list[tuple[str, Counter]]:
        """Where the counters stood of channels that were subscribed again; to be settled once a
        probe was heard that was sent after this."""
        counters, self._read = self._read, []
        return counters
