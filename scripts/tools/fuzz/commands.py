"""The command line and its environment variables, up to the point where Redis cannot be reached."""

import logging
from dataclasses import dataclass, field
from random import Random
from typing import Any

import typer
from typer.testing import CliRunner

from cluster_pool.cli import app
from cluster_pool.cli.common import DONE, NO, NO_REDIS, USAGE
from tools.fuzz import mutation

NOWHERE = "unix:///nonexistent/redis.sock"
NO_URLS = ("", "redis://", "http://127.0.0.1", "unix://", "redis://[::1", f"{NOWHERE}?db=x&y=z")
COMMANDS = ("serve", "send", "broadcast", "close", "members", "nodes")
"""All but the demo, which would begin."""
LEFT_ALONE = ("redis", "wait", "help")
"""Redis must not be reached and is not waited for."""
PLAUSIBLE = (
    *("1", "2.5", "1000", "nan", "room", "reject", "debug", "embedded", "a" * 16),
    *("module:attribute", "json:loads", ".json:loads", "json:loads.x", "json:", "\n:x"),
)


@dataclass
class Command:
    """The words of a command line, and the variables that are set."""

    words: list[str]
    environment: dict[str, str] = field(default_factory=dict)


class Commands:
    """Every command ends with one of its statuses, and a traceback is none."""

    name, share = "commands", 0.4

    def __init__(self) -> None:
        group: Any = typer.main.get_command(app)
        self._parameters = {name: group.commands[name].params for name in COMMANDS}
        self._runner = CliRunner()

    def make(self, random: Random) -> Command:
        name = random.choice(COMMANDS)
        made = Command([name])
        redis = NOWHERE if random.random() < 0.9 else random.choice(NO_URLS)
        made.environment["CLUSTER_POOL_REDIS"] = redis
        for parameter in self._parameters[name]:
            if parameter.name in LEFT_ALONE:
                continue
            if parameter.param_type_name == "argument":
                made.words.append(_word(random))
            elif random.random() < 0.15:
                _set_option(random, made, parameter)
        if random.random() < 0.05:
            made.words.insert(random.randint(0, len(made.words)), _word(random))
        return made

    def judge(self, case: Command) -> bool:
        ours = logging.getLogger("cluster_pool").handlers
        before = list(ours)
        result = self._runner.invoke(app, case.words, env=case.environment)
        logging.getLogger().handlers.clear()  # serve's, on what the runner has closed
        ours[:] = before  # other commands' notes go there
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code in (DONE, NO, USAGE, NO_REDIS), result.exit_code
        return result.exit_code != USAGE


def _set_option(random: Random, made: Command, parameter: Any) -> None:
    if random.random() < 0.5 and parameter.envvar:
        made.environment[str(parameter.envvar)] = _word(random)
    else:
        made.words.append(random.choice(parameter.opts))
        if not parameter.is_flag:
            made.words.append(_word(random))


def _word(random: Random) -> str:
    """A word that a shell can hand over: bytes without zeros, decoded as Python decodes them."""
    if random.random() < 0.6:
        return random.choice(PLAUSIBLE)
    raw = random.choice((mutation.text(random), random.choice(mutation.TELLING_TEXT)))
    return raw.encode(errors="surrogatepass").replace(b"\0", b"").decode(errors="surrogateescape")
