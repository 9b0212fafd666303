"""Reads HAProxy's file."""

import re

from tests.servers import DEPLOY


def shipped_addresses() -> list[tuple[int, int]]:
    """Port and agent port of each node that it expects, where no variable says otherwise."""
    text = (DEPLOY / "haproxy.cfg").read_text()
    found = re.findall(r'NODE\d-[\d.]+:(\d+)}" agent-port "\$\{\w+-(\d+)}"', text)
    return [(int(port), int(agent)) for port, agent in found]
