"""What the demo shows, on terminals of any width and where there is none."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

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
def test_no_row_is_cut(width: int) -> None:
    """Every line fits, or is one word that must be copied whole; nothing of a row is missing."""
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


def test_a_terminal_that_only_prints_lines_cuts_none(capsys: pytest.CaptureFixture[str]) -> None:
    """TERM=dumb: the same rows, and lines instead of what moves."""
    screen = Lines(width=60)
    screen.scene("now")
    for row in ROWS:
        screen.row(row)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert f"      {CHANNEL}" in lines


def on_a_terminal(columns: int, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit status of a command, and what a terminal was sent, escape sequences left out."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    unset = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"}
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster_pool", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**inherited, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    got = b""
    try:
        while data := os.read(ours, 65536):
            got += data
    except OSError:  # what Linux says of a terminal that nobody has open any more
        pass
    finally:
        os.close(ours)
        status = process.wait(60)
    return status, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", got.decode())


def test_the_demo_on_a_terminal_of_80_columns() -> None:
    """Each row is whole, the channel can be copied, and something moves while the lease ends."""
    status, shown = on_a_terminal(80, "demo", "--clients", "9")
    assert status == 0, shown
    lines = re.split(r"[\r\n]+", shown)
    assert max(map(len, lines)) <= 80
    assert len([line for line in lines if line.startswith("ok ")]) == 9
    assert any(re.fullmatch(r" +cluster_pool_demo_\w+:\{demo\}", line) for line in lines)
    bars = {line[:22] for line in lines if line.startswith("[#")}
    assert len(bars) >= 5, bars
    assert lines[-2].startswith("Every number is right (")


def test_the_demo_without_a_terminal(tmp_path: Path) -> None:
    """A line for each scene and each row, and some while nothing happens; as JSON one object.

    Its nodes are of the package that runs it, also in a folder with another of the same name.
    """
    (tmp_path / "cluster_pool").mkdir()
    (tmp_path / "cluster_pool" / "__init__.py").write_text("raise SystemExit('another one')")
    command = [sys.executable, "-P", "-m", "cluster_pool", "demo", "--clients", "30"]
    both = [
        subprocess.Popen(
            [*command, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        for more in ((), ("--json",))
    ]
    (text, said), (as_json, said_too) = (process.communicate(timeout=120) for process in both)
    assert [process.returncode for process in both] == [0, 0], text
    assert (said, said_too) == ("", "")
    lines = text.splitlines()
    assert len([line for line in lines if line.startswith("ok    ")]) == 9
    assert len([line for line in lines if line.startswith("… [")]) >= 2
    (line,) = as_json.splitlines()
    result = json.loads(line)
    assert result["right"] is True
    assert len(result["rows"]) == 9
    assert all(row["right"] and row["lost"] == 0 for row in result["rows"])


def test_a_demo_that_nobody_reads_ends_with_its_nodes(tmp_path: Path) -> None:
    """``demo | head -1``: no complaint, and nothing runs on or stays on disk."""
    command = (
        f"{sys.executable} -m cluster_pool demo --clients 9 | head -1; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.stdout.splitlines()[1:] == ["141"]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
