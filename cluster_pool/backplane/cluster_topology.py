"""The shards of a Redis Cluster, and the slots that each of them has now.

Each primary has a shard, with links of its own; home has others. A shard stays the same object when
a replica of its primary is promoted. When slots move, the channels in them are heard at their new
shard, and the observer is told, who moves what else belongs to them.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, Final, Protocol

from cluster_pool.backplane.address import Address
from cluster_pool.backplane.calls import Deadline
from cluster_pool.backplane.cluster_channels import ClusterChannels
from cluster_pool.backplane.cluster_links import ClusterLinks
from cluster_pool.backplane.cluster_map import FRESH, ClusterMap
from cluster_pool.backplane.cluster_parts import ClusterPart, HomePlace, Nowhere, moved_to
from cluster_pool.backplane.command_connection import Argument, ScriptCall
from cluster_pool.backplane.in_steps import in_steps
from cluster_pool.backplane.outage import Outage
from cluster_pool.backplane.refusals import is_elsewhere
from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.slots import HOME_SLOT, SLOTS, Group, hash_tag, slot_of
from cluster_pool.core.identity import Identity
from cluster_pool.core.ids import NODE_TAG
from cluster_pool.core.keys import Keys, is_probe
from cluster_pool.exceptions import BackplaneUnavailableError

log = logging.getLogger("cluster_pool.backplane")

PAUSE: Final = 0.03
"""Seconds until an operation whose key has moved is tried again."""

Place = HomePlace | ClusterPart | Nowhere
Make = Callable[[Place], Shard]
"""Makes a shard, which is not started."""


class TopologyObserver(Protocol):
    """Is told what happens to the shards of a cluster, from the event loop."""

    def moved(self, slots: Collection[int]) -> None:
        """These slots have other shards now; called again when their channels are heard there."""


class ClusterTopology:
    """See :class:`.Topology`."""

    spans = True

    def __init__(
        self,
        address: Address,
        make: Make,
        keys: Keys,
        identity: Identity,
        observer: TopologyObserver,
    ) -> None:
        self._make = make
        self._observer = observer
        self._map = ClusterMap(address, self._changed)
        self._make_part: Callable[[Group], ClusterPart] = partial(
            ClusterPart, address, self._map, keys, identity
        )
        self._home_place = HomePlace(address, self._map)
        self.home = make(self._home_place)
        self._parts: dict[ClusterPart, Shard] = {}
        self._nowhere = make(Nowhere(self._map))
        self._by_slot: list[Shard] = [self._nowhere] * SLOTS
        self._arranged: list[Shard] = self._by_slot
        """The shards of all slots when every channel was last found where it belongs."""
        self.subscriptions = ClusterChannels(self, identity.start)
        self.routed_prefix = keys.routed_prefix
        self.look_again = self._map.look_again
        self._running = False
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- which -----------------------------------------------------------------------------

    def of(self, key: str) -> Shard:
        """See :meth:`.Topology.of`."""
        slot = slot_of(key)
        if slot == HOME_SLOT and hash_tag(key) == NODE_TAG:
            return self.home
        return self._by_slot[slot]

    @property
    def shards(self) -> Sequence[Shard]:
        """See :attr:`.Topology.shards`."""
        return (self.home, *self._parts.values(), self._nowhere)

    def together(self, namespaces: Iterable[str]) -> Iterator[list[str]]:
        """Namespaces of one slot go together."""
        slots: dict[int, list[str]] = {}
        for namespace in namespaces:
            slots.setdefault(slot_of(namespace), []).append(namespace)
        yield from slots.values()

    async def by_shard(self, namespaces: Iterable[str]) -> dict[Shard, list[str]]:
        """See :meth:`.Topology.by_shard`."""
        found: dict[Shard, list[str]] = {}
        for slot, names in (await self._grouped(namespaces)).items():
            found.setdefault(self._by_slot[slot], []).extend(names)
        return found

    async def in_calls(self, namespaces: Iterable[str]) -> list[str]:
        """See :meth:`.Topology.in_calls`."""
        return list(chain.from_iterable((await self._grouped(namespaces)).values()))

    async def _grouped(self, namespaces: Iterable[str]) -> dict[int, list[str]]:
        """Namespaces by their slots, which come as they are first met: in no order of shards."""
        slots: dict[int, list[str]] = {}
        async for part in in_steps(namespaces):
            for namespace in part:
                slots.setdefault(slot_of(namespace), []).append(namespace)
        return slots

    @property
    def outage(self) -> Outage:
        """See :attr:`.Topology.outage`."""
        return next((one.outage for one in self.shards if one.outage.reason), self.home.outage)

    @property
    def share_up(self) -> float:
        """See :attr:`.Topology.share_up`."""
        weights = {one: max(0, one.subscriptions.size - 1) for one in self.shards[1:]}
        if sum(weights.values()) <= 0:
            weights = Counter(self._by_slot)
        served = sum(weight for shard, weight in weights.items() if shard.up)
        return served / max(1, sum(weights.values()))

    def rename(self, reason: str) -> None:
        """See :meth:`.Topology.rename`."""
        self.home.begin_anew(reason)

    # -- operations ------------------------------------------------------------------------

    @property
    def current(self) -> ClusterLinks | None:
        """See :attr:`.Topology.current`."""
        return None if self.home.current is None else ClusterLinks(self, self.home.current)

    async def connected(self, deadline: Deadline) -> ClusterLinks:
        """See :meth:`.Topology.connected`."""
        return ClusterLinks(self, await self.home.connected(deadline))

    def call(self, deadline: float, key: str, *arguments: Argument) -> Coroutine[Any, Any, Any]:
        """See :meth:`.Topology.call`."""
        return self._where_it_is(deadline, key, lambda shard: shard.call(deadline, *arguments))

    def script(self, deadline: float, call: ScriptCall) -> Coroutine[Any, Any, Any]:
        """See :meth:`.Topology.script`."""
        key = call.keys[0]
        return self._where_it_is(deadline, key, lambda shard: shard.script(deadline, call))

    def publish(self, channel: str, payload: bytes, deadline: float) -> Coroutine[Any, Any, int]:
        """See :meth:`.Topology.publish`."""
        return self._where_it_is(
            deadline, channel, lambda shard: shard.publish(channel, payload, deadline)
        )

    async def _where_it_is(
        self, deadline: float, key: str, ask: Callable[[Shard], Coroutine[Any, Any, Any]]
    ) -> Any:
        """Call the shard of a key; repeat a call that was not executed since the slot has moved."""
        while True:
            shard = self.of(key)
            try:
                return await ask(shard)
            except BackplaneUnavailableError as error:
                moved = is_elsewhere(error) or not (error.maybe_executed or self.of(key) is shard)
                if not moved or asyncio.get_running_loop().time() >= deadline:
                    raise
            self.look_again()
            await asyncio.sleep(PAUSE)

    # -- lifetime --------------------------------------------------------------------------

    async def start(self, wait: float | None) -> None:
        """See :meth:`.Topology.start`. Returns when home hears its probe, and each other shard
        does or has failed once."""
        try:
            await self.home.start(wait)
            self._running = True
            self._begin()
            self._spawn(self._keep())
            await asyncio.gather(*[shard.tried() for shard in self._parts.values()])
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """See :meth:`.Topology.stop`."""
        self._running = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._map.stop()
        await asyncio.gather(*[shard.stop() for shard in self.shards])

    def _begin(self) -> None:
        """Begin every shard that has slots."""
        for shard in dict.fromkeys(self._by_slot):
            if not shard.begun:
                shard.begin()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work, name="cluster_pool topology")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- changes ---------------------------------------------------------------------------

    def _changed(self, groups: Sequence[Group]) -> None:
        """The map has changed."""
        before, known = self._by_slot, self._parts
        self._parts = self._matched(groups)
        self._by_slot = [self._nowhere] * SLOTS
        for part, shard in self._parts.items():
            shard.outage.where = part.shown
            for slot in part.group.slots:
                self._by_slot[slot] = shard
            if part.at not in (None, part.group.primary):
                shard.begin_anew(moved_to(part.group.primary))
        home = self._home_place.now()
        if home is not None and self._home_place.at not in (None, home):
            self.home.begin_anew(moved_to(home))
        if self._running:
            self._begin()
            moved = {at for at in range(SLOTS) if before[at] is not self._by_slot[at]}
            if moved:
                self._observer.moved(moved)
            gone = [shard for part, shard in known.items() if part not in self._parts]
            self._spawn(self._arrange(gone))

    def _matched(self, groups: Sequence[Group]) -> dict[ClusterPart, Shard]:
        """The parts of these groups: the known ones, and new ones for the rest.

        A part is known by its primary; after a failover by a node that was a replica; or by any.
        """
        left = list(self._parts)
        found: dict[str, ClusterPart] = {}
        for same in (_same_primary, _promoted, _related):
            for group in groups:
                part = next((one for one in left if same(one.group, group)), None)
                if part is not None and group.ids[0] not in found:
                    left.remove(part)
                    part.group = group
                    found[group.ids[0]] = part
        parts = [found.get(group.ids[0]) or self._make_part(group) for group in groups]
        return {part: self._parts.get(part) or self._make(part) for part in parts}

    async def _keep(self) -> None:
        """Read the map when it is requested, and periodically."""
        while True:
            await self._map.wanted()
            try:
                await self._map.fresh()
                await self._arrange(())
            except BackplaneUnavailableError as error:
                log.debug("no map of the cluster: %s", error)
            except Exception:
                log.exception("the map of the cluster could not be followed")
            await asyncio.sleep(FRESH)

    async def _arrange(self, gone: Iterable[Shard]) -> None:
        """Subscribe every channel at the shard of its slot; then end shards without slots."""
        shards = [*self.shards[1:], *gone]
        by_slot = self._by_slot
        changed = by_slot is not self._arranged
        works = [self._arrange_one(shard, changed=changed) for shard in shards]
        outcomes = await asyncio.gather(*works, return_exceptions=True)
        unused = [self._nowhere] if self._nowhere not in self._by_slot else []
        for shard in (*gone, *unused):
            if shard.begun:
                await shard.stop(moved=True)
                shard.outage.recover("link")
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        self._arranged = by_slot

    async def _arrange_one(self, shard: Shard, *, changed: bool) -> None:
        """Subscribe the channels of a shard where they belong.

        Args:
            changed: whether its channels may have another shard. There may be 200,000: they are not
                looked through because a map was read again.
        """
        subscriptions = shard.subscriptions
        if shard in self._by_slot:
            try:
                await subscriptions.probe_again()
            except BackplaneUnavailableError as error:  # the channels that moved do not wait for it
                log.debug("no other probe yet: %s", error)
                self.look_again()
        left: list[str] = []
        async for part in in_steps(subscriptions.channels if changed else ()):
            left += [name for name in part if self._left(name, shard)]
        await subscriptions.drain(left)
        targets: dict[Shard, list[str]] = {shard: list(subscriptions.ended)}
        for name in left:
            if self._left(name, shard):
                targets.setdefault(self.of(name), []).append(name)
        for target, names in targets.items():
            if target is not shard:
                names = subscriptions.hand_over(names, target.subscriptions)
            if names:
                self._spawn(self._resubscribe(target, names))

    async def _resubscribe(self, shard: Shard, channels: Sequence[str]) -> None:
        """Subscribe channels at their new shard; ids may have been taken over there before that."""
        try:
            await shard.subscriptions.resubscribe(channels)
        except BackplaneUnavailableError as error:  # the next generation subscribes them
            log.debug("not subscribed yet: %s", error)
            return
        slots = set[int]()
        async for part in in_steps(channels):
            slots.update(map(slot_of, part))
        self._observer.moved(slots)

    def _left(self, channel: str, shard: Shard) -> bool:
        """Whether a shard subscribes a channel whose slot is elsewhere."""
        return not is_probe(channel) and self.of(channel) is not shard


def _same_primary(one: Group, other: Group) -> bool:
    return one.ids[0] == other.ids[0]


def _promoted(one: Group, other: Group) -> bool:
    return other.ids[0] in one.ids


def _related(one: Group, other: Group) -> bool:
    return not set(one.ids).isdisjoint(other.ids)
