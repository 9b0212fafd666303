"""Rules for all clients of ``serve``, besides what their identities name."""

import pytest

from cluster_pool import Auth, Identity, InvalidValueError, Request
from cluster_pool.auth.rules import INFO, JOIN, PUBLISH, NamespaceRules, with_rules
from tests.support import async_test


async def ruled_by(auth: Auth, rules: NamespaceRules) -> Identity:
    """The identity of a client under rules."""
    ruled = with_rules(auth, rules)
    assert ruled is not None
    return await ruled.identify(Request())


@async_test
async def test_an_identity_permits_what_it_names_and_what_the_rules_name() -> None:
    auth = Auth(authenticate=lambda _: Identity(namespace="app", namespaces=["room:*"]))
    rules = NamespaceRules(["lobby=join", "team:*=publish,join", "other=publish,info"])
    ruled = await ruled_by(auth, rules)
    names = ("app", "room:7", "lobby", "team:7", "other")
    assert [ruled.permits(name) for name in names] == [True, True, True, True, False]


@async_test
async def test_without_a_rule_an_identity_that_names_nothing_permits_nothing() -> None:
    auth = Auth(authenticate=lambda _: Identity())
    ruled = await ruled_by(auth, NamespaceRules(["*=publish"]))
    assert not ruled.permits("app")


@pytest.mark.parametrize(
    "rule",
    [
        "room:*",
        "room:*=",
        "=join",
        "room:*=read",
        "{a}=join",
        "",
        "a=join,",
        "a=join, info",
        "~*=join",
    ],
)
def test_rules_of_another_form_are_refused(rule: str) -> None:
    with pytest.raises(InvalidValueError):
        NamespaceRules([rule])


def test_each_verb_has_its_own_patterns() -> None:
    rules = NamespaceRules(["room:*=join,publish", "room:7=info", "a=b*=join"])
    assert rules.patterns(JOIN) == ("room:*", "a=b*")
    assert rules.permit(PUBLISH, "room:7")
    assert rules.permit(INFO, "room:7")
    assert not rules.permit(INFO, "room:8")
    assert not rules.permit(PUBLISH, "a=b")
