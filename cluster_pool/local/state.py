"""The state of one connection, shared by the modules of this floor: slots, and no behaviour.

The outbox, the closing, the handshake and the reading of a connection are modules of functions over
these slots. Objects of their own would add memory to each idle connection, and each would need a
reference back to the connection: a cycle that only the garbage collector frees.
"""

import asyncio
import enum
from collections.abc import Callable
from math import inf
from typing import Any

from cluster_pool.core.ids import check_id, check_namespace, shown
from cluster_pool.core.message import Outgoing
from cluster_pool.core.request import Request
from cluster_pool.exceptions import InvalidValueError
from cluster_pool.local.grant import Grant
from cluster_pool.local.membership import Departure, Membership
from cluster_pool.local.receipts import Receipts
from cluster_pool.local.services import ConnectionServices, Owner
from cluster_pool.transports.base import Transport, Watcher, Writer


class State(enum.Enum):
    """The states of a connection.

    Holding: the handshake is not answered yet, and the outbox holds messages. Due: the same, and a
    close waits behind them. Closing: the close is under way. Closed: the socket is gone.
    """

    HOLDING = "holding"
    DUE = "due"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


HOLDING, DUE, OPEN, CLOSING, CLOSED = State


class ConnectionState:
    """The slots of one connection."""

    __slots__ = (
        "__weakref__",
        "_busy_since",
        "_deadline",
        "_departures",
        "_flush_by",
        "_forced",
        "_grant",
        "_handlers",
        "_inbound_due",
        "_infos",
        "_last_heard",
        "_left",
        "_memberships",
        "_owner",
        "_pending",
        "_pending_bytes",
        "_reader",
        "_receipts",
        "_released",
        "_reported",
        "_request",
        "_services",
        "_silenced",
        "_state",
        "_stuck_since",
        "_told",
        "_transport",
        "_watched",
        "_watcher",
        "_writer",
        "_written_before",
        "close_code",
        "close_reason",
        "id",
        "idle_timeout",
        "metadata",
        "namespace",
        "websocket",
    )

    id: str
    namespace: str
    websocket: Any
    metadata: dict[str, Any]
    idle_timeout: float | None
    close_code: int | None
    close_reason: str
    _memberships: tuple[Membership[Any], ...]
    """Its memberships, its home first; written by the table."""
    _departures: tuple[Departure, ...]
    """The ends of its last memberships, for a later removal; written by the table."""
    _services: ConnectionServices
    _transport: Transport
    _request: Request | None
    _grant: Grant | None
    _infos: dict[str, str] | None
    """Its info as JSON text, by namespace; None when it has none."""
    _state: State
    _owner: Owner | None
    """Is told when it is over; written by the cluster."""

    # The outbox.
    _writer: Writer
    _pending: Outgoing | list[Outgoing] | None
    _pending_bytes: int
    _stuck_since: float
    """When the sweeper first saw the bytes that wait now; 0 while none wait."""
    _written_before: int
    _receipts: Receipts | None
    """Made when the first receipt is wanted."""

    # The closing.
    _deadline: float
    """When a socket that is closing is cut."""
    _flush_by: float
    """When the close stops waiting for bytes that were sent before it."""
    _forced: bool
    """Whether its socket was cut, because the close handshake did not end in time."""
    _watched: bool
    """Whether the sweeper looks at it, for another reason than a close."""
    _left: bool
    """Whether the client has left."""
    _released: "asyncio.Future[None] | None"
    """Done when the handshake ends; made when a task waits for that."""

    # The reading, and the handlers.
    _handlers: dict[str, list[Callable[..., Any]]] | None
    _reader: "asyncio.Task[Any] | None"
    """The task that waits for a message now; None also after it was told to stop."""
    _last_heard: float
    _silenced: bool
    """Whether further messages of its client are ignored."""
    _told: bool
    """Whether the close handlers were called."""
    _reported: bool
    """Whether an error of one of its handlers was logged."""
    _busy_since: float
    """When the running handler began; 0 while none runs."""
    _inbound_due: float
    """When all received messages would have come at the allowed rate."""
    _watcher: Watcher | None

    def __init__(
        self,
        id: str,
        namespace: str,
        websocket: Any,
        transport: Transport,
        services: ConnectionServices,
        *,
        idle_timeout: float | None,
        metadata: dict[str, Any] | None,
        request: Request | None,
    ) -> None:
        if idle_timeout is not None and not idle_timeout > 0:
            raise InvalidValueError(f"idle_timeout must be more than 0, not {idle_timeout!r}")
        self.id = check_id(id)
        self.namespace = check_namespace(namespace)
        self.websocket = websocket
        self.metadata = {} if metadata is None else metadata
        self.idle_timeout = idle_timeout
        self.close_code = None
        self.close_reason = ""
        self._memberships, self._departures = (), ()
        self._transport, self._writer = transport, transport.writer
        self._services, self._owner = services, None
        self._request, self._grant, self._infos = request, None, None
        self._state = OPEN
        self._pending, self._pending_bytes = None, 0
        self._stuck_since, self._written_before = 0.0, 0
        self._receipts = None
        self._deadline, self._flush_by = 0.0, inf
        self._forced = self._watched = self._left = False
        self._released = None
        self._handlers = self._reader = self._watcher = None
        self._silenced = self._told = self._reported = False
        self._last_heard = self._busy_since = self._inbound_due = 0.0

    def __repr__(self) -> str:
        return f"<Connection {shown(self.id)} in {shown(self.namespace)}, {self._state.value}>"

    @property
    def closed(self) -> bool:
        """Whether it is closing or closed: nothing is accepted any more."""
        return self._state is not OPEN and self._state is not HOLDING
