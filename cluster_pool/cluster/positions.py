"""How far each member of this node has received the histories of its namespaces.

A client shows by its Pongs and its answer to a Close what its WebSocket stack has: all that was
written before. So for a member in a namespace with a history that is a *position*: what lies up to
it was sent to the member, or was not for it. Received positions are stored in Redis, where the next
claim of the id finds them. A connection that closes keeps its ids until the client has answered, or
until its deadline: then they are released, each with its exact position. That is to *park* it.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Final

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.claims import batches
from cluster_pool.core.claims import Claim
from cluster_pool.core.history import Position, Resumption
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Membership
from cluster_pool.local.pinging import keep_account
from cluster_pool.local.table import ConnectionTable

log = logging.getLogger("cluster_pool.history")

PAUSE: Final = 1.0
"""Seconds between two stores."""
RENEWAL: Final = 20.0
"""Seconds after which a position that has not changed is stored again: see ``positions.lua``."""
MOST: Final = 5_000
"""Positions that are stored at once; the others wait for the next time."""
AT_ONCE: Final = 16
"""Calls that Redis has not answered."""

MOST_PARTED: Final = 10_000
"""Positions of former members that are kept, for new owners that have taken over the id."""
TOLD_WITHIN: Final = 0.7
"""Seconds in which a former owner tells the position, though its client has not answered."""

Member = Membership[Connection]
Key = tuple[str, str, str]
"""Namespace, id, and the mark of a claim."""
Positions = dict[Member, Position]


class MemberAccount:
    """The positions of one connection; see :class:`.Account`.

    Attributes:
        bases: by membership, from where on it is sent everything.
        has: by membership, up to where it has received everything.
        parked: releases that wait for the end.
        is_over: whether nothing more will come of the client.
        recovered: see :attr:`.Connection.recovered`.
    """

    __slots__ = ("_changed", "_reached", "bases", "has", "is_over", "parked", "recovered")

    def __init__(
        self, reached: dict[str, Position], changed: Callable[[Iterable[Member]], None]
    ) -> None:
        self._reached = reached
        self._changed = changed
        self.bases: Positions = {}
        self.has: Positions = {}
        self.parked: list[Callable[[], None]] = []
        self.is_over = False
        self.recovered: bool | None = None

    def written(self) -> Positions:
        """The position of each membership: what this node has been given was written by now."""
        places = {}
        for member, base in self.bases.items():
            here = self._reached.get(member.namespace, base)
            places[member] = here if here.is_beyond(base) else base
        return places

    def closing(self) -> None:
        """See :class:`.Account`."""
        spaces = {member.namespace for member in self.has}
        self._reached = {one: self._reached[one] for one in spaces if one in self._reached}

    def received(self, written: Positions | None) -> None:
        """See :class:`.Account`."""
        changed = []
        for member, place in (written or {}).items():
            if self.has.get(member, place) != place:
                self.has[member] = place
                changed.append(member)
        self._changed(changed)

    def over(self) -> None:
        """See :class:`.Account`."""
        self.is_over = True
        parked, self.parked = self.parked, []
        for release in parked:
            release()


def mark_of(claim: Claim) -> str:
    """The time and nonce of a claim, which stay the same over rejoins."""
    return f"{claim.time}:{claim.nonce}"


class Once:
    """Calls a function once, however often it is called itself."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def __call__(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


class Accounts:
    """The accounts of one node's connections in namespaces with a history, and their storing."""

    def __init__(self, backplane: Backplane, table: ConnectionTable) -> None:
        self._table = table
        self._claims = backplane.claims
        self._timeout = backplane.setup.timing.timeout
        self._reached: dict[str, Position] = {}
        self._accounts: dict[Connection, MemberAccount] = {}
        self._due: dict[Member, None] = {}
        self._parted: OrderedDict[Key, str] = OrderedDict()
        self._renew_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def begin(self, member: Member, found: Resumption) -> None:
        """A claim was won in a namespace with a history. Until :meth:`replayed` nothing that is
        written counts."""
        connection = member.connection
        account = self._accounts.get(connection)
        if account is None:
            account = self._accounts[connection] = MemberAccount(self._reached, self._changed)
            keep_account(connection, account)
        account.has[member] = found.since or found.last
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="cluster_pool positions")

    def replayed(self, member: Member, base: Position, recovered: bool | None) -> None:
        """All that it is to get of the past lies ahead of what is live.

        Args:
            base: up to where that reaches.
            recovered: see :attr:`.Connection.recovered`.
        """
        account = self._accounts.get(member.connection)
        if account is None or member not in account.has:
            return
        if member.home:
            account.recovered = recovered
        account.bases[member] = base
        if not recovered:
            account.has[member] = base
        self._due[member] = None

    async def stop(self) -> None:
        """Store nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def reached(self, namespace: str, place: Position) -> None:
        """All up to a place was given to the members here that are to get it."""
        self._reached[namespace] = place

    def when_over(
        self, namespace: str, id: str, former: Claim, tell: Callable[[str, str], None]
    ) -> None:
        """Tell up to where the member of a former claim of this node has received the history, when
        nothing more can change that, or it has lasted too long: its mark and the position."""
        mark = mark_of(former)
        member = self._table.get(namespace, id)
        if member is None or member.claim is None or mark_of(member.claim) != mark:
            position = self._parted.get((namespace, id, mark))
            if position is not None:
                tell(mark, position)
            return
        account = self._accounts.get(member.connection)
        if account is None or account.is_over or member not in account.has:
            tell(mark, self.position_of(member))
            return
        told = Once(lambda: tell(mark, self.position_of(member)))
        account.parked.append(told)
        asyncio.get_running_loop().call_later(TOLD_WITHIN, told)

    def parks(self, member: Member, release: Callable[[Member], None]) -> bool:
        """Whether ``release`` is called later: when the client has answered its Close, or never
        will."""
        account = self._accounts.get(member.connection)
        if account is None or account.is_over or member not in account.has:
            return False
        if not member.connection.closed:
            return False
        account.parked.append(partial(release, member))
        return True

    def position_of(self, member: Member) -> str:
        """Up to where a member has received the history, for its release; "" if unknown."""
        account = self._accounts.get(member.connection)
        place = None if account is None else account.has.get(member)
        if place is None:
            return ""
        if member.claim is not None:
            self._parted[member.namespace, member.id, mark_of(member.claim)] = place.stored
            if len(self._parted) > MOST_PARTED:
                self._parted.popitem(last=False)
        return place.stored

    # -- storing ---------------------------------------------------------------------------

    def _changed(self, members: Iterable[Member]) -> None:
        for member in members:
            self._due[member] = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PAUSE)
            try:
                self._forget_ended()
                await self._store()
            except Exception:
                log.exception("positions could not be stored: they are tried again")

    def _forget_ended(self) -> None:
        for connection, account in list(self._accounts.items()):
            for member in [one for one in account.has if one.claim is None]:
                if account.is_over or not connection.closed:
                    del account.has[member]
                    account.bases.pop(member, None)
            if account.is_over and not account.has:
                del self._accounts[connection]

    async def _store(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._renew_at:
            self._renew_at = now + RENEWAL
            self._changed(member for one in self._accounts.values() for member in one.has)
        due = list(islice(self._due, MOST))
        groups: dict[str, list[Member]] = {}
        for member in due:
            del self._due[member]
            if member.departure is None:
                groups.setdefault(member.namespace, []).append(member)
        batches_due = [part for group in groups.values() for part in batches(group)]
        for at in range(0, len(batches_due), AT_ONCE):
            await asyncio.gather(*[self._write(one) for one in batches_due[at : at + AT_ONCE]])

    async def _write(self, members: list[Member]) -> None:
        entries = []
        for member in members:
            account, claim = self._accounts.get(member.connection), member.claim
            place = None if account is None else account.has.get(member)
            if claim is not None and place is not None:
                entries.append((member.id, claim, place, member.connection.user))
        try:
            if entries:
                deadline = deadline_in(self._timeout)
                await self._claims.store_positions(members[0].namespace, entries, deadline)
        except BackplaneUnavailableError:
            self._changed(members)
