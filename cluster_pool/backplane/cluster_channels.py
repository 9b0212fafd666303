"""Subscriptions on a cluster: each channel is subscribed at the shard that has its slot now."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from cluster_pool.backplane.calls import Deadline
from cluster_pool.backplane.refusals import is_refusal
from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.subscription import Subscription
from cluster_pool.backplane.topology import Topology
from cluster_pool.exceptions import BackplaneUnavailableError

LOOK: Final = 0.5
"""Seconds after which the shard of a channel that is not confirmed is looked up again. It
doubles with each attempt: the shard may be far away, or busy."""
PAUSE: Final = 0.03
"""Seconds between two attempts when a shard refuses it."""


class ClusterChannels:
    """See :class:`.Channels`.

    With the channel of a namespace comes that of what is targeted at members of this start there;
    it is in the same slot.
    """

    def __init__(self, topology: Topology, start: str) -> None:
        self._topology = topology
        self._ending = f":start:{start}"

    def add(self, channel: str, *, counted: str = "") -> Subscription:
        """See :meth:`.Subscriptions.add`."""
        for name in self._with_routed(channel):
            self._topology.of(name).subscriptions.add(name, counted=counted)
        return Subscription(self, channel)

    def drop(self, channels: Iterable[str]) -> None:
        """See :meth:`.Subscriptions.drop`."""
        by_shard: dict[Shard, list[str]] = {}
        for channel in channels:
            for name in self._with_routed(channel):
                shard = self._listening(name)
                if shard is not None:
                    by_shard.setdefault(shard, []).append(name)
        for shard, names in by_shard.items():
            shard.subscriptions.drop(names)

    async def confirm(self, channel: str, deadline: Deadline) -> None:
        """See :meth:`.Subscription.confirmed`."""
        await self._confirm(list(self._with_routed(channel)), deadline)

    async def _confirm(self, names: Sequence[str], deadline: Deadline) -> None:
        """Subscribe channels of one slot at their shard; the slot may move meanwhile."""
        loop = asyncio.get_running_loop()
        look = LOOK
        while True:
            shard = self._topology.of(names[0])
            until = loop.time() + look if deadline is None else min(deadline, loop.time() + look)
            try:
                if all(map(shard.listens, names)):
                    await shard.subscriptions.confirm_all(names, until)
                    if self._topology.of(names[0]) is shard:
                        return
            except BackplaneUnavailableError as error:
                if is_refusal(error) or (deadline is not None and loop.time() >= deadline):
                    raise
                if loop.time() >= until:
                    look *= 2
            if deadline is not None and loop.time() >= deadline:
                raise shard.in_vain()
            await asyncio.sleep(PAUSE)

    def _with_routed(self, channel: str) -> Iterator[str]:
        yield channel
        if channel.endswith("}"):
            yield channel + self._ending

    def _listening(self, name: str) -> Shard | None:
        """The shard that subscribes a channel: its slot's, or the former one during a move."""
        shard = self._topology.of(name)
        if shard.listens(name):
            return shard
        return next((one for one in self._topology.shards if one.listens(name)), None)
