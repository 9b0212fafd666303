"""The terms of a drain, and the budget that grants its rate."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from cluster_pool.core.closing import SERVICE_RESTART, check_close
from cluster_pool.core.config import check_above_zero
from cluster_pool.core.drain_budget import Ask, DrainBudget, Grant
from cluster_pool.core.message import Message, Outgoing, outgoing


class Budget(Protocol):
    """Grants shares of the closes per second of all drainers together."""

    async def lease(self, ask: Ask) -> Grant:
        """A share; raises BackplaneUnavailableError when there is no answer in time."""

    def give_back(self, node: str) -> None:
        """Give the share back. Never waits."""


class LocalBudget:
    """The budget of a process without a cluster."""

    def __init__(self) -> None:
        self._budget = DrainBudget()

    async def lease(self, ask: Ask) -> Grant:
        """See :class:`Budget`."""
        return self._budget.lease(asyncio.get_running_loop().time(), ask)

    def give_back(self, node: str) -> None:
        """See :class:`Budget`."""
        self._budget.give_back(node)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a drain.

    Attributes:
        max_rate: closes per second of all draining nodes together; None for no limit of its own.
        message: sent to each connection ahead of its close; None for none.
        code: the close code.
        grace: seconds until the drain must have ended; None for no limit.
        last_grace: seconds that are left once no node accepts newcomers; None changes nothing.
    """

    max_rate: float | None = None
    message: Outgoing | None = None
    code: int = SERVICE_RESTART
    grace: float | None = None
    last_grace: float | None = None

    @classmethod
    def of(
        cls, max_rate: object, message: Message, code: int, grace: object, message_bytes: int
    ) -> "Terms":
        """Checked terms; raises InvalidValueError."""
        return cls(
            None if max_rate is None else check_above_zero("max_per_second", max_rate),
            outgoing(message, message_bytes) if message else None,
            check_close(code, "")[0],
            None if grace is None else check_above_zero("grace", grace),
        )
