"""Opens sockets to one server, a Redis or a Sentinel, and translates their errors."""

import asyncio
import contextlib
from collections.abc import Awaitable, Coroutine
from typing import Any, Final

from redis.asyncio import SSLConnection
from redis.exceptions import AuthenticationError, ResponseError

from cluster_pool.backplane.diagnosis import diagnosis
from cluster_pool.backplane.logins import Login, Raw
from cluster_pool.backplane.names import Names, resolving
from cluster_pool.backplane.refusals import FAULTS, unavailable
from cluster_pool.core.ids import shown
from cluster_pool.exceptions import BackplaneUnavailableError

SHORT: Final = 3
"""Characters up to which a secret is not looked for in errors: it may be part of any word."""


class Endpoint:
    """A server at one address. Its sockets are never reconnected.

    Args:
        connect_timeout: seconds until a socket must be connected and authenticated.
        what: names the kind of server in errors.
        hint: advice for errors that have none of their own.
    """

    server = ""
    """See :class:`.Primary`."""

    def __init__(
        self,
        login: Login,
        names: Names,
        connect_timeout: float,
        what: str = "Redis",
        hint: str = "",
    ) -> None:
        self.login = login
        self.shown = login.shown
        """Its URL, without a password."""
        self._names = names
        self._timeout = connect_timeout
        self._what = what
        self._hint = hint
        self._class: type[Raw] = resolving(login.kind, names)

    def within(self, connect_timeout: float) -> "Endpoint":
        """The same server, waited for no longer than that."""
        timeout = min(self._timeout, connect_timeout)
        return Endpoint(self.login, self._names, timeout, self._what, self._hint)

    async def open(self) -> Raw:
        """A new connected socket, authenticated and with its database selected.

        redis-py's connect time-out covers only the TCP handshake; here it covers the replies
        after it, too.

        Raises:
            BackplaneUnavailableError: the socket was not ready in time; the text names the address
                without its password.
        """
        connection = self.login.make(self._timeout, self._class)
        try:
            await self._reach(connection)
        except BaseException as error:
            await drop(connection)
            if isinstance(error, BackplaneUnavailableError):
                quoted = [one for one in self.login.secrets if _is_quoted(one, error)]
                if quoted:
                    raise BackplaneUnavailableError(_without(quoted, str(error))) from None
            raise
        return connection

    async def watch(self, pause: float) -> None:
        """Wait for ever: one address stays the primary."""
        await asyncio.get_running_loop().create_future()

    async def _reach(self, connection: Raw) -> None:
        try:
            await self._connect(connection)
        except FAULTS as error:
            what = f"cannot reach {self._what} at {self.shown}"
            hint = await diagnosis(self.login, self._names, error) or self._hint
            raise unavailable(what, error, hint) from error

    async def _connect(self, connection: Raw) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()
                await _hear(connection)
        except TimeoutError:
            name = self._names.asking
            what = f"looking up the name {shown(name)}" if name else "connecting"
            raise TimeoutError(f"{what} takes longer than {self._timeout:g} s") from None


async def open_unless(opening: Coroutine[Any, Any, Raw], looking: Awaitable[None]) -> Raw:
    """The socket of ``opening``, unless ``looking`` ends first, which raises its error.

    However this ends, a socket that it does not return is closed.
    """
    opened, looked = asyncio.create_task(opening), asyncio.ensure_future(looking)
    try:
        await asyncio.wait((opened, looked), return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            looked.result()
        looked.cancel()
        await asyncio.gather(looked, return_exceptions=True)
        return opened.result()
    except BaseException:
        looked.cancel()
        opened.cancel()
        outcome, _ = await asyncio.gather(opened, looked, return_exceptions=True)
        if not isinstance(outcome, BaseException):  # nobody else would close it
            await drop(outcome)
        raise


async def drop(connection: Raw) -> None:
    """Close a socket without waiting for the other side, which TLS would do by itself."""
    writer = getattr(connection, "_writer", None)
    if writer is not None and isinstance(connection, SSLConnection):
        writer.transport.abort()
    await connection.disconnect(nowait=True)


async def _hear(connection: Raw) -> None:
    """Wait for any answer of the server: with TLS it may close after the handshake."""
    await connection.send_command("PING")
    with contextlib.suppress(ResponseError, AuthenticationError):
        await connection.read_response()


def _is_quoted(secret: str, error: BaseException | None) -> bool:
    """Whether the text of an error, or of one that caused it, contains a secret.

    A Redis that does not know AUTH quotes its arguments.
    """
    while error is not None and len(secret) > SHORT:
        if secret in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _without(secrets: list[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
