"""The links of several shards as one."""

from types import SimpleNamespace
from typing import Any

import pytest

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.cluster_links import ClusterLinks
from cluster_pool.backplane.command_connection import ScriptCall
from tests.support import async_test


@async_test
async def test_each_key_has_the_link_of_its_shard() -> None:
    """Home's is that of the given generation; without a link every command fails."""
    generations = SimpleNamespace(unavailable=lambda: BackplaneUnavailableError("is down"))
    home: Any = SimpleNamespace()
    up: Any = SimpleNamespace(commands=SimpleNamespace(script=lambda call: call.name))
    down: Any = SimpleNamespace(commands=None, generations=generations)
    shards = {"home": home, "up": up, "down": down}
    topology: Any = SimpleNamespace(home=home, of=shards.__getitem__)
    generation: Any = SimpleNamespace(commands=lambda key: f"the link for {key}")
    links = ClusterLinks(topology, generation)
    assert links.commands("home") == "the link for home"
    assert links.commands("up") is up.commands
    assert links.script(ScriptCall("send", ["up"], [])) == "send"
    for failed in (
        links.commands("down").call("GET", "x"),
        links.script(ScriptCall("", ["down"], [])),
    ):
        with pytest.raises(BackplaneUnavailableError, match="is down") as raised:
            await failed
        assert not raised.value.maybe_executed
