"""``serve``: a node behind a load balancer."""

import asyncio
import contextlib
import importlib
import inspect
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from cluster_pool.cli import logs
from cluster_pool.cli.common import (
    DEFAULT_REDIS,
    DONE,
    LOG_FORMAT_VARIABLE,
    JsonOption,
    PrefixOption,
    RedisOption,
    SecretOption,
    explain,
)
from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.cluster.signals import SIGNALS, Signals
from cluster_pool.cluster.stopping import GRACE, HASTY_GRACE, Stopping, drain_for
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.core.ledger import HEADROOM
from cluster_pool.embedded import EmbeddedServer
from cluster_pool.exceptions import InvalidValueError
from cluster_pool.server import collector
from cluster_pool.server.newcomers import raise_limit
from cluster_pool.server.node import PING_INTERVAL, App, NodeServer

log = logging.getLogger("cluster_pool.server")


def serve(
    context: typer.Context,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            envvar="CLUSTER_POOL_HOST",
            help="Where to listen. Whoever can connect can take any id: keep it on loopback, or "
            "put something that authenticates in front.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            "--port", envvar="CLUSTER_POOL_PORT", help="0 takes a free one.", min=0, max=65535
        ),
    ] = 8000,
    node_id: Annotated[
        str | None,
        typer.Option(
            "--node-id",
            envvar="CLUSTER_POOL_NODE_ID",
            help="Unique among live nodes. (default: made)",
        ),
    ] = None,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    secret: SecretOption = None,
    on_conflict: Annotated[
        str,
        typer.Option(
            "--on-conflict",
            envvar="CLUSTER_POOL_ON_CONFLICT",
            help="takeover: the newer connection of an id wins; reject: the older one does.",
        ),
    ] = "takeover",
    origin: Annotated[
        list[str] | None,
        typer.Option(
            "--origin",
            metavar="ORIGIN",
            envvar="CLUSTER_POOL_ORIGIN",
            help="Whose pages may connect, besides those of the same host and port: "
            "SCHEME://HOST or SCHEME://HOST:PORT, as browsers send it; null; or * for all. "
            "Repeatable (in the variable, separated by spaces). Others are refused with 403; who "
            "sends no Origin is no page, and may always.",
            show_default=False,
        ),
    ] = None,
    forwarded_allow_ips: Annotated[
        str,
        typer.Option(
            "--forwarded-allow-ips",
            metavar="ADDRESSES",
            envvar="CLUSTER_POOL_FORWARDED_ALLOW_IPS",
            help="Proxies that are believed in X-Forwarded-For and X-Forwarded-Host: IP addresses "
            "and networks, with commas in between, or * for all. (default: none)",
            show_default=False,
        ),
    ] = "",
    subprotocol: Annotated[
        list[str] | None,
        typer.Option(
            "--subprotocol",
            metavar="NAME",
            envvar="CLUSTER_POOL_SUBPROTOCOL",
            help="A subprotocol that is spoken here; repeatable, the best one first (in the "
            "variable, separated by spaces). An offer without any of them is refused with 400. "
            "Without this option offers are ignored.",
            show_default=False,
        ),
    ] = None,
    app: Annotated[
        str | None,
        typer.Option(
            "--app",
            metavar="MODULE:ATTRIBUTE",
            envvar="CLUSTER_POOL_APP",
            help="async def handler(pool, connection), called for each connection. Its return "
            "closes with 1000; it is not cancelled when the client leaves (connection.closed "
            "tells). Without it, what clients send is published to PREFIX:{NAMESPACE}:inbound.",
        ),
    ] = None,
    admin_port: Annotated[
        int | None,
        typer.Option(
            "--admin-port",
            envvar="CLUSTER_POOL_ADMIN_PORT",
            help="Serve /status and /metrics there; 0 takes a free port. (default: off)",
            min=0,
            max=65535,
        ),
    ] = None,
    admin_host: Annotated[
        str,
        typer.Option(
            "--admin-host",
            envvar="CLUSTER_POOL_ADMIN_HOST",
            help="Where they listen; other than loopback needs a token.",
        ),
    ] = "127.0.0.1",
    admin_token: Annotated[
        str | None,
        typer.Option(
            "--admin-token",
            envvar="CLUSTER_POOL_ADMIN_TOKEN",
            help="What they want as 'Authorization: Bearer TOKEN'. Others can see a command "
            "line: better use the variable.",
            show_default=False,
        ),
    ] = None,
    admin_name: Annotated[
        list[str] | None,
        typer.Option(
            "--admin-name",
            metavar="NAME",
            envvar="CLUSTER_POOL_ADMIN_NAME",
            help="A name by which they may be asked for (the Host header), besides localhost, the "
            "admin host and any IP address; * for all. Repeatable (in the variable, separated by "
            "spaces). Others get 403, unless there is a token.",
            show_default=False,
        ),
    ] = None,
    agent_port: Annotated[
        int | None,
        typer.Option(
            "--agent-port",
            envvar="CLUSTER_POOL_AGENT_PORT",
            help="Answer HAProxy's agent-check there: ready with a weight, or drain; 0 takes a "
            "free port. The server needs 'weight 100' in HAProxy's file. (default: off)",
            min=0,
            max=65535,
        ),
    ] = None,
    agent_host: Annotated[
        str,
        typer.Option(
            "--agent-host",
            envvar="CLUSTER_POOL_AGENT_HOST",
            help="Where the agent-check is answered.",
        ),
    ] = "127.0.0.1",
    compression: Annotated[
        bool,
        typer.Option(
            "--compression", envvar="CLUSTER_POOL_COMPRESSION", help="Allow permessage-deflate."
        ),
    ] = False,
    message_bytes: Annotated[
        int,
        typer.Option(
            "--message-bytes", envvar="CLUSTER_POOL_MESSAGE_BYTES", help="Largest message.", min=1
        ),
    ] = Limits().message_bytes,
    outbox_bytes: Annotated[
        int,
        typer.Option(
            "--outbox-bytes",
            envvar="CLUSTER_POOL_OUTBOX_BYTES",
            help="What one client may leave unread before it is closed with 1013.",
            min=1,
        ),
    ] = Limits().outbox_bytes,
    node_inbound_bytes: Annotated[
        int,
        typer.Option(
            "--node-inbound-bytes",
            envvar="CLUSTER_POOL_NODE_INBOUND_BYTES",
            help="What clients have sent and this node still holds; above it they are not read.",
            min=1,
        ),
    ] = Limits().node_inbound_bytes,
    inbound_per_second: Annotated[
        int,
        typer.Option(
            "--inbound-per-second",
            envvar="CLUSTER_POOL_INBOUND_PER_SECOND",
            help="Messages that one client may send; who says more is closed with 1008.",
            min=1,
        ),
    ] = Limits().inbound_per_second,
    namespace_members: Annotated[
        int,
        typer.Option(
            "--namespace-members",
            envvar="CLUSTER_POOL_NAMESPACE_MEMBERS",
            help="Members that a namespace may have in the cluster; others get a 503.",
            min=1,
        ),
    ] = Limits().namespace_members,
    node_namespaces: Annotated[
        int,
        typer.Option(
            "--node-namespaces",
            envvar="CLUSTER_POOL_NODE_NAMESPACES",
            help="Namespaces in which this node may have members; others get a 503.",
            min=1,
        ),
    ] = Limits().node_namespaces,
    ping_interval: Annotated[
        float,
        typer.Option(
            "--ping-interval",
            envvar="CLUSTER_POOL_PING_INTERVAL",
            help="Seconds between pings; a client that says nothing in between is closed with "
            "1011. Below the idle time-out of whatever proxy stands in front.",
            min=0.1,
            max=86_400,
        ),
    ] = PING_INTERVAL,
    lease: Annotated[
        float,
        typer.Option(
            "--lease",
            envvar="CLUSTER_POOL_LEASE",
            help="Seconds until a dead node's members are gone.",
            min=0.5,
        ),
    ] = Timing().lease,
    close_rate: Annotated[
        float | None,
        typer.Option(
            "--close-rate",
            envvar="CLUSTER_POOL_CLOSE_RATE",
            help="When it is stopped: closes per second of all nodes that drain, together; a "
            "deadline may force more. (default: 70 % of what the other nodes can take)",
            min=0.1,
            max=1_000_000,
        ),
    ] = None,
    headroom: Annotated[
        float,
        typer.Option(
            "--headroom",
            envvar="CLUSTER_POOL_HEADROOM",
            help="Connections per second that this node can take.",
            min=0.1,
            max=1_000_000,
        ),
    ] = HEADROOM,
    grace: Annotated[
        float | None,
        typer.Option(
            "--grace",
            envvar="CLUSTER_POOL_GRACE",
            help="Seconds for a stop by SIGTERM: give the orchestrator five more before it kills. "
            f"By Ctrl-C it has at most {HASTY_GRACE:g}. (default: {GRACE:g}, and {HASTY_GRACE:g} "
            "once no other node takes newcomers, or will)",
            min=0.1,
            max=86_400,
        ),
    ] = None,
    announce: Annotated[
        float | None,
        typer.Option(
            "--announce",
            envvar="CLUSTER_POOL_ANNOUNCE",
            help="Seconds of a stop during which /readyz says 503 and newcomers are still "
            "welcome. (default: 5, or a quarter of the grace)",
            min=0,
            max=86_400,
        ),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            "--wait",
            envvar="CLUSTER_POOL_WAIT",
            help="Seconds to wait for Redis at the start. (default: exit with 3)",
            min=0,
        ),
    ] = None,
    uvloop: Annotated[
        bool,
        typer.Option(
            "--uvloop/--no-uvloop", envvar="CLUSTER_POOL_UVLOOP", help="Use it when installed."
        ),
    ] = True,
    log_level: Annotated[
        str, typer.Option("--log-level", envvar="CLUSTER_POOL_LOG_LEVEL", help="debug to error.")
    ] = "info",
    log_format: Annotated[
        str | None,
        typer.Option(
            "--log-format",
            envvar=LOG_FORMAT_VARIABLE,
            help="text, or json: one JSON object a line, tracebacks inside. (default: text; json "
            "with --json)",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a node: ws://HOST:PORT/ws/NAMESPACE?id=ID, /healthz and /readyz.

    SIGTERM drains: /readyz says 503, then newcomers are turned away and the connections closed
    (1012) at a pace that all draining nodes share; nothing stays in Redis. So does SIGHUP, unless
    it was ignored at the start (nohup). A second signal stops at once, but not the same one within
    3 seconds. --redis embedded starts a private Valkey for trying things out.
    """
    embedded = EmbeddedServer() if redis == "embedded" else None
    with contextlib.ExitStack() as stack:
        try:
            lines = logs.set_up(log_level, log_format or ("json" if as_json else "text"))
            for injected in context.obj or ():
                log.warning(
                    "%s is ignored: Kubernetes sets it for a Service of that name "
                    "(enableServiceLinks: false ends that)",
                    injected,
                )
            raise_limit()
            if embedded is not None:
                stack.enter_context(embedded)
                redis = embedded.url
            pool = ClusterPool(
                redis,
                node_id=node_id,
                prefix=prefix,
                on_conflict=on_conflict,
                limits=Limits(
                    message_bytes=message_bytes,
                    outbox_bytes=outbox_bytes,
                    node_inbound_bytes=node_inbound_bytes,
                    inbound_per_second=inbound_per_second,
                    namespace_members=namespace_members,
                    node_namespaces=node_namespaces,
                ),
                headroom=headroom,
                secret=secret or None,
                origins=origin,
                timing=Timing(lease=lease, heartbeat=min(Timing().heartbeat, lease * 0.3)),
            )
            lines.node = lambda: pool.node_id
            server = NodeServer(
                pool,
                host=host,
                port=port,
                admin_port=admin_port,
                admin_host=admin_host,
                admin_token=admin_token,
                admin_names=admin_name or (),
                agent_port=agent_port,
                agent_host=agent_host,
                subprotocols=subprotocol or (),
                forwarded_allow_ips=forwarded_allow_ips,
                app=load_app(app) if app else None,
                compression=compression,
                ping_interval=ping_interval,
            )

            def say() -> None:
                _say_listening(
                    pool,
                    server,
                    (host, admin_host, agent_host),
                    redis,
                    embedded,
                    as_json or log_format == "json",
                )

            async def start() -> None:
                if wait:
                    log.info("joining at %s, waiting %g s for it at most", pool.address, wait)
                await server.start_with(pool.start(wait=wait))
                collector.settle()
                say()

            stopping = Stopping(close_rate, grace, announce)
            work = _run_until_signal(start, pool, server, stopping)
            with asyncio.Runner(loop_factory=_loop_factory(uvloop)) as runner:
                runner.run(work)
            status = DONE
        except Exception as error:
            status = explain(error)
    raise typer.Exit(status)


async def _run_until_signal(
    start: Callable[[], Coroutine[Any, Any, None]],
    pool: ClusterPool,
    server: NodeServer,
    stopping: Stopping,
) -> None:
    """Start, live until a signal, drain, stop; a second signal stops at once."""
    with Signals(pool.timing.signal_repeat, _signals()) as signals:
        try:
            number = await _signal_during(start(), signals)
            if number is None:
                number = await signals.next()
                await drain_for(pool, number, signals, stopping)
            signals.ignore(number)  # its repeats do not change the exit status
        finally:
            await server.stop()


def _signals() -> tuple[int, ...]:
    """Those that stop; SIGHUP is the end of a terminal, unless nohup has told not to mind it."""
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is None or signal.getsignal(hang_up) == signal.SIG_IGN:
        return SIGNALS
    return (*SIGNALS, hang_up)


async def _signal_during(work: Coroutine[Any, Any, None], signals: Signals) -> int | None:
    """Do ``work`` unless a signal comes first: then cancel it, and return the signal."""
    task, heard = asyncio.create_task(work), asyncio.create_task(signals.next())
    await asyncio.wait((task, heard), return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return heard.result()
    number = heard.result() if heard.done() else None
    heard.cancel()
    await task
    return number


def load_app(name: str) -> App:
    """The handler that ``module:attribute`` names, from the path or the current folder."""
    module, _, attribute = name.partition(":")
    if not module or not attribute or module.startswith("."):
        raise InvalidValueError(f"--app must be MODULE:ATTRIBUTE, not {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        handler: App = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidValueError(f"--app {name}: {error}") from error
    called = handler if inspect.isroutine(handler) else getattr(handler, "__call__", None)  # noqa: B004  # its type is asked, not callability
    if not inspect.iscoroutinefunction(handler) and not inspect.iscoroutinefunction(called):
        raise InvalidValueError(f"--app {name}: must be an async def handler(pool, connection)")
    return handler


def _say_listening(
    pool: ClusterPool,
    server: NodeServer,
    hosts: tuple[str, str, str],
    redis: str,
    embedded: EmbeddedServer | None,
    as_json: bool,
) -> None:
    host, admin_host, agent_host = map(_as_shown, hosts)
    if as_json:
        fields = {
            "event": "listening",
            "node": pool.node_id,
            "host": hosts[0],
            "port": server.port,
            "admin_port": server.admin_port,
            "agent_port": server.agent_port,
            "redis": pool.address,
            "pid": os.getpid(),
        }
        print(json.dumps(fields), flush=True)
        return
    print(f"node {pool.node_id}: ws://{host}:{server.port}/ws/NAMESPACE?id=ID", flush=True)
    if server.admin_port is not None:
        print(f"status: http://{admin_host}:{server.admin_port}/status", flush=True)
    if server.agent_port is not None:
        print(f"agent-check: {agent_host}:{server.agent_port}", flush=True)
    if embedded is not None:
        print(f"redis: cluster-pool nodes --redis {redis}", flush=True)
        print(
            f"       {embedded.cli} PUBLISH 'cluster_pool:{{default}}' 'Hello world!'", flush=True
        )


def _as_shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _loop_factory(wanted: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if wanted:
        with contextlib.suppress(ImportError):
            import uvloop

            factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
            return factory
    return None
