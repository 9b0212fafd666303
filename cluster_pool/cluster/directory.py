"""Reads the state of the cluster: namespaces, members, nodes, and joins and leaves."""

import contextlib
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.cluster.watchers import Watchers
from cluster_pool.core.ids import check_id, check_namespace
from cluster_pool.core.results import Member, MemberEvent, Node, NodeState
from cluster_pool.exceptions import BackplaneUnavailableError


class ClusterDirectory:
    """Reads the registry and the events of namespaces."""

    def __init__(self, backplane: Backplane, watchers: Watchers) -> None:
        self._loop = backplane.loop
        self._deadline = backplane.deadline
        self._directory = backplane.directory
        self._leases = backplane.leases
        self._topology = backplane.topology
        self._keys = backplane.setup.keys
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
        """Joins and leaves of a namespace, from the moment this is entered."""
        deadline = self._deadline(None)
        namespace = check_namespace(namespace)
        channel = self._keys.events(namespace)
        watch = self._watchers.add(channel)

        async def events() -> AsyncIterator[MemberEvent]:
            while True:
                yield await watch.get()

        owners = self._keys.owners(namespace)
        subscription = self._topology.subscriptions.add(channel, counted=owners)
        try:
            await subscription.confirmed(deadline)
            yield events()
        finally:
            self._watchers.remove(channel, watch)
            subscription.end()


def _read_info(info: str) -> tuple[NodeState, int]:
    """State and connections from a node's info; active and 0 if the info cannot be read."""
    try:
        said = json.loads(info)
        return NodeState(said["state"]), int(said["connections"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return NodeState.ACTIVE, 0
