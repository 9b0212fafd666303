"""The README's first command installs the demo: it says so, and does it once."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[1]

FAKE = """#!/bin/sh
# Stands for a Python: copies itself as an "environment", and notes its installations.
case "$*" in
"-m venv"*) for last; do :; done
    mkdir -p "$last/bin" && cp "$0" "$last/bin/python"
    printf '#!/bin/sh\\necho the demo, with "$@"\\n' >"$last/bin/cluster-pool"
    chmod +x "$last/bin/cluster-pool" ;;
"-m pip"*) for last; do :; done
    read line <"$NEWS"   # waits here until the test has seen what was said
    [ -e "$FAIL" ] && exit 9
    echo "$last" | sed 's,/[^[]*,FOLDER,' >>"$INSTALLED" ;;
*) exec "$REAL" "$@" ;;
esac
"""


class Clone:
    """A copy of the project, with a Python that installs nothing."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone"
        self.root.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.root)
        shutil.copytree(ROOT / "cluster_pool", self.root / "cluster_pool")
        (self.root / "scripts").mkdir()
        for name in ("_environment", "demo"):
            shutil.copy(ROOT / "scripts" / name, self.root / "scripts")
        (folder / "python").write_text(FAKE)
        (folder / "python").chmod(0o755)
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.fail = folder / "fail"
        self.installed = folder / "installed"
        self.news = folder / "news"
        os.mkfifo(self.news)
        self.environment = {
            **os.environ,
            "PYTHON": str(folder / "python"),
            "REAL": sys.executable,
            "NEWS": str(self.news),
            "FAIL": str(self.fail),
            "INSTALLED": str(self.installed),
            "TMPDIR": str(self.temporary),
        }

    def demo(self, *lines: str) -> tuple[int, str]:
        """Run it; before each installation it must have printed a line with these words."""
        self.installed.write_text("")
        process = subprocess.Popen(
            [self.root / "scripts" / "demo", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        assert process.stderr is not None
        for line in lines:
            assert line in process.stderr.readline()
            if "installing" in line:
                self.news.write_text("go on\n")
        out, said = process.communicate(timeout=60)
        assert said == ""
        assert list(self.temporary.iterdir()) == []
        return process.returncode, out


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


NEEDS, PACKAGE = "FOLDER[embedded,uvloop]\n", "FOLDER\n"
MAKING, FETCHING, BUILDING = "making .venv-demo", "installing what", "installing cluster_pool"


def test_it_names_each_installation_and_does_it_once(clone: Clone) -> None:
    """On standard error; the second time it prints, asks and installs nothing."""
    shown = (0, "the demo, with demo --json\n")
    assert clone.demo(MAKING, FETCHING, BUILDING) == shown
    assert clone.installed.read_text() == NEEDS + PACKAGE
    assert clone.demo() == shown
    assert clone.installed.read_text() == ""


def test_it_installs_changed_parts(clone: Clone) -> None:
    """Another source is built again, without its needs; other needs are fetched."""
    clone.demo(MAKING, FETCHING, BUILDING)
    with (clone.root / "cluster_pool" / "__init__.py").open("a") as source:
        source.write("# changed\n")
    clone.demo(BUILDING)
    assert clone.installed.read_text() == PACKAGE
    with (clone.root / "pyproject.toml").open("a") as needs:
        needs.write("# changed\n")
    clone.demo(FETCHING, BUILDING)
    assert clone.installed.read_text() == NEEDS + PACKAGE


def test_an_interrupted_installation_is_repeated(clone: Clone) -> None:
    """Only the finished steps count."""
    clone.fail.touch()
    assert clone.demo(MAKING, FETCHING) == (9, "")
    clone.fail.unlink()
    assert clone.demo(FETCHING, BUILDING)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM])
def test_an_end_by_a_signal_leaves_no_copy(clone: Clone, number: int) -> None:
    """The copy lies in the temporary directory during the installation only."""
    process = subprocess.Popen(
        [clone.root / "scripts" / "demo"],
        stderr=subprocess.PIPE,
        text=True,
        env=clone.environment,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        assert any(FETCHING in line for line in process.stderr)
        with clone.news.open("w"):  # opened when the installation has begun, which waits for more
            os.killpg(process.pid, number)
            assert process.wait(90) == 128 + number
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert list(clone.temporary.iterdir()) == []


def test_a_python_that_is_too_old_is_an_error(clone: Clone, tmp_path: Path) -> None:
    """It names the needed version, and nothing is made."""
    clone.environment["PYTHON"] = str(tmp_path / "no-python")
    assert clone.demo("needs Python 3.11 or newer") == (1, "")
    assert not list(clone.root.glob(".venv*"))
