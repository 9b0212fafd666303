"""Registering again what this node owns: after a rejoin, after drift, and when there is doubt.

Claims are asserted with their original tokens. What another node has won with a greater one is
handed to ``evict``, which closes it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

from cluster_pool.backplane.link import Link
from cluster_pool.backplane.registry import Registry, batches
from cluster_pool.backplane.session import Session
from cluster_pool.cluster.lease import Lease
from cluster_pool.core.config import Timing
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.connection import Connection
from cluster_pool.local.table import ConnectionTable

WINDOW = 16
"""Calls that are in flight together."""


class Assertion:
    """Asks the registry, batch by batch, whether it still holds what the table holds."""

    def __init__(
        self,
        session: Session,
        registry: Registry,
        table: ConnectionTable,
        timing: Timing,
        lease: Lease,
        evict: Callable[[Connection], None],
    ) -> None:
        self._session = session
        self._registry = registry
        self._table = table
        self._timing = timing
        self._lease = lease
        self._evict = evict

    async def everything(self, link: Link, incarnation: str) -> None:
        """Register all that is owned under an incarnation."""
        window: list[Coroutine[Any, Any, None]] = []
        for batch in self._owned(self._table.namespaces()):
            window.append(self._batch(link, incarnation, batch))
            if len(window) == WINDOW:
                await asyncio.gather(*window)
                window.clear()
        await asyncio.gather(*window)

    async def namespace(self, link: Link, namespace: str, incarnation: str) -> None:
        """Register what is owned in one namespace once more."""
        for batch in self._owned([namespace]):
            await self._batch(link, incarnation, batch)

    async def doubtful(self, link: Link, connections: Iterable[Connection]) -> None:
        """Ask for some connections; a link that fails now ends in a rejoin, which asks again."""
        groups: dict[str, list[Connection]] = {}
        for connection in dict.fromkeys(connections):
            if connection.claim is not None:
                groups.setdefault(connection.namespace, []).append(connection)
        incarnation = self._lease.incarnation
        with contextlib.suppress(BackplaneUnavailableError):
            await asyncio.gather(
                *[
                    self._batch(link, incarnation, batch)
                    for group in groups.values()
                    for batch in batches(group)
                ]
            )

    def _owned(self, namespaces: Iterable[str]) -> Iterator[list[Connection]]:
        for namespace in namespaces:
            members = self._table.namespace(namespace) or {}
            yield from batches([one for one in members.values() if one.claim is not None])

    def _batch(
        self, link: Link, incarnation: str, batch: list[Connection]
    ) -> Coroutine[Any, Any, None]:
        now = asyncio.get_running_loop().time()
        deadline = now + self._timing.timeout
        not_after = self._session.clock.at(min(deadline, now + self._lease.seconds_left()))
        claims = [(connection.id, connection.claim) for connection in batch]
        reply = self._registry.assert_claims(
            link, batch[0].namespace, incarnation, claims, not_after, deadline
        )

        async def read() -> None:
            unwanted = []
            for connection, (_, claim), kept in zip(batch, claims, await reply, strict=True):
                if connection.claim is None or connection.claim.nonce != claim.nonce:
                    if kept:  # it was given up meanwhile, and is registered all the same
                        unwanted.append((connection.id, claim._replace(incarnation=incarnation)))
                elif kept:
                    connection.claim = claim._replace(incarnation=incarnation)
                else:
                    self._evict(connection)
            if unwanted:
                await self._registry.release(link, batch[0].namespace, unwanted, deadline)

        return read()
