"""The README and the pages in docs/, taken apart: blocks of code, headings and links."""

import re
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    """One fenced block of code.

    Attributes:
        page: the file, relative to the repository.
        line: its first line there.
        kind: its info string.
        text: what stands between the fences.
    """

    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def tokens(page: Path) -> list[Token]:
    """Everything on a page, in order."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def blocks(kind: str | None = None) -> list[Block]:
    """The blocks of all pages, or those of one kind."""
    found = []
    for page in PAGES:
        for token in tokens(page):
            if token.type in ("fence", "code_block"):
                line = token.map[0] + 1 if token.map else 0
                name = str(page.relative_to(ROOT))
                found.append(Block(name, line, token.info, token.content))
    return [block for block in found if kind is None or block.kind == kind]


def block_with(text: str, page: str | None = None) -> Block:
    """The one block in which this stands, on one page or on all."""
    found = [one for one in blocks() if text in one.text and page in (None, one.page)]
    assert len({one.text for one in found}) == 1, f"{text!r} stands in {[*map(str, found)]}"
    return found[0]


def inline(page: Path, kind: str) -> list[Token]:
    """The parts of sentences of one kind: links, images, code."""
    return [part for token in tokens(page) for part in token.children or () if part.type == kind]


def links(page: Path) -> list[str]:
    """Where the links and images of a page lead."""
    hrefs = [str(link.attrs["href"]) for link in inline(page, "link_open")]
    return hrefs + [str(image.attrs["src"]) for image in inline(page, "image")]


def anchors(page: Path) -> set[str]:
    """The names of a page's headings in links, as GitHub makes them."""
    found: set[str] = set()
    for token, text in pairwise(tokens(page)):
        if token.type == "heading_open":
            words = "".join(part.content for part in text.children or ())
            anchor = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            assert anchor not in found, f"two headings {anchor!r} in {page.name}"
            found.add(anchor)
    return found
