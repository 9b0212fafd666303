"""Limits and times. All sizes are bytes, all times are seconds."""

import sys
from dataclasses import dataclass, fields
from math import inf
from typing import Literal

from cluster_pool.core.ids import is_reserved, shown
from cluster_pool.exceptions import InvalidValueError

MIB = 1024 * 1024
LARGEST_INFO = 16 * 1024
YEARS = 1e8
"""Seconds; event loops cannot count to infinity."""
LONGEST_TIMEOUT = 3600.0
"""The longest time in seconds that a call waits for Redis."""

COUNTLESS = 2**53 - 1
"""A limit that is none; scripts can count to it."""
LARGEST = sys.float_info.max
"""The largest float; an ``int`` can be larger and still be below infinity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of memory. Every limit is inclusive and at least 1.

    Attributes:
        outbox_bytes: pending bytes of one connection, counted after a flush, without what the
            kernel has accepted; an empty outbox accepts any permitted message.
        message_bytes: size of one message, from the user or from another node.
        pending_messages, pending_bytes: messages of this node that wait for the backplane or are
            not answered yet; if there are none, any permitted message is accepted.
        inbox_bytes: payloads heard from the backplane and not handled yet.
        namespace_members: registered members of one namespace in the cluster; those of a dead node
            count until they are reaped. A claim is judged by the limit of its own node.
        node_namespaces: namespaces in which one node has members; those of users do not count.
        user_connections: registered connections of one user in the cluster; None: any number.
            Those of a dead node count as in ``namespace_members``.
        connection_namespaces: namespaces in which one connection is a member, its home included.
        info_bytes: the info of a member, as JSON in UTF-8; 16 KiB at most.
        inbound_bytes: messages of one client of ``serve`` that were received and not handled,
            beyond the one that is waited for; above that the client is not read from. The same for
            a client of :meth:`ClusterPool.accept`: if the body does not read, more is lost.
        node_inbound_bytes: of all clients: one half for messages that are not handled yet (above
            that, clients with such messages are not read from), the other for messages that are
            being published.
        inbound_per_second: messages of one client, on average; as many may come at once. A client
            that sends more is closed with 1008. A client of ``serve`` may also send as many frames
            (100 at least) that are no messages: pings, pongs, and parts of a message below 1 KiB.
    """

    outbox_bytes: int = MIB
    message_bytes: int = MIB
    pending_messages: int = 10_000
    pending_bytes: int = 16 * MIB
    inbox_bytes: int = 64 * MIB
    namespace_members: int = 1_000_000
    node_namespaces: int = 100_000
    user_connections: int | None = None
    connection_namespaces: int = 100
    info_bytes: int = 1024
    inbound_bytes: int = MIB
    node_inbound_bytes: int = 64 * MIB
    inbound_per_second: int = 1_000

    def __post_init__(self) -> None:
        _check_positive(self, int, inf)
        if self.info_bytes > LARGEST_INFO:
            raise InvalidValueError(
                f"info_bytes must be {LARGEST_INFO} at most, not {self.info_bytes}"
            )

    def room_in(self, namespace: str) -> tuple[str, int]:
        """The limit of the members of a namespace: its name and its value."""
        if is_reserved(namespace):
            most = self.user_connections
            return "user_connections", COUNTLESS if most is None else most
        return "namespace_members", self.namespace_members


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Times, in seconds. Each is more than 0, and 1e8 (three years) at most.

    Attributes:
        timeout: of one operation on the backplane unless the call says otherwise; an hour at most.
        lease: how long this node owns its members after its last heartbeat.
        heartbeat: between two renewals; at most a third of the lease.
        probe: between two probes, by which this node hears itself; it reconnects after three that
            it did not hear.
        linger: how long a channel stays subscribed after its last member left.
        close: from the close frame until the socket is cut.
        flush: how long a drain waits, before ``close`` begins, for earlier bytes to be sent.
        sign_of_life: how long a client may take to answer a ping when another connection claims
            its id under ``"reject"``; then it is cut. A claim with a timeout no longer than this
            fails before the answer.
        outbox_age: how long bytes may wait in an outbox that does not move.
        handler: how long a handler or hook may run, or an app after the end of its connection,
            before it is reported as hanging.
        signal_repeat: a repeated signal within this time is the same stop and does not hurry it.
    """

    timeout: float = 2.0
    lease: float = 10.0
    heartbeat: float = 3.0
    probe: float = 1.0
    linger: float = 1.0
    close: float = 5.0
    flush: float = 2.0
    sign_of_life: float = 1.0
    outbox_age: float = 10.0
    handler: float = 30.0
    signal_repeat: float = 3.0

    def __post_init__(self) -> None:
        _check_positive(self, (int, float), YEARS)
        if self.heartbeat * 3 > self.lease:
            raise InvalidValueError(
                f"heartbeat {self.heartbeat} s is more than a third of the lease {self.lease} s"
            )


def _check_positive(settings: Limits | Timing, kind: type | tuple[type, ...], most: float) -> None:
    for field in fields(settings):
        value = getattr(settings, field.name)
        if value is None and field.default is None:
            continue
        if (
            not isinstance(value, int | float)
            or not isinstance(value, kind)
            or isinstance(value, bool)
            or not 0 < value < inf
            or value > most
        ):
            up_to = "" if most == inf else f", {most:g} at most"
            raise InvalidValueError(
                f"{field.name} must be a number above 0{up_to}, not {shown(value)}"
            )


def check_above_zero(name: str, value: object) -> float:
    """``value`` as a number above 0 that a float can hold; raises InvalidValueError."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= LARGEST:
        raise InvalidValueError(f"{name} must be a number above 0, not {shown(value)}")
    return float(value)


def check_timeout(value: object) -> float:
    """The seconds that a call may last: ``value``, LONGEST_TIMEOUT at most, also for infinity.

    Raises:
        InvalidValueError: it is no number above 0.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise InvalidValueError(f"timeout must be more than 0 seconds, not {shown(value)}")
    return float(min(value, LONGEST_TIMEOUT))


def check_pause(value: object) -> float:
    """Seconds, of which 0 are allowed; raises InvalidValueError for any other value."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        raise InvalidValueError(f"a pause must be 0 seconds or more, not {shown(value)}")
    return float(value)


def check_wait(value: object) -> float:
    """The seconds that a start may wait for Redis: ``value``, also infinity, which is years.

    Raises:
        InvalidValueError: it is no number of 0 or more.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
        raise InvalidValueError(f"wait must be 0 seconds or more, not {shown(value)}")
    return float(min(value, YEARS))


Confirm = bool | Literal["client"]
"""The word that a send waits for: that of Redis (False), the owner's (True), or the client's."""


def check_confirm(value: object) -> Confirm:
    """``value`` as whose word a send waits for; raises InvalidValueError."""
    if value is True or value is False or value == "client":
        return value
    raise InvalidValueError(f"confirm must be True, False or 'client', not {shown(value)}")


ON_CONFLICT = ("takeover", "reject")
ON_USER_LIMIT = ("reject", "oldest")


def check_on_conflict(value: object) -> bool:
    """Whether a claim may take an id over: True for ``"takeover"``, False for ``"reject"``."""
    if value not in ON_CONFLICT:
        raise InvalidValueError(f"on_conflict must be 'takeover' or 'reject', not {shown(value)}")
    return value == "takeover"


def check_on_user_limit(value: object) -> bool:
    """Whether the oldest connection of a user is closed, and not the newcomer refused.

    True for ``"oldest"``, False for ``"reject"``.
    """
    if value not in ON_USER_LIMIT:
        raise InvalidValueError(f"on_user_limit must be 'reject' or 'oldest', not {shown(value)}")
    return value == "oldest"
