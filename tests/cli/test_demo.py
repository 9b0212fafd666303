"""The whole demo: on a terminal, into a pipe, and with a reader that ends."""

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

pytestmark = pytest.mark.real


def on_a_terminal(columns: int, *arguments: str, **environment: str) -> tuple[int, str]:
    """The exit status of a command and its output to a terminal, without escape sequences."""
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


@pytest.mark.slow
def test_demo_on_a_terminal_shows_rows_and_a_moving_lease() -> None:
    """Each row is whole, the channel can be copied, and a bar moves until the lease ends."""
    status, shown = on_a_terminal(80, "demo", "--clients", "9")
    assert status == 0, shown
    lines = re.split(r"[\r\n]+", shown)
    assert max(map(len, lines)) <= 80
    assert len([line for line in lines if line.startswith("ok ")]) == 9
    assert any(re.fullmatch(r" +cluster_pool_demo_\w+:\{demo\}", line) for line in lines)
    bars = {line[:22] for line in lines if line.startswith("[#")}
    assert len(bars) >= 5, bars
    assert lines[-2].startswith("Every number is right (")


@pytest.mark.slow
def test_demo_into_a_pipe_prints_lines_or_one_json_object(tmp_path: Path) -> None:
    """A line for each scene and each row, and some while it waits; as JSON one object.

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


@pytest.mark.slow
def test_demo_into_head_ends_with_its_nodes_and_files(tmp_path: Path) -> None:
    """``demo | head -1``: no error message; no process runs on, and no file stays."""
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
