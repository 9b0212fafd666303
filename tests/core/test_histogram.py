"""Durations by bucket, as a scraper wants them."""

import pytest

from cluster_pool.core.histogram import BOUNDS, Histogram


def test_each_bucket_has_all_that_are_not_longer() -> None:
    """Also those of exactly its bound; the last one has all."""
    histogram = Histogram()
    for seconds in (0.0, 0.001, 0.0011, 3.0, 60.0):
        histogram.observe(seconds)
    told = histogram.as_dict()
    assert (told["count"], told["sum"]) == (5, pytest.approx(63.0021))
    assert (told["buckets"]["0.0005"], told["buckets"]["0.001"]) == (1, 2)
    assert (told["buckets"]["2.5"], told["buckets"]["5.0"], told["buckets"]["+Inf"]) == (3, 4, 5)


def test_the_bounds_grow() -> None:
    """A lookup by halves needs that."""
    assert list(BOUNDS) == sorted(set(BOUNDS))
