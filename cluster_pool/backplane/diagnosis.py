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
_TLS_RECORDS: Final = (b"\x15", b"\x16")
"""First bytes of what a server with TLS may reply to a handshake: an alert, or its own part."""


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
    """Whether the answer to the begin of a handshake is TLS: a part of one, or a refusal.

    The loop makes no handshake for it: uvloop, cancelled in one, logs an error of its own.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    hello = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello).do_handshake()
    return await _answer(address, port, hello.read()) in _TLS_RECORDS


async def _answers_plain_text(address: str, port: int) -> bool:
    return await _answer(address, port, b"PING\r\n") in _REPLIES


async def _answer(address: str, port: int, question: bytes) -> bytes:
    """The first byte of an answer; nothing for a port that closes the connection."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(question)
        return await reader.read(1)
    except OSError:
        return b""
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
