"""Long-lived WebSocket connections on many nodes: targeted sends, broadcasts, membership.

Floors, from the top; a module imports only from floors below its own:

    cli, testing     the command line; help for users' tests
    server           the node that people run behind a load balancer
    sync_publisher   SyncPublisher: the same for code without an event loop
    publisher        Publisher: sending without connections
    cluster          ClusterPool: ownership and routing across nodes
    backplane        the only floor that knows Redis
    local            Connection, ConnectionsPool: what one process does alone
    transports       one file per WebSocket library
    auth             decides who may connect
    core             words and decisions: no asyncio, no redis, no clock
    loops            which event loop an object belongs to
    exceptions       the error tree
"""

import importlib
from typing import TYPE_CHECKING, Any

from cluster_pool.auth.auth import Auth
from cluster_pool.auth.identity import Identity
from cluster_pool.auth.jwt import Jwt
from cluster_pool.cluster.presence import Presence
from cluster_pool.cluster.stopping import Stopping
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.history import History, HistoryMessage
from cluster_pool.core.request import Fields, Headers, Request
from cluster_pool.core.results import (
    BroadcastReport,
    Delivery,
    DrainProgress,
    DrainReport,
    Gap,
    Member,
    MemberEvent,
    Node,
    NodeState,
    PresenceChanges,
    SendResult,
    UserEvent,
)
from cluster_pool.exceptions import (
    AlreadyReadError,
    AuthenticationError,
    AuthenticationUnavailableError,
    BackplaneUnavailableError,
    ClusterPoolError,
    ConnectionClosedError,
    DrainRefusedError,
    IdTakenError,
    InvalidCloseError,
    InvalidIdError,
    InvalidMessageError,
    InvalidNamespaceError,
    InvalidValueError,
    MembershipLimitError,
    MessageTooLargeError,
    NodeDrainingError,
    NodeIdTakenError,
    NodeUnreachableError,
    NotAcceptedError,
    NotPermittedError,
    NotReadableError,
    OriginRefusedError,
    PendingLimitError,
    PoolClosedError,
    WrongLoopError,
)
from cluster_pool.publisher import Publisher
from cluster_pool.sync_publisher import SyncPublisher

if TYPE_CHECKING:
    from cluster_pool.cluster.pool import ClusterPool
    from cluster_pool.local.connection import Connection
    from cluster_pool.local.pool import ConnectionsPool
else:
    _LATER = {
        "ClusterPool": "cluster_pool.cluster.pool",
        "Connection": "cluster_pool.local.connection",
        "ConnectionsPool": "cluster_pool.local.pool",
    }

    def __getattr__(name: str) -> Any:
        """Load the classes that hold connections at their first use: a publisher needs none."""
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(importlib.import_module(_LATER[name]), name)
        return found

    def __dir__() -> list[str]:
        """Include the names that are loaded later, for completion, help and documentation tools."""
        return sorted({*globals(), *_LATER})


__version__ = "0.1.0"

__all__ = [
    "AlreadyReadError",
    "Auth",
    "AuthenticationError",
    "AuthenticationUnavailableError",
    "BackplaneUnavailableError",
    "BroadcastReport",
    "ClusterPool",
    "ClusterPoolError",
    "Connection",
    "ConnectionClosedError",
    "ConnectionsPool",
    "Delivery",
    "DrainProgress",
    "DrainRefusedError",
    "DrainReport",
    "Fields",
    "Gap",
    "Headers",
    "History",
    "HistoryMessage",
    "IdTakenError",
    "Identity",
    "InvalidCloseError",
    "InvalidIdError",
    "InvalidMessageError",
    "InvalidNamespaceError",
    "InvalidValueError",
    "Jwt",
    "Limits",
    "Member",
    "MemberEvent",
    "MembershipLimitError",
    "MessageTooLargeError",
    "Node",
    "NodeDrainingError",
    "NodeIdTakenError",
    "NodeState",
    "NodeUnreachableError",
    "NotAcceptedError",
    "NotPermittedError",
    "NotReadableError",
    "OriginRefusedError",
    "PendingLimitError",
    "PoolClosedError",
    "Presence",
    "PresenceChanges",
    "Publisher",
    "Request",
    "SendResult",
    "Stopping",
    "SyncPublisher",
    "Timing",
    "UserEvent",
    "WrongLoopError",
]
