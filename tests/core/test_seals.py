"""Seals: what is accepted, and every way in which something is not."""

import pytest

from cluster_pool import InvalidValueError
from cluster_pool.core.envelope import BrokenEnvelopeError, broadcast, read_items
from cluster_pool.core.seals import BOUND, FRESH_US, MAX_SENDERS, ROUTED, Seals

OLD, NEW = "old" * 8, b"new" * 8
SCOPES = {BOUND: "channel", ROUTED: "routed"}
NOW = 1_795_000_000_000_000


def unpacked(sealed: bytes) -> list[object]:
    (item,) = read_items(sealed)
    return item


def sealed(seals: Seals, text: bytes = b"x", now: int = NOW) -> list[object]:
    return unpacked(seals.seal(BOUND, "channel", "sender", broadcast(True, text), now))


def test_what_was_sealed_is_opened() -> None:
    """By whoever knows the secret, for the scope and the sender that it was sealed for."""
    item = sealed(Seals(OLD))
    assert Seals(OLD).open(SCOPES, "sender", item, NOW) == [1, b"x", []]


def test_rotation_seals_with_the_first_and_accepts_each() -> None:
    """Node by node from old to both to new, nothing is refused on the way."""
    both = Seals([NEW, OLD])
    assert both.open(SCOPES, "sender", sealed(Seals(OLD)), NOW)
    assert Seals(NEW).open(SCOPES, "sender", sealed(both), NOW)
    with pytest.raises(BrokenEnvelopeError, match="seal"):
        Seals(OLD).open(SCOPES, "sender", sealed(both), NOW)


@pytest.mark.parametrize("field", range(4))
def test_nothing_of_it_can_be_changed(field: int) -> None:
    """Kind, counter, seal and content are all covered."""
    item = sealed(Seals(OLD))
    item[field] = [ROUTED, NOW + 1, b"\0" * 16, broadcast(True, b"y")][field]
    with pytest.raises(BrokenEnvelopeError, match="seal"):
        Seals(OLD).open(SCOPES, "sender", item, NOW)


def test_it_is_good_for_its_scope_and_sender_alone() -> None:
    """What was said on one channel, or by one sender, cannot be repeated as another's."""
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
def test_what_has_no_seal_is_refused(item: list[object]) -> None:
    """Whatever its form."""
    with pytest.raises(BrokenEnvelopeError, match="seal"):
        Seals(OLD).open(SCOPES, "sender", item, NOW)


def test_a_replay_is_refused() -> None:
    """By those who heard it, and by those who come too late to know; not what only overtook."""
    sender, receiver = Seals(OLD), Seals(OLD)
    first, second, third = (sealed(sender) for _ in range(3))
    receiver.open(SCOPES, "sender", first, NOW)
    receiver.open(SCOPES, "sender", third, NOW)
    for again in (first, second, third):
        with pytest.raises(BrokenEnvelopeError, match="replay"):
            receiver.open(SCOPES, "sender", again, NOW)
    with pytest.raises(BrokenEnvelopeError, match="replay"):
        Seals(OLD).open(SCOPES, "sender", third, NOW + FRESH_US + 10)
    assert receiver.open(SCOPES, "sender", sealed(sender), NOW + 2 * FRESH_US)


def test_senders_are_remembered_up_to_a_number() -> None:
    """The one that was heard longest ago is forgotten first."""
    sender, receiver = Seals(OLD), Seals(OLD)
    for at in range(MAX_SENDERS + 10):
        name = f"sender{at}"
        item = unpacked(sender.seal(BOUND, "channel", name, broadcast(True, b"x"), NOW))
        receiver.open(SCOPES, name, item, NOW)
    assert len(receiver._heard) == MAX_SENDERS
    assert "sender0" not in receiver._heard


@pytest.mark.parametrize(
    "secret", ["", "short", b"short", [], ["x" * 16, "short"], [7], 7, "\ud800" * 16]
)
def test_bad_secrets_are_refused_and_not_repeated(secret: object) -> None:
    """Too short, of a wrong type, or none; the error does not show them."""
    with pytest.raises((InvalidValueError, TypeError)) as caught:
        Seals(secret)  # type: ignore[arg-type]
    assert "short" not in str(caught.value)
