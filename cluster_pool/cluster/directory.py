"""Reads the state of the cluster: namespaces, members, nodes, and joins and leaves."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from math import inf
from typing import Any, Final

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.cluster.presence import LatestEvents, Presence
from cluster_pool.cluster.user_changes import UserChanges
from cluster_pool.cluster.watchers import Reader, Watch, Watchers
from cluster_pool.core.config import check_pause
from cluster_pool.core.ids import check_id, check_namespace
from cluster_pool.core.results import Member, MemberEvent, Node, NodeState, UserEvent
from cluster_pool.exceptions import BackplaneUnavailableError

USERS_EVERY: Final = 0.1
"""Seconds from one look at the users of a namespace to the next, at least."""


class ClusterDirectory:
    """Reads the registry and the events of namespaces."""

    def __init__(self, backplane: Backplane, watchers: Watchers) -> None:
        self._loop = backplane.loop
        self._deadline = backplane.deadline
        self._directory = backplane.directory
        self._leases = backplane.leases
        self._topology = backplane.topology
        self._keys = backplane.setup.keys
        self._counters = backplane.setup.counters
        self._watchers = watchers

    def count(self, namespace: str, timeout: float | None) -> Coroutine[Any, Any, int]:
        """The number of members of a namespace, on living nodes."""
        namespace = check_namespace(namespace)
        return self._directory.count(namespace, self._deadline(timeout))

    def members(self, namespace: str, timeout: float | None) -> AsyncIterator[Member]:
        """The members of a namespace, a page at a time; ``timeout`` is for each page."""
        seconds = self._deadline(timeout) - self._loop.time()
        return self._directory.members(check_namespace(namespace), seconds)

    def namespaces(self, timeout: float | None) -> Coroutine[Any, Any, list[str]]:
        """The namespaces that have members, sorted."""
        return self._directory.namespaces(self._deadline(timeout))

    def locate(
        self, namespace: str, id: str, timeout: float | None
    ) -> Coroutine[Any, Any, Member | None]:
        """The member with an id and the living node that owns it, or None."""
        deadline = self._deadline(timeout)
        namespace, id = check_namespace(namespace), check_id(id)
        return self._directory.locate(namespace, id, deadline)

    async def nodes(self, timeout: float | None) -> list[Node]:
        """The living nodes, sorted by id."""
        found = await self._directory.nodes(self._deadline(timeout))
        nodes = []
        for node_id, (incarnation, info, lease) in found.items():
            state, count = _read_info(info)
            nodes.append(Node(node_id, incarnation, state, count, lease))
        return sorted(nodes, key=lambda node: node.id)

    async def alone(self, within: float) -> bool:
        """Whether at most one node is alive; False if Redis does not answer in time."""
        try:
            living = await self._leases.living(self._deadline(within))
        except BackplaneUnavailableError:
            return False
        return len(set(living.values())) <= 1

    @contextlib.asynccontextmanager
    async def watching(self, namespace: str) -> AsyncIterator[AsyncIterator[MemberEvent]]:
        """Joins, updates and leaves of a namespace, from the moment this is entered."""
        watch = Watch(self._counters)

        async def events() -> AsyncIterator[MemberEvent]:
            while True:
                yield await watch.get()

        async with self._reading(namespace, watch):
            yield events()

    @contextlib.asynccontextmanager
    async def presence(self, namespace: str, every: float) -> AsyncIterator[Presence]:
        """The members of a namespace and their changes, from the moment this is entered."""
        latest = LatestEvents(self._counters)
        async with self._reading(namespace, latest):
            presence = Presence(latest, partial(self.members, namespace, None), check_pause(every))
            await presence.begin()
            yield presence

    async def watch_users(self, namespace: str, grace: float) -> AsyncIterator[UserEvent]:
        """Users who come to a namespace, and who leave it."""
        loop = self._loop
        async with self.presence(namespace, USERS_EVERY) as presence:
            users = UserChanges(presence.members.values(), check_pause(grace))
            changes = asyncio.ensure_future(anext(presence))
            try:
                while True:
                    left = users.next_leave() - loop.time()
                    await asyncio.wait({changes}, timeout=max(0.0, left) if left < inf else None)
                    events = []
                    if changes.done():
                        events = users.apply(changes.result(), loop.time())
                        changes = asyncio.ensure_future(anext(presence))
                    for event in (*events, *users.gone(loop.time())):
                        yield event
            finally:
                changes.cancel()
                await asyncio.gather(changes, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _reading(self, namespace: str, reader: Reader) -> AsyncIterator[None]:
        """Give the events of a namespace to a reader, from the moment this is entered."""
        deadline = self._deadline(None)
        namespace = check_namespace(namespace)
        channel = self._keys.events(namespace)
        self._watchers.add(channel, reader)
        owners = self._keys.owners(namespace)
        subscription = self._topology.subscriptions.add(channel, counted=owners)
        try:
            await subscription.confirmed(deadline)
            yield
        finally:
            self._watchers.remove(channel, reader)
            subscription.end()


def _read_info(info: str) -> tuple[NodeState, int]:
    """State and connections from a node's info; active and 0 if the info cannot be read."""
    try:
        said = json.loads(info)
        return NodeState(said["state"]), int(said["connections"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return NodeState.ACTIVE, 0
