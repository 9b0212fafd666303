"""Charts are well-formed SVG that has the values in it, in the right places."""

import math
from xml.etree import ElementTree

import pytest

from tools.bench.chart import WIDTH, Bar, Scale, bars, number, timeline

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return root


def words(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def lengths(root: ElementTree.Element, kind: str) -> list[float]:
    return [
        float(box.attrib["width"]) for box in root.iter(f"{SVG}rect") if box.get("class") == kind
    ]


def paths(root: ElementTree.Element) -> list[str]:
    return [path.attrib["d"] for path in root.iter(f"{SVG}path")]


GROUPS = {
    "broadcast": [
        Bar("ours", 12.5, "12.5 µs, 1.14 ×", (12.0, 13.0), ours=True),
        Bar("others <& co>", 97.0, "97 µs, 8.8 ×", (90.0, 110.0)),
    ],
    "sends": [Bar("ours", 25.0, "25 µs", ours=True), Bar("none", None, "not installed: why")],
}


def test_bars_have_labels_values_and_the_floor() -> None:
    """Also the reason why one is missing; whatever the words, the result is XML."""
    root = parsed(bars(GROUPS, "CPU", "µs", ("bare write(2): 11 µs", 11.0), ["a remark"]))
    said = words(root)
    for group, each in GROUPS.items():
        assert group in said
        assert all(bar.label in said and bar.told in said for bar in each)
    assert {"CPU", "bare write(2): 11 µs", "a remark", "µs"} <= set(said)
    assert len(lengths(root, "ours")) == 2
    assert len(lengths(root, "other")) == 1


def test_bars_are_as_long_as_their_values() -> None:
    """On a linear scale, which starts at nought."""
    root = parsed(bars(GROUPS, "CPU", "µs"))
    first, second = lengths(root, "ours")
    assert second == pytest.approx(2 * first, abs=0.2)
    assert lengths(root, "other")[0] == pytest.approx(first * 97 / 12.5, abs=1)


def test_two_powers_of_ten_are_drawn_on_a_logarithmic_scale() -> None:
    """Which is said; equal ratios are equal lengths, and nothing leaves the picture."""
    each = [Bar(str(value), value, f"{value} µs") for value in (1.0, 10.0, 100.0)]
    root = parsed(bars({"": each}, "CPU", "µs"))
    assert "µs, logarithmic scale" in words(root)
    one, ten, hundred = lengths(root, "other")
    assert ten - one == pytest.approx(hundred - ten, abs=0.3)
    assert 0 < one < hundred < WIDTH


def test_bars_of_nothing() -> None:
    """A comparison in which nobody could be measured is a picture too."""
    assert "why" in words(parsed(bars({"a": [Bar("x", None, "why")]}, "CPU", "µs")))
    parsed(bars({}, "CPU", "µs"))


@pytest.mark.parametrize(("low", "high"), [(0.03, 700.0), (3.0, 1.0e6), (8.0, 9.0), (0.0, 5.0)])
def test_scales_end_on_round_numbers_around_their_values(low: float, high: float) -> None:
    """With at least two ticks, all of them between the ends."""
    scale = Scale.of([low, high], 100, 700)
    assert scale.low <= low <= high <= scale.high
    assert 100 <= scale.at(low) < scale.at(high) <= 700
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 14
    assert all(100 <= scale.at(tick) <= 700.001 for tick in ticks)


SERIES = {
    "node-1": [(0.0, 0.0), (10.0, 400.0), (20.0, 0.0)],
    "node-2": [(0.0, 100.0), (20.0, 800.0)],
}


def test_a_timeline_has_a_curve_and_a_name_for_each_series() -> None:
    """The limit is a dashed line, told beside it."""
    root = parsed(timeline(SERIES, "Closes", "per second", "seconds", 900))
    assert {"node-1", "node-2", "Closes", "per second", "seconds", "limit 900"} <= set(words(root))
    assert len(paths(root)) == 2
    assert [line.get("class") for line in root.iter(f"{SVG}line")].count("mark") == 1
    assert paths(root)[0].count("L") == 2


def test_panels_share_their_axes() -> None:
    """One below the other, each with the limit; the same value is as high in each."""
    same = {"a": [(0.0, 0.0), (9.0, 50.0)], "b": [(0.0, 0.0), (9.0, 50.0)]}
    root = parsed(timeline(same, "t", "y", "x", 60, panels=True))
    assert [line.get("class") for line in root.iter(f"{SVG}line")].count("mark") == 2
    heights = []
    for path in paths(root):
        (_, low), (_, high) = [tuple(map(float, at.split())) for at in path[1:].split("L")]
        heights.append(low - high)
    assert heights[0] == pytest.approx(heights[1])
    assert heights[0] > 30


def test_steps_hold_a_value_until_the_next() -> None:
    """Across first, then up."""
    (path,) = paths(parsed(timeline({"a": SERIES["node-1"]}, "t", "y", "x", step=True)))
    assert path.count("H") == path.count("V") == 2
    assert "L" not in path


def test_a_timeline_of_nothing() -> None:
    """No series, an empty one, or a single point are no errors."""
    for series in ({}, {"a": []}, {"a": [(3.0, 0.0)]}):
        for panels in (False, True):
            parsed(timeline(series, "t", "y", "x", panels=panels))


def test_numbers_are_short() -> None:
    """Three digits, or all that are before the point."""
    values = [0.0, 0.0812, 1.5, 12.34, 99.96, 411.7, 12345.6]
    assert [number(value) for value in values] == [
        *("0", "0.0812", "1.5", "12.3", "100", "412", "12,346"),
    ]
    assert math.isclose(float(number(12.34)), 12.3)
