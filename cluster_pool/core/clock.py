"""Redis time as a node may assume it, from what it was last told. Nothing is read here."""


class RedisClock:
    """An estimate of Redis TIME that never runs ahead of it (while Redis's own clock is steady).

    A reply that says TIME arrives after that instant, so adding what has passed since its arrival
    gives a time that Redis has reached already.
    """

    __slots__ = ("_heard_at", "_micros")

    def __init__(self) -> None:
        self._micros = 0
        self._heard_at = 0.0

    def hear(self, micros: int, now: float) -> None:
        """A reply said ``micros``, and arrived at ``now`` on the caller's monotonic clock."""
        self._micros = micros
        self._heard_at = now

    def at(self, moment: float) -> int:
        """Redis time in µs at ``moment`` on the same monotonic clock."""
        return self._micros + int((moment - self._heard_at) * 1_000_000)
