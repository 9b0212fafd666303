"""The registry as it is stored in Redis, read without the package's own code."""

from dataclasses import dataclass, field

from redis import Redis

from cluster_pool.core.claims import CHECKSUM_MODULUS, Claim
from cluster_pool.core.keys import Keys


@dataclass
class Raw:
    """One look at the registry.

    Attributes:
        members: namespace to id to claim.
        owners: namespace to incarnation to (count, checksum).
        noted: incarnation to the namespaces in which it may hold members.
        leased: incarnations with a lease, also one that is over and was not buried.
        profiles: namespace to id to the entry with its user and info.
        dead: incarnations that wait for being reaped.
    """

    members: dict[str, dict[str, Claim]] = field(default_factory=dict)
    owners: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    noted: dict[str, set[str]] = field(default_factory=dict)
    leased: set[str] = field(default_factory=set)
    profiles: dict[str, dict[str, bytes]] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)

    def tallied(self) -> dict[str, dict[str, tuple[int, int]]]:
        """The counts and checksums that ``owners`` must hold, computed from the members."""
        tallied: dict[str, dict[str, tuple[int, int]]] = {}
        for namespace, claims in self.members.items():
            of = tallied.setdefault(namespace, {})
            for claim in claims.values():
                count, checksum = of.get(claim.incarnation, (0, 0))
                of[claim.incarnation] = (count + 1, checksum + claim.time % CHECKSUM_MODULUS)
        return tallied


def look(client: Redis, keys: Keys) -> Raw:
    """Read all of it."""
    raw = Raw()
    raw.leased = {name.decode() for name in client.zrange(keys.leases, 0, -1)}
    raw.dead = {name.decode() for name in client.hkeys(keys.dead)}
    for name in sorted(key.decode() for key in client.keys(f"{keys.prefix}:*")):
        tag, _, kind = name.removeprefix(f"{keys.prefix}:{{").partition("}:")
        if kind == "members":
            raw.members[tag] = {
                id.decode(): Claim.parse(claim.decode())
                for id, claim in client.hgetall(name).items()
            }
        elif kind == "profiles":
            entries = client.hgetall(name).items()
            raw.profiles[tag] = {id.decode(): entry for id, entry in entries}
        elif kind == "owners":
            fields = {key.decode(): int(value) for key, value in client.hgetall(name).items()}
            raw.owners[tag] = {
                incarnation: (count, fields.get(f"{incarnation}#", 0))
                for incarnation, count in fields.items()
                if not incarnation.endswith("#")
            }
        elif kind.startswith("namespaces:"):
            incarnation = kind.partition(":")[2]
            raw.noted[incarnation] = {one.decode() for one in client.smembers(name)}
    return raw


def harm(client: Redis, keys: Keys, which: int, field: int | None) -> str:
    """Remove a key, or one field of it, as a person might by hand; gives its name."""
    found = sorted(client.keys(f"{keys.prefix}:*"))
    if not found:
        return ""
    key: bytes = found[which % len(found)]
    kind, fields = client.type(key).decode(), []
    if field is not None and kind == "hash":
        fields = sorted(client.hkeys(key))
        client.hdel(key, fields[field % len(fields)])
    elif field is not None and kind == "set":
        fields = sorted(client.smembers(key))
        client.srem(key, fields[field % len(fields)])
    elif field is not None and kind == "zset":
        fields = client.zrange(key, 0, -1)
        client.zrem(key, fields[field % len(fields)])
    else:
        client.delete(key)
    return key.decode()
