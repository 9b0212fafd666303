"""How far each member of this node has received the histories of its namespaces.

Received positions are stored in Redis, where the next claim of the id finds them. A connection that
closes keeps its ids until the client has answered, or until its deadline: then they are released,
each with its exact position. That is to *park* it.
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
from cluster_pool.cluster.member_accounts import Member, MemberAccount, Once, mark_of
from cluster_pool.core.claims import Claim
from cluster_pool.core.history import LEFT, NOWHERE, Position, Resumption
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.closing import note_answered
from cluster_pool.local.connection import Connection
from cluster_pool.local.pinging import keep_account
from cluster_pool.local.table import ConnectionTable

log = logging.getLogger("cluster_pool.history")

PAUSE: Final = 1.0
"""Seconds between two stores."""
KEPT: Final = 60.0
"""Seconds for which a position is kept at least, and as long as its history: see
``positions.lua``."""
RENEWALS: Final = 2.5
"""How often one that has not changed is stored again within that time."""
MOST: Final = 5_000
"""Positions that are stored at once; the others wait for the next time."""
AT_ONCE: Final = 16
"""Calls that Redis has not answered."""

MOST_PARTED: Final = 10_000
"""Positions of former members that are kept, for new owners that have taken over the id."""
TOLD_WITHIN: Final = 0.7
"""Seconds in which a former owner tells the position, though its client has not answered."""

LOOK: Final = 0.05
"""Seconds between two looks whether it has answered."""

Key = tuple[str, str, str]
"""Namespace, id, and the mark of a claim."""


class Accounts:
    """The accounts of one node's connections in namespaces with a history, and their storing."""

    def __init__(self, backplane: Backplane, table: ConnectionTable) -> None:
        self._table = table
        self._rules = backplane.setup.histories
        self._claims = backplane.claims
        self._timeout = backplane.setup.timing.timeout
        self._reached = backplane.reached
        self._reached.on_taken_back = self._taken_back
        self._accounts: dict[Connection, MemberAccount] = {}
        self._due: dict[Member, None] = {}
        self._parted: OrderedDict[Key, str] = OrderedDict()
        self._evicted: dict[Key, Member] = {}
        """Those whose clients have not answered their Close yet."""
        self._renewal = max(KEPT, self._rules.shortest) / RENEWALS
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

    def handed_over(self, member: Member, place: Position) -> None:
        """The former connection of an id has received the history up to a place."""
        account = self._accounts.get(member.connection)
        if account is None or member not in account.has:
            return
        if place.is_beyond(account.has[member]):
            account.has[member] = place
            self._due[member] = None

    def replayed(
        self,
        member: Member,
        base: Position,
        recovered: bool | None,
        first: Position | None = None,
    ) -> None:
        """All that it is to get of the past lies ahead of what is live.

        Args:
            base: up to where that reaches.
            recovered: see :attr:`.Connection.recovered`.
            first: where it may begin in future, if it has recovered; else that is at the base.
        """
        account = self._accounts.get(member.connection)
        if account is None or member not in account.has:
            return
        account.starts[member] = first if recovered and first is not None else base
        if member.home:
            account.recovered = recovered
        if recovered is not False or not member.connection.closed:
            account.bases[member] = base
        if recovered is None:
            account.has[member] = base
        self._due[member] = None

    def begun(self, connection: Connection, namespace: str) -> tuple[Member, Position] | None:
        """The membership of a connection in a namespace with a history, and where its client may
        begin there in future; None if there is none."""
        account = self._accounts.get(connection)
        starts = {} if account is None else account.starts
        return next((one for one in starts.items() if one[0].namespace == namespace), None)

    def renew(self) -> None:
        """Store all positions soon: Redis has perhaps lost them."""
        self._renew_at = 0.0

    async def stop(self) -> None:
        """Store what was received lately, and then nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._store()

    def keeps(self, connection: Connection, namespace: str) -> bool:
        """Whether the history of a namespace keeps what is targeted at a member there."""
        account = self._accounts.get(connection) if self._accounts else None
        if account is None or not any(member.namespace == namespace for member in account.has):
            return False
        return self._rules.has_reader(namespace, connection.user)

    def lacks(self, member: Member, reader: str, place: Position) -> bool:
        """Whether a message that was targeted at an id and its reader is for this member, and was
        not given to the members here."""
        if member.connection not in self._accounts:
            return False
        if place.is_within(self._reached.get(member.namespace, NOWHERE)):
            return False
        return reader == self._rules.reader(member.namespace, member.connection.user)

    def replays(self, member: Member, place: Position) -> bool:
        """Whether a message lies before all that is live for a member: if it is for it, it is
        replayed."""
        return place.is_within(self._accounts[member.connection].bases.get(member, NOWHERE))

    def reached(self, namespace: str, place: Position) -> None:
        """All up to a place was given to the members here that are to get it. What was read from
        the history may lie behind what was heard before."""
        if place.is_within(self._reached.get(namespace, NOWHERE)):
            return
        if self._table.namespace(namespace):
            self._reached[namespace] = place

    def _taken_back(self, namespace: str, last: Position) -> None:
        """Redis has lost all behind a place, and gives its positions to other messages: what a
        member has of these is behind that place again."""
        self._parted.clear()
        for member in (self._table.namespace(namespace) or {}).values():
            account = self._accounts.get(member.connection)
            if account is not None:
                account.take_back(member, last)

    def when_over(
        self, namespace: str, id: str, former: Claim, tell: Callable[[str, str], None]
    ) -> None:
        """Tell up to where the member of a former claim of this node has received the history, when
        nothing more can change that, or it has lasted too long: its mark and the position.

        Nothing is told where there is no history, as far as this node knows.
        """
        mark = mark_of(former)
        key = namespace, id, mark
        member = self._member(key)
        account = None if member is None else self._accounts.get(member.connection)
        if account is None and key not in self._parted and self._rules.of(namespace) is None:
            return
        if member is None:
            tell(mark, self._parted.get(key, ""))
            return
        if account is None or account.is_over or member not in account.has:
            tell(mark, self.position_of(member))
            return
        told = Once(lambda: tell(mark, self.position_of(member) or self._parted.get(key, "")))
        account.parked.append(told)
        self._look(member.connection, told, deadline_in(TOLD_WITHIN))

    def _look(self, connection: Connection, told: Once, ends: float) -> None:
        """See whether the client has answered its Close: the body has ended, and nobody watches."""
        note_answered(connection)
        loop = asyncio.get_running_loop()
        if loop.time() < ends:
            if not told.is_done:
                loop.call_later(LOOK, self._look, connection, told, ends)
        else:
            told()

    def comes_back(self, namespace: str, id: str, claim: str) -> bool:
        """Whether a former claim of this node has left a position, from which the next one of its
        id goes on. It is known of the last ones that have ended."""
        former = Claim.parse(claim)
        return former is not None and bool(self._parted.get((namespace, id, mark_of(former))))

    def _member(self, key: Key) -> Member | None:
        """The member of a claim, if its position is perhaps not final yet."""
        evicted = self._evicted.get(key)
        if evicted is not None:
            return evicted
        member = self._table.get(*key[:2])
        return member if member is not None and self._key(member) == key else None

    def dropped(self, member: Member) -> None:
        """It loses its claim now: to another connection, which may ask for its position, or since
        it was released."""
        account, key = self._accounts.get(member.connection), self._key(member)
        if account is None or not self.position_of(member):
            return
        if account.is_over or not member.home or key is None:
            self._forget(member)
        else:
            self._evicted[key] = member
            account.parked.append(partial(self._part, key))

    def _part(self, key: Key) -> None:
        """Nothing more will come of the client of one that was dropped."""
        member = self._evicted.pop(key)
        self._note(key, self.position_of(member))
        self._forget(member)

    def _forget(self, member: Member) -> None:
        account = self._accounts[member.connection]
        del account.has[member]
        account.bases.pop(member, None)
        account.starts.pop(member, None)
        if not account.has:
            del self._accounts[member.connection]
        if not self._table.namespace(member.namespace):
            self._reached.pop(member.namespace, None)

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

    def entry_of(self, member: Member) -> str:
        """How far a member has received the history, for its release; "" if unknown."""
        place = Position.parse(self.position_of(member))
        key = self._key(member)
        if place is not None and key is not None and self._leaves(member):
            self._note(key, "")
            return LEFT
        return "" if place is None else self._entry(member, place)

    def _leaves(self, member: Member) -> bool:
        """Whether a member leaves by itself, and has been told what it missed."""
        joined = not member.home and not member.connection.closed
        return joined and member in self._accounts[member.connection].bases

    def _entry(self, member: Member, place: Position) -> str:
        return self._claims.entry(member.namespace, place, member.connection.user)

    def position_of(self, member: Member) -> str:
        """Up to where a member has received the history; "" if unknown."""
        account = self._accounts.get(member.connection)
        place = None if account is None else account.has.get(member)
        if place is None:
            return ""
        key = self._key(member)
        if key is not None:
            self._note(key, place.stored)
        return place.stored

    def _note(self, key: Key, position: str) -> None:
        self._parted[key] = position
        if len(self._parted) > MOST_PARTED:
            self._parted.popitem(last=False)

    @staticmethod
    def _key(member: Member) -> Key | None:
        """None if it has no claim any more."""
        claim = member.claim
        return None if claim is None else (member.namespace, member.id, mark_of(claim))

    # -- storing ---------------------------------------------------------------------------

    def _changed(self, members: Iterable[Member]) -> None:
        for member in members:
            self._due[member] = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PAUSE)
            try:
                await self._store()
            except Exception:
                log.exception("positions could not be stored: they are tried again")

    async def _store(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._renew_at:
            self._renew_at = now + self._renewal
            self._changed(member for one in self._accounts.values() for member in one.has)
        due = list(islice(self._due, MOST))
        groups: dict[str, list[Member]] = {}
        for member in due:
            del self._due[member]
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
                entries.append((member.id, claim, self._entry(member, place)))
        try:
            if entries:
                deadline = deadline_in(self._timeout)
                await self._claims.store_positions(members[0].namespace, entries, deadline)
        except BackplaneUnavailableError:
            self._changed(members)
