"""The public call that revokes a token; :class:`Revoking` does the work."""

import time

from cluster_pool.auth.auth import MAX_TOKEN_AGE
from cluster_pool.cluster.public.handle import Calls


class RevokingCalls(Calls):
    """Tokens that count no more, on any node."""

    async def revoke(
        self, token_id: str, until: float | None = None, *, timeout: float | None = None
    ) -> int:
        """Revoke a token: its connections are closed with 4401, and it is refused from now on.

        It is recorded in Redis, and each living node is told. A node that does not hear that reads
        it with its next heartbeat (3 s), or when it rejoins; until then it may accept the token,
        and then closes that connection. A node that starts later reads it before it takes anybody.

        Args:
            token_id: ``Identity.token_id``: the ``jti`` of a token, or the SHA-256 of its text in
                hex if it has none; 1 to 256 bytes.
            until: seconds since 1970 for how long it is revoked, at least until it expires; None:
                for ``Auth.max_token_age`` from now, by default 24 hours.
            timeout: seconds; default 2.

        Returns:
            How many nodes have read it by now, and closed its connections.

        Raises:
            InvalidValueError: this names no token, or no time in the future.
            BackplaneUnavailableError: it was not recorded, or may be if ``maybe_executed``.
        """
        end = time.time() + self._max_token_age() if until is None else until
        return await self._running().revoking.revoke(token_id, end, timeout)

    def _max_token_age(self) -> float:
        """Seconds for which a token is revoked if the call does not say until when."""
        return MAX_TOKEN_AGE
