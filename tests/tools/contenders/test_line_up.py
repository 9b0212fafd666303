"""The compared libraries, and the reasons why one of them cannot run here."""

from pathlib import Path

import pytest

from tools import contenders
from tools.contenders import line_up
from tools.contenders.line_up import OTHERS, OURS, Contender

FOLDER = Path(contenders.__file__).parent


def test_every_contender_has_a_program() -> None:
    """In the folder, and a name of its own."""
    names = [contender.name for contender in (OURS, *OTHERS)]
    assert len(names) == len(set(names)) == 5
    for contender in (OURS, *OTHERS):
        assert any(
            (FOLDER / name).exists() for name in (contender.program, f"{contender.program}.py")
        )


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package of Python, one of Node.js, or Node.js itself."""
    assert OURS.missing() == ""
    assert Contender("it", "it", ("pytest", "no-such-thing")).missing() == "without no-such-thing"
    monkeypatch.setattr(line_up, "NODE_MODULES", tmp_path)
    monkeypatch.setattr(line_up.shutil, "which", lambda name: name)
    assert "without socket.io" in OTHERS[0].missing()
    monkeypatch.setattr(line_up.shutil, "which", lambda name: None)
    assert OTHERS[0].missing() == "there is no node here"


def test_versions_are_those_of_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python packages with their server, or Node.js packages."""
    assert "pytest " in Contender("it", "it", ("pytest",)).versions()
    assert "uvicorn " in Contender("it", "it", ("pytest",)).versions()
    monkeypatch.setattr(line_up, "NODE_MODULES", tmp_path)
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "package.json").write_text('{"version": "1.2.3"}')
    assert Contender("it", "it.cjs", ("ws",)).versions() == "ws 1.2.3"
