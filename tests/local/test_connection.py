"""A connection: its outbox, its handlers, its end."""

import re
from pathlib import Path

import pytest

from cluster_pool import (
    Connection,
    InvalidCloseError,
    InvalidIdError,
    InvalidMessageError,
    InvalidNamespaceError,
    InvalidValueError,
    MessageTooLargeError,
)
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test

EMBEDDING = Path(__file__).parents[2] / "docs" / "embedding.md"


@async_test
async def test_bad_arguments_are_refused() -> None:
    """Ids, namespaces, sockets, codes, messages and times are checked in the call."""
    socket = FakeWebSocket()
    for id, namespace, error in (
        ("", "n", InvalidIdError),
        ("a\x00", "n", InvalidIdError),
        (7, "n", InvalidIdError),
        ("a", "{", InvalidNamespaceError),
        ("a", "~", InvalidNamespaceError),
        ("a", "é" * 129, InvalidNamespaceError),
    ):
        with pytest.raises(error):
            Connection(id, namespace, socket)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int is no WebSocket"):
        Connection("a", "n", 5)
    with pytest.raises(InvalidValueError):
        Connection("a", "n", socket, idle_timeout=0)
    connection = Connection("a", "n", socket)
    with pytest.raises(InvalidCloseError):
        await connection.close(1005)
    with pytest.raises(InvalidMessageError):
        await connection.send(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidMessageError):
        await connection.feed("\ud800")
    with pytest.raises(MessageTooLargeError) as caught:
        await connection.send("x" * (1024 * 1024 + 1))
    assert (caught.value.size, caught.value.limit) == (1024 * 1024 + 1, 1024 * 1024)
    with pytest.raises(InvalidValueError):
        connection.on("nonsense", print)


@async_test
async def test_a_connection_has_the_documented_names_only() -> None:
    """Functions of other floors are not among its public names."""
    (line,) = re.findall(r"^\| `Connection` \|.*$", EMBEDDING.read_text(), re.MULTILINE)
    listed = set(re.findall(r"`([a-z_]+)`", line))
    shown = {name for name in dir(Connection("1", "n", FakeWebSocket())) if name[0] != "_"}
    assert shown == listed
