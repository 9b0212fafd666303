"""The options of ``serve`` for limits of users and connections, as :mod:`.serve_options`."""

from typing import Annotated

import typer

ConnectionNamespacesOption = Annotated[
    int,
    typer.Option(
        "--connection-namespaces",
        envvar="CLUSTER_POOL_CONNECTION_NAMESPACES",
        help="Namespaces in which one connection may be a member, its home included.",
        min=1,
    ),
]
UserConnectionsOption = Annotated[
    int | None,
    typer.Option(
        "--user-connections",
        envvar="CLUSTER_POOL_USER_CONNECTIONS",
        help="Connections that one user may have in the cluster. (default: any number)",
        min=1,
        show_default=False,
    ),
]
OnUserLimitOption = Annotated[
    str,
    typer.Option(
        "--on-user-limit",
        envvar="CLUSTER_POOL_ON_USER_LIMIT",
        help="reject: a user with too many connections gets a 429; oldest: a newcomer is taken, "
        "and the user's oldest connection closed with 4409.",
    ),
]
MaxHandshakesOption = Annotated[
    int,
    typer.Option(
        "--max-handshakes",
        envvar="CLUSTER_POOL_MAX_HANDSHAKES",
        help="Handshakes under way, from the accepted socket to the answer; more get a 503.",
        min=1,
    ),
]
MaxPerAddressOption = Annotated[
    int | None,
    typer.Option(
        "--max-per-address",
        envvar="CLUSTER_POOL_MAX_PER_ADDRESS",
        help="Connections of one client address, handshakes under way included; more get a 429. "
        "Behind a proxy it needs --forwarded-allow-ips. (default: any number)",
        min=1,
        show_default=False,
    ),
]
PublishedPerSecondOption = Annotated[
    int,
    typer.Option(
        "--published-per-second",
        envvar="CLUSTER_POOL_PUBLISHED_PER_SECOND",
        help="Messages that one client of cluster-pool.v1 may publish; more are refused.",
        min=1,
    ),
]
HistoryOption = Annotated[
    list[str] | None,
    typer.Option(
        "--history",
        metavar="PATTERN=BOUNDS",
        envvar="CLUSTER_POOL_HISTORY",
        help="Namespaces that keep their latest messages: 'room:*=1000,120,16MiB' keeps 1,000 "
        "messages, for 120 seconds, and 16 MiB in Redis. With ',targeted' behind that a client "
        "without a user that comes back also gets what was sent to its id alone, and so does "
        "another one that claims it. Repeatable (in the variable, separated by spaces).",
        show_default=False,
    ),
]
