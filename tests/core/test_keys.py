"""The spelling of keys and channels."""

import re

from cluster_pool.core.keys import Keys


def test_every_key_begins_with_the_prefix_and_has_one_hash_tag() -> None:
    """Rights can then be given by prefix, and one script touches one slot of a Redis Cluster."""
    keys = Keys("mine")
    of_a_namespace = [
        named("room")
        for named in (keys.channel, keys.events, keys.inbound, keys.members, keys.owners)
    ]
    own = [getattr(keys, name) for name in Keys.__slots__ if name not in ("prefix", "_cluster")]
    own += [keys.node_channel("node-1"), keys.namespaces("incarnation")]
    for tag, names in (("room", [*of_a_namespace, keys.emptied("room")]), ("~", own)):
        for name in (*names, keys.numbers(names[0])):
            assert name.startswith("mine:")
            assert re.findall(r"\{(.*?)\}", name) == [tag]


def test_keys_of_a_namespace_differ() -> None:
    """Each holds another type of value."""
    keys = Keys()
    kinds = (keys.channel, keys.events, keys.inbound, keys.members, keys.owners, keys.emptied)
    assert len({named("n") for named in kinds}) == len(kinds)
