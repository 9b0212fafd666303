"""Charts have a bar for each row and a panel for each series, with the words that explain them."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools.bench.table import Row

pytest.importorskip("matplotlib", reason="the extra [charts] is not installed")

from tools.bench import chart  # behind the check, because it needs matplotlib

FLOOR = Row("floor", "µs", [10.0], name="floor")
ROWS = [
    FLOOR,
    Row("", "µs", [12.0, 12.5, 13.0], floors=[10.0] * 3, group="broadcast", name="cluster_pool"),
    Row("", "µs", [97.0], floors=[10.0], group="broadcast", name="others <& co>"),
    Row("", "µs", [], group="sends", name="gone", note="not installed: why; 1.2"),
    Row("", "µs", [5.55], wrong="WRONG: lost", group="sends", name="wrong"),
]


def drawn(rows: list[Row], folder: Path) -> dict[str, str]:
    """The texts of each picture; whatever the words, it is XML."""
    return {
        path.name: " ".join(ElementTree.parse(path).getroot().itertext())
        for path in chart.draw(rows, {"machine": "2 CPUs"}, folder)
    }


def test_bars_have_names_values_and_ratios(tmp_path: Path) -> None:
    """Or the reason why there is none."""
    (picture,) = drawn(ROWS, tmp_path).values()
    for text in (
        *("broadcast", "sends", "cluster_pool", "12.5 µs, 1.25 ×", "others <& co>", "97 µs, 9.7 ×"),
        *("not installed: why", "WRONG: lost", "2 CPUs"),
    ):
        assert text in picture
    assert "5.55" not in picture


def test_lines_have_a_panel_for_each_series(tmp_path: Path) -> None:
    """Each under its name."""
    series = {"one budget": [(0.0, 0.0), (9.0, 50.0)], "at once": [(0.0, 900.0), (9.0, 0.0)]}
    (picture,) = drawn([Row("reconnects", "", [1.0], series=series)], tmp_path).values()
    assert all(text in picture for text in ("one budget", "at once", "reconnects", "SIGTERM"))


def test_nothing_to_compare_is_no_picture(tmp_path: Path) -> None:
    """A bench of other scenarios draws nothing."""
    assert drawn([FLOOR], tmp_path) == {}


def test_the_same_rows_are_the_same_picture(tmp_path: Path) -> None:
    """So that a picture in the repository changes only when its numbers do."""
    (path,) = chart.draw(ROWS, {}, tmp_path)
    before = path.read_text()
    chart.draw(ROWS, {}, tmp_path)
    assert path.read_text() == before
