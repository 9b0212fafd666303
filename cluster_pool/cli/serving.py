"""``serve``: a node behind a load balancer. Fills the settings in, and prints where it listens."""

import inspect
import json
import logging
import os
from collections.abc import Callable, Sequence

import typer

from cluster_pool.cli import authentication, logs
from cluster_pool.cli.attributes import load
from cluster_pool.cli.common import (
    DEFAULT_REDIS,
    DONE,
    JsonOption,
    PrefixOption,
    RedisOption,
    SecretOption,
    explain,
)
from cluster_pool.cli.limit_options import (
    ConnectionNamespacesOption,
    HistoryOption,
    MaxHandshakesOption,
    MaxPerAddressOption,
    OnUserLimitOption,
    PublishedPerSecondOption,
    UserConnectionsOption,
)
from cluster_pool.cli.serve_options import (
    AdminHostOption,
    AdminNameOption,
    AdminPortOption,
    AdminTokenOption,
    AgentHostOption,
    AgentPortOption,
    AnnounceOption,
    AppOption,
    AuthOption,
    CloseRateOption,
    CompressionOption,
    ForwardedAllowIpsOption,
    GraceOption,
    HeadroomOption,
    HostOption,
    InboundPerSecondOption,
    JwksOption,
    JwtAudienceOption,
    JwtIssuerOption,
    JwtKeyOption,
    LeaseOption,
    LogFormatOption,
    LogLevelOption,
    MessageBytesOption,
    NamespaceMembersOption,
    NamespaceRuleOption,
    NodeIdOption,
    NodeInboundBytesOption,
    NodeNamespacesOption,
    OnConflictOption,
    OriginOption,
    OutboxBytesOption,
    PingIntervalOption,
    PortOption,
    ReceiptsOption,
    SubprotocolOption,
    UvloopOption,
    WaitOption,
)
from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.cluster.stopping import Stopping
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.drain_budget import HEADROOM
from cluster_pool.core.history import rules_of
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.exceptions import InvalidValueError
from cluster_pool.server.apps import App
from cluster_pool.server.framed_clients import PUBLISHED_PER_SECOND
from cluster_pool.server.handshake_bounds import MAX_HANDSHAKES
from cluster_pool.server.keepalive import PING_INTERVAL
from cluster_pool.server.run import Listening, bracketed, serve_forever
from cluster_pool.server.settings import NodeSettings

log = logging.getLogger("cluster_pool.server")

LIMITS, TIMING = Limits(), Timing()
"""The defaults."""
LIMIT_NAMES = (
    *("message_bytes", "outbox_bytes", "node_inbound_bytes", "inbound_per_second"),
    *("namespace_members", "node_namespaces", "connection_namespaces", "user_connections"),
)
"""The options that are limits, by the names of both."""


def serve(
    context: typer.Context,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    node_id: NodeIdOption = None,
    redis: RedisOption = DEFAULT_REDIS,
    prefix: PrefixOption = DEFAULT_PREFIX,
    secret: SecretOption = None,
    on_conflict: OnConflictOption = "takeover",
    origin: OriginOption = None,
    forwarded_allow_ips: ForwardedAllowIpsOption = "",
    subprotocol: SubprotocolOption = None,
    jwt_key: JwtKeyOption = None,
    jwks: JwksOption = None,
    jwt_audience: JwtAudienceOption = None,
    jwt_issuer: JwtIssuerOption = None,
    auth: AuthOption = None,
    namespace_rule: NamespaceRuleOption = None,
    published_per_second: PublishedPerSecondOption = PUBLISHED_PER_SECOND,
    history: HistoryOption = None,
    app: AppOption = None,
    admin_port: AdminPortOption = None,
    admin_host: AdminHostOption = "127.0.0.1",
    admin_token: AdminTokenOption = None,
    admin_name: AdminNameOption = None,
    agent_port: AgentPortOption = None,
    agent_host: AgentHostOption = "127.0.0.1",
    compression: CompressionOption = False,
    message_bytes: MessageBytesOption = LIMITS.message_bytes,
    outbox_bytes: OutboxBytesOption = LIMITS.outbox_bytes,
    node_inbound_bytes: NodeInboundBytesOption = LIMITS.node_inbound_bytes,
    inbound_per_second: InboundPerSecondOption = LIMITS.inbound_per_second,
    namespace_members: NamespaceMembersOption = LIMITS.namespace_members,
    node_namespaces: NodeNamespacesOption = LIMITS.node_namespaces,
    connection_namespaces: ConnectionNamespacesOption = LIMITS.connection_namespaces,
    user_connections: UserConnectionsOption = None,
    on_user_limit: OnUserLimitOption = "reject",
    max_handshakes: MaxHandshakesOption = MAX_HANDSHAKES,
    max_per_address: MaxPerAddressOption = None,
    ping_interval: PingIntervalOption = PING_INTERVAL,
    receipts: ReceiptsOption = True,
    lease: LeaseOption = TIMING.lease,
    close_rate: CloseRateOption = None,
    headroom: HeadroomOption = HEADROOM,
    grace: GraceOption = None,
    announce: AnnounceOption = None,
    wait: WaitOption = None,
    uvloop: UvloopOption = True,
    log_level: LogLevelOption = "info",
    log_format: LogFormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a node: ws://HOST:PORT/ws/NAMESPACE?id=ID, /healthz and /readyz.

    SIGTERM drains: /readyz says 503, then newcomers are turned away and the connections closed
    (1012) at a pace that all draining nodes share; nothing stays in Redis. So does SIGHUP, unless
    it was ignored at the start (nohup). A second signal stops at once, but not the same one within
    3 seconds. --redis embedded starts a private Valkey for trying things out,
    --redis embedded-cluster three of them as a Redis Cluster.
    """

    def settings() -> NodeSettings:
        return NodeSettings(
            redis=redis,
            prefix=prefix,
            node_id=node_id,
            secret=secret,
            on_conflict=on_conflict,
            on_user_limit=on_user_limit,
            limits=Limits(**{name: context.params[name] for name in LIMIT_NAMES}),
            timing=Timing(lease=lease, heartbeat=min(TIMING.heartbeat, lease * 0.3)),
            headroom=headroom,
            wait=wait,
            host=host,
            port=port,
            max_handshakes=max_handshakes,
            max_per_address=max_per_address,
            origins=origin or (),
            forwarded_allow_ips=forwarded_allow_ips,
            subprotocols=subprotocol or (),
            auth=authentication.chosen(jwt_key, jwks, jwt_audience, jwt_issuer, auth),
            namespace_rules=namespace_rule or (),
            published_per_second=published_per_second,
            history=rules_of(history or ()),
            app=load_app(app) if app else None,
            compression=compression,
            ping_interval=ping_interval,
            receipts=receipts,
            admin_port=admin_port,
            admin_host=admin_host,
            admin_token=admin_token,
            admin_names=admin_name or (),
            agent_port=agent_port,
            agent_host=agent_host,
            stopping=Stopping(close_rate, grace, announce),
            uvloop=uvloop,
        )

    raise typer.Exit(_serve(settings, log_level, log_format, as_json, context.obj or ()))


def _serve(
    settings: Callable[[], NodeSettings],
    log_level: str,
    log_format: str | None,
    as_json: bool,
    injected: Sequence[str],
) -> int:
    """Run the node to its end, and give the exit status."""
    as_json = as_json or log_format == "json"
    try:
        lines = logs.set_up(log_level, log_format or ("json" if as_json else "text"))
        for variable in injected:
            log.warning(
                "%s is ignored: Kubernetes sets it for a Service of that name "
                "(enableServiceLinks: false ends that)",
                variable,
            )

        def name_node(pool: ClusterPool) -> None:
            lines.node = lambda: pool.node_id

        say = _say_json if as_json else _say_text
        serve_forever(settings(), on_pool=name_node, on_listening=say)
    except Exception as error:
        return explain(error)
    return DONE


def load_app(name: str) -> App:
    """The handler that ``module:attribute`` names, from the path or the current folder."""
    handler: App = load("--app", name)
    called = handler if inspect.isroutine(handler) else type(handler).__call__  # not of a class
    if not inspect.iscoroutinefunction(handler) and not inspect.iscoroutinefunction(called):
        raise InvalidValueError(f"--app {name}: must be an async def handler(pool, connection)")
    return handler


def _say_json(where: Listening) -> None:
    fields = {
        "event": "listening",
        "node": where.node_id,
        "host": where.host,
        "port": where.port,
        "admin_port": where.admin_port,
        "agent_port": where.agent_port,
        "redis": where.address,
        "pid": os.getpid(),
    }
    print(json.dumps(fields), flush=True)


def _say_text(where: Listening) -> None:
    print(f"node {where.node_id}: {where.url}/ws/NAMESPACE?id=ID", flush=True)
    if where.admin_port is not None:
        admin = f"{bracketed(where.admin_host)}:{where.admin_port}"
        print(f"status: http://{admin}/status", flush=True)
    if where.agent_port is not None:
        print(f"agent-check: {bracketed(where.agent_host)}:{where.agent_port}", flush=True)
    if where.embedded is not None:
        print(f"redis: cluster-pool nodes --redis {where.embedded.url}", flush=True)
        channel = "'cluster_pool:{default}'"
        print(
            f"       {where.embedded.cli} {where.embedded.publish} {channel} 'Hello world!'",
            flush=True,
        )
