"""Frames that are written to descriptors."""

import socket

from cluster_pool.core.message import Outgoing
from cluster_pool.transports.direct import write_directly
from tests.support import async_test

HELLO = Outgoing(True, b"hello")


@async_test
async def test_writing_to_a_lost_socket_raises_nothing() -> None:
    """The loop notices the loss itself."""
    ours, theirs = socket.socketpair()
    theirs.close()
    assert write_directly([("one", ours.fileno(), HELLO)]) == [("one", HELLO, 0)]
    ours.close()
