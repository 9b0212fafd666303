"""Slots as the server computes them, and their owners as CLUSTER SLOTS lists them."""

from collections.abc import Iterator

import pytest

from cluster_pool.backplane.slots import (
    HOME_SLOT,
    SLOTS,
    Group,
    hash_tag,
    read_groups,
    slot_of,
    tag_of_one,
)
from cluster_pool.core.ids import check_namespace
from cluster_pool.core.keys import Keys
from tests.servers import RedisServer


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """The only node of a cluster."""
    with RedisServer(
        "valkey", "--cluster-enabled", "yes", "--cluster-config-file", "n.conf"
    ) as one:
        yield one


def keyslot(redis: RedisServer, key: str) -> int:
    """The server's own answer."""
    return int(redis.command("CLUSTER", "KEYSLOT", key).strip().removeprefix(":"))


def permitted() -> list[str]:
    """Every character of one byte that a namespace may have, and some of more bytes."""
    characters = [chr(code) for code in range(0x20, 0x7F) if chr(code) not in "{}"]
    return [*characters, "\xa0", "é", "ß", "漢", "\U0001f600", "\uffff"]


def test_names_hash_as_the_server_hashes_them(redis: RedisServer) -> None:
    """Each permitted character, alone and among others; all names of a namespace have its slot."""
    keys = Keys("prefix:with:colons")
    for character in permitted():
        for name in (character, f"a{character}b", character * 40):
            namespace = name if name[0] == "~" else check_namespace(name)
            slot = keyslot(redis, keys.members(namespace))
            assert slot_of(namespace) == slot, repr(name)
            for key in (keys.channel(namespace), keys.routed_prefix(namespace) + "node:{x"):
                assert slot_of(key) == slot == keyslot(redis, key), repr(key)


@pytest.mark.parametrize("key", ["", "{", "}", "{}", "{}a", "a{}{b}", "a{b", "a}b{c}", "a{b}{c}"])
def test_a_hash_tag_is_found_as_the_server_finds_it(redis: RedisServer, key: str) -> None:
    """Also in foreign keys."""
    assert slot_of(key) == keyslot(redis, key)


def test_keys_of_no_namespace_have_one_slot() -> None:
    """Leases, nodes' own channels, the notes of namespaces."""
    keys = Keys()
    for key in (keys.leases, keys.node_channel("a"), keys.namespaces("b.0"), keys.epoch):
        assert hash_tag(key) == "~"
        assert slot_of(key) == HOME_SLOT


def test_a_tag_is_found_for_any_slots() -> None:
    """For one slot alone, too."""
    for slots in ([0], [SLOTS - 1], range(5000, 6000)):
        assert slot_of(tag_of_one(slots)) in slots


def node(host: bytes | None, port: int, name: bytes) -> list[object]:
    return [host, port, name, []]


def test_groups_are_read_with_their_ranges() -> None:
    """A node without a host is where it was asked."""
    reply = [
        [0, 99, node(b"10.0.0.1", 1, b"a"), node(b"10.0.0.2", 2, b"b")],
        [100, 199, node(None, 3, b"c")],
        [200, 299, node(b"10.0.0.1", 1, b"a"), node(b"10.0.0.2", 2, b"b")],
        [300, 300, node(b"", 4, b"d"), node(b"?", 5, b"e")],
    ]
    assert read_groups(reply, ("asked", 0)) == [
        Group(("a", "b"), (("10.0.0.1", 1), ("10.0.0.2", 2)), ((0, 99), (200, 299))),
        Group(("c",), (("asked", 3),), ((100, 199),)),
        Group(("d", "e"), (("asked", 4), ("asked", 5)), ((300, 300),)),
    ]


def test_a_group_knows_its_slots_and_its_primary() -> None:
    """Its slots are in several ranges."""
    group = Group(("a",), (("host", 1),), ((0, 2), (7, 7)))
    assert list(group.slots) == [0, 1, 2, 7]
    assert [slot for slot in range(10) if slot in group] == [0, 1, 2, 7]
    assert group.primary == ("host", 1)


@pytest.mark.parametrize("reply", [[[0, 1]], [[0, 1, [b"h"]]], [[5, 1, [b"h", 1, b"a"]]], [b"x"]])
def test_an_invalid_map_is_refused(reply: list[object]) -> None:
    """With any kind of reply."""
    with pytest.raises(ValueError, match="is not understood"):
        read_groups(reply, ("asked", 0))
