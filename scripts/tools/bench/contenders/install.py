"""An environment for each contender, made once and kept in a folder beside the checkout.

Delete the folder (``.venv-bench-…``, ``.node-bench-…``) to have newer versions installed.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
MARK = "installed"
"""A file in each folder: what was installed when all had gone well."""
INSTALL_TIMEOUT = 600.0
LONGEST_REASON = 120


class NotInstalledError(Exception):
    """It cannot be installed here; the text says why."""


@dataclass(frozen=True)
class Installed:
    """How to run a contender, and what it is made of."""

    command: Sequence[str]
    versions: str


async def python_environment(name: str, packages: Sequence[str]) -> Path:
    """The interpreter of a virtual environment that has the packages.

    Raises:
        NotInstalledError: it could not be made.
    """
    folder = ROOT / f".venv-bench-{name}"
    python = folder / "bin" / "python"
    if not _marked(folder, packages):
        await _run(sys.executable, "-m", "venv", "--clear", str(folder))
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        await _run(*pip, *packages)
        _mark(folder, packages)
    return python


async def node_environment(name: str, packages: Sequence[str]) -> Path:
    """A folder whose ``node_modules`` has the packages.

    Raises:
        NotInstalledError: node or npm is missing, or it could not be made.
    """
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NotInstalledError(f"there is no {program} here")
    folder = ROOT / f".node-bench-{name}"
    if not _marked(folder, packages):
        folder.mkdir(exist_ok=True)
        npm = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder)]
        await _run(*npm, *packages)
        _mark(folder, packages)
    return folder


def python_versions(python: Path, packages: Sequence[str]) -> str:
    """``NAME VERSION, …`` of what is in the environment of this interpreter."""
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    found = {
        distribution.name.lower().replace("_", "-"): distribution.version
        for distribution in metadata.distributions(path=[str(site)])
    }
    return ", ".join(
        f"{name} {found[key]}" for name in packages if (key := name.replace("_", "-")) in found
    )


def node_versions(folder: Path, packages: Sequence[str]) -> str:
    """``NAME VERSION, …`` of the packages and of node itself."""
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    found = [f"node {node.stdout.strip().lstrip('v')}"]
    for name in packages:
        about = json.loads((folder / "node_modules" / name / "package.json").read_text())
        found.append(f"{name} {about['version']}")
    return ", ".join(found)


def reason(output: str) -> str:
    """The line of an installer's output that tells what went wrong, fit for a table's cell."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(npm )?err(or)?\b", line, re.IGNORECASE)]
    telling = errors or lines[-1:] or ["it said nothing"]
    plain = re.sub(r"\w+://\S+", "", telling[0]).replace("|", "/")
    return " ".join(plain.split())[:LONGEST_REASON]


def _marked(folder: Path, packages: Sequence[str]) -> bool:
    try:
        return (folder / MARK).read_text().split() == list(packages)
    except OSError:
        return False


def _mark(folder: Path, packages: Sequence[str]) -> None:
    (folder / MARK).write_text("\n".join(packages) + "\n")


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # so that all it starts can be ended with it
    )
    try:
        async with asyncio.timeout(INSTALL_TIMEOUT):
            output, _ = await process.communicate()
    except TimeoutError:
        raise NotInstalledError(f"{command[0]} took over {INSTALL_TIMEOUT:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise NotInstalledError(reason(output.decode(errors="replace")))
