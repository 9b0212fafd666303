"""The names of ``cluster_pool`` that the tools use beside its public ones, in one place.

Another tree of the package, which one bench compares with this one, may have it elsewhere.
"""

import asyncio
from collections.abc import Callable
from importlib.util import find_spec

from cluster_pool import ClusterPool, Publisher
from cluster_pool.core.ids import user_namespace
from cluster_pool.core.keys import Keys
from cluster_pool.server import collector
from cluster_pool.server.node import BACKLOG, NodeServer

__all__ = [
    "BACKLOG",
    "Keys",
    "NodeServer",
    "held_in",
    "infos_in",
    "is_whole",
    "loop_factory",
    "pending_of",
    "settle_collector",
    "start_channel",
    "user_members",
]


def settle_collector() -> None:
    """Set Python's garbage collector as ``cluster-pool serve`` does."""
    tune: Callable[[], None] = getattr(collector, "tune", None) or vars(collector)["settle"]
    tune()


def pending_of(publisher: Publisher) -> int:
    """Calls of a publisher that are not answered."""
    parts = publisher._parts
    return 0 if parts is None else parts.backplane.outbound.pending


def held_in(pool: ClusterPool, namespace: str) -> list[str]:
    """The ids of the members that a node has in a namespace, those that leave it left out."""
    found = {} if pool._parts is None else pool._parts.table.namespace(namespace) or {}
    return [id for id, one in found.items() if one.departure is None]


def user_members(pool: ClusterPool, user: str) -> list[str]:
    """The ids that a node has in the namespace of a user, those that leave it left out."""
    return held_in(pool, user_namespace(user))


def infos_in(pool: ClusterPool, namespace: str) -> dict[str, str]:
    """The infos of these members as JSON, by their ids; "" for none."""
    table = {} if pool._parts is None else pool._parts.table.namespace(namespace) or {}
    found = {id: table[id].connection for id in held_in(pool, namespace)}
    return {id: (one._infos or {}).get(namespace) or "" for id, one in found.items()}


def start_channel(pool: ClusterPool) -> str:
    """The channel of items for members of a started node, where there is one Redis."""
    parts = pool._parts
    assert parts is not None
    return parts.backplane.identity.start_channel


def is_whole(pool: ClusterPool) -> bool:
    """Whether a node is ready, with links to every shard, and has registered all that it owns."""
    parts = pool._parts
    if parts is None or not pool.ready or parts.ownership.restoration.due:
        return False
    return parts.backplane.topology.share_up == 1


def loop_factory(name: str = "") -> Callable[[], asyncio.AbstractEventLoop]:
    """The event loop by its name; by default as ``serve``: uvloop when it is installed."""
    if name == "uvloop" or (not name and find_spec("uvloop") is not None):
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return factory
    return asyncio.new_event_loop
