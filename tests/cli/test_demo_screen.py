"""The demo's output, on terminals of any width."""

import pytest

from cluster_pool.cli.demo_screen import HEADING, Lines, Row, lines_of

CHANNEL = "cluster_pool_demo_1a2b3c4d:{demo}"


ROWS = [
    Row("connect", 3000, 3000, 0, None, 123456.7, True, "server, 3 nodes, clients: all up"),
    Row("targeted sends after the kill", 3000, 2999, 1, 29.8, 31.5, False, "1 not confirmed"),
    Row("PUBLISH, as by redis-cli", 300, 300, 0, 3.8, 4.4, True, CHANNEL),
    Row("SIGTERM of a node", 9, 9, 0, None, 4.4, True, "closed with 1012, exit status 0"),
]


@pytest.mark.parametrize("width", [20, 40, 60, 77, 78, 80, 100, 129, 130, 200])
def test_demo_rows_fit_any_terminal_uncut(width: int) -> None:
    """Every line fits, or is one word that must be copied whole; no part of a row is missing."""
    assert len(HEADING) <= 78
    for row in ROWS:
        lines = lines_of(row, width)
        for line in lines:
            assert len(line) <= width or len(line.split()) == 1, line
        text = " ".join(" ".join(lines).split())
        assert row.scene in text
        assert row.remark in text
        assert text.startswith("ok" if row.right else "WRONG")
        for number in (row.sent, row.delivered, row.lost, row.median_ms, row.longest_ms):
            assert number is None or str(number) in text


def test_demo_rows_on_a_dumb_terminal_are_uncut(capsys: pytest.CaptureFixture[str]) -> None:
    """TERM=dumb: the same rows, and lines instead of moving bars."""
    screen = Lines(width=60)
    screen.scene("now")
    for row in ROWS:
        screen.row(row)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert f"      {CHANNEL}" in lines
