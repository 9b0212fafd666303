"""Sends releases to Redis, in batches, and again until they are answered.

A release names the claim, so it is safe to repeat: after the first one, the next finds nothing.
There is no clock and no task here; the :class:`ClaimBatcher` decides when a batch is sent.
"""

import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from cluster_pool.backplane.claims import PAGE, Claims, batches
from cluster_pool.backplane.refusals import is_elsewhere
from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.topology import Links, Topology
from cluster_pool.cluster.latest import Latest
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Membership

log = logging.getLogger("cluster_pool.membership")

MOST_DOUBTED = 5000
"""Namespaces that wait for a closer look, at most."""

Released = Callable[[Membership[Connection], bool | None], None]
"""Called with each membership that has no claim any more, and whether its release has emptied the
namespace; None if it found no claim."""


class ReleaseBatcher:
    """Releases the claims of memberships.

    Args:
        entry_of: says how far a member has received the history; see :meth:`.Claims.entry`.
        on_released: see :data:`Released`.
    """

    def __init__(
        self,
        topology: Topology,
        claims: Claims,
        entry_of: Callable[[Membership[Connection]], str],
        on_released: Released,
    ) -> None:
        self._topology = topology
        self._claims = claims
        self._entry_of = entry_of
        self._on_released = on_released
        self._latest: Latest[str] = Latest()
        self._waiting: list[Membership[Connection]] = []
        self._unanswered: list[Membership[Connection]] = []
        self._doubted: set[str] = set()

    @property
    def waiting(self) -> bool:
        """Whether there are releases for the next flush."""
        return bool(self._waiting)

    def add(self, membership: Membership[Connection]) -> None:
        """Release it with the next flush."""
        self._waiting.append(membership)

    def retry(self) -> None:
        """Send unanswered releases again with the next flush."""
        self._waiting += self._unanswered
        self._unanswered = []

    def doubt(self, namespace: str) -> None:
        """Note that a claim may be registered there that this node does not hold."""
        if len(self._doubted) < MOST_DOUBTED:
            self._doubted.add(namespace)

    def doubt_latest(self, concerned: Callable[[str], bool]) -> None:
        """Doubt the latest ends of claims in some namespaces, whose shard may have lost them.

        A replica that takes over need not have heard of a release or a takeover that its primary
        has answered. A namespace without members here would not be compared again.
        """
        for namespace in filter(concerned, self._latest):
            self.doubt(namespace)

    def pop_waiting(self, most: int) -> list[Membership[Connection]]:
        """The releases for this flush: ``most`` at most."""
        waiting, self._waiting = self._waiting[:most], self._waiting[most:]
        return waiting

    def keep_for_later(self, memberships: list[Membership[Connection]]) -> None:
        """These could not be sent; they wait for :meth:`retry`."""
        self._unanswered += memberships

    def unanswered_pages(self) -> Iterator[list[Membership[Connection]]]:
        """The unanswered releases, a page at a time; the caller must send each page."""
        for _ in range(0, len(self._unanswered), PAGE):
            page, self._unanswered = self._unanswered[:PAGE], self._unanswered[PAGE:]
            yield page

    def pop_doubted(self) -> set[str]:
        """Namespaces, held or not, in which claims may stand that this node does not hold."""
        doubted, self._doubted = self._doubted, set()
        return doubted

    def write(
        self, links: Links, memberships: list[Membership[Connection]], deadline: float
    ) -> Iterator[Coroutine[Any, Any, None]]:
        """Queue the releases, a batch with each step; each coroutine handles a reply."""
        groups: dict[str, list[Membership[Connection]]] = {}
        for membership in memberships:
            if membership.claim is None:  # its id was taken over meanwhile
                self._on_released(membership, False)
            else:
                groups.setdefault(membership.namespace, []).append(membership)
        for group in groups.values():
            for batch in batches(group):
                yield self._write_batch(links, batch, deadline)

    def _write_batch(
        self, links: Links, batch: list[Membership[Connection]], deadline: float
    ) -> Coroutine[Any, Any, None]:
        namespace = batch[0].namespace
        shard = self._topology.of(namespace)
        entry_of = self._entry_of
        claims = [(one.id, one.claim, entry_of(one)) for one in batch if one.claim is not None]
        try:
            reply = self._claims.release(links, namespace, claims, deadline)
        except Exception:
            log.exception("releases could not be written: they are tried again")
            self._unanswered += batch
            return _nothing()

        async def read() -> None:
            try:
                last_ones = await reply
            except BackplaneUnavailableError as error:
                self._again(batch, shard, error)
                return
            if None in last_ones:
                self.doubt(namespace)
            self.remember(namespace)
            for membership, emptied in zip(batch, last_ones, strict=True):
                self._on_released(membership, emptied)

        return read()

    def _again(
        self, batch: list[Membership[Connection]], shard: Shard, error: BackplaneUnavailableError
    ) -> None:
        """Keep a batch that was not answered; one whose slot has moved goes with the next flush.

        If its move is not known yet, or not over, it waits for that.
        """
        if is_elsewhere(error):
            self._topology.look_again()
            if self._topology.of(batch[0].namespace) is not shard:
                self._waiting += batch
                return
        self._unanswered += batch

    def remember(self, namespace: str) -> None:
        """A claim of this node has ended there; noted for :meth:`doubt_latest`.

        With one Redis nothing is noted: after its loss all claims have another incarnation.
        """
        if self._topology.spans:
            self._latest.note(namespace)


async def _nothing() -> None:
    """The reply to a batch that could not be written."""
