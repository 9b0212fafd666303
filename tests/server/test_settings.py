"""The settings of a node: checked when they are made, and unchangeable."""

import dataclasses
from typing import Any

import pytest

from cluster_pool import Auth, History, InvalidValueError, Limits, Timing
from cluster_pool.cluster.stopping import Stopping
from cluster_pool.server.settings import NodeSettings


def test_defaults_are_allowed_and_no_port_but_the_main_one_is_opened() -> None:
    """Without any setting a node listens on loopback alone."""
    settings = NodeSettings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert (settings.admin_port, settings.agent_port) == (None, None)
    assert settings.redis == "redis://localhost:6379/0"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"redis": "http://x"}, "no Redis URL"),
        ({"redis": "redis://x/1"}, "names database '1'"),
        ({"prefix": "{"}, "prefix"),
        ({"node_id": "a\nb"}, "node id"),
        ({"secret": "short"}, "at least 16 bytes"),
        ({"secret": ["s" * 16, "short"]}, "at least 16 bytes"),
        ({"on_conflict": "perhaps"}, "on_conflict"),
        ({"headroom": 0}, "headroom"),
        ({"wait": -1}, "wait"),
        ({"port": None}, "port must be 0 to 65535, not None"),
        ({"port": 65536}, "port must be 0 to 65535, not 65536"),
        ({"port": True}, "port must be 0 to 65535, not True"),
        ({"admin_port": -1}, "admin_port must be 0 to 65535"),
        ({"admin_port": 0, "admin_host": "0.0.0.0"}, "needs a token"),
        ({"agent_port": "8010"}, "agent_port must be 0 to 65535"),
        ({"origins": "https://a.example"}, "origins must be a list of str"),
        ({"origins": ["a.example"]}, "no origin"),
        ({"forwarded_allow_ips": "10.0.0.0/99"}, "no address or network"),
        ({"subprotocols": "v1"}, "subprotocols must be a list of str"),
        ({"subprotocols": ["v 1"]}, "no name of a subprotocol"),
        ({"admin_names": "admin.example"}, "admin_names must be a list of str"),
        ({"namespace_rules": "a=publish"}, "namespace_rules must be a list of str"),
        ({"namespace_rules": ["a=write"]}, "join, publish, info, rewind"),
        ({"namespace_rules": ["a=publish", "b=info,join"]}, "join needs auth"),
        ({"published_per_second": 0}, "published_per_second must be 1 or more"),
        ({"published_per_second": None}, "published_per_second must be 1 or more"),
        ({"history": {"room:*": 5}}, "must be a History, not 5"),
        ({"history": {"": History()}}, "namespace"),
        ({"ping_interval": 0}, "ping_interval"),
        ({"stopping": Stopping(max_per_second=0)}, "max_per_second"),
        ({"stopping": Stopping(grace=float("nan"))}, "grace"),
        ({"stopping": Stopping(announce=-1)}, "announce must be 0 seconds or more, not -1"),
        ({"stopping": Stopping(message="x" * 11), "limits": Limits(message_bytes=10)}, "11"),
        ({"stopping": Stopping(code=1005)}, "1005"),
    ],
)
def test_an_invalid_value_is_refused_and_named(settings: dict[str, Any], said: str) -> None:
    """Before anything is started, and without a secret in the text."""
    with pytest.raises(InvalidValueError, match=said):
        NodeSettings(**settings)


def test_rules_about_publishing_are_allowed_without_authentication() -> None:
    """Any client may join any namespace then, but publishing needs a rule all the same."""
    assert NodeSettings(namespace_rules=["room:*=publish,info"]).auth is None
    auth = Auth(authenticate=lambda _: None)
    assert NodeSettings(namespace_rules=["room:*=join"], auth=auth).auth is auth


def test_an_admin_host_for_others_is_allowed_with_a_token_or_without_the_port() -> None:
    """The rule is about open ports."""
    NodeSettings(admin_port=0, admin_host="0.0.0.0", admin_token="t0ken")
    NodeSettings(admin_host="0.0.0.0")


def test_settings_cannot_be_changed_after_their_check() -> None:
    """Neither the record nor a list inside it."""
    origins = ["https://a.example"]
    settings = NodeSettings(origins=origins, timing=Timing(lease=20))
    origins.append("nonsense")
    assert settings.origins == ("https://a.example",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]
    assert dataclasses.replace(settings, port=0).timing.lease == 20


def test_secrets_are_not_shown() -> None:
    """Neither the cluster's nor the admin's, when settings are printed."""
    text = repr(NodeSettings(secret="s3cret" * 4, admin_token="t0ken"))
    assert "s3cret" not in text
    assert "t0ken" not in text
