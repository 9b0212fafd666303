"""The options of ``serve``: how each is spelled, its variable and its help. A table.

What a setting means, and its default, is for :class:`cluster_pool.server.settings.NodeSettings`.
"""

from typing import Annotated

import typer

from cluster_pool.cli.common import LOG_FORMAT_VARIABLE
from cluster_pool.cluster.stopping import GRACE, HASTY_GRACE

HostOption = Annotated[
    str,
    typer.Option(
        "--host",
        envvar="CLUSTER_POOL_HOST",
        help="Where to listen. Without --jwt-key, --jwks or --auth any client can take any id: "
        "keep it on loopback then, or put something that authenticates in front.",
    ),
]
PortOption = Annotated[
    int,
    typer.Option(
        "--port", envvar="CLUSTER_POOL_PORT", help="0 takes a free one.", min=0, max=65535
    ),
]
NodeIdOption = Annotated[
    str | None,
    typer.Option(
        "--node-id",
        envvar="CLUSTER_POOL_NODE_ID",
        help="Unique among live nodes. (default: made)",
    ),
]
OnConflictOption = Annotated[
    str,
    typer.Option(
        "--on-conflict",
        envvar="CLUSTER_POOL_ON_CONFLICT",
        help="takeover: the newer connection of an id wins; reject: the older one does.",
    ),
]
OriginOption = Annotated[
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
]
ForwardedAllowIpsOption = Annotated[
    str,
    typer.Option(
        "--forwarded-allow-ips",
        metavar="ADDRESSES",
        envvar="CLUSTER_POOL_FORWARDED_ALLOW_IPS",
        help="Proxies that are believed in X-Forwarded-For and X-Forwarded-Host: IP addresses "
        "and networks, with commas in between, or * for all. (default: none)",
        show_default=False,
    ),
]
SubprotocolOption = Annotated[
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
]
JwtKeyOption = Annotated[
    str | None,
    typer.Option(
        "--jwt-key",
        metavar="FILE",
        envvar="CLUSTER_POOL_JWT_KEY",
        help="Clients need a JSON Web Token that this key verifies: a public key or a certificate "
        "in PEM, else the file is the secret of HS256. Needs the extra [jwt].",
        show_default=False,
    ),
]
JwksOption = Annotated[
    str | None,
    typer.Option(
        "--jwks",
        metavar="FILE_OR_URL",
        envvar="CLUSTER_POOL_JWKS",
        help="The same with a JWK set, which is read again when its keys change.",
        show_default=False,
    ),
]
JwtAudienceOption = Annotated[
    str | None,
    typer.Option(
        "--jwt-audience",
        metavar="AUDIENCE",
        envvar="CLUSTER_POOL_JWT_AUDIENCE",
        help="The aud of the tokens. (default: tokens with an aud are refused)",
        show_default=False,
    ),
]
JwtIssuerOption = Annotated[
    str | None,
    typer.Option(
        "--jwt-issuer",
        metavar="ISSUER",
        envvar="CLUSTER_POOL_JWT_ISSUER",
        help="The iss of the tokens. (default: any)",
        show_default=False,
    ),
]
AuthOption = Annotated[
    str | None,
    typer.Option(
        "--auth",
        metavar="MODULE:ATTRIBUTE",
        envvar="CLUSTER_POOL_AUTH",
        help="An Auth, or a function that gets the Request of a client and gives its Identity, or "
        "None for a stranger.",
        show_default=False,
    ),
]
NamespaceRuleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--namespace-rule",
        metavar="PATTERN=VERBS",
        envvar="CLUSTER_POOL_NAMESPACE_RULE",
        help="What any client may do in which namespaces: 'room:*=join,publish,info'. join: be "
        "there, besides those that its token names (needs --jwt-key, --jwks or --auth); publish "
        "and info: for members that speak cluster-pool.v1; rewind: get the last messages first, by "
        "?rewind=N. Repeatable (in the variable, separated by spaces).",
        show_default=False,
    ),
]
AppOption = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:ATTRIBUTE",
        envvar="CLUSTER_POOL_APP",
        help="async def handler(pool, connection), called for each connection. Its return "
        "closes with 1000; it is not cancelled when the client leaves (connection.closed "
        "tells). Without it, what clients send is published to PREFIX:{NAMESPACE}:inbound.",
    ),
]
AdminPortOption = Annotated[
    int | None,
    typer.Option(
        "--admin-port",
        envvar="CLUSTER_POOL_ADMIN_PORT",
        help="Serve /status and /metrics there; 0 takes a free port. (default: off)",
        min=0,
        max=65535,
    ),
]
AdminHostOption = Annotated[
    str,
    typer.Option(
        "--admin-host",
        envvar="CLUSTER_POOL_ADMIN_HOST",
        help="Where they listen; other than loopback needs a token.",
    ),
]
AdminTokenOption = Annotated[
    str | None,
    typer.Option(
        "--admin-token",
        envvar="CLUSTER_POOL_ADMIN_TOKEN",
        help="What they want as 'Authorization: Bearer TOKEN'. Others can see a command "
        "line: better use the variable.",
        show_default=False,
    ),
]
AdminNameOption = Annotated[
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
]
AgentPortOption = Annotated[
    int | None,
    typer.Option(
        "--agent-port",
        envvar="CLUSTER_POOL_AGENT_PORT",
        help="Answer HAProxy's agent-check there: ready with a weight, or drain; 0 takes a "
        "free port. The server needs 'weight 100' in HAProxy's file. (default: off)",
        min=0,
        max=65535,
    ),
]
AgentHostOption = Annotated[
    str,
    typer.Option(
        "--agent-host",
        envvar="CLUSTER_POOL_AGENT_HOST",
        help="Where the agent-check is answered.",
    ),
]
CompressionOption = Annotated[
    bool,
    typer.Option(
        "--compression",
        envvar="CLUSTER_POOL_COMPRESSION",
        help="Compress for clients that offer permessage-deflate.",
    ),
]
MessageBytesOption = Annotated[
    int,
    typer.Option(
        "--message-bytes", envvar="CLUSTER_POOL_MESSAGE_BYTES", help="Largest message.", min=1
    ),
]
OutboxBytesOption = Annotated[
    int,
    typer.Option(
        "--outbox-bytes",
        envvar="CLUSTER_POOL_OUTBOX_BYTES",
        help="What one client may leave unread before it is closed with 1013.",
        min=1,
    ),
]
NodeInboundBytesOption = Annotated[
    int,
    typer.Option(
        "--node-inbound-bytes",
        envvar="CLUSTER_POOL_NODE_INBOUND_BYTES",
        help="What clients have sent and this node still holds; above it they are not read.",
        min=1,
    ),
]
InboundPerSecondOption = Annotated[
    int,
    typer.Option(
        "--inbound-per-second",
        envvar="CLUSTER_POOL_INBOUND_PER_SECOND",
        help="Messages that one client may send; who says more is closed with 1008.",
        min=1,
    ),
]
NamespaceMembersOption = Annotated[
    int,
    typer.Option(
        "--namespace-members",
        envvar="CLUSTER_POOL_NAMESPACE_MEMBERS",
        help="Members that a namespace may have in the cluster; others get a 503.",
        min=1,
    ),
]
NodeNamespacesOption = Annotated[
    int,
    typer.Option(
        "--node-namespaces",
        envvar="CLUSTER_POOL_NODE_NAMESPACES",
        help="Namespaces in which this node may have members; others get a 503.",
        min=1,
    ),
]
PingIntervalOption = Annotated[
    float,
    typer.Option(
        "--ping-interval",
        envvar="CLUSTER_POOL_PING_INTERVAL",
        help="Seconds between pings; a client that says nothing in between is closed with "
        "1011. Below the idle time-out of whatever proxy stands in front.",
        min=0.1,
        max=86_400,
    ),
]
ReceiptsOption = Annotated[
    bool,
    typer.Option(
        "--receipts/--no-receipts",
        envvar="CLUSTER_POOL_RECEIPTS",
        help="Pongs are receipts of clients; not so behind a proxy that ends WebSockets itself.",
    ),
]
LeaseOption = Annotated[
    float,
    typer.Option(
        "--lease",
        envvar="CLUSTER_POOL_LEASE",
        help="Seconds until a dead node's members are gone.",
        min=0.5,
    ),
]
CloseRateOption = Annotated[
    float | None,
    typer.Option(
        "--close-rate",
        envvar="CLUSTER_POOL_CLOSE_RATE",
        help="When it is stopped: closes per second of all nodes that drain, together; a "
        "deadline may force more. (default: 70 % of what the other nodes can take)",
        min=0.1,
        max=1_000_000,
    ),
]
HeadroomOption = Annotated[
    float,
    typer.Option(
        "--headroom",
        envvar="CLUSTER_POOL_HEADROOM",
        help="Connections per second that this node can take.",
        min=0.1,
        max=1_000_000,
    ),
]
GraceOption = Annotated[
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
]
AnnounceOption = Annotated[
    float | None,
    typer.Option(
        "--announce",
        envvar="CLUSTER_POOL_ANNOUNCE",
        help="Seconds of a stop during which /readyz says 503 and newcomers are still "
        "welcome. (default: 5, or a quarter of the grace)",
        min=0,
        max=86_400,
    ),
]
WaitOption = Annotated[
    float | None,
    typer.Option(
        "--wait",
        envvar="CLUSTER_POOL_WAIT",
        help="Seconds to wait for Redis at the start. (default: exit with 3)",
        min=0,
    ),
]
UvloopOption = Annotated[
    bool,
    typer.Option(
        "--uvloop/--no-uvloop", envvar="CLUSTER_POOL_UVLOOP", help="Use it when installed."
    ),
]
LogLevelOption = Annotated[
    str, typer.Option("--log-level", envvar="CLUSTER_POOL_LOG_LEVEL", help="debug to error.")
]
LogFormatOption = Annotated[
    str | None,
    typer.Option(
        "--log-format",
        envvar=LOG_FORMAT_VARIABLE,
        help="text, or json: one JSON object a line, tracebacks inside. (default: text; json "
        "with --json)",
    ),
]
