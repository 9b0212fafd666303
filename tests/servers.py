"""Real Redis and Valkey for tests, with the least privileges that we ship."""

import hashlib
import re
import shutil
from pathlib import Path

from cluster_pool.embedded import server_binary
from tools.harness import servers

SHIPPED_ACL = Path(__file__).parents[1] / "deploy" / "redis.acl"
PASSWORD = "known-to-tests"

BINARIES = {"valkey": server_binary()}
if shutil.which("redis-server"):
    BINARIES["redis"] = str(shutil.which("redis-server"))


class RedisServer(servers.RedisServer):
    """A server of one flavour; whatever goes through its URLs has the shipped privileges alone.

    The password is one that tests know. :meth:`command` and unix sockets without a user are free.
    """

    user_info = f"cluster_pool:{PASSWORD}@"

    def __init__(self, flavour: str, *options: str) -> None:
        self.flavour = flavour
        super().__init__(BINARIES[flavour], *options)
        digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
        rules = re.sub(r"#[0-9a-f]{64}", f"#{digest}", SHIPPED_ACL.read_text())
        users = self.folder / "users.acl"
        users.write_text(f"user default on nopass ~* &* +@all\n{rules}")
        self._options = ("--aclfile", str(users), *options)

    @property
    def url(self) -> str:
        return f"unix://cluster_pool@{self.path}?password={PASSWORD}"

    def script_calls(self) -> int:
        """How many scripts it has run."""
        found = re.search(r"cmdstat_evalsha:calls=(\d+)", self.command("INFO", "commandstats"))
        return int(found[1]) if found else 0
