"""What stands in the checkout beside the package: ``from tests.scripts import proxy``."""

import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"

sys.path.insert(0, str(SCRIPTS))

from faults import account, books, growth, order, proxy, runner  # noqa: E402  # found only now

__all__ = ["SCRIPTS", "account", "books", "growth", "order", "proxy", "runner"]
