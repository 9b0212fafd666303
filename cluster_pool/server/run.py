"""Runs a node from its settings, until it ends.

:func:`run` runs a node inside a program's own event loop, :func:`serve_forever` a process that is
only a node. Owns the order in which the parts start and stop, and which signals end a node. Prints
nothing: it passes what a person may want to read to callables.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.cluster.signals import SIGNALS, Signals, in_main_thread
from cluster_pool.cluster.stopping import drain_for
from cluster_pool.core.loopback import is_loopback
from cluster_pool.embedded_cluster import EMBEDDED, Embedded
from cluster_pool.server import collector
from cluster_pool.server.newcomers import raise_limit
from cluster_pool.server.node import NodeServer
from cluster_pool.server.notify import READY, STOPPING, notify
from cluster_pool.server.settings import NodeSettings

log = logging.getLogger("cluster_pool.server")

PoolCallback = Callable[[ClusterPool], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """The addresses of a node that accepts clients.

    Attributes:
        node_id: its node id.
        host, port: of the WebSockets, ``/healthz`` and ``/readyz``.
        admin_host, admin_port: of ``/status`` and ``/metrics``; the port is None without them.
        agent_host, agent_port: of HAProxy's agent-check; the port is None without it.
        address: the address of Redis, without its password.
        embedded: the Redis that was started with the node; None if Redis runs by itself.
    """

    node_id: str
    host: str
    port: int
    admin_host: str
    admin_port: int | None
    agent_host: str
    agent_port: int | None
    address: str
    embedded: Embedded | None

    @property
    def url(self) -> str:
        """``ws://HOST:PORT``; clients append ``/ws/NAMESPACE?id=ID``."""
        return f"ws://{bracketed(self.host)}:{self.port}"


ListeningCallback = Callable[[Listening], object]


def serve_forever(
    settings: NodeSettings,
    *,
    on_pool: PoolCallback | None = None,
    on_listening: ListeningCallback | None = None,
) -> None:
    """Run a node in a process that does nothing else, until a signal ends it.

    It is :func:`run` in an event loop of its own: of uvloop, if that is installed and
    ``settings.uvloop`` allows it. The limit of descriptors is raised to the hard limit, and the
    garbage collector is tuned: see :mod:`.collector`. A service manager that has set
    ``NOTIFY_SOCKET`` is told when clients can connect, and when the drain begins.
    """

    def listening(where: Listening) -> None:
        collector.tune()
        notify(READY)
        if on_listening is not None:
            on_listening(where)

    raise_limit()
    work = run(
        settings, on_pool=on_pool, on_listening=listening, on_stopping=lambda: notify(STOPPING)
    )
    with asyncio.Runner(loop_factory=_loop_factory(settings.uvloop)) as runner:
        runner.run(work)


async def run(
    settings: NodeSettings,
    *,
    on_pool: PoolCallback | None = None,
    on_listening: ListeningCallback | None = None,
    on_stopping: Callable[[], object] | None = None,
) -> None:
    """Run a node until a signal has ended it, or the call is cancelled.

    SIGTERM, SIGINT and SIGHUP (unless that is ignored, as under nohup) drain the node as
    ``settings.stopping`` says, and then stop it; a second signal stops it at once. Signals can be
    caught in the main thread only: in another thread only a cancellation ends the node. If this
    call is cancelled, the node stops at once, without a drain: its clients are closed with 1012.
    Nothing of the node stays in Redis, if that can be reached.

    Args:
        on_pool: called with the pool before it joins the cluster: to register hooks, or to keep
            it for sending.
        on_listening: called when the node has joined its cluster and accepts clients.
        on_stopping: called when a signal stops a node that accepts clients, before the drain.

    Raises:
        InvalidValueError: a host or a port cannot be had.
        BackplaneUnavailableError: Redis cannot be reached.
        NodeIdTakenError: another live node has the node id.
        EmbeddedUnavailableError: there is no embedded server, or it did not start.
    """
    if settings.auth is None and not is_loopback(settings.host):
        log.warning(
            "any client that reaches %s can take any id in any namespace: nothing authenticates "
            "them (--jwt-key, --jwks, --auth)",
            settings.host,
        )
    with _signals_of(settings) as signals, _embedded_of(settings) as embedded:
        pool = _pool_of(settings, embedded)
        server = _server_of(settings, pool)
        if on_pool is not None:
            on_pool(pool)

        async def start() -> None:
            await _start(settings, pool, server)
            if on_listening is not None:
                on_listening(_where(settings, pool, server, embedded))

        try:
            number = await _signal_during(start(), signals)
            if number is None:
                number = await _next(signals)
                if on_stopping is not None:
                    on_stopping()
                await drain_for(pool, number, signals, settings.stopping)
            if signals is not None:
                signals.ignore(number)  # its repeats do not change the exit status
        finally:
            await server.stop()


async def _start(settings: NodeSettings, pool: ClusterPool, server: NodeServer) -> None:
    wait = settings.wait
    if wait:
        log.info("joining at %s, waiting %g s for it at most", pool.address, wait)
    await server.start_with(pool.start(wait=wait))


# -- parts ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _embedded_of(settings: NodeSettings) -> Iterator[Embedded | None]:
    """The embedded Redis of this node, if the settings ask for one.

    Its start blocks this thread, for a tenth of a second or three: it must not be another thread,
    since servers end with the thread that started them.
    """
    kind = EMBEDDED.get(settings.redis)
    if kind is None:
        yield None
        return
    with kind() as embedded:
        yield embedded


def _pool_of(settings: NodeSettings, embedded: Embedded | None) -> ClusterPool:
    return ClusterPool(
        settings.redis if embedded is None else embedded.url,
        node_id=settings.node_id,
        prefix=settings.prefix,
        on_conflict=settings.on_conflict,
        on_user_limit=settings.on_user_limit,
        limits=settings.limits,
        timing=settings.timing,
        headroom=settings.headroom,
        secret=settings.secret or None,
        origins=_origins_of(settings),
        receipts=settings.receipts,
        history=settings.history,
    )


def _origins_of(settings: NodeSettings) -> Sequence[str] | None:
    """The allowed origins: those of the settings, else those of their authentication."""
    if settings.origins or settings.auth is None:
        return settings.origins
    return settings.auth.origins


def _server_of(settings: NodeSettings, pool: ClusterPool) -> NodeServer:
    return NodeServer(
        pool,
        host=settings.host,
        port=settings.port,
        max_handshakes=settings.max_handshakes,
        max_per_address=settings.max_per_address,
        admin_port=settings.admin_port,
        admin_host=settings.admin_host,
        admin_token=settings.admin_token,
        admin_names=settings.admin_names,
        agent_port=settings.agent_port,
        agent_host=settings.agent_host,
        subprotocols=settings.subprotocols,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        auth=settings.auth,
        namespace_rules=settings.namespace_rules,
        published_per_second=settings.published_per_second,
        app=settings.app,
        compression=settings.compression,
        ping_interval=settings.ping_interval,
    )


def _where(
    settings: NodeSettings,
    pool: ClusterPool,
    server: NodeServer,
    embedded: Embedded | None,
) -> Listening:
    return Listening(
        node_id=pool.node_id,
        host=settings.host,
        port=server.port,
        admin_host=settings.admin_host,
        admin_port=server.admin_port,
        agent_host=settings.agent_host,
        agent_port=server.agent_port,
        address=pool.address,
        embedded=embedded,
    )


def bracketed(host: str) -> str:
    """A host as it is written in a URL."""
    return f"[{host}]" if ":" in host else host


def _loop_factory(uvloop_wanted: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if uvloop_wanted:
        with contextlib.suppress(ImportError):
            import uvloop

            factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
            return factory
    return None


# -- signals -------------------------------------------------------------------------------


@contextlib.contextmanager
def _signals_of(settings: NodeSettings) -> Iterator[Signals | None]:
    """The signals that end this node; None outside the main thread, where none can be caught."""
    if not in_main_thread():
        yield None
        return
    with Signals(settings.timing.signal_repeat, stop_signals()) as signals:
        yield signals


def stop_signals() -> tuple[int, ...]:
    """The signals that stop a node: SIGTERM, SIGINT, and SIGHUP unless it is ignored (nohup).

    SIGHUP means that the terminal is gone.
    """
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is None or signal.getsignal(hang_up) == signal.SIG_IGN:
        return SIGNALS
    return (*SIGNALS, hang_up)


async def _signal_during(work: Coroutine[Any, Any, None], signals: Signals | None) -> int | None:
    """Run ``work``; if a signal comes first, cancel it and return the signal."""
    task, heard = asyncio.create_task(work), asyncio.create_task(_next(signals))
    try:
        await asyncio.wait((task, heard), return_when=asyncio.FIRST_COMPLETED)
        number = heard.result() if heard.done() else None
        if task.done():
            await task
        return number
    finally:
        task.cancel()
        heard.cancel()
        await asyncio.gather(task, heard, return_exceptions=True)


async def _next(signals: Signals | None) -> int:
    """Wait for the next signal, for ever if none can come."""
    if signals is None:
        await asyncio.Event().wait()
        raise AssertionError("an event that is never set")
    return await signals.next()
