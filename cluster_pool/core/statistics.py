"""Counters of one pool: every message is counted in exactly one of them, also when it is lost."""

from dataclasses import dataclass, field, fields
from typing import Any, Final

from cluster_pool.core.closing import IDLE, TAKEN_OVER, UNAUTHORIZED
from cluster_pool.core.histogram import Histogram

CODES: Final = {code: str(code) for code in (*range(1000, 1016), UNAUTHORIZED, IDLE, TAKEN_OVER)}
"""The close codes that are counted by themselves: clients choose codes, so that not each is."""
OTHER: Final = "other"
REJOINS: Final = {
    "link": "the link to Redis is a new one",
    "lease_over": "its lease was over by its own clock",
    "lease_gone": "its lease was gone from Redis, or its node id belongs to another",
    "state_lost": "Redis has lost its state: its epoch is another one",
    "doubt": "it was in doubt",
}
"""Why a node takes a new incarnation: the names of the reasons, and their texts."""


@dataclass(slots=True)
class Counters:
    """Counts since the pool was made. Only ever grow.

    Attributes:
        delivered: messages put into the outbox of an open connection, one per connection.
        refused: messages that met a closing connection or a full outbox, one per connection.
        delivered_bytes: bytes of the payloads of delivered messages.
        undelivered: targeted messages that arrived for an id this node no longer holds.
        accepted: connections that became members here.
        origins_refused: handshakes refused with 403, of pages that may not connect here.
        unauthenticated: handshakes refused with 401.
        not_permitted: handshakes refused with 403, whose identity permits no such namespace or id.
        unverified: handshakes refused with 503, since authentication failed or took too long.
        handshakes_refused: sockets refused with 503, since too many handshakes were under way.
        addresses_refused: sockets refused with 429, whose address has too many.
        requests_late: sockets closed with 408, whose request did not come in time.
        requests_too_large: sockets closed with 431, whose headers were too large.
        ids_taken: newcomers whose id another connection has.
        limited: newcomers beyond a limit of memberships.
        draining_refused: newcomers who came while this node drained.
        unserved: newcomers who were not claimed since Redis was away or did not answer.
        closes: connections that ended here, by close code; those of an application are ``other``.
        expired: connections closed with 4401, since their identity has expired.
        revoked: connections closed with 4401, handshakes refused with 401, and refused renewals,
            since their token was revoked.
        drained: connections whose close a drain began.
        drain_errors: closes in a drain that raised; the connection was cut.
        drains_over_budget: drains whose deadline forced more closes than the budget allowed.
        slow_consumers: connections closed with 1013.
        forced_closes: connections cut because the close handshake did not end in time.
        handler_errors: exceptions raised by user code.
        handler_hangs: handlers, hooks and apps that did not return in time.
        inbound_floods: connections closed with 1008 because their clients sent too much.
        descriptors_refused: sockets closed at once because too few descriptors are left.
        stalls: times the event loop stood still for half a second or more.
        taken_over: connections closed with 4409.
        takeover_fights: takeovers beyond five of one id within ten seconds.
        delayed_claims: claims that waited because several clients fight for one id.
        received: messages of clients that were read.
        received_bytes: bytes of the payloads of received messages.
        inbound_dropped: messages of clients whose endpoints inside an ASGI server or ``websockets``
            do not read.
        inbound_lost: messages of clients that could not be published to the inbound channel.
        client_requests: requests of clients of ``cluster-pool.v1`` that were carried out.
        client_requests_refused: those that were not, and frames of these clients that are none.
        sends_delivered: messages and closes to one member that were given to a connection of this
            node, without Redis.
        sends_refused: those that met a closing connection or a full outbox at this node.
        sends_routed: those that Redis gave to the owner's node.
        sends_absent: those for which there was no such member.
        sends_unreachable: those whose owner's node did not listen.
        sends_parked: those that a history keeps for an id that is not there.
        sends_failed: awaited ones that Redis did not serve or answer in time.
        broadcasts: messages to namespaces that were handed to Redis.
        broadcasts_failed: awaited ones that Redis did not serve or answer in time.
        published: messages and broadcasts handed to Redis.
        heard: payloads heard from Redis, of any kind.
        dropped_garbage: payloads and items that were no valid envelope, lines that were no event.
        dropped_forged: in a cluster with a secret, items without a valid seal, and replayed ones.
        dropped_oversize: raw payloads above the message limit, envelopes far above it.
        dropped_stale: envelopes of an older generation of their sender than one heard before, or of
            a generation of this process that has ended; a gap names their messages.
        dropped_overflow: payloads that did not fit into the inbox.
        namesakes: probes of other processes that have this node's id and prefix.
        recovered: messages that an interruption had kept from this process, and that it has read
            from the history of their namespace.
        missed: messages that a gap report named.
        gaps: gap reports.
        watch_losses: times that a reader of joins and leaves was told that some were lost.
        generations: times that this process connected to the backplane.
        rejoins: times this node took a new incarnation after the first.
        rejoin_reasons: the same, by reason.
        rewinds: newcomers who were given the latest messages of their namespace.
        rewound: messages that newcomers were given so.
        reaped: members of vanished nodes that this node removed.
        repaired: registry entries that a comparison found wrong and corrected.
        redis_seconds: round trips of what Redis has answered: batches of messages, and one command
            a second.
        delivery_seconds: from a publication of this node to the moment at which a message that was
            published with it would be given to connections. One a second is measured, by the probe
            that travels as messages do.
        loop_lag_seconds: how late a timer of the event loop came. One a second is measured.
    """

    delivered: int = 0
    refused: int = 0
    delivered_bytes: int = 0
    undelivered: int = 0
    accepted: int = 0
    origins_refused: int = 0
    unauthenticated: int = 0
    not_permitted: int = 0
    unverified: int = 0
    handshakes_refused: int = 0
    addresses_refused: int = 0
    requests_late: int = 0
    requests_too_large: int = 0
    ids_taken: int = 0
    limited: int = 0
    draining_refused: int = 0
    unserved: int = 0
    closes: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((*CODES.values(), OTHER), 0)
    )
    expired: int = 0
    revoked: int = 0
    drained: int = 0
    drain_errors: int = 0
    drains_over_budget: int = 0
    slow_consumers: int = 0
    forced_closes: int = 0
    handler_errors: int = 0
    handler_hangs: int = 0
    inbound_floods: int = 0
    descriptors_refused: int = 0
    stalls: int = 0
    taken_over: int = 0
    takeover_fights: int = 0
    delayed_claims: int = 0
    received: int = 0
    received_bytes: int = 0
    inbound_dropped: int = 0
    inbound_lost: int = 0
    client_requests: int = 0
    client_requests_refused: int = 0
    sends_delivered: int = 0
    sends_refused: int = 0
    sends_routed: int = 0
    sends_absent: int = 0
    sends_unreachable: int = 0
    sends_parked: int = 0
    sends_failed: int = 0
    broadcasts: int = 0
    broadcasts_failed: int = 0
    published: int = 0
    heard: int = 0
    dropped_garbage: int = 0
    dropped_forged: int = 0
    dropped_oversize: int = 0
    dropped_stale: int = 0
    dropped_overflow: int = 0
    namesakes: int = 0
    recovered: int = 0
    missed: int = 0
    gaps: int = 0
    watch_losses: int = 0
    generations: int = 0
    rejoins: int = 0
    rejoin_reasons: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REJOINS, 0))
    rewinds: int = 0
    rewound: int = 0
    reaped: int = 0
    repaired: int = 0
    redis_seconds: Histogram = field(default_factory=Histogram)
    delivery_seconds: Histogram = field(default_factory=Histogram)
    loop_lag_seconds: Histogram = field(default_factory=Histogram)

    def closed(self, code: int | None) -> None:
        """Count the end of a connection."""
        self.closes[CODES.get(code or 0, OTHER)] += 1

    def rejoined(self, reason: str) -> None:
        """Count a rejoin, with its reason: one of ``REJOINS``."""
        self.rejoins += 1
        self.rejoin_reasons[reason] += 1

    def as_dict(self) -> dict[str, Any]:
        """The counters by name, as they are now."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}


def _plain(value: Any) -> Any:
    """A copy of a value, of types that JSON has."""
    if isinstance(value, Histogram):
        return value.as_dict()
    return value.copy() if isinstance(value, dict) else value


NO_SIZES: Final = {
    "incarnation": "",
    "connections": 0,
    "memberships": 0,
    "namespaces": 0,
    "nodes": 0,
    "pending": 0,
    "drain": None,
    "inbox_messages": 0,
    "inbox_bytes": 0,
    "inbound_bytes": 0,
    "outboxes_waiting": 0,
    "outbox_bytes": 0,
    "redis_up": False,
    "generation": 0,
    "lease_age": None,
    "lease_left": None,
    "trouble": None,
}
"""The sizes of a node that was never started."""
NOT_STARTED: Final = {
    "node": "",
    "state": "stopped",
    "ready": False,
    "authenticated": False,
    "memory_bytes": None,
    "descriptors": None,
    "descriptors_limit": None,
    **NO_SIZES,
    **Counters().as_dict(),
}
"""The statistics of a pool that was never started."""
