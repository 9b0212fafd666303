"""The page about the architecture names files and classes that exist."""

import re
from functools import cache

from tests.docs.pages import ROOT, blocks, inline

PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "cluster_pool"


@cache
def classes() -> set[str]:
    """The names of all classes of the package."""
    sources = [path.read_text() for path in PACKAGE.rglob("*.py")]
    return {
        name for source in sources for name in re.findall(r"^class (\w+)", source, re.MULTILINE)
    }


def test_files_exist() -> None:
    """Paths in the package, with their folder or without."""
    for code in inline(PAGE, "code_inline"):
        for path in re.findall(r"[\w/]+\.(?:py|lua)\b", code.content):
            found = [*ROOT.glob(path), *PACKAGE.rglob(path), *PACKAGE.glob(path)]
            assert found, path


def test_classes_exist() -> None:
    """In sentences, in drawings, and as parties of the walks."""
    text = [code.content for code in inline(PAGE, "code_inline")]
    drawings = [one.text for one in blocks() if one.page == "docs/architecture.md"]
    names = set(re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", " ".join([*text, *drawings])))
    parts = [line for one in drawings for line in one.splitlines() if re.match(r"  [├└│]", line)]
    for line in parts:
        found = re.match(r"[ ├└│─]+([A-Z]\w+)(?:, ([A-Z]\w+))?", line)
        assert found, line
        names |= set(filter(None, found.groups()))
    assert names - classes() == {"WebSocket"} & names
