"""Gives a connection that joins a namespace again what its id has missed there.

The connection is open: so what is live in that namespace waits beside its outbox, from before its
claim is sent until the messages of the past are in there.
"""

from collections.abc import Awaitable

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.cluster.member_accounts import Member
from cluster_pool.cluster.positions import Accounts
from cluster_pool.cluster.rewinds import Hold, Rewinds
from cluster_pool.core.history import Resumption, Wish
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.outbox import close_slow, deliver, deliver_whole


class Rejoins:
    """Joins of one node in namespaces with a history."""

    def __init__(self, backplane: Backplane, rewinds: Rewinds, accounts: Accounts) -> None:
        self._rules = backplane.setup.histories
        self._outbox_bytes = backplane.setup.limits.outbox_bytes
        self._rewinds = rewinds
        self._accounts = accounts
        self.prepare = rewinds.resumes.prepare
        """Awaited before a claim is made."""

    async def join(
        self, member: Member, claim: Awaitable[Resumption | None], wish: Wish
    ) -> bool | None:
        """Win a claim; returns whether the member gets all that it has missed, as
        :attr:`.Connection.recovered` says it of the home."""
        if self._rules.of(member.namespace) is None:
            found = await claim
            if found is not None:
                self._accounts.replayed(member, found.last, None)
            return None
        hold = self._rewinds.hold(member, self._outbox_bytes)
        try:
            found = await claim
            return None if found is None else await self._replay(member, found, wish, hold)
        finally:
            self._rewinds.release(hold)
            self._give(hold)

    async def _replay(
        self, member: Member, found: Resumption, wish: Wish, hold: Hold
    ) -> bool | None:
        floor, recovered, first = found.last, None, found.since
        try:
            start = await self._rewinds.resumes.start_of(member, found, wish)
            first, recovered = start.first, False if start.tries or start.lost else None
            if recovered is None and await self._rewinds.is_forgotten(member.namespace, found):
                recovered = False
            for one in start.tries:
                past = await self._rewinds.missed(member, one)
                if not self._rewinds.is_there(member):
                    return None  # it has lost its id meanwhile, or was removed
                if past is not None and deliver_whole(member.connection, past[1]):
                    floor, recovered = past[0], True
                    break
        except BackplaneUnavailableError:
            recovered = False
        if not self._rewinds.is_there(member):
            return None  # nothing is for it
        self._accounts.replayed(member, floor, recovered, first)
        hold.floor = floor
        return recovered

    def _give(self, hold: Hold) -> None:
        """Put what was live meanwhile behind the past; without a claim it is for nobody."""
        connection = hold.member.connection
        if hold.floor is None:
            return
        if hold.overflowed:
            close_slow(connection)
            return
        for place, message in hold.messages:
            if not place.is_within(hold.floor):
                deliver(connection, message)
        self._rewinds.note(hold.member, hold.floor)
