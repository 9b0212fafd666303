"""Frames that are written to descriptors."""

import os
import socket

import pytest

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


def test_nothing_is_written_behind_a_frame_that_is_cut_short_to_the_same_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two connections may share it; the client reads at any moment, so there is room again."""
    room = iter((3, 100, 100))
    written: list[tuple[int, int]] = []

    def write(descriptor: int, frame: bytes) -> int:
        written.append((descriptor, min(next(room), len(frame))))
        return written[-1][1]

    monkeypatch.setattr(os, "write", write)
    due = [("one", 5, HELLO), ("other", 6, HELLO), ("two", 5, HELLO)]
    assert write_directly(due) == [("one", HELLO, 3), ("two", HELLO, 0)]
    assert written == [(5, 3), (6, 7)]
