"""Keeps variables away from the options that were not meant for this program.

Options that say where Redis is, how its cluster is called and how ``serve`` runs have a variable
each, which is declared beside the option. Options that say what one command does (which members it
closes, how a drain goes) have none: a variable would act on every later command.
"""

import os
import re
from collections.abc import MutableMapping
from typing import Final

_INJECTED: Final = re.compile(r"(?:tcp|udp|sctp)://\S+")
_NAME: Final = re.compile(r"CLUSTER_POOL_(?:\w+_)?PORT")


def set_aside(environment: MutableMapping[str, str] = os.environ) -> list[str]:
    """Remove what Kubernetes puts into a container for Services named like this program.

    A Service ``cluster-pool`` becomes ``CLUSTER_POOL_PORT=tcp://10.0.0.1:80``, which is no port.

    Returns:
        The removed variables, as ``NAME=VALUE``.
    """
    found = [
        name
        for name, value in environment.items()
        if _NAME.fullmatch(name) and _INJECTED.fullmatch(value)
    ]
    return [f"{name}={environment.pop(name)}" for name in sorted(found)]
