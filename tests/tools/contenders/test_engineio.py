"""The packets that Socket.IO's servers send, and what the clients of the bench make of them."""

import pytest

from tools.contenders.engineio import Packet, ProtocolError, read


def test_a_session_from_its_first_packet() -> None:
    """The open packet is answered with a wish to join, a ping with a pong; then we have joined."""
    opening = b'0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000}'
    assert read(opening) == Packet(reply=b"40")
    assert read(b'40{"sid":"b"}') == Packet(joined=True)
    assert read(b"2") == Packet(reply=b"3")
    assert read(b"2probe") == Packet(reply=b"3probe")
    assert read(b"6") == Packet()


@pytest.mark.parametrize(
    "packet", [b'42["message","00000007 * .."]', b'42["message", "00000007 * .."]']
)
def test_an_event_gives_its_text(packet: bytes) -> None:
    """However the server's JSON is spaced."""
    assert read(packet) == Packet(message=b"00000007 * ..")


@pytest.mark.parametrize(
    "packet",
    [
        *(b"", b"1", b"41", b'44{"message":"refused"}', b"5", b'451-["message",{}]', b"bAAAA"),
        *(b"42", b'42["message"', b'42["message"]', b'42["message",1]', b'42["other","x"]'),
        *(b'42["message","a","b"]', b"42{}", b"420", b'42/admin,["message","x"]', b'43["ok"]'),
    ],
)
def test_anything_else_is_an_error(packet: bytes) -> None:
    """A packet that a well-behaved server would not send is not passed over."""
    with pytest.raises(ProtocolError):
        read(packet)
