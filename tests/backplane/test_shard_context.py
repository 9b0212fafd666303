"""The objects that the shards of one start share."""

from cluster_pool.backplane.receiver import Receiver
from tests.backplane.contexts import context_of


def test_shards_of_one_start_fill_one_inbox() -> None:
    """Its limit is that of the process, however many shards there are."""
    context = context_of()
    first, second = Receiver(context), Receiver(context)
    first.hear("cluster_pool:{n}", b"from one")
    second.hear("cluster_pool:{m}", b"from another")
    assert [heard.payload for heard in iter(context.inbox.pop, None)] == [
        b"from one",
        b"from another",
    ]
