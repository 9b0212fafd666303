"""The wheel that users install."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.real
ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cluster_pool"
"""In the checkout: the package that is imported here may be an installed one."""


def test_the_wheel_has_every_file_of_the_package(tmp_path: Path) -> None:
    """Also those that are no Python: scripts of Redis, the client for browsers, the marker."""
    pytest.importorskip("setuptools", "77")
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, source / PACKAGE.name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        inside = {name for name in packed.namelist() if name.startswith(f"{PACKAGE.name}/")}
    files = {path for path in (source / PACKAGE.name).rglob("*") if path.is_file()}
    assert inside == {path.relative_to(source).as_posix() for path in files}
    assert "cluster_pool/static/cluster-socket.js" in inside
