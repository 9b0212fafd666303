"""How the client program of the bench checks numbered messages, plain and in packets."""

import os
import select
import socket
from collections.abc import Iterable, Iterator

import pytest

from cluster_pool.core.client_frames import framed, welcome
from cluster_pool.core.message import Outgoing
from tools.bench.clients import Client, Clients
from tools.bench.payloads import member_id, payload

ID = member_id(0)


def text(message: bytes) -> bytes:
    """As a WebSocket frame of a server."""
    head = b"\x81" + (bytes([len(message)]) if len(message) < 126 else b"\x7e")
    return head + (len(message).to_bytes(2, "big") if len(message) >= 126 else b"") + message


class Wire:
    """One client of a client process, and the server's end of its socket."""

    def __init__(self, *, packets: bool = False, framed: bool = False) -> None:
        self.gate, write_end = os.pipe()
        self.server, ours = socket.socketpair()
        self.clients = Clients(write_end)
        self.client = Client(ours, ID, packets=packets, framed=framed)
        self.clients._by_fd[ours.fileno()] = self.client
        self.clients._poll.register(ours, select.EPOLLIN)
        self._write_end = write_end

    def receives(self, frames: Iterable[bytes], total: int) -> dict[str, object]:
        """The report on frames that arrive one by one."""
        self.clients.expect(total, 0, stamps=False)
        for frame in frames:
            self.server.sendall(frame)
            self.clients.receive(1)
        return self.clients.report(total, 0)

    def close(self) -> None:
        """Close everything."""
        for client in self.clients._by_fd.values():
            client.socket.close()
        self.clients._poll.close()
        self.server.close()
        os.close(self.gate)
        os.close(self._write_end)


@pytest.fixture
def plain() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.close()


@pytest.fixture
def packets() -> Iterator[Wire]:
    wire = Wire(packets=True)
    yield wire
    wire.close()


def verdict(report: dict[str, object]) -> tuple[object, ...]:
    return report["received"], report["wrong"], report["disordered"]


def test_messages_in_order_are_received(plain: Wire) -> None:
    """Messages for all and for this id, each in its turn; then the gate opens."""
    frames = [text(payload(0)), text(payload(1, ID)), text(payload(2))]
    assert verdict(plain.receives(frames, 3)) == (3, 0, 0)
    assert os.read(plain.gate, 9) == b"."


def test_one_that_comes_before_its_turn_is_out_of_order(plain: Wire) -> None:
    """It alone, not those after it."""
    frames = [text(payload(number)) for number in (0, 2, 1, 3, 4)]
    assert verdict(plain.receives(frames, 5)) == (5, 0, 1)


def test_twice_and_misrouted_are_wrong(plain: Wire) -> None:
    """Also when the first of the two came early."""
    frames = [text(payload(number)) for number in (0, 0, 2, 2, 1)]
    assert verdict(plain.receives(frames, 5)) == (5, 2, 1)
    frames = [text(payload(0, member_id(1))), text(payload(0))]
    assert verdict(plain.receives(frames, 2)) == (2, 1, 0)


def test_packets_are_answered_and_their_messages_checked(packets: Wire) -> None:
    """A client joins, answers a ping, and reads events, in whatever pieces they come."""
    frames = [
        *(text(b'0{"sid":"a"}'), text(b'40{"sid":"b"}'), text(b"2")),
        text(b'42["message","%s"]' % payload(0)),
        text(b'42["message","%s"]' % payload(1, ID)),
    ]
    stream = b"".join(frames)
    pieces = [stream[at : at + 37] for at in range(0, len(stream), 37)]
    assert verdict(packets.receives(pieces, 2)) == (2, 0, 0)
    assert packets.clients._joined == 1
    assert packets.server.recv(99) == b"\x81\x82\0\0\0\x0040" + b"\x81\x81\0\0\0\x003"


def test_messages_in_frames_of_v1_are_checked() -> None:
    """Behind the welcome, which is none, a message in its turn and one that is out of order."""
    wire = Wire(framed=True)
    said = [welcome(ID, "bench", None, None), *(_framed(number) for number in (0, 2))]
    assert verdict(wire.receives([one.frame for one in said], 2)) == (2, 0, 1)
    wire.close()


def _framed(number: int) -> Outgoing:
    return framed(Outgoing(True, payload(number), ("bench", "17", number + 1)), "bench")
