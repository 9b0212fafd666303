"""Ids, namespaces and node ids: the allowed ones, and the form in which they are shown."""

from collections.abc import Callable

import pytest

from cluster_pool import InvalidIdError, InvalidNamespaceError, InvalidValueError
from cluster_pool.core.ids import (
    base36,
    check_excluded,
    check_excluded_users,
    check_id,
    check_namespace,
    check_node_id,
    check_not_reserved,
    check_prefix,
    check_user,
    check_users,
    is_reserved,
    new_id,
    new_node_id,
    shown,
    user_namespace,
)
from tests.core.odd import Odd


def test_ids_that_are_allowed() -> None:
    """Colons, slashes, spaces and any script; 256 bytes of UTF-8, compared as they are."""
    for id in ("a", "a:b/c d", "ключ", "🙂" * 64, "x" * 256, "~"):
        assert check_id(id) == id


@pytest.mark.parametrize("id", ["", "x" * 257, "🙂" * 65, "\x7f", "\x9f", "{", "}", "\udfff", b"a"])
def test_ids_that_are_not_allowed(id: object) -> None:
    """The error is a ValueError and of this package."""
    with pytest.raises(InvalidIdError):
        check_id(id)


@pytest.mark.parametrize(
    "check", [check_id, check_node_id, check_namespace, check_prefix, check_user]
)
def test_a_checked_name_is_an_exact_str(check: Callable[[object], str]) -> None:
    """Also if its class formats otherwise, and if an equal name was checked before."""
    for value in (Odd.NAME, "name", Odd.NAME):
        assert type(check(value)) is str
        assert f"{check(value)}" == "name"


def test_namespaces_of_users_are_the_librarys_own() -> None:
    """The longest fills a namespace; no namespace that others name may begin like it."""
    assert user_namespace("42") == "~user:42"
    assert len(user_namespace("é" * 125).encode()) == 256
    for name in ("~", "~user:42", "~x"):
        assert is_reserved(name)
        for check in (check_namespace, check_not_reserved):
            with pytest.raises(InvalidNamespaceError, match="begins with '~': such names are"):
                check(name)
    for name in ("user:42", "a~"):
        assert not is_reserved(name)
        assert check_namespace(name) == name
    check_not_reserved(7)
    with pytest.raises(InvalidIdError, match=r"user .* has 251 bytes, over the limit of 250"):
        check_user("x" * 251)


def test_users_of_a_call() -> None:
    """One, or any number of them; anything else is refused with its name."""
    assert check_users("42") == ["42"]
    assert check_users(str(number) for number in range(3)) == ["0", "1", "2"]
    for wrong in (None, 7, [None], b"42", [""]):
        with pytest.raises(InvalidValueError, match="user"):
            check_users(wrong)
    assert check_excluded_users(map(str, range(10_000)))[-1] == "9999"
    with pytest.raises(InvalidValueError, match="10001 users to exclude"):
        check_excluded_users(map(str, range(10_001)))


def test_a_shown_id_is_escaped_and_cut() -> None:
    """No id can forge a log line."""
    assert shown("a\u202e\nb") == "'a\\u202e\\nb'"
    assert len(shown("x" * 1000)) == 65
    assert shown(10**5000) == "a huge int", "Python refuses to write it"


def test_made_ids_are_allowed_and_differ() -> None:
    """Ids that the package makes pass its own checks."""
    assert check_id(new_id()) != check_id(new_id())
    assert check_id(new_node_id()) != new_node_id()
    assert [base36(n) for n in (0, 35, 36, 1295)] == ["0", "z", "10", "zz"]


def test_ids_to_exclude_from_a_broadcast() -> None:
    """One id, or any number of them up to a bound; anything else is refused with its name."""
    assert check_excluded("alice") == ["alice"]
    assert check_excluded(id for id in ("a", "b")) == ["a", "b"]
    for wrong in (None, 7, [None], b"alice", [""], map(str, range(10_001))):
        with pytest.raises(InvalidValueError):
            check_excluded(wrong)
