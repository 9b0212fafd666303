"""Opens sealed items, and keeps them from connections that came later.

A seal authenticates the sender, the item, the channel and roughly the time; not the member to which
a script routed it, since scripts do not know the secret. So recordings are recognized by the
counter and by the claim that the script named; :mod:`.recordings` knows the claims of a node.
"""

from collections.abc import Collection
from typing import Any, Final, Protocol

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.backplane.inbox import Heard
from cluster_pool.backplane.slots import hash_tag
from cluster_pool.backplane.topology import Topology
from cluster_pool.core.envelope import TAKEN, BrokenEnvelopeError
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.seals import BOUND, MAX_SENDERS, ROUTED, Seals, own_scope
from cluster_pool.core.statistics import Counters

CROSSED_US: Final = 100_000
"""How old a broadcast may be, in µs, that is older than all members here and yet no recording."""


class ReplayCheck(Protocol):
    """Recognizes recordings by the claims of a node's connections; a publisher has none."""

    @property
    def newest(self) -> int:
        """See :class:`Recordings`."""

    def check(self, named: str, counter: int, item: list[Any], now: int) -> None:
        """See :class:`Recordings`."""

    def later(self, namespace: str, counter: int) -> Collection[str] | None:
        """See :class:`Recordings`."""


class Unsealing:
    """Opens items for one node or publisher.

    Refused items are counted in ``dropped_forged``. Takeovers come from a script and have no seal:
    :class:`Ownership` verifies them.
    """

    def __init__(
        self,
        seals: Seals,
        topology: Topology,
        identity: Identity,
        keys: Keys,
        counters: Counters,
        recordings: ReplayCheck | None,
    ) -> None:
        self._seals = seals
        self._topology = topology
        self._home = topology.home
        self._start = identity.start
        self._ours = f"{identity.start}."
        self._own = ""
        self._scopes = {ROUTED: keys.node_prefix}
        self._counters = counters
        self._recordings = recordings
        self._recorded: dict[tuple[str, str], int] = {}
        """The newest counter of each sender in a namespace of which items were read late."""

    def targeted(self, heard: Heard, claim: str, sealed: list[Any]) -> list[Any] | None:
        """Open an item of a channel of this node; None when it is refused."""
        if heard.channel != self._own:
            self._own = heard.channel
            self._scopes[BOUND] = own_scope(self._own, self._start)
        if heard.time:
            return self.recorded_target(heard, sealed)
        now, lane = self._where(heard.channel)
        try:
            counter, item = self._seals.open(self._scopes, heard.sender, sealed, now, lane)
            if sealed[0] == ROUTED:
                self._check_claim(claim, counter, item, now)
        except BrokenEnvelopeError as error:
            self._refuse(heard, error)
            return None
        return item

    def _check_claim(self, named: str, counter: int, item: list[Any], now: int) -> None:
        if not named.startswith(self._ours):
            raise BrokenEnvelopeError("replay")
        if self._recordings is not None:
            self._recordings.check(named, counter, item, now)

    def broadcast(
        self, heard: Heard, namespace: str, sealed: list[Any]
    ) -> tuple[list[Any], Collection[str]] | None:
        """Open an item of a namespace's channel; None when it is refused.

        Also returns the ids here that came later, and must not get it.
        """
        if sealed[0] == TAKEN:
            return sealed, ()
        now, lane = self._where(heard.channel)
        try:
            scopes = {BOUND: heard.channel}
            counter, item = self._seals.open(scopes, heard.sender, sealed, now, lane)
        except BrokenEnvelopeError as error:
            self._refuse(heard, error)
            return None
        recordings = self._recordings
        if recordings is None or recordings.newest <= counter:
            return item, ()
        later = recordings.later(namespace, counter)
        if later is None and counter < now - CROSSED_US:
            self._refuse(heard, BrokenEnvelopeError("replay"))
        return None if later is None else (item, later)

    def recorded(self, heard: Heard, namespace: str, sealed: list[Any]) -> list[Any] | None:
        """Open an item that was read from the history of a namespace, or that had to wait for such;
        None when it is refused. Each is opened once: the counters of a sender grow."""
        return self._open_late(heard, {BOUND: heard.channel}, sealed, namespace)

    def recorded_target(self, heard: Heard, sealed: list[Any]) -> list[Any] | None:
        """The same of an item that was targeted at a member."""
        return self._open_late(heard, {ROUTED: self._scopes[ROUTED]}, sealed, None)

    def _open_late(
        self, heard: Heard, scopes: dict[int, str], sealed: list[Any], namespace: str | None
    ) -> list[Any] | None:
        """Open an item; its namespace is in it if that is None."""
        try:
            published = 1000 * heard.earliest, 1000 * heard.time
            counter, item = self._seals.open_recorded(scopes, heard.sender, sealed, *published)
            where = (item[1] if namespace is None else namespace), heard.sender
            if counter <= self._recorded.get(where, 0):
                raise BrokenEnvelopeError("replay")
        except BrokenEnvelopeError as error:
            self._refuse(heard, error)
            return None
        if len(self._recorded) >= MAX_SENDERS:
            self._recorded.clear()
        self._recorded[where] = counter
        return item

    def _refuse(self, heard: Heard, error: BrokenEnvelopeError) -> None:
        self._counters.dropped_forged += 1
        self._home.receiver.broken(error, heard.channel)

    def _where(self, channel: str) -> tuple[int, str]:
        """The time of the Redis that has a channel, and the lane of what is heard there."""
        if not self._topology.spans:
            return self._home.redis_time(), ""
        return self._topology.of(channel).redis_time(), hash_tag(channel)


def unsealing_of(backplane: Backplane, recordings: ReplayCheck | None) -> Unsealing | None:
    """The unsealing of this cluster; None if it has no secret."""
    setup = backplane.setup
    if setup.seals is None:
        return None
    return Unsealing(
        setup.seals,
        backplane.topology,
        backplane.identity,
        setup.keys,
        setup.counters,
        recordings,
    )
