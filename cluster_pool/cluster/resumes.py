"""Where newcomers begin in a history: by what Redis knows of their ids, by what the application
knows, or by the positions that clients keep themselves.
"""

import contextlib
from typing import Final, NamedTuple

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.backplane.resume_keys import ResumeKeys
from cluster_pool.cluster.member_accounts import Member
from cluster_pool.cluster.positions import Accounts
from cluster_pool.core.history import Position, Resumption, Wish
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.connection import Connection

AT_ONCE: Final = 0.5
"""Seconds for which a newcomer waits at most for the key of its word."""


class Start(NamedTuple):
    """Where a newcomer begins.

    Attributes:
        tries: from where it may go on; the first that the history still reaches counts.
        first: where its client may begin in future, if it gets all from here on.
        lost: it cannot go on, but was told that it could.
    """

    tries: tuple[Resumption, ...]
    first: Position | None
    lost: bool = False


class Resumes:
    """The beginnings of one node's members."""

    def __init__(self, backplane: Backplane, accounts: Accounts) -> None:
        setup = backplane.setup
        self._deadline = backplane.deadline
        self._accounts = accounts
        self._rules = setup.histories
        self._keys = ResumeKeys(backplane.shard, setup.keys, setup.seals)

    async def start_of(self, member: Member, found: Resumption, wish: Wish) -> Start:
        """Where a member begins, whose claim was won.

        A client knows better than its WebSocket stack what it has, but the history may not reach
        back so far: then that counts which the stack has shown.

        Raises BackplaneUnavailableError when Redis did not answer in time.
        """
        known = () if found.since is None else (found,)
        if not wish.resume:
            if wish.since is None:
                return Start(known, found.since)
            return Start((_from(found, wish.since),), wish.since)
        seals = await self._keys.read(self._deadline(None))
        user = member.connection.user
        first = seals.start_in(wish.resume, member.namespace, member.id, user)
        since = first if wish.since is None else wish.since
        if first is None or since is None or first.is_beyond(since):
            return Start(known, found.since, lost=True)
        return Start((_from(found, since), *known), first)

    async def prepare(self, namespace: str) -> None:
        """Have the key for the words of a namespace with a history, if Redis gives it at once."""
        if self._rules.of(namespace) is not None:
            with contextlib.suppress(BackplaneUnavailableError):
                await self._keys.read(self._deadline(AT_ONCE))

    def word_of(self, connection: Connection, namespace: str) -> str:
        """The word of a member for its client; "" where there is no history, or no key yet."""
        begun, seals = self._accounts.begun(connection, namespace), self._keys.known
        if begun is None or not begun[1].epoch or seals is None:
            return ""
        return seals.word(begun[1], namespace, begun[0].id, connection.user)


def _from(found: Resumption, since: Position) -> Resumption:
    """Findings with another position, for which no former owner need be asked."""
    return found._replace(since=since, replaced="")
