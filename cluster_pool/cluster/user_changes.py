"""Users who come to a namespace and leave it, found from the changes of its members. Pure.

A user comes with the first connection, and leaves with the last one, if none comes back within the
time of grace.
"""

from collections.abc import Iterable
from math import inf

from cluster_pool.core.results import Member, PresenceChanges, UserEvent


class UserChanges:
    """The users of a namespace.

    Args:
        members: those that are there now; no event tells of their users' coming.
        grace: seconds for which a user without connections has not left.
    """

    def __init__(self, members: Iterable[Member], grace: float) -> None:
        self._grace = grace
        self._ids: dict[str, set[str]] = {}
        """The connections of each user, by their ids."""
        self._users: dict[str, str] = {}
        """The user of each of these ids."""
        self._absent: dict[str, float] = {}
        """Users without connections who have not left yet, and when they do, soonest first."""
        for member in members:
            self._set(member.id, member.user)

    def apply(self, changes: PresenceChanges, now: float) -> list[UserEvent]:
        """The users who have come with some changes."""
        touched: dict[str, bool] = {}  # whether each was there before
        ends = ((member.id, None) for member in changes.left)
        for id, user in (*ends, *((one.id, one.user) for one in changes.updated + changes.joined)):
            for one in (self._users.get(id), user):
                if one is not None and one not in touched:
                    touched[one] = one in self._ids or one in self._absent
            self._set(id, user)
        come = []
        for user, was_there in touched.items():
            if user in self._ids:
                self._absent.pop(user, None)
                if not was_there:
                    come.append(UserEvent("join", user))
            elif was_there and user not in self._absent:
                self._absent[user] = now + self._grace
        return come

    def next_leave(self) -> float:
        """When the next user leaves; infinity when none is about to."""
        return next(iter(self._absent.values()), inf)

    def gone(self, now: float) -> list[UserEvent]:
        """The users who have left by now; each once."""
        left = [user for user, when in self._absent.items() if when <= now]
        for user in left:
            del self._absent[user]
        return [UserEvent("leave", user) for user in left]

    def _set(self, id: str, user: str | None) -> None:
        """An id has that user now; None: no user, or it is no member."""
        former = self._users.pop(id, None)
        if former is not None:
            self._ids[former].discard(id)
            if not self._ids[former]:
                del self._ids[former]
        if user is not None:
            self._users[id] = user
            self._ids.setdefault(user, set()).add(id)
