"""Why Redis does not serve this node: one reason for the log, the status and every error.

Owns the reason, when it began, when the next attempt is due, and how often it is logged.
:mod:`.shard` and the lease report to it.
"""

import logging
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, Literal

from cluster_pool.core.quiet import Quiet
from cluster_pool.exceptions import BackplaneUnavailableError

log = logging.getLogger("cluster_pool.backplane")

AGAIN: Final = 30.0
"""Seconds between two lines about one reason."""

Source = Literal["link", "probe", "lease"]
"""The part that failed: no generation is up, a probe cannot be written, or there is no lease."""


class Outage:
    """The reason why this node is cut off from its cluster, if it is. Any thread may read it.

    Args:
        where: the address, without a password.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self._reasons: dict[Source, str] = {}
        self._outages = 0
        self._told = False
        self._began = 0.0
        self._since = datetime.now(UTC)
        self._next: float | None = None
        self._quiet = Quiet(AGAIN)

    @property
    def reason(self) -> str:
        """The reason in a sentence; "" while nothing is wrong. "link" comes first."""
        reasons = dict(self._reasons)
        return next((reasons[one] for one in ("link", "probe", "lease") if one in reasons), "")

    @property
    def refused(self) -> bool:
        """Whether Redis is there and refuses what this node must write."""
        return not self._reasons.keys().isdisjoint(("probe", "lease"))

    def fail(
        self, source: Source, reason: str, retry_in: float | None = None, *, tell: bool = True
    ) -> None:
        """``source`` failed, once more or for another reason.

        A new reason is logged at once, and again every ``AGAIN`` seconds while it lasts; at most
        ten lines in that time. With ``tell=False`` nothing is logged: an error tells the caller.
        """
        now = monotonic()
        if not self._reasons:
            self._began, self._since = now, datetime.now(UTC)
            self._outages, self._told = self._outages + 1, False
        self._reasons[source] = reason
        self._next = None if retry_in is None else now + retry_in
        if tell and self.reason == reason and self._quiet.due((self._outages, reason), now):
            self._told = True
            lasted = now - self._began
            more = f"; for {lasted:.0f} s now" if lasted >= AGAIN / 2 else ""
            log.warning("%s%s", reason, more)

    def recover(self, source: Source) -> None:
        """``source`` works again."""
        if self._reasons.pop(source, "") and not self._reasons:
            self._next = None
            if self._told:
                log.info("Redis at %s is there again, after %.1f s", self.where, self._lasted())

    def _lasted(self) -> float:
        return monotonic() - self._began

    def error(self, what: str, *, maybe_executed: bool = False) -> BackplaneUnavailableError:
        """An error that says what failed, and the reason, if there is one."""
        reason = self.reason
        text = f"{what}: {reason}" if reason else what
        return BackplaneUnavailableError(text, maybe_executed=maybe_executed)

    def as_dict(self) -> dict[str, Any] | None:
        """For ``statistics()``; None while nothing is wrong."""
        reason, following = self.reason, self._next
        if not reason:
            return None
        return {
            "reason": reason,
            "since": self._since.isoformat(timespec="milliseconds"),
            "seconds": round(self._lasted(), 1),
            "next_attempt_in": None
            if following is None
            else round(max(0.0, following - monotonic()), 2),
        }
