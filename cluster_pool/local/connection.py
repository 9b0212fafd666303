"""One client WebSocket held by this process: its outbox, its handlers, its end.

The outbox: what is delivered in one tick of the loop leaves in one write at its end, in order. It
is bounded in bytes, judged after a flush on what the kernel would not take. A connection has no
task and no timer of its own; whoever awaits ``run``, ``wait_closed`` or the iteration is its pump.
"""

import asyncio
import enum
import inspect
import logging
from asyncio import current_task
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from math import inf
from typing import Any, Final, Literal, overload

from cluster_pool.core.closing import (
    ABNORMAL,
    IDLE,
    NORMAL,
    POLICY,
    TRY_AGAIN_LATER,
    check_close,
)
from cluster_pool.core.ids import check_id, check_namespace, exact, shown
from cluster_pool.core.message import Message, Outgoing, encode, outgoing, to_json
from cluster_pool.core.quiet import fault, others
from cluster_pool.core.request import Request
from cluster_pool.core.results import SendResult
from cluster_pool.exceptions import (
    AlreadyReadError,
    ClusterPoolError,
    ConnectionClosedError,
    InvalidValueError,
    NotReadableError,
)
from cluster_pool.local.handlers import EVENTS, OnClose, OnError, OnMessage
from cluster_pool.local.services import ConnectionServices, Detached, Owner
from cluster_pool.transports.base import Ahead, Reading, TransportClosed, Watcher
from cluster_pool.transports.direct import write_directly
from cluster_pool.transports.pick import transport_for

log = logging.getLogger("cluster_pool.connection")

DELIVERED, REFUSED = SendResult.DELIVERED, SendResult.REFUSED
MOST_LEFT: Final = 4
"""Outboxes that may wait while it closes: those of two turns, and a message beyond each."""


class State(enum.Enum):
    """Where a connection stands.

    Holding: the handshake is not answered yet, and the outbox gathers. Due: the same, and a close
    waits behind it. Closing: the close is on its way. Closed: the socket is gone.
    """

    HOLDING = "holding"
    DUE = "due"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


HOLDING, DUE, OPEN, CLOSING, CLOSED = State


class Connection:
    """A WebSocket with an id in a namespace.

    Args:
        id: unique in the namespace, in the whole cluster; 1 to 256 bytes of UTF-8.
        namespace: the group it belongs to; the same limits.
        websocket: a connection of ``websockets.asyncio``, a Starlette or FastAPI ``WebSocket``, a
            pair ``(send, close)`` of callables, sync or async.
        idle_timeout: seconds without a message from the client after which it is closed with
            4408; None for never. Checked once a second.
        metadata: whatever the application wants to keep with it.
        request: what the client asked for, where the WebSocket does not know it (a pair of
            callables, a test); else it is taken from there.

    Raises:
        InvalidIdError, InvalidNamespaceError: not allowed.
        TypeError: ``websocket`` is none.
    """

    __slots__ = (
        "__weakref__",
        "_handlers",
        "_left",
        "_pending",
        "_pending_bytes",
        "_reader",
        "_released",
        "_reported",
        "_request",
        "_services",
        "_silenced",
        "_state",
        "_told",
        "_transport",
        "_watcher",
        "_writer",
        "busy_since",
        "claim",
        "close_code",
        "close_reason",
        "deadline",
        "departure",
        "flush_by",
        "forced",
        "id",
        "idle_timeout",
        "inbound_due",
        "last_heard",
        "metadata",
        "namespace",
        "owner",
        "stuck_since",
        "taken_before",
        "watched",
        "websocket",
    )

    def __init__(
        self,
        id: str,
        namespace: str,
        websocket: Any,
        *,
        idle_timeout: float | None = None,
        metadata: dict[str, Any] | None = None,
        request: Request | None = None,
    ) -> None:
        if idle_timeout is not None and not idle_timeout > 0:
            raise InvalidValueError(f"idle_timeout must be more than 0, not {idle_timeout!r}")
        self.id = check_id(id)
        self.namespace = check_namespace(namespace)
        self.websocket = websocket
        self.metadata: dict[str, Any] = {} if metadata is None else metadata
        self.idle_timeout = idle_timeout
        self.close_code: int | None = None
        self.close_reason = ""
        self.claim: Any = None
        """The registered claim; belongs to the cluster."""
        self.departure: Any = None
        """What became of its leaving; belongs to the pool."""
        self.deadline = 0.0
        self.flush_by = inf
        """When the close stops waiting for bytes that were sent before it."""
        self.forced = False
        """Whether its socket was cut, because the close handshake did not end in time."""
        self.stuck_since = 0.0
        self.taken_before = 0
        self.watched = False
        self.last_heard = 0.0
        self.busy_since = 0.0
        """When the handler that is running began; 0 while none is."""
        self.inbound_due = 0.0
        """When everything that was received would have come at the rate that is allowed."""
        self.owner: Owner | None = None
        """Who is told when it is over; belongs to the cluster."""
        self._reported = False
        self._request = request
        self._left = False
        self._watcher: Watcher | None = None
        self._transport = transport_for(websocket)
        self._writer = self._transport.writer
        self._handlers: dict[str, list[Callable[..., Any]]] | None = None
        self._services: ConnectionServices = DETACHED
        self._pending: Outgoing | list[Outgoing] | None = None
        self._pending_bytes = 0
        self._state = OPEN
        self._told = False
        self._silenced = False
        self._reader: asyncio.Task[Any] | None = None
        """Who waits for a message now; None also once it was told to stop."""
        self._released: asyncio.Future[None] | None = None
        """Ends with the handshake; there if somebody waits for that."""

    def __repr__(self) -> str:
        return f"<Connection {shown(self.id)} in {shown(self.namespace)}, {self._state.value}>"

    @property
    def services(self) -> ConnectionServices:
        """The pool it belongs to, or what stands for none."""
        return self._services

    @property
    def request(self) -> Request:
        """What the client asked for: path, query, headers, cookies, address, subprotocols.

        An empty :class:`Request` where nobody knows, and in ``serve`` without ``--app``, where
        nobody asks. Made anew at each access under ASGI and ``websockets``.
        """
        return self._transport.request() if self._request is None else self._request

    @property
    def answered(self) -> bool:
        """Whether its handshake was answered before it was made."""
        return self._transport.is_answered()

    @property
    def closed(self) -> bool:
        """Whether it is closing or closed: nothing is accepted any more."""
        return self._state is not OPEN and self._state is not HOLDING

    @property
    def gone(self) -> bool:
        """Whether its socket is gone."""
        return self._state is CLOSED

    @property
    def lost(self) -> bool:
        """Whether its socket is gone, also when nobody has noticed yet."""
        return self._state is CLOSED or self._transport.is_closed()

    @property
    def over(self) -> bool:
        """Whether its client has left, or nothing that it says counts any more."""
        return self._left or self._silenced or self._state is CLOSED

    @property
    def silenced(self) -> bool:
        """Whether nothing that its client says counts any more."""
        return self._silenced

    @property
    def busy(self) -> bool:
        """Whether a handler is running, or bytes wait to be written."""
        return bool(self.busy_since or self._pending or self._writer.buffered())

    # -- sending ---------------------------------------------------------------------------

    async def send(self, message: Message) -> SendResult:
        """Put a message into the outbox; in the order of these calls, ahead of any later close.

        Returns:
            DELIVERED, or REFUSED when the connection is closing or its outbox is full. A full
            outbox closes the connection with 1013.

        Raises:
            InvalidMessageError, MessageTooLargeError: not allowed.
            ConnectionClosedError: in the body of ``pool.accept``, and in tasks that it made: the
                client has left, or the socket is gone. (Anywhere else that is REFUSED.)
            NotAcceptedError: the handshake is not answered, and no pool does it.
        """
        services = self._services
        services.check_loop()
        if (self._left or self._state is CLOSED) and self.owner is not None and self.owner.calls():
            await asyncio.sleep(0)  # as below: who takes every Exception must not hold up the loop
            raise ConnectionClosedError(self.close_code or ABNORMAL, self.close_reason, self)
        if services is DETACHED:
            self._transport.check_sending()
        result = self.deliver(outgoing(message, services.limits.message_bytes))
        if result is REFUSED:
            await asyncio.sleep(0)  # who sends in a loop must not keep the end from being noticed
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
            self._tell_closing()
            self.begin_close(code, reason)
        return result

    async def send_json_then_close(
        self, value: Any, code: int = NORMAL, reason: str = ""
    ) -> SendResult:
        """Send ``value`` as JSON text and close behind it; as :meth:`send_then_close`."""
        return await self.send_then_close(to_json(value), code, reason)

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close behind what was sent, and wait until the socket is gone.

        The client has ``Timing.close`` seconds (default 5) to answer, then the socket is cut; what
        it says until then is still read. Closing twice is harmless.

        Raises:
            InvalidCloseError: the code or the reason is not allowed.
        """
        self._services.check_loop()
        code, reason = check_close(code, reason)
        self._tell_closing()
        self.begin_close(code, reason)
        try:
            if self._state is DUE:
                async with asyncio.timeout_at(self.deadline):
                    await self._handshake_ends()
            async with asyncio.timeout_at(self.deadline):
                await self._transport.wait_closed()
        except TimeoutError:
            self.cut()
        self._finish()

    def deliver(self, message: Outgoing) -> SendResult:
        """Put a prepared message into the outbox. Never waits."""
        state = self._state
        if state is OPEN:
            pending = self._pending
            if pending is None:
                self._services.flusher.add(self)
                self._pending = message
                self._pending_bytes = message.size
            elif self._pending_bytes + message.size > self._services.limits.outbox_bytes:
                return self._deliver_full(message)
            else:
                if isinstance(pending, list):
                    pending.append(message)
                else:
                    self._pending = [pending, message]
                self._pending_bytes += message.size
            self._services.counters.delivered += message.count
            return DELIVERED
        if state is HOLDING and self._hold_more(message):
            self._services.counters.delivered += message.count
            return DELIVERED
        self._services.counters.refused += message.count
        return REFUSED

    def _deliver_full(self, message: Outgoing) -> SendResult:
        """This tick's share is full: hand it over now, and take as much again, but no more."""
        self.flush()
        waiting = self._writer.buffered()
        if self._state is OPEN:
            if not waiting or waiting + message.size <= 2 * self._services.limits.outbox_bytes:
                return self.deliver(message)
            self._slow()
        self._services.counters.refused += message.count
        return REFUSED

    def _hold_more(self, message: Outgoing) -> bool:
        if (
            self._pending
            and self._pending_bytes + message.size > self._services.limits.outbox_bytes
        ):
            return False
        if self._pending is None:
            self._pending = []
        assert isinstance(self._pending, list)
        self._pending.append(message)
        self._pending_bytes += message.size
        return True

    def flush(self) -> None:
        """Write what is pending."""
        pending = self._pending
        if pending is not None and self._state is not HOLDING and self._state is not DUE:
            self._pending = None
            self.hand_over(Outgoing.join(pending) if isinstance(pending, list) else pending)

    def hand_over(self, outgoing: Outgoing, written: int = 0) -> None:
        """Hand over what was pending, of which ``written`` bytes of the frame are gone."""
        left = self._writer.write(outgoing, written)
        if left > 0:
            if not self.watched:
                self.watched = True
                self._services.watch(self)
            if left > self._services.limits.outbox_bytes:
                asyncio.get_running_loop().call_soon(self.judge)
        elif left < 0 and self._state is OPEN:
            self._lost()

    def judge(self) -> None:
        """A turn of the loop after a write: what is left is what the kernel would not take.

        Too much closes the connection. One that closes already, and still has more to write
        because its client pings and reads nothing, is cut.
        """
        waiting, limit = self._writer.buffered(), self._services.limits.outbox_bytes
        if self._state is OPEN and waiting > limit:
            self._slow()
        elif self.closed and waiting > MOST_LEFT * limit:
            self.cut()

    def _slow(self) -> None:
        self._services.counters.slow_consumers += 1
        self._services.slow_consumer(self)
        self._throw_out(TRY_AGAIN_LATER, "slow consumer")

    # -- states ----------------------------------------------------------------------------

    def attach(self, services: ConnectionServices) -> None:
        """Belong to a pool; to one at most."""
        if self._services is not DETACHED and self._services is not services:
            raise ClusterPoolError(f"{self!r} belongs to another pool")
        if self._state is OPEN:
            self._transport.check_sending()
        self._services = services
        if self.idle_timeout is not None:
            self.last_heard = asyncio.get_running_loop().time()
            services.watch(self)

    def detach(self) -> None:
        """Belong to no pool any more."""
        self._services = DETACHED

    def hold(self) -> None:
        """Gather what is sent until :meth:`release_hold`: the handshake is not finished."""
        if self._state is OPEN:
            self._state = HOLDING

    def release_hold(self) -> None:
        """The WebSocket is open: write what has gathered, and behind it the close that is due."""
        if self._state is HOLDING:
            self._state = OPEN
            self.flush()
        elif self._state is DUE:
            self._state = CLOSING
            if self.flush_by == inf:  # nobody is in a hurry: the client has all its time to answer
                self.deadline = asyncio.get_running_loop().time() + self._services.timing.close
                self._services.watch(self)
            self.flush()
            self._transport.close(self.close_code or NORMAL, self.close_reason)
        self._tell_released()

    async def _handshake_ends(self) -> None:
        """Wait until the handshake is answered, or never will be."""
        if self._released is None:
            self._released = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._released)

    def _tell_released(self) -> None:
        if self._released is not None and not self._released.done():
            self._released.set_result(None)

    async def accept(self, subprotocol: str | None = None) -> None:
        """Answer the handshake where the framework leaves that to us, and open.

        Raises:
            ConnectionClosedError: it was closed meanwhile (taken over, drained). The client got
                what was sent to it before, and then the code.
        """
        await self._transport.accept(None if subprotocol is None else exact(subprotocol))
        self.release_hold()
        if self.closed:
            await self.close()
            raise ConnectionClosedError(self.close_code or ABNORMAL, self.close_reason)

    async def refuse(self, status: int, text: str) -> None:
        """Decline the handshake with an HTTP status; where it was answered already, close."""
        self._state = CLOSED
        self._tell_released()
        await self._transport.refuse(status, text)

    def kick(self, code: int, reason: str) -> None:
        """Close it, whatever its client would still say: as :meth:`begin_close`, and deaf to it.

        For who lost its id or is not wanted: nothing more is yielded or given to a handler, and
        whoever waits for a message stops at once.
        """
        self._tell_closing()
        self._throw_out(code, reason)

    def _throw_out(self, code: int, reason: str) -> None:
        """As :meth:`kick`, for what its client did: who runs just now did not ask for it."""
        self.silence()
        self.begin_close(code, reason)

    def silence(self) -> None:
        """Hear nothing more of the client; wake the pump, which then ends."""
        if self._silenced:
            return
        self._silenced = True
        self._transport.ignore_incoming()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
        if self.owner is not None:
            self.owner.over()

    def _tell_closing(self) -> None:
        if self.owner is not None:
            self.owner.closing()

    def begin_close(self, code: int, reason: str, within: float | None = None) -> None:
        """Close behind what was delivered; never waits. Harmless when closing already.

        Before the handshake is answered, what was delivered and the close wait for that.

        Args:
            within: cut it after so many seconds at the latest: ``Timing.flush`` for what was sent
                before and ``Timing.close`` for the handshake, or less of both. By default it is
                cut after ``Timing.close``.
        """
        if self.closed:
            return
        self.close_code, self.close_reason = code, reason
        self.flush()
        if self.closed:
            return
        self._state = DUE if self._state is HOLDING else CLOSING
        now, timing = asyncio.get_running_loop().time(), self._services.timing
        self.deadline = now + timing.close
        if within is not None:
            shrunk = min(1.0, max(0.0, within) / (timing.flush + timing.close))
            self.flush_by = now + timing.flush * shrunk
            unwritten = self._writer.buffered() > 0
            self.deadline = (self.flush_by if unwritten else now) + timing.close * shrunk
        try:
            if self._state is CLOSING:
                self._transport.close(code, reason)
        finally:
            self._services.watch(self)
            self._services.departing(self)

    def _lost(self) -> None:
        """The socket went away by itself."""
        self._state = CLOSING
        if self.close_code is None:
            self.close_code = ABNORMAL
        self.deadline = asyncio.get_running_loop().time() + self._services.timing.close
        self._services.watch(self)
        self._services.departing(self)

    def watched_by(self, watcher: Watcher, ahead: Ahead) -> None:
        """Have a departure noticed at once, also when nobody reads."""
        self._transport.watch(watcher, ahead)
        self._watcher = watcher

    async def unwatched(self) -> None:
        """No more of :meth:`watched_by`."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            await self._transport.unwatch(watcher)

    def reading(self) -> Reading:
        """Who reads the WebSocket beside this, while it is watched."""
        return self._transport.reading()

    def departed(self, code: int, reason: str) -> None:
        """The client has left: it is a member no longer, and who sends learns of it."""
        if self._left:
            return
        self._left = True
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
        if self._transport.is_closed():
            self._finish()
        elif not self.closed:
            self._lost()
        if self.owner is not None:
            self.owner.over()

    async def tell_end(self) -> None:
        """Tell the handlers that it is closed, if its client has left and nobody has told them."""
        if self._left:
            await self._ended(self.close_code or ABNORMAL, self.close_reason)

    def refusal(self, error: ClusterPoolError, status: int, text: str) -> ClusterPoolError:
        """What to raise where its handshake was refused; see the transport's."""
        return self._transport.refusal(error, status, text)

    def cut(self) -> None:
        """Cut the socket: the close handshake did not end in time, or cannot be trusted."""
        if not self.gone:
            self._services.counters.forced_closes += 1
            self.forced = True
            self.silence()
            self._transport.abort()
            self._finish()

    async def close_begun(self) -> None:
        """Wait until what was sent before a close has left, and the close behind it.

        That is over at the close's deadline at the latest, when the socket is cut.
        """
        await self._transport.wait_close_begun()

    async def alive(self, within: float) -> bool:
        """Whether its client gives a sign of life within so many seconds; see the transport's."""
        return not self.gone and await self._transport.alive(within)

    def _finish(self) -> None:
        """The socket is gone."""
        if not self.closed:
            self._lost()
        self._state = CLOSED
        self._pending = None
        self._tell_released()

    def sweep(self, now: float) -> bool:
        """Once a second while watched: deadlines. False when there is nothing left to watch."""
        transport = self._transport
        self._look_for_hang(now)
        if self._state is not CLOSED and transport.is_closed():
            self._finish()
        if self._state is CLOSED:
            return bool(self.busy_since)
        if self.closed:
            if now >= self.deadline or (now >= self.flush_by and self._writer.buffered()):
                self.cut()
            return not self.gone
        if self._stuck(now):
            self._slow()
            transport.abort()
        if self.idle_timeout is not None and now - self.last_heard >= self.idle_timeout:
            self.begin_close(IDLE, "idle")
        self.watched = (
            self.idle_timeout is not None
            or bool(self.stuck_since)
            or bool(self.busy_since)
            or self.closed
        )
        return self.watched

    def _look_for_hang(self, now: float) -> None:
        """A handler that never returns holds up its own connection; say so, once."""
        limit = self._services.timing.handler
        if self.busy_since and now - self.busy_since >= limit:
            self.busy_since = 0.0
            self._services.counters.handler_hangs += 1
            if times := self._services.quiet.due("hang", now):
                log.error("a handler of %r has not returned for %g s%s", self, limit, others(times))

    def _stuck(self, now: float) -> bool:
        """Whether bytes wait of which the kernel has taken none for too long."""
        if not self._writer.buffered():
            self.stuck_since = 0.0
            return False
        taken = self._writer.bytes_written()
        if not self.stuck_since or taken != self.taken_before:
            self.stuck_since, self.taken_before = now, taken
        return now - self.stuck_since >= self._services.timing.outbox_age

    # -- receiving -------------------------------------------------------------------------

    @overload
    def on(self, event: Literal["message"]) -> Callable[[OnMessage], OnMessage]: ...
    @overload
    def on(self, event: Literal["close"]) -> Callable[[OnClose], OnClose]: ...
    @overload
    def on(self, event: Literal["error"]) -> Callable[[OnError], OnError]: ...
    @overload
    def on(self, event: Literal["message"], handler: OnMessage) -> OnMessage: ...
    @overload
    def on(self, event: Literal["close"], handler: OnClose) -> OnClose: ...
    @overload
    def on(self, event: Literal["error"], handler: OnError) -> OnError: ...
    def on(self, event: str, handler: Callable[..., Any] | None = None) -> Any:
        """Register a handler, sync or async: ``message(message)``, ``close(code, reason)`` once,
        ``error(exception)`` for what another handler raised. Also a decorator: ``@c.on("close")``.

        Handlers of one event run one after another, in the order of registration, and each message
        is handled before the next is read.

        Raises:
            InvalidValueError: there is no such event; the text names those that there are.
        """
        if event not in EVENTS:
            raise InvalidValueError(f"no event {shown(event)}: there are {', '.join(EVENTS)}")
        if handler is None:
            return partial(self._add_handler, event)
        return self._add_handler(event, handler)

    def _add_handler(self, event: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        if self._handlers is None:
            self._handlers = {}
        self._handlers.setdefault(event, []).append(handler)
        return handler

    async def run(self) -> None:
        """Read messages and give them to the handlers until the connection is closed.

        As the iteration does: once it was taken over, closed by the pool or cut, it ends at once,
        and nothing that the client says reaches a handler. After a drain, an idle time-out or
        :meth:`close`, what arrives before the client's answer is still handled. With a pair of
        callables it waits for the end, while :meth:`feed` gives the messages to the handlers.
        """
        self._services.check_loop()
        async for message in self._messages():
            await self._fire("message", message)
            del message

    async def wait_closed(self) -> None:
        """Wait until the connection is closed; what the client sends is read and dropped."""
        self._services.check_loop()
        async for _ in self._messages():
            pass

    def __aiter__(self) -> AsyncIterator[Message]:
        """The messages of the client, until it is closed; of one task at a time.

        Raises:
            NotReadableError: it was made of a pair of callables, which gives none.
            NotAcceptedError: the handshake of the WebSocket is not answered yet.
            AlreadyReadError: another task reads it.
        """
        self._services.check_loop()
        if not self._transport.can_read():
            raise NotReadableError(f"{self!r} has no reading side: hand in what comes by feed()")
        return self._messages()

    async def _messages(self) -> AsyncIterator[Message]:
        receive, time = self._transport.receive, asyncio.get_running_loop().time
        timed = self.idle_timeout is not None
        owner, pump, finished = self.owner, current_task(), False
        if owner is not None:
            owner.reading_begins()
        try:
            while not self._silenced:
                if self._reader is not None:
                    raise AlreadyReadError(f"{self!r} is being read by another task")
                reader = self._reader = current_task()
                assert reader is not None
                cancelling, over = reader.cancelling(), None
                try:
                    message = await receive()
                except TransportClosed as closed:
                    over = closed.code, closed.reason
                except asyncio.CancelledError:
                    if self._reader is not None or reader.cancelling() > cancelling + 1:
                        raise  # somebody else cancels the pump, perhaps at the same time
                finally:
                    if self._reader is None:  # it was cancelled by silence, which is over with this
                        reader.uncancel()
                    self._reader = None
                if over is not None:
                    finished = True
                    await self._ended(*over)
                    return
                if self._silenced:
                    break
                now = time()
                if timed:
                    self.last_heard = now
                if not self._floods(now):
                    yield message
                del message  # a large one is not kept until the next one comes
            finished = True
            await self._transport.wait_close_begun()
            await self._ended(self.close_code or ABNORMAL, self.close_reason)
        finally:
            if owner is not None:
                owner.reading_ends(pump, finished=finished)

    async def feed(self, message: Message) -> None:
        """Hand in what the client sent, for transports that have no reading side.

        Ignored once the connection was taken over, closed by the pool or cut, or is gone.

        Raises:
            InvalidMessageError: text with a lone surrogate, or neither ``str`` nor ``bytes``.
        """
        self._services.check_loop()
        encode(message, self._services.limits.message_bytes)
        if self._silenced or self.gone:
            return
        self.last_heard = asyncio.get_running_loop().time()
        if not self._floods(self.last_heard):
            await self._fire("message", message)

    def _floods(self, now: float) -> bool:
        """Whether the client says more than it may; it is then closed with 1008."""
        rate = self._services.limits.inbound_per_second
        self.inbound_due = max(self.inbound_due, now) + 1 / rate
        if self.inbound_due - now <= 1 + 1 / rate:
            return False
        self.flood(rate, "messages")
        return True

    def flood(self, rate: int, what: str) -> None:
        """Its client says more than it may: close it with 1008, count it and say so."""
        if self.closed:
            return
        self._services.counters.inbound_floods += 1
        now = asyncio.get_running_loop().time()
        if times := self._services.quiet.due("flood", now):
            log.info("%r sent more than %d %s in a second%s", self, rate, what, others(times))
        self._throw_out(POLICY, f"too many {what}")

    async def _ended(self, code: int, reason: str) -> None:
        if self.close_code is None:
            self.close_code, self.close_reason = code, reason
        if self._transport.is_closed():
            self._finish()
        elif not self.closed:
            self.begin_close(NORMAL, "")
        if not self._told:
            self._told = True
            await self._fire("close", self.close_code, self.close_reason)

    async def _fire(self, event: str, *arguments: Any) -> None:
        for handler in (self._handlers or {}).get(event, ()):
            try:
                result = handler(*arguments)
                if inspect.isawaitable(result):
                    await self._attend(result)
            except ConnectionClosedError as error:
                if error.connection is not self:  # else its client has left: no fault of a handler
                    await self._failed(event, error)
            except Exception as error:
                await self._failed(event, error)

    async def _failed(self, event: str, error: Exception) -> None:
        self._services.counters.handler_errors += 1
        self._report(event, error)
        if event != "error":
            await self._fire("error", error)

    def _report(self, event: str, error: Exception) -> None:
        """Log what a handler raised: the first of a connection, and of many with one fault one."""
        now = asyncio.get_running_loop().time()
        times = 0 if self._reported else self._services.quiet.due((event, fault(error)), now)
        self._reported = True
        level = logging.ERROR if times else logging.DEBUG
        text = "a %s handler of %r failed%s"
        log.log(level, text, event, self, others(times or 1), exc_info=error)

    async def _attend(self, handling: Awaitable[Any]) -> None:
        """Await a handler; the sweep looks at how long that takes."""
        if not self.watched:
            self.watched = True
            self._services.watch(self)
        self.busy_since = asyncio.get_running_loop().time()
        try:
            await handling
        finally:
            self.busy_since = 0.0


def deliver_to_all(
    services: ConnectionServices, connections: Iterable[Connection], message: Outgoing
) -> int:
    """:meth:`Connection.deliver` to many of one pool; gives to how many outboxes it went.

    Most have an empty outbox, and are dealt with here: a call less for each.
    """
    size = message.size
    fresh: list[Connection] = []
    others = 0
    for one in connections:
        if one._pending is None and one._state is OPEN:
            one._pending = message
            one._pending_bytes = size
            fresh.append(one)
        elif one.deliver(message):
            others += 1
    services.flusher.add_all(fresh)
    services.counters.delivered += len(fresh) * message.count
    return len(fresh) + others


def write_out(connections: list[Connection]) -> None:
    """Write what is pending for each of ``connections``.

    First look, then write, then deal with what could not be written: nothing can change between
    look and write. What something is in the way of is still pending until its turn comes.
    """
    due: list[tuple[Connection, int, Outgoing]] = []
    others: list[Connection] = []
    for one in connections:
        pending = one._pending
        if pending is None:
            continue
        descriptor = one._writer.descriptor()
        if descriptor < 0 or one._state is HOLDING or one._state is DUE:
            others.append(one)
            continue
        one._pending = None
        due.append(
            (one, descriptor, Outgoing.join(pending) if isinstance(pending, list) else pending)
        )
    for one, short, written in write_directly(due):
        one.hand_over(short, written)
    for one in others:
        one.flush()


DETACHED = Detached(write_out, Connection.sweep)
