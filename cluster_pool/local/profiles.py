"""The profiles of memberships: what other members see of them, made from their connections."""

from collections.abc import Iterable
from sys import intern
from typing import Any

from cluster_pool.core import profiles
from cluster_pool.local.membership import Membership
from cluster_pool.local.state import ConnectionState


def profile_of(membership: Membership[Any]) -> str:
    """The profile of a membership as JSON; "" if there is nothing to tell, and never was."""
    connection: ConnectionState = membership.connection
    infos, grant = connection._infos, connection._grant
    if membership.person or (infos is None and grant is None):
        return ""
    user = None if grant is None else grant.identity.user
    info = None if infos is None else infos.get(membership.namespace)
    told = profiles.encode(user, info or None)
    return profiles.NO_PROFILE if info == "" and not told else told


def told_of(memberships: Iterable[Membership[Any]]) -> list[tuple[int, str]]:
    """The profiles of those that have one, each behind its place, from 1 on."""
    profiles = enumerate(map(profile_of, memberships), 1)
    return [(place, profile) for place, profile in profiles if profile]


def info_in(connection: ConnectionState, namespace: str) -> str | None:
    """The info of a connection in a namespace, as JSON text; "" if it has none any more, None if it
    never had one."""
    return None if connection._infos is None else connection._infos.get(namespace)


def set_info(connection: ConnectionState, namespace: str, info: str | None) -> None:
    """Give a connection an info in a namespace, as JSON text; "" for none any more.

    That is kept, as long as the membership: the registry may not have heard of it. None for a
    membership that has ended.
    """
    infos = connection._infos
    if info is not None:
        if infos is None:
            infos = connection._infos = {}
        infos[intern(namespace)] = info
    elif infos is not None and infos.pop(namespace, None) is not None and not infos:
        connection._infos = None
