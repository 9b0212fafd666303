"""Publishers: sending from a process without connections, such as a view, a worker or a script."""

from collections.abc import Iterable
from functools import partial

from cluster_pool.backplane.backplane import DEFAULT_REDIS, Setup
from cluster_pool.backplane.locations import RedisOrUrl
from cluster_pool.cluster.public.directory import DirectoryCalls
from cluster_pool.cluster.public.handle import Handle
from cluster_pool.cluster.public.memberships import MembershipCalls
from cluster_pool.cluster.public.orders import OrderCalls
from cluster_pool.cluster.public.people import PeopleCalls
from cluster_pool.cluster.public.revoking import RevokingCalls
from cluster_pool.cluster.public.sending import SendingCalls
from cluster_pool.cluster.publishing import Publishing
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.core.seals import Secret


class Publisher(
    Handle[Publishing],
    SendingCalls,
    PeopleCalls,
    RevokingCalls,
    MembershipCalls,
    DirectoryCalls,
    OrderCalls,
):
    """Sends to every member of the cluster, without being a node of it.

    ``async with Publisher("redis://…") as publisher: await publisher.send("room", "alice", "hi")``

    Args:
        redis: a URL (``redis://``, ``redis+sentinel://``, ``redis+cluster://`` and so on; see
            docs/deploying.md), or a client of ``redis.asyncio``, whose address, credentials and TLS
            are used: ``Redis``, Sentinel's ``master_for(…)``, or ``RedisCluster``.
        prefix: that of the cluster; the default is refused with a database other than 0.
        timeout: the longest time of an operation in seconds, unless the call says otherwise.
        limits: see :class:`Limits`.
    """

    def __init__(
        self,
        redis: RedisOrUrl = DEFAULT_REDIS,
        *,
        prefix: str = DEFAULT_PREFIX,
        timeout: float = 2.0,
        limits: Limits | None = None,
        secret: Secret | Iterable[Secret] | None = None,
    ) -> None:
        timing = Timing(timeout=timeout)
        setup = Setup.of(redis, prefix=prefix, limits=limits, timing=timing, secret=secret)
        super().__init__(setup, partial(Publishing, setup))
