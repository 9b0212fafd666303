"""The errors of this package: their tree is drawn once, and the drawing is right."""

import inspect

import pytest

import cluster_pool
from cluster_pool import exceptions

DEPTH = 4
"""Characters by which each level of the drawing is indented."""


def drawn() -> dict[str, str]:
    """Each error in the drawing at the top of the module, with the one above it."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        words = line.strip("│├└─ ").split()
        if not words or not words[0].endswith("Error"):
            continue
        level = (len(line) - len(line.lstrip("│├└─ "))) // DEPTH
        path[level:] = [words[0]]
        if level:
            parents[words[0]] = path[level - 1]
    return parents


def errors() -> list[type[Exception]]:
    """Every error that the module defines."""
    found = [one for _, one in inspect.getmembers(exceptions, inspect.isclass)]
    return [one for one in found if one.__module__ == exceptions.__name__]


def test_the_drawing_has_every_error_below_its_parent() -> None:
    """A reader then knows all that one ``except`` catches."""
    parents = {one.__name__: one.__bases__[0].__name__ for one in errors()}
    assert parents.pop("ClusterPoolError") == "Exception"
    assert drawn() == parents


@pytest.mark.parametrize("error", errors())
def test_an_error_is_exported_and_has_the_root_of_all(error: type[Exception]) -> None:
    """Users import errors from the package, and catch any of them as ClusterPoolError."""
    assert getattr(cluster_pool, error.__name__) is error
    assert issubclass(error, cluster_pool.ClusterPoolError)
