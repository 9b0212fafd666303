"""The metrics of pools for a registry of prometheus-client (the extra ``cluster-pool[metrics]``).

Owns no name and no number: :mod:`cluster_pool.core.metrics` has them. Imported where it is used.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import Metric
from prometheus_client.registry import Collector

from cluster_pool.core.metrics import Family, families
from cluster_pool.core.statistics import NOT_STARTED
from cluster_pool.exceptions import InvalidValueError

Statistics = Callable[[], Mapping[str, Any]]


class PoolCollector(Collector):
    """Collects the statistics of one pool, or of several. For any thread.

    ``one | other`` is a collector of both. Each family comes once, as a registry needs it.

    Args:
        pools: what gives the statistics of each pool, by the value of its label ``pool``; a single
            one may have the name "", and then has no such label.
    """

    def __init__(self, pools: Mapping[str, Statistics]) -> None:
        self._pools = dict(pools)

    def __or__(self, other: "PoolCollector") -> "PoolCollector":
        """A collector of the pools of both.

        Raises:
            InvalidValueError: a pool has no name, or two have the same.
        """
        both = {**self._pools, **other._pools}
        if "" in both or len(both) < len(self._pools) + len(other._pools):
            raise InvalidValueError("pools in one collector need different names: metrics(name)")
        return PoolCollector(both)

    def describe(self) -> Iterator[Metric]:
        """Every metric without values: a registry refuses a second collector with these names."""
        return (Metric(one.name, one.help, one.kind) for one in families(NOT_STARTED))

    def collect(self) -> Iterator[Metric]:
        """Every metric that has a value now."""
        labels = [{"pool": name} if name else {} for name in self._pools]
        told = [families(statistics()) for statistics in self._pools.values()]
        for each in zip(*told, strict=True):
            metric = _metric(each, labels)
            if metric.samples:
                yield metric


def _metric(each: tuple[Family, ...], labels: list[dict[str, str]]) -> Metric:
    """One metric with the samples of all pools."""
    name, kind, text, _ = each[0]
    metric = Metric(name, text, kind)
    for family, more in zip(each, labels, strict=True):
        for suffix, own, value in family.samples:
            metric.add_sample(name + suffix, {**more, **own}, float(value))
    return metric
