"""Makes the memberships of connections in the namespaces of their users."""

import itertools
from sys import intern

from cluster_pool.core.ids import base36, user_namespace
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import PersonMembership


class Persons:
    """Gives each connection of a user an id of its own among the connections of that user.

    The home id would not do: one person in two rooms may have the same home id twice.

    Args:
        start: a name that no other process has; ids are unique in all of them then.
    """

    def __init__(self, start: str = "") -> None:
        self._start = start
        self._numbers = itertools.count(1)

    def membership_of(self, connection: Connection) -> PersonMembership[Connection] | None:
        """A new membership of a connection among those of its user; None if it has no user."""
        user = connection.user
        if user is None:
            return None
        namespace = intern(user_namespace(user))  # one string for all connections of the user
        id = f"{self._start}.{base36(next(self._numbers))}"
        return PersonMembership(connection, namespace, id)
