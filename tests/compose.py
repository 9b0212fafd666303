"""Runs the services of a compose file as processes of this machine, with their own commands."""

import os
import re
import subprocess
import tempfile
from typing import Any, Self

import yaml

from tests.servers import DEPLOY
from tools.harness.ports import HOST, free_port

VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)[^}]*\}")


class Compose:
    """The services of a file in ``deploy/`` except containers of Python, each at a free port.

    Names of services become addresses of loopback; folders of containers are temporary.

    Attributes:
        services: as the file has them, with variables replaced.
        ports: of the services that listen, by name.
    """

    def __init__(self, file: str, **variables: str) -> None:
        text = VARIABLE.sub(lambda found: variables[found[1]], (DEPLOY / file).read_text())
        self.services: dict[str, Any] = yaml.safe_load(text)["services"]
        self.ports = {
            name: free_port()
            for name, service in self.services.items()
            if "PORT" in service.get("environment", ())
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._folders: dict[str, tempfile.TemporaryDirectory[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for name in list(self._processes):
            self.kill(name)
        for folder in self._folders.values():
            folder.cleanup()

    def start(self, name: str) -> None:
        """Start a service; again in the folder that it had."""
        service = self.services[name]
        if name not in self._folders:
            self._folders[name] = tempfile.TemporaryDirectory(prefix="cluster_pool-")
        shell, option, script = service["command"]
        script = script.replace("$$", "$")
        script = script.replace("/deploy/", f"{DEPLOY}/")
        script = script.replace("/data", self._folders[name].name)
        script = script.replace("redis-sentinel /", "redis-server /")
        environment = {
            key: self._placed(str(value)) for key, value in service["environment"].items()
        }
        if name in self.ports:
            environment |= {
                "NAME": HOST,
                "PORT": str(self.ports[name]),
                "BUS_PORT": str(free_port()),
            }
        if "redis-server /" in script:
            script = f"{script.rstrip()} --sentinel"
        self._processes[name] = subprocess.Popen(
            [shell, option, script],
            env={**os.environ, **environment},
            cwd=self._folders[name].name,
            stdout=subprocess.DEVNULL,
        )

    def wait(self, name: str) -> int:
        """Wait for a service to end by itself; gives its exit status."""
        return self._processes[name].wait(60)

    def kill(self, name: str) -> None:
        """SIGKILL a service."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def url(self, node: str) -> str:
        """The URL of Redis that a node is given."""
        return self._placed(self.services[node]["environment"]["CLUSTER_POOL_REDIS"])

    def _placed(self, text: str) -> str:
        """The text with names of services replaced by where they listen here."""
        for name, port in self.ports.items():
            text = re.sub(rf"\b{name}\b([: ])\d+", rf"{HOST}\g<1>{port}", text)
            text = re.sub(rf"\b{name}\b", f"{HOST}:{port}", text)
        return text
