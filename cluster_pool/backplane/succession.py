"""The servers that one shard has had, one after another, and what may have been lost with one.

A server that was restarted, or has taken over from another one, may lack counters and claims. The
nodes register their claims again. Until they have done that, the lack of one says nothing.
"""

import zlib
from typing import Final

from cluster_pool.core.numbers import ServerChange

PATIENCE: Final = 1.5
"""Seconds for which sends to members that are not registered wait for their registration, at most.
"""
UNSURE: Final = (
    "no member is registered under this id, but Redis may have lost some a moment ago, whose nodes "
    "register them again"
)
NEVER: Final = float("-inf")


class Succession:
    """The server that counts the messages of a shard now, and what that means for its numbers.

    Attributes:
        digits: four digits that name the server, at the end of each epoch that it begins; "" for
            one Redis, which has no successor. The scripts begin another epoch where these differ.
        patient_until, unsure_until: when sends to members that are not registered no longer wait,
            and when there certainly are no such members; on the clock of the event loop.
    """

    def __init__(self) -> None:
        self.digits = ""
        self.patient_until = self.unsure_until = NEVER
        self._server = ""
        self._change = ServerChange.SAME
        self._lost_at = NEVER

    def come_to(self, server: str, *, lost: bool) -> ServerChange:
        """The next generation is at ``server``; gives the change since :meth:`settle`.

        Args:
            server: its name in the cluster, or its place; "" for one Redis.
            lost: this server was restarted since this process last lived on it.
        """
        if self._server not in ("", server):
            self._change = max(self._change, ServerChange.TAKEN_OVER)
        elif lost:
            self._change = ServerChange.LOST
        self._server = server
        self.digits = f"{zlib.crc32(server.encode()) % 10_000:04}" if server else ""
        return self._change

    def settle(self, now: float, heartbeat: float) -> None:
        """All channels were compared with their counters: the next change begins.

        Within two heartbeats the nodes register again what was lost. A server that has taken over
        lacks the claims of a moment at most, whose nodes came to it as this process did.
        """
        if self._change > ServerChange.SAME:
            self.patient_until = self.unsure_until = now + min(PATIENCE, 2 * heartbeat)
        if self._change is ServerChange.LOST:
            self.unsure_until = now + 2 * heartbeat
            self._lost_at = now
        self._change = ServerChange.SAME

    def lost_within(self, seconds: float, now: float) -> bool:
        """Whether a server has lost its state so lately, as far as this process knows."""
        return self._change is ServerChange.LOST or now - self._lost_at < seconds
