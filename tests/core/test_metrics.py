"""The text of ``/metrics`` as a scraper reads it: parsed by its own rules."""

import re
from typing import Any

import pytest

from cluster_pool.core.metrics import render
from cluster_pool.core.statistics import Counters

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = rf'{NAME}="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)?\}})? (\S+)")


def parsed(text: str) -> dict[str, dict[str, float]]:
    """Values by metric and labels; raises on anything that the format does not allow."""
    assert text.endswith("\n")
    kinds: dict[str, str] = {}
    helped: set[str] = set()
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
                assert rest in ("counter", "gauge")
                assert name not in kinds
                kinds[name] = rest
            continue
        found = SAMPLE.fullmatch(line)
        assert found, line
        name, labels, value = found.groups()
        assert name in kinds
        assert name in helped
        assert (kinds[name] == "counter") == name.endswith("_total"), name
        samples = values.setdefault(name, {})
        assert (labels or "") not in samples, f"twice: {line}"
        samples[labels or ""] = float(value)
    assert set(values) == set(kinds) == helped
    return values


def statistics(**changes: Any) -> dict[str, Any]:
    """The statistics of a pool, without a pool."""
    return {
        "node": "a",
        "state": "active",
        "ready": True,
        "authenticated": False,
        "connections": 0,
        "namespaces": 0,
        "pending": 0,
        "drain": None,
        "inbox_bytes": 0,
        "inbound_bytes": 0,
        "generation": 1,
        **Counters().as_dict(),
        **changes,
    }


def test_metrics_have_each_value_once_with_its_kind() -> None:
    """Counters end in _total, and a large one keeps its last digit."""
    values = parsed(render(statistics(delivered=123_456_789_012, connections=7)))
    assert values["cluster_pool_delivered_total"] == {"": 123_456_789_012}
    assert values["cluster_pool_connections"] == {"": 7}
    for name in Counters().as_dict():
        assert f"cluster_pool_{name}_total" in values
    assert values["cluster_pool_drain_remaining"] == {"": 0}
    assert "cluster_pool_drain_budget" not in values


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
