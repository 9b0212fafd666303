"""The pages are consistent: links lead somewhere, and every block of code is checked."""

import re
from pathlib import Path

import pytest
import typer

from cluster_pool.cli import app
from tests.docs.pages import PAGES, README, ROOT, anchors, blocks, inline, links

CHECKED = {
    "python": "test_python.py: a strict type check; tests and whole programs are run",
    "console": "test_console.py: each command line is run, or parsed by its own program",
    "html": "test_browser_page.py: a browser shows it",
    "json": "test_data.py: parsed",
    "mermaid": "test_data.py: a sequence of messages between parties that are declared",
    "text": "nothing to check: a drawing, or what a program printed",
}
"""Every kind of block, and its test."""

OF_OTHERS = {
    *("--workers", "--graceful-timeout", "--max-requests", "--limit-max-requests"),
    *("--preload", "--workers-lifetime", "--strict", "--some-option"),
    *("--ws", "--reload"),
    *("--ping-timeout", "--websocket-max-message-size", "--websocket-max-frame-size"),
}
"""Options of gunicorn, uvicorn, granian, daphne and mypy, and one that stands for all of ours."""


def test_every_kind_of_block_is_checked() -> None:
    """A block of a kind without a rule fails here."""
    for block in blocks():
        assert block.kind in CHECKED, f"{block}: a block of kind {block.kind!r} has no test"


def test_text_blocks_hold_no_commands() -> None:
    """A command in a text block would escape its test."""
    for block in blocks("text"):
        assert not re.search(r"^\s*[$>] ", block.text, re.MULTILINE), str(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    """Also those to a heading of the same page."""
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


def test_the_readme_leads_to_every_page_and_stays_short() -> None:
    """A newcomer reads it first."""
    linked = {(README.parent / link.partition("#")[0]).resolve() for link in links(README)}
    assert set(PAGES) - {README} <= linked
    assert len(README.read_text().splitlines()) <= 160


def test_paths_of_the_repository_that_pages_name_exist() -> None:
    """Scripts, tests, files of deploy/, modules."""
    for page in PAGES:
        for code in inline(page, "code_inline"):
            for path in re.findall(
                r"(?:scripts|tests|deploy|docs|cluster_pool)/[\w./@-]*", code.content
            ):
                assert (ROOT / path).exists(), f"{page.name}: {path}"


def options() -> dict[str, set[str]]:
    """The options of each command of the command line."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    return {
        name: {option for one in command.params for option in [*one.opts, *one.secondary_opts]}
        for name, command in group.commands.items()
    }


def scripts() -> str:
    """The text of all files in scripts/."""
    programs = [*(ROOT / "scripts").rglob("*.py"), *(ROOT / "scripts").glob("*")]
    return "\n".join(path.read_text() for path in programs if path.is_file())


def test_options_that_pages_name_exist() -> None:
    """Those of the command line, of the scripts, and of a few other programs."""
    ours = set().union(*options().values())
    of_scripts = scripts()
    for page in PAGES:
        for code in inline(page, "code_inline"):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code.content):
                read = (f'"{option}"', f"= {option} ]")  # in Python, and in the shell
                known = option in ours | OF_OTHERS or any(one in of_scripts for one in read)
                assert known, f"{page.name}: {option}"


def test_every_option_of_serve_is_on_its_page() -> None:
    """A new option needs a place in the table."""
    page = (ROOT / "docs" / "serve.md").read_text()
    missing = {one for one in options()["serve"] if f"`{one}`" not in page}
    assert missing <= {"--help", "-h"}
