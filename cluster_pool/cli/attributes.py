"""Attributes that options name as ``MODULE:ATTRIBUTE``."""

import importlib
import os
import sys
from typing import Any

from cluster_pool.exceptions import InvalidValueError


def load(option: str, name: str) -> Any:
    """The attribute of a module, which is on the path or in the current folder.

    Raises:
        InvalidValueError: there is none; the text names the option.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute or module.startswith("."):
        raise InvalidValueError(f"{option} must be MODULE:ATTRIBUTE, not {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidValueError(f"{option} {name}: {error}") from error
