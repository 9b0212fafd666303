"""The revoked tokens that a node knows. Pure: the caller passes the time in."""

from typing import Final

from cluster_pool.auth.identity import Identity

PRUNED_AFTER: Final = 60.0
"""Seconds between two removals of those whose time is over."""


class RevokedTokens:
    """Ids of tokens, each with the time until which it is revoked, in seconds since 1970.

    It only forgets a token when its time is over, also if Redis has lost it meanwhile.
    """

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._pruned_at = float("-inf")

    def __len__(self) -> int:
        return len(self._until)

    def add(self, token_id: str, until: float, now: float) -> bool:
        """Add one; returns whether it is news, and its time is not over."""
        if until <= now or self._until.get(token_id, 0.0) >= until:
            return False
        self._until[token_id] = until
        return True

    def names(self, identity: Identity | None, now: float) -> bool:
        """Whether the token of an identity is revoked."""
        if identity is None or identity.token_id is None or not self._until:
            return False
        return self._until.get(identity.token_id, 0.0) > now

    def entries(self, now: float) -> dict[str, float]:
        """All whose time is not over, with that time; the others are removed now and then."""
        if now >= self._pruned_at + PRUNED_AFTER or now < self._pruned_at:
            self._pruned_at = now
            self._until = {name: until for name, until in self._until.items() if until > now}
        return self._until
