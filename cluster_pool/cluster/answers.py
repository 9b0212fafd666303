"""Answers about a node, for those who operate it: health, readiness, metrics, status.

Owns their content. :mod:`.operations` sends them from an application, ``serve`` by its listeners.
"""

import http
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from cluster_pool.core.metrics import CONTENT_TYPE, render, versions
from cluster_pool.core.results import NodeState

PLAIN: Final = "text/plain; charset=utf-8"

_WHERE: Final = re.compile(
    r" connecting to .*| the name '[^']*'|(?: at)? [\w+]+://\S*[^\s:;,.)]"
    r"|(?: at)? [\w.\[\]:-]+:\d{2,5}\b"
)
"""Names, addresses and ports in the errors of redis-py, the system, Sentinels and a cluster."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a request by HTTP.

    Attributes:
        kind: its content type.
        headers: further ones.
    """

    status: http.HTTPStatus
    text: str
    kind: str = PLAIN
    headers: Mapping[str, str] = field(default_factory=dict)


HEALTHY: Final = Answer(http.HTTPStatus.OK, "ok\n")
"""The process lives, and its event loop goes on."""
UNAUTHORIZED: Final = Answer(
    http.HTTPStatus.UNAUTHORIZED, "a token is wanted\n", headers={"WWW-Authenticate": "Bearer"}
)


class Observed(Protocol):
    """A pool, as far as the answers about it need it."""

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send newcomers here."""

    @property
    def state(self) -> NodeState:
        """The state of the node."""

    @property
    def trouble(self) -> str:
        """Why Redis does not serve it; "" while it does."""

    @property
    def address(self) -> str:
        """The address of Redis, without its password."""

    def statistics(self) -> dict[str, Any]:
        """Its counters and sizes."""


def readiness(pool: Observed) -> Answer:
    """Whether the node accepts newcomers, and why not."""
    if pool.ready:
        return Answer(http.HTTPStatus.OK, "ready\n")
    trouble = unlocated(pool.trouble, pool.address)
    why = f": {trouble}" if trouble else ""
    text = f"not ready: {pool.state.value}{why}\n"
    return Answer(http.HTTPStatus.SERVICE_UNAVAILABLE, text, headers={"Retry-After": "1"})


def metrics(pool: Observed) -> Answer:
    """The statistics as Prometheus reads them."""
    return Answer(http.HTTPStatus.OK, render(pool.statistics()), CONTENT_TYPE)


def status(pool: Observed) -> Answer:
    """The statistics as JSON, with the address of Redis and versions, and without secrets."""
    said = {
        **pool.statistics(),
        "redis": pool.address,
        **versions(),
    }
    return Answer(http.HTTPStatus.OK, json.dumps(said, indent=2) + "\n", "application/json")


def unlocated(reason: str, address: str) -> str:
    """Remove the address of Redis from a reason, since any client can read the answer."""
    return _WHERE.sub("", reason.replace(f" at {address}", ""))
