"""Seals: the accepted items, and every way in which an item is refused."""

import pytest

from cluster_pool import InvalidValueError
from cluster_pool.core.envelope import BrokenEnvelopeError, broadcast, read_items
from cluster_pool.core.seals import (
    BOUND,
    FRESH_US,
    GOOD_FOR_US,
    MAX_SENDERS,
    ROUTED,
    Seals,
    sealed_before,
)

OLD, NEW = "old" * 8, b"new" * 8
SCOPES = {BOUND: "channel", ROUTED: "routed"}
NOW = 1_795_000_000_000_000


def unpacked(sealed: bytes) -> list[object]:
    (item,) = read_items(sealed)
    return item


def sealed(seals: Seals, text: bytes = b"x", now: int = NOW) -> list[object]:
    return unpacked(seals.seal(BOUND, "channel", "sender", broadcast(True, text), now))


def test_a_sealed_item_is_opened() -> None:
    """By each holder of the secret, for the scope and the sender that it was sealed for."""
    item = sealed(Seals(OLD))
    assert Seals(OLD).open(SCOPES, "sender", item, NOW) == (NOW, [1, b"x", []])


def test_rotation_seals_with_the_first_and_accepts_each() -> None:
    """Node by node from old to both to new; no item is refused on the way."""
    both = Seals([NEW, OLD])
    assert both.open(SCOPES, "sender", sealed(Seals(OLD)), NOW)
    assert Seals(NEW).open(SCOPES, "sender", sealed(both), NOW)
    with pytest.raises(BrokenEnvelopeError, match="seal"):
        Seals(OLD).open(SCOPES, "sender", sealed(both), NOW)


@pytest.mark.parametrize("field", range(4))
def test_a_changed_item_is_refused(field: int) -> None:
    """Kind, counter, seal and content are all covered."""
    item = sealed(Seals(OLD))
    item[field] = [ROUTED, NOW + 1, b"\0" * 16, broadcast(True, b"y")][field]
    with pytest.raises(BrokenEnvelopeError, match="seal"):
        Seals(OLD).open(SCOPES, "sender", item, NOW)


def test_a_seal_is_valid_for_its_scope_and_sender_alone() -> None:
    """An item of one channel or sender cannot be replayed as another's."""
    item = sealed(Seals(OLD))
    with pytest.raises(BrokenEnvelopeError, match="seal"):
        Seals(OLD).open({**SCOPES, BOUND: "other"}, "sender", item, NOW)
    with pytest.raises(BrokenEnvelopeError, match="seal"):
        Seals(OLD).open(SCOPES, "other", item, NOW)


@pytest.mark.parametrize(
    "item",
    [
        [1, b"x", []],
        [6, 1000, ""],
        [BOUND],
        [BOUND, "1", b"", b""],
        [BOUND, NOW, "text", b""],
        [BOUND, NOW, None, b""],
        [BOUND, None, b"\0" * 16, b""],
        [[], NOW, b"\0" * 16, b""],
        [BOUND, NOW, b"\0" * 16, 7],
    ],
)
def test_an_item_without_a_seal_is_refused(item: list[object]) -> None:
    """In any form."""
    with pytest.raises(BrokenEnvelopeError, match="seal"):
        Seals(OLD).open(SCOPES, "sender", item, NOW)


def test_a_replay_is_refused() -> None:
    """Also of an item that was only overtaken."""
    sender, receiver = Seals(OLD), Seals(OLD)
    first, second, third = (sealed(sender) for _ in range(3))
    receiver.open(SCOPES, "sender", first, NOW)
    receiver.open(SCOPES, "sender", third, NOW)
    for again in (first, second, third):
        with pytest.raises(BrokenEnvelopeError, match="replay"):
            receiver.open(SCOPES, "sender", again, NOW)
    assert receiver.open(SCOPES, "sender", sealed(sender), NOW)


def test_an_old_item_is_refused() -> None:
    """Whether or not its sender was heard before: a waiting item is valid for five minutes."""
    sender = Seals(OLD)
    first, second = sealed(sender), sealed(sender)
    for known in (False, True):
        receiver = Seals(OLD)
        if known:
            receiver.open(SCOPES, "sender", first, NOW)
        with pytest.raises(BrokenEnvelopeError, match="replay"):
            receiver.open(SCOPES, "sender", second, NOW + FRESH_US + 10)
        assert receiver.open(SCOPES, "sender", second, NOW + FRESH_US - 10)


def test_counters_are_never_below_the_time_nor_given_twice() -> None:
    """Also when the clock of Redis is set back."""
    sender = Seals(OLD)
    times = NOW, NOW, NOW + 10, NOW - 3600 * 1_000_000
    assert [sealed(sender, now=now)[1] for now in times] == [NOW, NOW + 1, NOW + 10, NOW + 11]


def test_a_bounded_number_of_senders_is_remembered() -> None:
    """The one heard longest ago is forgotten first; its older items stay refused."""
    sender, receiver = Seals(OLD), Seals(OLD)

    def said(at: int) -> list[object]:
        seal = sender.seal(BOUND, "channel", f"sender{at}", broadcast(True, b"x"), NOW + at)
        return unpacked(seal)

    everything = [said(at) for at in range(MAX_SENDERS + 10)]
    for at, item in enumerate(everything):
        receiver.open(SCOPES, f"sender{at}", item, NOW)
    assert len(receiver._heard) == MAX_SENDERS
    later = NOW + GOOD_FOR_US + MAX_SENDERS
    for at in (0, 9, 10, MAX_SENDERS):
        with pytest.raises(BrokenEnvelopeError, match="replay"):
            receiver.open(SCOPES, f"sender{at}", everything[at], later)
    fresh = unpacked(sender.seal(BOUND, "channel", "sender0", broadcast(True, b"x"), later))
    assert receiver.open(SCOPES, "sender0", fresh, later)


def test_members_from_before_an_item_was_sealed() -> None:
    """The times decide; a time in the future is from before Redis's clock was set back."""
    assert not sealed_before(NOW, NOW, NOW)
    assert sealed_before(NOW, NOW - 1, NOW)
    assert not sealed_before(NOW - 1, NOW, NOW)
    ahead = NOW + 3600 * 1_000_000
    assert not sealed_before(ahead, NOW - 1000, NOW)
    assert sealed_before(ahead, NOW - GOOD_FOR_US - 1, NOW)


@pytest.mark.parametrize(
    "secret", ["", "short", b"short", [], ["x" * 16, "short"], [7], 7, "\ud800" * 16]
)
def test_bad_secrets_are_refused_and_not_repeated(secret: object) -> None:
    """Too short, of a wrong type, or none; the error does not show them."""
    with pytest.raises((InvalidValueError, TypeError)) as caught:
        Seals(secret)  # type: ignore[arg-type]
    assert "short" not in str(caught.value)
