"""Attributes that options name."""

import pytest

from cluster_pool.cli.attributes import load
from cluster_pool.exceptions import InvalidValueError


def test_an_attribute_is_found_by_its_module() -> None:
    assert load("--app", "cluster_pool.cli.attributes:load") is load


@pytest.mark.parametrize(
    "name", ["", "a", ":b", ".a:b", "no_such_module:b", "cluster_pool:nothing"]
)
def test_names_of_nothing_are_refused_with_their_option(name: str) -> None:
    with pytest.raises(InvalidValueError, match="--app"):
        load("--app", name)
