"""The text of ``/metrics`` as a scraper reads it: parsed by its own rules."""

import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster_pool.core.metrics import HISTOGRAMS, families, render
from cluster_pool.core.statistics import NOT_STARTED, Counters

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = rf'{NAME}="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)?\}})? (\S+)")


def parsed(text: str) -> dict[str, dict[str, float]]:
    """Values by metric and labels; raises on anything that the format does not allow."""
    assert text.endswith("\n")
    kinds: dict[str, str] = {}
    helped: set[str] = set()
    described: set[str] = set()
    values: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if line.startswith("# "):
            _, keyword, name, rest = line.split(" ", 3)
            assert name not in values, f"{name} is described behind its values"
            if keyword == "HELP":
                assert name not in helped
                helped.add(name)
            else:
                assert keyword == "TYPE"
                assert rest in ("counter", "gauge", "histogram")
                assert name not in kinds
                kinds[name] = rest
            continue
        found = SAMPLE.fullmatch(line)
        assert found, line
        name, labels, value = found.groups()
        whole = name
        if name not in kinds:
            whole = re.sub("_(bucket|count|sum)$", "", name)
            assert kinds[whole] == "histogram"
        assert whole in helped
        described.add(whole)
        assert (kinds[whole] == "counter") == name.endswith("_total"), name
        samples = values.setdefault(name, {})
        assert (labels or "") not in samples, f"twice: {line}"
        samples[labels or ""] = float(value)
    assert described == set(kinds) == helped
    return values


def statistics(**changes: Any) -> dict[str, Any]:
    """The statistics of a pool, without a pool."""
    return {**NOT_STARTED, "node": "a", "state": "active", "ready": True, **changes}


def test_metrics_have_each_value_once_with_its_kind() -> None:
    """Counters end in _total, and a large one keeps its last digit."""
    values = parsed(render(statistics(delivered=123_456_789_012, connections=7, refused=2)))
    assert values["cluster_pool_deliveries_total"] == {
        'result="delivered"': 123_456_789_012,
        'result="refused"': 2,
        'result="undelivered"': 0,
    }
    assert values["cluster_pool_connections"] == {"": 7}
    assert values["cluster_pool_drain_remaining"] == {"": 0}
    assert "cluster_pool_drain_budget" not in values
    assert "cluster_pool_lease_age_seconds" not in values


def test_every_counter_is_in_one_metric() -> None:
    """With its own name, or as one value of a label."""
    counted = {
        name: value for name, value in Counters().as_dict().items() if name not in HISTOGRAMS
    }
    at: dict[str, Any] = {
        name: dict.fromkeys(value, 2000 + number) if isinstance(value, dict) else number
        for number, (name, value) in enumerate(counted.items(), 1000)
    }
    told = [
        sample.value
        for family in families(statistics(**at))
        if family.kind == "counter"
        for sample in family.samples
    ]
    del at["rejoins"]  # told by its reasons
    spread = [
        one
        for value in at.values()
        for one in (value.values() if isinstance(value, dict) else [value])
    ]
    assert sorted(told) == sorted(spread)


def test_histograms_have_buckets_a_count_and_a_sum() -> None:
    """Each bucket has all that are not longer, as Prometheus wants them."""
    counters = Counters()
    for seconds in (0.002, 0.3):
        counters.redis_seconds.observe(seconds)
    values = parsed(render(statistics(**counters.as_dict())))
    name = "cluster_pool_redis_round_trip_seconds"
    assert values[f"{name}_bucket"]['le="0.001"'] == 0
    assert values[f"{name}_bucket"]['le="0.0025"'] == 1
    assert values[f"{name}_bucket"]['le="+Inf"'] == 2
    assert values[f"{name}_count"] == {"": 2}
    assert values[f"{name}_sum"] == {"": 0.302}


def test_every_metric_says_what_it_is() -> None:
    """Also those whose help is the documentation of their counter, on two lines."""
    said = {family.name: family.help for family in families(statistics())}
    assert all(text[0].isupper() or text[0] == "1" for text in said.values()), said
    assert all(text.endswith(".") for text in said.values()), said
    assert said["cluster_pool_revoked"].endswith("since their token was revoked.")


def test_a_scraper_reads_what_was_written() -> None:
    """By the parser of prometheus-client, with the kinds of all metrics."""
    node = 'a "b" \\ ü'
    found = {
        one.name: one
        for one in text_string_to_metric_families(render(statistics(node=node, lease_age=1.5)))
    }
    known = {one.name: one for one in families(statistics(lease_age=1.5)) if one.samples}
    assert {name: one.type for name, one in found.items()} == {
        name: one.kind for name, one in known.items()
    }
    assert found["cluster_pool_info"].samples[0].labels == {"node": node}
    assert found["cluster_pool_lease_age_seconds"].samples[0].value == 1.5


@pytest.mark.parametrize("state", ["active", "announcing", "draining", "drained"])
def test_node_state_is_a_labelled_gauge(state: str) -> None:
    """1 for the present state, 0 for each other one."""
    samples = parsed(render(statistics(state=state)))["cluster_pool_state"]
    assert len(samples) == 6
    assert [labels for labels, value in samples.items() if value] == [f'state="{state}"']


def test_node_id_is_quoted_in_labels() -> None:
    """It may contain quotes and backslashes."""
    (labels,) = parsed(render(statistics(node='a "b" \\ ü')))["cluster_pool_info"]
    assert labels == r'node="a \"b\" \\ ü"'
