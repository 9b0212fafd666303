"""Finds out, over a socket of its own, why a port resets a connection or says nothing.

A Redis with TLS resets a connection without TLS, or without a certificate that it wants, before its
reason can be read. One without TLS does not answer a TLS handshake. Nothing secret is sent.
"""

import asyncio
import contextlib
import ssl
from typing import Final

from redis.asyncio import Connection, SSLConnection

from cluster_pool.backplane.logins import Login
from cluster_pool.backplane.names import Names, tls_times
from cluster_pool.backplane.tls import NO_TLS, TLS, explained

PATIENCE: Final = 0.5
"""Seconds that a diagnosis may take."""
_REPLIES: Final = (b"+", b"-")
"""First bytes of what a Redis may reply to PING."""


async def diagnosis(login: Login, names: Names, error: BaseException) -> str:
    """Advice for a socket that could not be opened, or was reset at once; "" for none."""
    if not _is_mute(error, login.tls) or not issubclass(login.kind, Connection):
        return ""
    host, port = login.where
    with contextlib.suppress(OSError, EOFError, TimeoutError):
        async with asyncio.timeout(PATIENCE):
            for address in await names.addresses(host, port):
                if not login.tls:
                    return TLS if await _speaks_tls(address, port) else ""
                if await _answers_plain_text(address, port):
                    return NO_TLS
                return await _refused_handshake(login, address, port)
    return ""


def _is_mute(error: BaseException | None, tls: bool) -> bool:
    """Whether the port was reached, and reset or closed the connection; with TLS, or sent nothing.

    A port with TLS does not stay silent after plain text, but a frozen server does.
    """
    while error is not None:
        if isinstance(error, ConnectionResetError | EOFError):
            return True
        if tls and isinstance(error, TimeoutError | ConnectionAbortedError):
            return True
        if "Connection closed by server" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


async def _speaks_tls(address: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _, writer = await asyncio.open_connection(address, port, ssl=context, **tls_times(PATIENCE))
    except ssl.SSLError as error:  # it wants a certificate, or has a version of its own
        return explained(error) != NO_TLS
    writer.transport.abort()
    return True


async def _answers_plain_text(address: str, port: int) -> bool:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(b"PING\r\n")
        return await reader.read(1) in _REPLIES
    except OSError:
        return False
    finally:
        writer.transport.abort()


async def _refused_handshake(login: Login, address: str, port: int) -> str:
    """Why the server resets a connection after the handshake, as with TLS 1.3 it must."""
    made = login.make(PATIENCE)
    assert isinstance(made, SSLConnection)
    context = made.ssl_context.get()
    host, _ = login.where
    try:
        reader, writer = await asyncio.open_connection(
            address, port, ssl=context, server_hostname=host, **tls_times(PATIENCE)
        )
        try:
            await reader.read(1)
        finally:
            writer.transport.abort()
    except ssl.SSLError as error:
        return explained(error)
    return ""
