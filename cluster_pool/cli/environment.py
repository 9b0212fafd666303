"""What the environment sets: only settings, and only what was meant for us.

Options that say where Redis is, how its cluster is called and how ``serve`` runs have a variable
each, which stands beside the option. What one command does (whom it closes, how a drain goes) has
none: it would act on every later command.
"""

import os
import re
from collections.abc import MutableMapping
from typing import Final

_INJECTED: Final = re.compile(r"(?:tcp|udp|sctp)://\S+")
_NAME: Final = re.compile(r"CLUSTER_POOL_(?:\w+_)?PORT")


def set_aside(environment: MutableMapping[str, str] = os.environ) -> list[str]:
    """Take out what Kubernetes puts into a container for Services whose names begin like ours.

    A Service ``cluster-pool`` becomes ``CLUSTER_POOL_PORT=tcp://10.0.0.1:80``, which is no port.

    Returns:
        What was taken out, as ``NAME=VALUE``.
    """
    found = [
        name
        for name, value in environment.items()
        if _NAME.fullmatch(name) and _INJECTED.fullmatch(value)
    ]
    return [f"{name}={environment.pop(name)}" for name in sorted(found)]
