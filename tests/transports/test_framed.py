"""The writer of ``cluster-pool.v1``: what of its frames counts as waiting."""

from cluster_pool.core.client_frames import framed
from cluster_pool.core.message import Outgoing
from cluster_pool.transports.framed import SMALL, FramedWriter


class Kernel:
    """A writer whose kernel accepts as many bytes as a test says."""

    def __init__(self) -> None:
        self.total = 0
        self.accepted = 0
        self.open = True
        self.written: list[bytes] = []

    def descriptor(self) -> int:
        return 3

    def write(self, outgoing: Outgoing, written: int = 0) -> int:
        if not self.open:
            return -1
        self.written.append(outgoing.frame)
        self.total += len(outgoing.frame)
        return self.buffered()

    def buffered(self) -> int:
        return self.total - self.accepted

    def bytes_written(self) -> int:
        return self.accepted


def message(content: str) -> Outgoing:
    return Outgoing(True, content.encode(), ("room", "", 0))


def header(size: int) -> int:
    """More than what a frame has beside an escaped message."""
    return size + 50


def test_frames_are_written_and_never_past_the_writer() -> None:
    kernel = Kernel()
    writer = FramedWriter(kernel, "home")
    assert writer.descriptor() == -1
    hello = message("hello")
    assert writer.write(hello) == len(framed(hello, "home").frame) == writer.buffered()
    assert kernel.written == [framed(hello, "home").frame]


def test_a_large_message_counts_as_much_as_it_is() -> None:
    kernel = Kernel()
    writer = FramedWriter(kernel, "home")
    size = 10_000
    assert size <= writer.write(message("\x01" * size)) <= header(size)
    assert 2 * size <= writer.write(message("\x01" * size)) <= 2 * header(size)
    kernel.accepted = 6 * size + 100  # the first is gone
    assert size - 100 <= writer.buffered() <= header(size)
    kernel.accepted = kernel.total - 5
    assert writer.buffered() == 1
    kernel.accepted = kernel.total
    assert writer.buffered() == 0


def test_small_frames_count_as_they_are_also_beside_large_ones() -> None:
    kernel = Kernel()
    writer = FramedWriter(kernel, "home")
    small, large = message("\x01" * 10), message("\x01" * SMALL)
    one = len(framed(small, "home").frame)
    joined = Outgoing.join([large, *[small] * 100])
    assert SMALL + 100 * one <= writer.write(joined) <= header(SMALL) + 100 * one
    assert writer.write(small) <= header(SMALL) + 101 * one


def test_a_lost_socket_is_told() -> None:
    kernel = Kernel()
    kernel.open = False
    assert FramedWriter(kernel, "home").write(message("\x01" * 10_000)) == -1
    assert FramedWriter(kernel, "home").write(message("x")) == -1
