"""Hosts that are this machine alone. Pure."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host is ``localhost`` or a loopback address; no other machine reaches it then."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
