"""Every metric of a pool for Prometheus: its name, kind, help and labels, made from statistics.

The text of ``/metrics`` and the collector of :meth:`ClusterPool.metrics` have the same families:
nothing is named anywhere else. No label has a value that clients or namespaces choose.
"""

import functools
import platform
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, NamedTuple

from cluster_pool.core.results import NodeState
from cluster_pool.core.statistics import Counters

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PREFIX: Final = "cluster_pool_"

GAUGES: Final = {
    "ready": ("ready", "1 while a load balancer should send newcomers here."),
    "authenticated": ("authenticated", "1 when the nodes of the cluster share a secret."),
    "connections": ("connections", "Connections that this node holds."),
    "memberships": ("memberships", "Memberships of these connections, their homes included."),
    "namespaces": ("namespaces", "Namespaces in which this node has members."),
    "nodes": ("nodes", "Nodes that held a lease at the last heartbeat of this one."),
    "pending": ("pending_messages", "Messages that wait for Redis."),
    "inbox_messages": ("inbox_messages", "Payloads heard from Redis and not yet dealt with."),
    "inbox_bytes": ("inbox_bytes", "Bytes heard from Redis and not yet dealt with."),
    "inbound_bytes": ("inbound_bytes", "Bytes that clients sent and this node still holds."),
    "outboxes_waiting": (
        "outboxes_waiting",
        "Connections for which bytes wait since the kernel takes no more, a second ago at most.",
    ),
    "outbox_bytes": ("outbox_bytes", "Bytes that wait for these connections."),
    "memory_bytes": ("memory_bytes", "Resident memory of this process."),
    "descriptors": ("descriptors", "Descriptors in use by this process, at least."),
    "descriptors_limit": ("descriptors_limit", "Descriptors that this process may have."),
    "redis_up": ("redis_up", "1 while this node hears itself over Redis, and nothing is refused."),
    "generation": ("generation", "Which link to Redis this is, counted from the start."),
    "lease_age": ("lease_age_seconds", "Seconds since the last acknowledged renewal of the lease."),
    "lease_left": ("lease_remaining_seconds", "Seconds until the lease is over if not renewed."),
}
"""By the name in the statistics: the name of the metric, and its help."""
DRAIN: Final = {
    "paused": ("paused", "1 while the drain of this node is paused."),
    "remaining": ("remaining", "Connections that the drain of this node has yet to close."),
    "closed": ("closed", "Connections whose close the drain of this node has begun."),
    "rate": ("rate", "Closes per second that the drain of this node may do."),
    "budget": ("budget", "Closes per second of all nodes that drain, together."),
    "needed": ("needed", "Closes per second that the deadlines of all drains need."),
    "seconds_left": ("remaining_seconds", "Seconds until all of this node must be closed."),
    "over_budget": ("over_budget", "1 when a deadline forces more closes than the budget allows."),
}
"""The same for the progress of a drain."""
NO_DRAIN: Final = {"paused": False, "remaining": 0, "closed": 0, "rate": 0.0, "over_budget": False}

GROUPS: Final[dict[str, tuple[str, str, str | dict[str, str]]]] = {
    "newcomers_refused": (
        "Sockets, handshakes and claims of newcomers that were refused, by reason.",
        "reason",
        {
            "origin": "origins_refused",
            "unauthenticated": "unauthenticated",
            "not_permitted": "not_permitted",
            "unverified": "unverified",
            "taken": "ids_taken",
            "limit": "limited",
            "draining": "draining_refused",
            "redis": "unserved",
            "handshakes": "handshakes_refused",
            "address": "addresses_refused",
            "late": "requests_late",
            "too_large": "requests_too_large",
            "descriptors": "descriptors_refused",
        },
    ),
    "closes": (
        "Connections that ended, by close code; the codes of an application are other.",
        "code",
        "closes",
    ),
    "deliveries": (
        "Messages to connections of this node, by what became of them.",
        "result",
        {"delivered": "delivered", "refused": "refused", "undelivered": "undelivered"},
    ),
    "sends": (
        "Messages and closes from here to one member, by the first answer.",
        "result",
        {
            "delivered": "sends_delivered",
            "refused": "sends_refused",
            "routed": "sends_routed",
            "absent": "sends_absent",
            "unreachable": "sends_unreachable",
            "parked": "sends_parked",
            "failed": "sends_failed",
        },
    ),
    "broadcasts": (
        "Messages from here to namespaces, by what became of them.",
        "result",
        {"published": "broadcasts", "failed": "broadcasts_failed"},
    ),
    "client_requests": (
        "Frames of clients of cluster-pool.v1: requests that were carried out, and all others.",
        "result",
        {"done": "client_requests", "refused": "client_requests_refused"},
    ),
    "payloads_dropped": (
        "Payloads and items from Redis that were dropped, by reason.",
        "reason",
        {
            "garbage": "dropped_garbage",
            "forged": "dropped_forged",
            "oversize": "dropped_oversize",
            "stale": "dropped_stale",
            "overflow": "dropped_overflow",
        },
    ),
    "rejoins": (
        "Times this node took a new incarnation after the first, by reason.",
        "reason",
        "rejoin_reasons",
    ),
}
"""By the name of the metric: its help, its one label, and the counter behind each value of that, or
the name of those that come with their values."""
GROUPED: Final = {
    "rejoins",
    *(one for *_, by in GROUPS.values() for one in ([by] if isinstance(by, str) else by.values())),
}
HISTOGRAMS: Final = {
    "redis_seconds": "redis_round_trip_seconds",
    "delivery_seconds": "delivery_latency_seconds",
    "loop_lag_seconds": "event_loop_lag_seconds",
}
NAMES: Final = {"received": "received_messages", "rewound": "rewound_messages"}
"""The metrics that do not have the name of their counter."""


class Sample(NamedTuple):
    """One value of a family, with the end of its name (``_total``) and its labels."""

    suffix: str
    labels: Mapping[str, str]
    value: float


class Family(NamedTuple):
    """One metric.

    Attributes:
        name: whole, without ``_total``.
        kind: ``gauge``, ``counter`` or ``histogram``.
        help: what it says.
        samples: empty when nothing is known.
    """

    name: str
    kind: str
    help: str
    samples: list[Sample]


def families(statistics: Mapping[str, Any]) -> Iterator[Family]:
    """Yield all metrics of what :meth:`ClusterPool.statistics` returned, also those without one."""
    node = {"node": statistics["node"]}
    yield _gauge("info", "Which node this is.", [Sample("", node, 1)])
    yield _gauge("build_info", "The versions in use.", [Sample("", versions(), 1)])
    at = [Sample("", {"state": one.value}, one.value == statistics["state"]) for one in NodeState]
    yield _gauge("state", "1 for the state that this node is in.", at)
    for source, (name, text) in GAUGES.items():
        yield _gauge(name, text, _single("", statistics[source]))
    drain = statistics["drain"] or NO_DRAIN
    for source, (name, text) in DRAIN.items():
        yield _gauge(f"drain_{name}", text, _single("", drain.get(source)))
    yield from _counters(statistics)
    yield from _histograms(statistics)


def _counters(statistics: Mapping[str, Any]) -> Iterator[Family]:
    for name, (text, label, by) in GROUPS.items():
        counts = statistics[by] if isinstance(by, str) else _picked(statistics, by)
        samples = [Sample("_total", {label: value}, count) for value, count in counts.items()]
        yield Family(f"{PREFIX}{name}", "counter", text, samples)
    said = _documented()
    for counter in Counters().as_dict():
        if counter not in GROUPED and counter not in HISTOGRAMS:
            name, samples = NAMES.get(counter, counter), _single("_total", statistics[counter])
            yield Family(f"{PREFIX}{name}", "counter", said.get(counter, counter), samples)


def _histograms(statistics: Mapping[str, Any]) -> Iterator[Family]:
    said = _documented()
    for source, name in HISTOGRAMS.items():
        told = statistics[source]
        samples = [Sample("_bucket", {"le": bound}, n) for bound, n in told["buckets"].items()]
        samples += [Sample("_count", {}, told["count"]), Sample("_sum", {}, told["sum"])]
        yield Family(f"{PREFIX}{name}", "histogram", said.get(source, source), samples)


def _picked(statistics: Mapping[str, Any], by: Mapping[str, str]) -> dict[str, int]:
    return {value: statistics[counter] for value, counter in by.items()}


def _gauge(name: str, text: str, samples: list[Sample]) -> Family:
    return Family(f"{PREFIX}{name}", "gauge", text, samples)


def _single(suffix: str, value: float | None) -> list[Sample]:
    return [] if value is None else [Sample(suffix, {}, value)]


@functools.cache
def versions() -> dict[str, str]:
    """The versions of what a node runs on, by name."""
    return {
        "version": _version("cluster-pool"),
        "python": platform.python_version(),
        "websockets": _version("websockets"),
        "redis_py": _version("redis"),
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # a checkout that was not installed
        return ""


@functools.cache
def _documented() -> dict[str, str]:
    """The help of each counter, from where it is documented."""
    said = re.findall(r"^ +(\w+): (.+(?:\n {12}.+)*)$", Counters.__doc__ or "", re.MULTILINE)
    return {name: _sentence(text) for name, text in said}


def _sentence(text: str) -> str:
    text = " ".join(text.replace("``", "").split())
    return text[0].upper() + text[1:]


# -- as text -------------------------------------------------------------------------------


def render(statistics: Mapping[str, Any]) -> str:
    """Render statistics in the text format of Prometheus. A metric without a value has no line."""
    lines = (line for family in families(statistics) if family.samples for line in _lines(family))
    return "\n".join(lines) + "\n"


def _lines(family: Family) -> Iterator[str]:
    name = family.name + ("_total" if family.kind == "counter" else "")
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {family.kind}"
    for suffix, labels, value in family.samples:
        told = ",".join(f"{label}={_quoted(text)}" for label, text in labels.items())
        yield f"{family.name}{suffix}{f'{{{told}}}' if told else ''} {float(value):.15g}"


def _quoted(value: str) -> str:
    """Quote the value of a label. A node id has no control characters."""
    return '"' + value.replace("\\", r"\\").replace('"', r"\"") + '"'
