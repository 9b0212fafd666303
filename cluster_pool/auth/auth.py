"""The rule by which a pool authenticates its clients."""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cluster_pool.auth.identity import Identity
from cluster_pool.core.config import check_above_zero
from cluster_pool.core.origins import Origins
from cluster_pool.core.quiet import Quiet, fault, others
from cluster_pool.core.request import Request
from cluster_pool.exceptions import (
    AuthenticationError,
    AuthenticationUnavailableError,
    InvalidValueError,
    NotPermittedError,
)

log = logging.getLogger("cluster_pool.auth")

Authenticate = Callable[[Request], Identity | Awaitable[Identity | None] | None]
TIMEOUT: Final = 5.0
MAX_TOKEN_AGE: Final = 86_400.0
ANSWERS: Final = (AuthenticationError, AuthenticationUnavailableError, NotPermittedError)
"""Errors by which ``authenticate`` says what a client is answered."""


class Auth:
    """Decides which clients may connect: ``Auth(authenticate=Jwt(secret=…))``.

    Args:
        authenticate: called with the :class:`Request` of each client, before anything is claimed
            for it; sync or async. It returns an :class:`Identity`, or None for a stranger (401). A
            sync one must not block. :class:`Jwt` is one; an application may write its own.
        origins: as ``origins`` of :class:`ClusterPool`, and in its place; None: the pool's.
        timeout: seconds that ``authenticate`` may take; above that the client gets 503.
        max_token_age: seconds for which a revocation lasts if it names no end: no token may be
            valid for longer than that after it was revoked.

    Raises:
        InvalidValueError: one of the origins is none, or one of the times is not above 0.
    """

    def __init__(
        self,
        *,
        authenticate: Authenticate,
        origins: Sequence[str] | None = None,
        timeout: float = TIMEOUT,
        max_token_age: float = MAX_TOKEN_AGE,
    ) -> None:
        if not callable(authenticate):
            raise TypeError(f"authenticate must be callable, not {type(authenticate).__name__}")
        Origins(origins)
        self._authenticate = authenticate
        self.origins = origins
        self.timeout = check_above_zero("timeout", timeout)
        self.max_token_age = check_above_zero("max_token_age", max_token_age)
        self._quiet = Quiet()

    async def identify(self, request: Request) -> Identity:
        """The identity of a client.

        Raises:
            AuthenticationError: it has none that is valid now.
            AuthenticationUnavailableError: ``authenticate`` raised an error, or took too long.
        """
        try:
            identity = self._authenticate(request)
            if inspect.isawaitable(identity):
                async with asyncio.timeout(self.timeout):
                    identity = await identity
        except (InvalidValueError, *ANSWERS):
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise self._unavailable(error) from error  # what it has waited for was cancelled
        except Exception as error:
            raise self._unavailable(error) from error
        if identity is None:
            raise AuthenticationError("the client is not known")
        if not isinstance(identity, Identity):
            error = TypeError(f"authenticate returned {type(identity).__name__}, not Identity")
            raise self._unavailable(error) from error
        identity.check_of_time(time.time())
        return identity

    def _unavailable(self, error: BaseException) -> AuthenticationUnavailableError:
        """The error for a client that cannot be authenticated; its cause is logged."""
        if times := self._quiet.due(fault(error), time.monotonic()):
            log.error("authenticate failed, 503: %r%s", error, others(times), exc_info=error)
        return AuthenticationUnavailableError("the client could not be authenticated")
