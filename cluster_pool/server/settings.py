"""The settings of a node: one frozen record, checked as a whole when it is made.

Owns the meaning of every setting of ``serve``, its unit and its default. The command line or a
program fills it in; :mod:`.run` runs a node from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cluster_pool.auth.auth import Auth
from cluster_pool.auth.rules import JOIN, NamespaceRules
from cluster_pool.auth.tokens import check_token
from cluster_pool.backplane.address import Address
from cluster_pool.backplane.backplane import DEFAULT_REDIS
from cluster_pool.cluster.stopping import Stopping
from cluster_pool.core.config import (
    Limits,
    Timing,
    check_above_zero,
    check_on_conflict,
    check_on_user_limit,
    check_wait,
)
from cluster_pool.core.drain_budget import HEADROOM
from cluster_pool.core.handshake import check_subprotocols
from cluster_pool.core.history import History, HistoryRules
from cluster_pool.core.ids import check_node_id, shown
from cluster_pool.core.keys import DEFAULT_PREFIX, Keys
from cluster_pool.core.origins import Origins
from cluster_pool.core.proxies import Proxies
from cluster_pool.core.seals import Seals, Secret
from cluster_pool.embedded_cluster import EMBEDDED
from cluster_pool.exceptions import InvalidValueError
from cluster_pool.local.drain_terms import Terms
from cluster_pool.server.admin import check_admin_host
from cluster_pool.server.apps import App
from cluster_pool.server.framed_clients import PUBLISHED_PER_SECOND
from cluster_pool.server.handshake_bounds import MAX_HANDSHAKES
from cluster_pool.server.keepalive import PING_INTERVAL

LAST_PORT: Final = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """All settings of ``serve``. Times are seconds, sizes are bytes.

    Attributes:
        redis: the URL of the cluster's Redis (``redis://``, ``rediss://``, ``unix://``,
            ``redis+sentinel://``, ``redis+cluster://`` and so on; see docs/deploying.md), or
            ``"embedded"`` or ``"embedded-cluster"`` for a private Valkey, alone or as a cluster
            of three primaries, that lives as long as the node.
        prefix: of every key and channel of the cluster.
        node_id: unique among live nodes; None makes one.
        secret: the secret of every node and publisher in the cluster, at least 16 bytes. With
            several the first one seals and each is accepted. None or an empty list: no seals.
        on_conflict: ``"takeover"``: the newer connection of an id wins; ``"reject"``: the older.
        on_user_limit: ``"reject"``: a user with ``limits.user_connections`` connections gets 429;
            ``"oldest"``: a newcomer is taken, and the user's oldest connection closed with 4409.
        limits: of messages, outboxes, messages of clients, namespaces and members.
        timing: lease, heartbeat and time-outs.
        headroom: connections per second that this node can accept; more than 0.
        wait: seconds to go on trying at the start while Redis cannot be reached; None tries once.
        host, port: where to listen. Port 0 chooses a free one.
        max_handshakes: handshakes under way, from the accepted socket to the answer; more get 503.
        max_per_address: sockets of one client address, whether their handshake is under way or
            they are open; more get 429. Behind a proxy it needs ``forwarded_allow_ips``, else all
            clients have the address of the proxy. None: any number.
        origins: origins of pages that may connect, besides the same host and port:
            ``SCHEME://HOST`` or ``SCHEME://HOST:PORT``; ``null``; ``*`` for all.
        forwarded_allow_ips: addresses and networks of proxies whose ``X-Forwarded-For`` (the
            client's address) and ``X-Forwarded-Host`` (the host that it asked for) are trusted,
            separated by commas or one by one; ``*`` for all. None trusts no proxy.
        subprotocols: the supported ones, the best one first. An offer without any of them is
            refused with 400; without this setting offers are ignored.
        auth: authenticates clients before anything is claimed for them. A client then may be in the
            namespaces that its identity or a rule permits, and take over only the id that its
            identity names. None: any client may have any id in any namespace.
        namespace_rules: what each client may do in which namespaces: ``PATTERN=VERBS``, in which
            ``*`` stands for any text, and the verbs are one or more of ``join``, ``publish``,
            ``info`` and ``rewind``, with commas in between. ``publish`` and ``info`` are for
            clients of ``cluster-pool.v1``; ``rewind`` is for those that come with ``?rewind=N``.
            Without ``auth`` any client may join any namespace, and ``join`` is refused.
        published_per_second: messages that one client of ``cluster-pool.v1`` may publish, on
            average, its changes of info and renewals included; as many may come at once. More are
            refused. It may join as often, and ``Limits.connection_namespaces`` times at once.
        app: handles each connection. It is cancelled when the node stops, not when its client
            leaves (``connection.closed`` tells that). None publishes messages of clients to the
            channel ``PREFIX:{NAMESPACE}:inbound``.
        compression: compress for clients that offer permessage-deflate, each message by itself:
            once for all clients with the same window, and no connection keeps memory for it.
        ping_interval: seconds between two pings of a connection; a client that sends nothing in
            between is closed with 1011.
        history: which namespaces keep their latest broadcasts, by patterns, as of
            :class:`ClusterPool`.
        receipts: whether pongs and answered closes of clients are their receipts; False behind a
            proxy that ends WebSockets itself.
        admin_port: the port of ``/status`` and ``/metrics``; None serves neither, 0 chooses a free
            one.
        admin_host: the host of that port. Other hosts than loopback need ``admin_token``.
        admin_token: the token that it requires as ``Authorization: Bearer TOKEN``.
        admin_names: values of ``Host`` that are answered there without a token, besides
            ``localhost``, ``admin_host`` and IP addresses; ``*`` for all.
        agent_port: the port of HAProxy's agent-check; None for none, 0 chooses a free one.
        agent_host: the host of that port.
        stopping: closes per second, grace and announcement of the drain on SIGTERM.
        uvloop: :func:`.run.serve_forever` runs on uvloop if it is installed.

    Raises:
        InvalidValueError: a value is not allowed; the text names it.
    """

    redis: str = DEFAULT_REDIS
    prefix: str = DEFAULT_PREFIX
    node_id: str | None = None
    secret: Secret | Sequence[Secret] | None = field(default=None, repr=False)
    on_conflict: str = "takeover"
    on_user_limit: str = "reject"
    limits: Limits = field(default_factory=Limits)
    timing: Timing = field(default_factory=Timing)
    headroom: float = HEADROOM
    wait: float | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    max_handshakes: int = MAX_HANDSHAKES
    max_per_address: int | None = None
    origins: Sequence[str] = ()
    forwarded_allow_ips: str | Sequence[str] | None = None
    subprotocols: Sequence[str] = ()
    auth: Auth | None = None
    namespace_rules: Sequence[str] = ()
    published_per_second: int = PUBLISHED_PER_SECOND
    app: App | None = None
    compression: bool = False
    ping_interval: float = PING_INTERVAL
    history: Mapping[str, History] | None = None
    receipts: bool = True
    admin_port: int | None = None
    admin_host: str = "127.0.0.1"
    admin_token: str | None = field(default=None, repr=False)
    admin_names: Sequence[str] = ()
    agent_port: int | None = None
    agent_host: str = "127.0.0.1"
    stopping: Stopping = field(default_factory=Stopping)
    uvloop: bool = True

    def __post_init__(self) -> None:
        for name in ("origins", "subprotocols", "admin_names", "namespace_rules"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        self._check_cluster()
        self._check_listeners()
        self._check_stopping()

    def _check_cluster(self) -> None:
        """Check the pool's arguments, with the functions that the pool itself calls."""
        keys = Keys(self.prefix)
        if self.redis not in EMBEDDED:
            Address(self.redis, self.timing.timeout).check_prefix(keys.prefix)
        if self.node_id is not None:
            check_node_id(self.node_id)
        if self.secret:
            Seals(self.secret)
        HistoryRules(self.history, self.timing.heartbeat)
        check_on_conflict(self.on_conflict)
        check_on_user_limit(self.on_user_limit)
        check_above_zero("headroom", self.headroom)
        if self.wait is not None:
            check_wait(self.wait)

    def _check_listeners(self) -> None:
        """Check the addresses of the listeners, and who may connect."""
        for name in ("port", "admin_port", "agent_port"):
            _check_port(name, getattr(self, name))
        if self.admin_port is not None:
            check_admin_host(self.admin_host, self.admin_token)
            check_token(self.admin_token or "")
        for name in ("max_handshakes", "max_per_address", "published_per_second"):
            _check_count(name, getattr(self, name))
        Origins(self.origins)
        Proxies(self.forwarded_allow_ips)
        check_subprotocols(self.subprotocols)
        if NamespaceRules(self.namespace_rules).patterns(JOIN) and self.auth is None:
            raise InvalidValueError(
                "without auth any client may join any namespace: a rule with join needs auth"
            )
        check_above_zero("ping_interval", self.ping_interval)

    def _check_stopping(self) -> None:
        """Check the settings of the last drain, since errors at its beginning are too late."""
        how = self.stopping
        size = self.limits.message_bytes
        Terms.of(how.max_per_second, how.message, how.code, how.grace, size)
        announce = how.announce
        if announce is not None and not (_is_number(announce) and announce >= 0):
            raise InvalidValueError(f"announce must be 0 seconds or more, not {shown(announce)}")


def _names(setting: str, names: Sequence[str]) -> tuple[str, ...]:
    """An immutable copy of a list of names."""
    if isinstance(names, str):
        raise InvalidValueError(f"{setting} must be a list of str, not the str {shown(names)}")
    return tuple(names)


def _check_port(setting: str, port: object) -> None:
    """Raise InvalidValueError unless this is a port, or None where that is allowed."""
    if port is None and setting != "port":
        return
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= LAST_PORT:
        raise InvalidValueError(f"{setting} must be 0 to {LAST_PORT}, not {shown(port)}")


def _check_count(setting: str, count: object) -> None:
    """Raise InvalidValueError unless this is 1 or more, or None where that is allowed."""
    if count is None and setting == "max_per_address":
        return
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InvalidValueError(f"{setting} must be 1 or more, not {shown(count)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
