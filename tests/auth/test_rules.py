"""Rules for all clients of ``serve``, besides what their identities name."""

import pytest

from cluster_pool import Auth, Identity, InvalidValueError, Request
from cluster_pool.auth.rules import patterns_of, with_rules
from tests.support import async_test


@async_test
async def test_an_identity_permits_what_it_names_and_what_the_rules_name() -> None:
    auth = Auth(authenticate=lambda _: Identity(namespace="app", namespaces=["room:*"]))
    ruled = await with_rules(auth, ["lobby=join", "team:*=join"]).identify(Request())
    names = ("app", "room:7", "lobby", "team:7", "other")
    assert [ruled.permits(name) for name in names] == [True, True, True, True, False]


@async_test
async def test_without_a_rule_an_identity_that_names_nothing_permits_nothing() -> None:
    ruled = await with_rules(Auth(authenticate=lambda _: Identity()), []).identify(Request())
    assert not ruled.permits("app")


@pytest.mark.parametrize("rule", ["room:*", "room:*=", "=join", "room:*=publish", "{a}=join", ""])
def test_rules_of_another_form_are_refused(rule: str) -> None:
    with pytest.raises(InvalidValueError):
        patterns_of([rule])


def test_a_pattern_may_have_an_equals_sign() -> None:
    assert patterns_of(["a=b*=join"]) == ("a=b*",)
