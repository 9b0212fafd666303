"""Ports of loopback."""

import socket

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now, all different."""
    probes = [socket.create_server((HOST, 0)) for _ in range(count)]
    try:
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True
