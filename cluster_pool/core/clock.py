"""Estimates of the Redis time, from the last replies of TIME. Pure."""

DRIFT = 1e-3
"""How much faster than this machine's clock that of Redis may run; NTP slews by half of it."""


class RedisClock:
    """Two estimates of Redis TIME: one that it has reached, and one that it has not passed.

    TIME was read after the question was sent and before the reply arrived. The first estimate adds
    the time since the arrival, the second the time since the question. Both are right while the
    clock of Redis is steady. A reply that took long is inexact: then an earlier estimate is kept,
    if it agrees with the reply.
    """

    __slots__ = ("_asked_at", "_heard_at", "_micros", "_reached")

    def __init__(self) -> None:
        self._micros = self._reached = 0
        self._heard_at = self._asked_at = 0.0

    def hear(self, micros: int, asked: float, now: float) -> None:
        """A reply was ``micros``; its question was sent at ``asked`` and it arrived at ``now``."""
        known = self._reached + int((now - self._heard_at) * (1 - DRIFT) * 1_000_000)
        most = micros + int((now - asked) * (1 + DRIFT) * 1_000_000)
        self._reached = known if micros < known <= most else micros
        self._micros = micros
        self._asked_at = asked
        self._heard_at = now

    def at(self, moment: float) -> int:
        """Redis time in µs at ``moment`` on the same monotonic clock, or a little less."""
        return self._reached + int((moment - self._heard_at) * 1_000_000)

    def not_before(self, moment: float) -> int:
        """Redis time in µs at ``moment`` on the same monotonic clock, or a little more."""
        return self._micros + int((moment - self._asked_at) * (1 + DRIFT) * 1_000_000) + 1
