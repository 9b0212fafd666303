"""Identities: namespaces and ids that they permit, and values that are refused."""

from typing import Any

import pytest

from cluster_pool import Identity, InvalidValueError, NotPermittedError


def test_an_identity_that_names_no_namespace_is_not_restricted() -> None:
    assert Identity(user="42").permits("anything")


def test_an_identity_is_permitted_its_home_and_its_patterns() -> None:
    alice = Identity(namespace="app", namespaces=["room:*", "lobby"])
    assert [alice.permits(name) for name in ("app", "room:7", "lobby", "app2", "Room:7")] == [
        *(True, True, True),
        *(False, False),
    ]
    assert not Identity(namespaces=[]).permits("app")


def test_a_home_is_the_named_one_if_it_is_permitted_else_that_of_the_identity() -> None:
    alice = Identity(namespace="app", namespaces=["room:*"])
    assert alice.home(None) == "app"
    assert alice.home("room:7") == "room:7"
    with pytest.raises(NotPermittedError, match="no namespace 'other'"):
        alice.home("other")
    with pytest.raises(InvalidValueError, match="neither"):
        Identity(namespaces=["room:*"]).home(None)


def test_an_id_is_that_of_the_identity_if_it_has_one() -> None:
    assert Identity().own_id("tab") == "tab"
    assert Identity().own_id(None) is None
    assert Identity(id="tab").own_id(None) == "tab"
    assert Identity(id="tab").own_id("tab") == "tab"
    with pytest.raises(NotPermittedError, match="no id 'other'"):
        Identity(id="tab").own_id("other")


def test_a_call_may_name_no_other_user() -> None:
    Identity(user="42").check_of_user("42")
    Identity(user="42").check_of_user(None)
    for identity in (Identity(user="42"), Identity()):
        with pytest.raises(NotPermittedError, match="not that of user '43'"):
            identity.check_of_user("43")


@pytest.mark.parametrize(
    "wrong",
    [
        {"user": ""},
        {"user": "é" * 126},
        {"user": 42},
        {"id": "a\n"},
        {"namespace": "{a}"},
        {"namespace": "~user:42"},
        {"namespaces": ["~*"]},
        {"namespaces": "room:*"},
        {"namespaces": ["a", 1]},
        {"namespaces": {"a"}},
        {"expires": "soon"},
        {"expires": float("nan")},
        {"expires": True},
        {"token_id": ""},
        {"token_id": 7},
        {"token_id": ["t"]},
        {"token_id": "é" * 129},
    ],
)
def test_odd_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        Identity(**wrong)


def test_claims_and_unfit_tokens_are_not_shown() -> None:
    assert "secret" not in repr(Identity(user="42", claims={"email": "secret"}))
    with pytest.raises(InvalidValueError) as refused:
        Identity(token_id="secret " * 50)
    assert "secret" not in str(refused.value)
