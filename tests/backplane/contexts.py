"""The context of a shard's parts, for tests that make one part alone."""

from typing import Any

from cluster_pool.backplane.inbox import Inbox
from cluster_pool.backplane.shard_context import ShardContext
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.history import HistoryRules
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.statistics import Counters


def context_of(keys: Keys | None = None, **given: Any) -> ShardContext:
    """A context with what a test gives, and the defaults."""
    keys = keys or Keys()
    limits = given.pop("limits", None) or Limits()
    fields: dict[str, Any] = {
        "identity": Identity(keys),
        "inbox": Inbox(limits.inbox_bytes),
        "limits": limits,
        "timing": Timing(),
        "counters": Counters(),
        "sealed": False,
        "holds": True,
        "histories": HistoryRules(None, 3.0),
    }
    return ShardContext(keys, **{**fields, **given})
