"""Docstrings say what happens: subject, verb, object. These rules catch the worst of the others."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import cluster_pool

ROOT = Path(cluster_pool.__file__).parent
TESTS = Path(__file__).parent
OPENINGS = re.compile(r"(?:Who|Whoever|Whom|Whose|What|Whatever|Nobody|Somebody|Of)\b")
"""A text that begins in this way has no subject, or hides it behind a clause."""
OTHERS = re.compile(r"\b(?:[Ww]hoever|[Ww]homever|[Ss]omebody|(?<!`)[Ll]edger)\b")
"""Words for which there is a plainer one: a caller, another process, the drain budget."""
NAMES = re.compile(r"def (test_(?:who|whoever|whose|what|whatever|nobody|somebody|of)_\w+)")
"""Tests that are called after a clause."""


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """The docstrings of a file with their lines, those of attributes and constants included."""
    for node in ast.walk(ast.parse(path.read_text())):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            value = getattr(statement, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant):
                yield statement.lineno, str(value.value)


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """The comments of a script that have a line of their own."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.lstrip().startswith("-- "):
            yield number, line.lstrip(" -")


def beside_the_package() -> list[Path]:
    """The files of the tests and of the programs in scripts/."""
    return sorted(TESTS.rglob("*.py")) + sorted((TESTS.parent / "scripts").rglob("*.py"))


def texts() -> Iterator[tuple[str, str]]:
    """Every docstring of package, tests and tools, and every comment of the Lua files."""
    for path in sorted(ROOT.rglob("*")) + beside_the_package():
        read = {".py": docstrings, ".lua": comments}.get(path.suffix)
        for line, text in read(path) if read else ():
            yield (
                f"{path.relative_to(ROOT.parent if ROOT in path.parents else TESTS.parent)}:{line}",
                text,
            )


def test_no_docstring_begins_with_a_clause() -> None:
    """A docstring that begins with "Who", "What", "Nobody" or "Of" says too late what happens."""
    found = [f"{place}: {text}" for place, text in texts() if OPENINGS.match(text)]
    assert not found, "\n".join(found)


def test_docstrings_use_the_plainer_word() -> None:
    """No docstring has a word for which there is a plainer one."""
    found = [f"{place}: {text}" for place, text in texts() if OTHERS.search(text)]
    assert not found, "\n".join(found)


def test_no_test_is_called_after_a_clause() -> None:
    """The name of a test says the behaviour: its subject first, then what happens."""
    found = [
        f"{path.name}: {name}"
        for path in beside_the_package()
        for name in NAMES.findall(path.read_text())
    ]
    assert not found, "\n".join(found)


def test_the_rule_sees_docstrings_of_every_kind(tmp_path: Path) -> None:
    """Modules, classes, functions and attributes have docstrings; scripts have comments."""
    source = tmp_path / "one.py"
    source.write_text(
        '"""One."""\nA = 1\n"""Two."""\nclass C:\n    """Three."""\n    a = 1\n    """Four."""\n'
        '    async def f(self):\n        """Five."""\n        self.b = 1\n        """Six."""\n'
    )
    assert sorted(text for _, text in docstrings(source)) == sorted(
        ["One.", "Two.", "Three.", "Four.", "Five.", "Six."]
    )
    script = tmp_path / "one.lua"
    script.write_text("-- One.\nlocal a = 1 -- two\n  -- Three.\n")
    assert [text for _, text in comments(script)] == ["One.", "Three."]
