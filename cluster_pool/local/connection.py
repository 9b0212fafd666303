"""The public object for one WebSocket that this process holds.

The work is done by the modules beside it: ``outbox``, ``closing``, ``handshake``, ``reading`` and
``handlers``. A connection has no task and no timer of its own; the task that awaits ``run``,
``wait_closed`` or the iteration is its pump.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Literal, overload

from cluster_pool.auth.identity import Identity
from cluster_pool.core.closing import ABNORMAL, NORMAL, check_close
from cluster_pool.core.message import Message, outgoing, to_json
from cluster_pool.core.profiles import encode_info
from cluster_pool.core.request import Request
from cluster_pool.core.results import SendResult
from cluster_pool.exceptions import (
    AuthenticationError,
    ConnectionClosedError,
    NotReadableError,
)
from cluster_pool.local import closing, reading
from cluster_pool.local.attachment import DETACHED
from cluster_pool.local.grant import Grant
from cluster_pool.local.handlers import (
    OnClose,
    OnError,
    OnLeft,
    OnMessage,
    add_handler,
    check_event,
    fire,
)
from cluster_pool.local.joining import Joining
from cluster_pool.local.outbox import ConnectionOutbox, begin_close, deliver
from cluster_pool.local.profiles import set_info
from cluster_pool.local.state import CLOSED
from cluster_pool.transports.pick import transport_for


class Connection(Joining):
    """A WebSocket with an id in a namespace.

    Args:
        id: unique in the namespace, in the whole cluster; 1 to 256 bytes of UTF-8.
        namespace: the group it belongs to; the same limits.
        websocket: a connection of ``websockets.asyncio``, a Starlette or FastAPI ``WebSocket``,
            aiohttp's ``(request, websocket)``, or a pair ``(send, close)`` of callables, sync or
            async.
        idle_timeout: seconds without a message from the client after which it is closed with
            4408; None for never. Checked once a second.
        metadata: data of the application, kept with the connection.
        request: the client's request, if the WebSocket does not have it (a pair of callables, a
            test); else the WebSocket's own is used.
        user: the person whose connection it is, who may have several; 1 to 250 bytes. It has an
            identity then, which says no more than that.
        info: what other members see of it, such as ``{"name": "Alice"}``: any JSON value, of
            ``Limits.info_bytes`` (1 KiB) at most; None for nothing.

    Raises:
        InvalidIdError, InvalidNamespaceError: not allowed.
        InvalidValueError: ``info`` is not JSON, or has more than 32 levels.
        TypeError: ``websocket`` is of no supported type.
    """

    __slots__ = ()

    def __init__(
        self,
        id: str,
        namespace: str,
        websocket: Any,
        *,
        idle_timeout: float | None = None,
        metadata: dict[str, Any] | None = None,
        request: Request | None = None,
        user: str | None = None,
        info: Any = None,
    ) -> None:
        super().__init__(
            id,
            namespace,
            websocket,
            transport_for(websocket),
            DETACHED,
            idle_timeout=idle_timeout,
            metadata=metadata,
            request=request,
        )
        if user is not None:
            self._grant = Grant(Identity(user=user), None)
        if info is not None:
            set_info(self, self.namespace, encode_info(info))
        self._transport.write_behind(ConnectionOutbox(self))

    @property
    def request(self) -> Request:
        """The client's request: path, query, headers, cookies, address, subprotocols.

        An empty :class:`Request` if it is not known, and in ``serve`` without ``--app``, which
        keeps none. Made anew at each access under ASGI and ``websockets``.
        """
        return self._transport.request() if self._request is None else self._request

    @property
    def recovered(self) -> bool | None:
        """Whether its client has got all that was sent to its id while it was away.

        ``None``: it was not there lately, or its namespace has no history. ``False``: it was, and
        something has left the history since then, so nothing old is sent; or Redis has lost lately
        who was there. ``True``: all that it has missed is sent before anything new.
        """
        account = None if self._receipts is None else self._receipts.account
        return None if account is None else account.recovered

    # -- identity --------------------------------------------------------------------------

    @property
    def identity(self) -> Identity | None:
        """The identity that authentication gave the client, or that of a given user; or None."""
        return None if self._grant is None else self._grant.identity

    @property
    def user(self) -> str | None:
        """The person whose connection it is, if that is known: the user of the identity."""
        return None if self._grant is None else self._grant.identity.user

    @property
    def expires(self) -> float | None:
        """Seconds since 1970 from which it is closed with 4401; None: never.

        It is closed within 30 seconds then, since many that expire together are spread.
        """
        return None if self._grant is None else self._grant.identity.expires

    async def renew(self, token: str) -> None:
        """Take the identity of another token, of the same user, and expire when that does.

        The pool's ``authenticate`` is called with a request that has the token as ``Authorization:
        Bearer``, and path and client as before, but no other header and no query. Namespaces that
        only the former identity permits are left, which ``on("left")`` tells as ``"removed"``.

        Raises:
            AuthenticationError: the token is not valid, revoked, of another user, or permits no
                such namespace or id; or this connection was accepted without ``auth``. It is as
                before.
            AuthenticationUnavailableError: that cannot be found out now.
            InvalidValueError: a token is a str of visible ASCII characters.
            ConnectionClosedError: it is closed, perhaps since its former token was revoked.
        """
        grant, services = self._grant, self._services
        if grant is None:
            raise AuthenticationError("this connection was accepted without auth")
        former = grant.identity
        await grant.renew(self, self.request, token, services.check_identity)
        services.renewed(self)
        for namespace in self.namespaces:
            if former.permits(namespace) and not grant.identity.permits(namespace):
                services.withdraw(self, namespace)

    # -- sending ---------------------------------------------------------------------------

    async def send(self, message: Message) -> SendResult:
        """Put a message into the outbox; in the order of these calls, ahead of any later close.

        Returns:
            DELIVERED, or REFUSED when the connection is closing or its outbox is full. A full
            outbox closes the connection with 1013.

        Raises:
            InvalidMessageError, MessageTooLargeError: not allowed.
            ConnectionClosedError: the client has left, or the socket is gone. Only in the body of
                ``pool.accept`` while it runs, and in its tasks; elsewhere the result is REFUSED.
            NotAcceptedError: the handshake is not answered, and no pool will do it.
        """
        services = self._services
        services.check_loop()
        owner = self._owner
        if (self._left or self._state is CLOSED) and owner is not None and owner.calls():
            await asyncio.sleep(0)  # as below: a body that catches it must not block the loop
            raise ConnectionClosedError(self.close_code or ABNORMAL, self.close_reason, self)
        if services is DETACHED:
            self._transport.check_sending()
        result = deliver(self, outgoing(message, services.limits.message_bytes))
        if result is SendResult.REFUSED:
            await asyncio.sleep(0)  # else a loop of sends never lets the end be noticed
        return result

    async def send_json(self, value: Any) -> SendResult:
        """Send ``value`` as JSON text; as :meth:`send`."""
        return await self.send(to_json(value))

    async def send_then_close(
        self, message: Message, code: int = NORMAL, reason: str = ""
    ) -> SendResult:
        """Send a message and begin to close behind it, once; as :meth:`send`."""
        code, reason = check_close(code, reason)
        result = await self.send(message)
        if result:
            closing.tell_owner(self)
            begin_close(self, code, reason)
        return result

    async def send_json_then_close(
        self, value: Any, code: int = NORMAL, reason: str = ""
    ) -> SendResult:
        """Send ``value`` as JSON text and close behind it; as :meth:`send_then_close`."""
        return await self.send_then_close(to_json(value), code, reason)

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close behind earlier messages, and wait until the socket is gone.

        The client has ``Timing.close`` seconds (default 5) to answer, then the socket is cut. Its
        messages until then are still read. A second call only waits.

        Raises:
            InvalidCloseError: the code or the reason is not allowed.
        """
        self._services.check_loop()
        code, reason = check_close(code, reason)
        closing.tell_owner(self)
        begin_close(self, code, reason)
        await closing.wait_closed(self)

    # -- receiving -------------------------------------------------------------------------

    @overload
    def on(self, event: Literal["message"]) -> Callable[[OnMessage], OnMessage]: ...
    @overload
    def on(self, event: Literal["close"]) -> Callable[[OnClose], OnClose]: ...
    @overload
    def on(self, event: Literal["error"]) -> Callable[[OnError], OnError]: ...
    @overload
    def on(self, event: Literal["left"]) -> Callable[[OnLeft], OnLeft]: ...
    @overload
    def on(self, event: Literal["message"], handler: OnMessage) -> OnMessage: ...
    @overload
    def on(self, event: Literal["close"], handler: OnClose) -> OnClose: ...
    @overload
    def on(self, event: Literal["error"], handler: OnError) -> OnError: ...
    @overload
    def on(self, event: Literal["left"], handler: OnLeft) -> OnLeft: ...
    def on(self, event: str, handler: Callable[..., Any] | None = None) -> Any:
        """Register a handler, sync or async: ``message(message)``, ``close(code, reason)`` once,
        ``error(exception)`` when another handler raised, ``left(namespace, cause)`` when a
        membership that it had joined ended without :meth:`leave`: its id was ``"taken over"``, or
        the membership was ``"removed"`` from elsewhere. Also a decorator: ``@c.on("close")``.

        Handlers of one event run one after another, in the order of registration, and each message
        is handled before the next is read. Those of ``left`` run at once, also while a message is
        handled.

        Raises:
            InvalidValueError: there is no such event; the text names the events.
        """
        check_event(event)
        if handler is None:
            return partial(add_handler, self, event)
        return add_handler(self, event, handler)

    async def run(self) -> None:
        """Read messages and give them to the handlers until the connection is closed.

        It ends as the iteration does: at once when the connection was taken over, closed by the
        pool or cut; no later message reaches a handler. After a drain, an idle time-out or
        :meth:`close`, messages that arrive before the client's answer are still handled. With a
        pair of callables it waits for the end, while :meth:`feed` gives messages to the handlers.
        """
        self._services.check_loop()
        async for message in reading.messages(self):
            await fire(self, "message", message)
            del message

    async def wait_closed(self) -> None:
        """Wait until the connection is closed; messages of the client are read and dropped."""
        self._services.check_loop()
        async for _ in reading.messages(self):
            pass

    def __aiter__(self) -> AsyncIterator[Message]:
        """The messages of the client, until the connection is closed; for one task at a time.

        Raises:
            NotReadableError: it was made of a pair of callables, which cannot be read.
            NotAcceptedError: the handshake of the WebSocket is not answered yet.
            AlreadyReadError: another task reads it.
        """
        self._services.check_loop()
        if not self._transport.can_read():
            raise NotReadableError(f"{self!r} has no reading side: hand in what comes by feed()")
        return reading.messages(self)

    async def feed(self, message: Message) -> None:
        """Hand in a message of the client, for transports that cannot be read.

        It is ignored once the connection was taken over, closed by the pool or cut, or is gone.

        Raises:
            InvalidMessageError: text with a lone surrogate, or neither ``str`` nor ``bytes``.
        """
        self._services.check_loop()
        await reading.feed(self, message)
