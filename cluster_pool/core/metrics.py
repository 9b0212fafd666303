"""Renders a pool's statistics in the text format of Prometheus, for ``/metrics``."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cluster_pool.core.results import NodeState
from cluster_pool.core.statistics import Counters

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PREFIX: Final = "cluster_pool_"

GAUGES: Final = {
    "ready": "1 while a load balancer should send newcomers here.",
    "authenticated": "1 when the nodes of the cluster share a secret.",
    "connections": "Connections that this node holds.",
    "namespaces": "Namespaces in which this node has members.",
    "pending": "Messages that wait for Redis.",
    "inbox_bytes": "Bytes heard from Redis and not yet dealt with.",
    "inbound_bytes": "Bytes that clients sent and this node still holds.",
    "generation": "Which link to Redis this is, counted from the start.",
}
DRAIN: Final = {
    "paused": "1 while the drain of this node is paused.",
    "remaining": "Connections that the drain of this node has yet to close.",
    "closed": "Connections whose close the drain of this node has begun.",
    "rate": "Closes per second that the drain of this node may do.",
    "budget": "Closes per second of all nodes that drain, together.",
    "needed": "Closes per second that the deadlines of all drains need.",
    "seconds_left": "Seconds until all of this node must be closed.",
    "over_budget": "1 when a deadline forces more closes than the budget allows.",
}
NO_DRAIN: Final = {"paused": False, "remaining": 0, "closed": 0, "rate": 0.0, "over_budget": False}


def render(statistics: Mapping[str, Any]) -> str:
    """Render what :meth:`ClusterPool.statistics` returned. A metric without a value has no line."""
    said = dict(re.findall(r"^ +(\w+): (.+)$", Counters.__doc__ or "", re.MULTILINE))
    node = _quoted(statistics["node"])
    lines = [*_metric("info", "gauge", "Which node this is.", {f"{{node={node}}}": 1})]
    at = {f'{{state="{state.value}"}}': state.value == statistics["state"] for state in NodeState}
    lines += _metric("state", "gauge", "1 for the state that this node is in.", at)
    for name, text in GAUGES.items():
        lines += _metric(name, "gauge", text, {"": statistics[name]})
    drain = statistics["drain"] or NO_DRAIN
    for name, text in DRAIN.items():
        lines += _metric(f"drain_{name}", "gauge", text, {"": drain.get(name)})
    for name in Counters().as_dict():
        lines += _metric(f"{name}_total", "counter", said.get(name, name), {"": statistics[name]})
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, text: str, samples: Mapping[str, float | None]) -> Iterator[str]:
    """Yield the lines of one metric, or none when it has no value."""
    known = {labels: value for labels, value in samples.items() if value is not None}
    if known:
        yield f"# HELP {PREFIX}{name} {text[0].upper()}{text[1:]}"
        yield f"# TYPE {PREFIX}{name} {kind}"
    for labels, value in known.items():
        yield f"{PREFIX}{name}{labels} {float(value):.15g}"


def _quoted(value: str) -> str:
    """Quote the value of a label. A node id has no control characters."""
    return '"' + value.replace("\\", r"\\").replace('"', r"\"") + '"'
