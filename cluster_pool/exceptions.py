"""Every error this package raises on purpose.

ClusterPoolError
├── InvalidValueError (ValueError)         bad input, refused before anything happens
│   ├── InvalidIdError                     connection id or node id
│   ├── InvalidNamespaceError
│   ├── InvalidCloseError                  close code or reason
│   ├── InvalidMessageError                not str or bytes, or text that is not Unicode
│   └── MessageTooLargeError
├── IdTakenError                           ``on_conflict="reject"`` and the id has an owner
├── OriginRefusedError                     a page of a foreign origin may not connect (403)
├── AuthenticationError                    a client has no valid credentials (401, 4401)
├── AuthenticationUnavailableError         a client could not be authenticated now (503)
├── NotPermittedError                      its identity does not permit that (403)
├── NodeIdTakenError                       another live node has this node id
├── NodeDrainingError                      this node accepts no newcomers
├── DrainRefusedError                      a node refuses an order about its drain
├── NodeUnreachableError                   no live node with this id has answered
├── MembershipLimitError                   the namespace, the node or the user has too many
├── ConnectionClosedError                  the connection is closing or closed
├── NotAcceptedError                       the handshake of the WebSocket is not answered yet
├── NotReadableError                       a pair of callables has no reading side
├── AlreadyReadError                       another task reads the WebSocket
├── PendingLimitError                      too much is waiting for the backplane already
├── PoolClosedError                        the pool was not started, or was stopped
├── WrongLoopError                         called in another thread or event loop
└── BackplaneUnavailableError              Redis could not be reached in time, or refused

Data is on attributes; foreign errors are translated where they occur and kept as ``__cause__``.
"""


class ClusterPoolError(Exception):
    """The root of every error of this package."""


class InvalidValueError(ClusterPoolError, ValueError):
    """An argument is outside what is allowed; nothing was done."""


class InvalidIdError(InvalidValueError):
    """A connection id or a node id is not allowed."""


class InvalidNamespaceError(InvalidValueError):
    """A namespace is not allowed."""


class InvalidCloseError(InvalidValueError):
    """A close code or a close reason is not allowed by RFC 6455 or IANA's registry."""


class InvalidMessageError(InvalidValueError):
    """A message is neither ``str`` nor ``bytes``, or is text that UTF-8 cannot carry."""


class MessageTooLargeError(InvalidValueError):
    """A message is larger than the limit.

    Attributes:
        size: bytes of the message.
        limit: bytes allowed.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"message of {size} bytes is over the limit of {limit} bytes")
        self.size = size
        self.limit = limit


class IdTakenError(ClusterPoolError):
    """The id has an owner already, and the claim was not allowed to take it over.

    Attributes:
        namespace, id: those of the claim.
    """

    def __init__(self, namespace: str, id: str) -> None:
        super().__init__(f"id {id!r} in namespace {namespace!r} is taken")
        self.namespace = namespace
        self.id = id


class OriginRefusedError(ClusterPoolError):
    """The page that opened the WebSocket has a foreign origin, which is not allowed.

    Attributes:
        status: the HTTP status for the handshake, 403.
        origin, host: the headers ``Origin`` and ``Host``; several values with commas in between.
    """

    status = 403

    def __init__(self, origin: str, host: str) -> None:
        super().__init__(f"origin {ascii(origin)[:300]} may not connect to {ascii(host)[:300]}")
        self.origin = origin
        self.host = host


class AuthenticationError(ClusterPoolError):
    """A client has no valid credentials; the text says why, and has no part of them.

    Attributes:
        status: the HTTP status for the handshake, 401.
    """

    status = 401


class AuthenticationUnavailableError(ClusterPoolError):
    """Whether a client's credentials are valid could not be found out; it may come again.

    Attributes:
        status: the HTTP status for the handshake, 503.
    """

    status = 503


class NotPermittedError(ClusterPoolError):
    """A client's identity does not permit the namespace or the id that it asks for.

    Attributes:
        status: the HTTP status for the handshake, 403.
    """

    status = 403


class NodeIdTakenError(ClusterPoolError):
    """Another node renews its lease under this node id.

    Attributes:
        node_id: the id of both nodes.
    """

    def __init__(self, node_id: str) -> None:
        super().__init__(f"node id {node_id!r} is in use by a live node")
        self.node_id = node_id


class NodeDrainingError(ClusterPoolError):
    """This node is draining or stopping and accepts no newcomers."""


class DrainRefusedError(ClusterPoolError):
    """A node refuses an order to drain, pause, resume, cancel or activate.

    Attributes:
        node_id: the node.
        reason: its reason, in a sentence.
    """

    def __init__(self, node_id: str, reason: str) -> None:
        super().__init__(f"node {node_id!r}: {reason}")
        self.node_id = node_id
        self.reason = reason


class NodeUnreachableError(ClusterPoolError):
    """No live node with this id listened, or it did not answer in time.

    Attributes:
        node_id: the id of the node that did not answer.
    """

    def __init__(self, node_id: str, what: str) -> None:
        super().__init__(f"node {node_id!r} {what}")
        self.node_id = node_id


class MembershipLimitError(ClusterPoolError):
    """There are as many as the limits allow: members, namespaces, or connections of the user.

    Attributes:
        limit: the name of the limit, a field of :class:`Limits`.
        allowed: its value.
    """

    def __init__(self, limit: str, allowed: int) -> None:
        super().__init__(f"over the limit of {allowed} ({limit})")
        self.limit = limit
        self.allowed = allowed


class ConnectionClosedError(ClusterPoolError):
    """The connection is closing or closed.

    Attributes:
        code: the close code, 1006 when the socket was lost without one.
        reason: the close reason, empty when there was none.
        connection: the one that was sent to, when one of its own methods raised this.
    """

    def __init__(self, code: int = 1006, reason: str = "", connection: object = None) -> None:
        super().__init__(f"connection is closed: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason
        self.connection = connection


class NotAcceptedError(ClusterPoolError):
    """A send or a read came before the handshake of the WebSocket was answered.

    ``pool.accept(…)`` answers it. Code that makes a :class:`Connection` must answer it first.
    """


class NotReadableError(ClusterPoolError):
    """A pair of callables cannot be read from: pass what arrives to ``Connection.feed``."""


class AlreadyReadError(ClusterPoolError):
    """Another task reads the same WebSocket."""


class PendingLimitError(ClusterPoolError):
    """More is waiting to be published than the limits allow; nothing of this call was queued."""


class PoolClosedError(ClusterPoolError):
    """The pool was not started with ``async with`` or ``start()``, or has been stopped."""


class WrongLoopError(ClusterPoolError):
    """A method was called in a thread without an event loop, or in another loop than its own.

    Nothing was done. Methods that only read or register (``ready``, ``statistics``,
    ``has_namespace``, ``on``, ``Connection.closed``, ``metadata``) may be used in any thread.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: use asyncio.run_coroutine_threadsafe(…, loop) from another thread, or a "
            "SyncPublisher in code without an event loop"
        )


class BackplaneUnavailableError(ClusterPoolError):
    """Redis could not be reached, refused, or did not answer in time.

    The text has the error of Redis or of the network, and advice where there is any.

    Attributes:
        maybe_executed: whether Redis may have executed the command all the same. False means that
            it certainly did not.
    """

    def __init__(self, message: str, *, maybe_executed: bool = False) -> None:
        super().__init__(message)
        self.maybe_executed = maybe_executed
