"""The page of metrics lists every metric as it is, and no other."""

from cluster_pool.core.metrics import Family, families
from cluster_pool.core.statistics import NOT_STARTED
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "metrics.md"


def row(family: Family) -> str:
    """The row of a metric in the table; print it when one is missing."""
    name = family.name + ("_total" if family.kind == "counter" else "")
    labels = ", ".join(labels_of(family))
    return f"| `{name}{f'{{{labels}}}' if labels else ''}` | {family.kind} | {family.help} |"


def labels_of(family: Family) -> list[str]:
    """The names of its labels; a node of a pool that was never started has them, too."""
    return list(family.samples[0].labels) if family.samples else []


def test_the_table_has_every_metric() -> None:
    """With its labels, its kind and its help, in the order of the scrape."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `cluster_pool_")]
    wanted = [row(family) for family in families(NOT_STARTED)]
    assert rows == wanted, "the table should be:\n" + "\n".join(wanted)
