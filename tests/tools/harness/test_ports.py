"""Ports of loopback."""

import socket

from tools.harness.ports import HOST, OURS, accepts, free_ports


def test_free_ports_are_different_and_none_that_a_kernel_gives_away() -> None:
    """An outgoing connection of another process cannot take one before it is used."""
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert set(ports) <= set(OURS)


def test_a_process_is_given_no_port_again_soon() -> None:
    """A server that was killed finds its port free when it comes back."""
    given = [port for _ in range(50) for port in free_ports(10)]
    assert len(set(given)) == 500


def test_a_port_accepts_while_somebody_listens() -> None:
    """And does not any more when the listener is closed."""
    (port,) = free_ports(1)
    assert not accepts(port)
    with socket.create_server((HOST, port)):
        assert accepts(port)
    assert not accepts(port)
