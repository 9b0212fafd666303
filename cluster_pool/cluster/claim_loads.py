"""Claims, releases and checks that wait for the next flush, by their shards."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.topology import Topology
from cluster_pool.cluster.pending_claim import PendingClaim
from cluster_pool.cluster.release_batcher import ReleaseBatcher
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Membership

MOST_CLAIMS: Final = 100
MOST_RELEASES: Final = 250
"""Operations of one flush for each shard, at most: writing and answering more takes too long a turn
of the loop. Several flushes are answered in one turn, and each claim wakes a task."""


@dataclass(slots=True)
class Load:
    """The part of a flush that goes to one shard."""

    claims: list[PendingClaim] = field(default_factory=list)
    releases: list[Membership[Connection]] = field(default_factory=list)
    doubtful: list[Membership[Connection]] = field(default_factory=list)


def split(
    claims: list[PendingClaim], shards: Iterable[Shard], now: float
) -> tuple[list[PendingClaim], list[PendingClaim], float]:
    """The claims to send now, those to send later, and the seconds until then.

    One that must not take an id over waits while Redis may lack the claim or the lease of its
    owner, which is registered again soon.

    Args:
        shards: those that have the claims and the leases.
    """
    wait = max(shard.succession.patient_until for shard in shards) - now
    if wait <= 0:
        return claims, [], 0.0
    later = [one for one in claims if not one.takeover]
    return [one for one in claims if one.takeover], later, wait


class Loads:
    """Claims, releases and checks that wait.

    Attributes:
        claims: in the order in which they came.
        doubtful: memberships whose claims are to be checked.
    """

    def __init__(self, topology: Topology, releases: ReleaseBatcher) -> None:
        self.claims: list[PendingClaim] = []
        self.doubtful: list[Membership[Connection]] = []
        self._topology = topology
        self._releases = releases
        self._parked: list[PendingClaim] = []
        """Claims at shards that are down; each is decided at its deadline at the latest."""

    def __bool__(self) -> bool:
        return bool(self.claims or self.doubtful or self._releases.waiting)

    def pop(self) -> dict[Shard, Load]:
        """Pop what one flush takes, by shard; claims that are no longer wanted are left out.

        What came first may all be for one shard, and be put back since that one is silent. It then
        stands behind what is for the others.
        """
        loads: dict[Shard, Load] = defaultdict(Load)
        shards = len(self._topology.shards)
        most = MOST_CLAIMS * shards
        claims, self.claims = self.claims[:most], self.claims[most:]
        doubtful, self.doubtful = self.doubtful, []
        of = self._topology.of
        for pending in claims:
            if not pending.won.done():
                loads[of(pending.membership.namespace)].claims.append(pending)
        for membership in self._releases.pop_waiting(MOST_RELEASES * shards):
            loads[of(membership.namespace)].releases.append(membership)
        for membership in doubtful:
            loads[of(membership.namespace)].doubtful.append(membership)
        return loads

    def put_back(self, load: Load) -> None:
        """Put a load back whose shard has enough calls in flight."""
        self.claims += load.claims
        self.doubtful += load.doubtful
        for membership in load.releases:
            self._releases.add(membership)

    def park(self, load: Load) -> None:
        """Park a load whose shard is down. A comparison once it is up checks doubtful claims."""
        self._parked = [one for one in self._parked if not one.won.done()] + load.claims
        self._releases.keep_for_later(load.releases)

    def unpark(self) -> None:
        """A shard is up again: parked claims wait for the next flush."""
        self.claims += self._parked
        self._parked.clear()
