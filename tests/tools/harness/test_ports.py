"""Ports of loopback."""

import os
import socket
import subprocess
import sys

import pytest

from tools.harness.ports import HOST, OURS, accepts, free_ports

PATHS = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_free_ports_are_different_and_none_that_a_kernel_gives_away() -> None:
    """An outgoing connection of another process cannot take one before it is used."""
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert set(ports) <= set(OURS)


def test_a_process_is_given_no_port_again_soon() -> None:
    """A server that was killed finds its port free when it comes back."""
    given = [port for _ in range(50) for port in free_ports(10)]
    assert len(set(given)) == 500


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is reserved")
def test_a_port_that_was_given_is_given_to_no_other_process() -> None:
    """Though nothing listens there yet."""
    (port,) = free_ports(1)
    program = (
        "from tools.harness import ports\n"
        f"ports.OURS = range({port}, {port} + 2)\n"
        "print(ports.free_port())"
    )
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=PATHS)
    assert int(done.stdout) == port + 1


def test_a_port_accepts_while_somebody_listens() -> None:
    """And does not any more when the listener is closed."""
    (port,) = free_ports(1)
    assert not accepts(port)
    with socket.create_server((HOST, port)):
        assert accepts(port)
    assert not accepts(port)
