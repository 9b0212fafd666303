"""Frames of ``cluster-pool.v1``, byte for byte."""

import base64
import json

from cluster_pool.core import client_frames
from cluster_pool.core.client_frames import framed
from cluster_pool.core.message import Outgoing, PublishedMessage, Source, encode

PLACE: Source = ("room", "1700", 7)


def message(content: str | bytes, source: Source | None = PLACE) -> Outgoing:
    """A message, by default the seventh of a namespace."""
    return Outgoing(*encode(content, 1000), source)


def test_a_frame_has_namespace_message_and_position() -> None:
    text = 'a "quote", \\, \x01, ä and \U0001f600'
    frame = framed(message(text), "home")
    assert frame.text
    assert json.loads(frame.message) == {"ns": "room", "m": text, "p": "1700.7"}


def test_a_binary_message_is_base64() -> None:
    content = bytes(range(256))
    encoded = base64.b64encode(content).decode()
    assert json.loads(framed(message(content), "home").message) == {
        "ns": "room",
        "b": encoded,
        "p": "1700.7",
    }


def test_a_frame_names_the_author_and_its_user_if_it_has_one() -> None:
    known = framed(PublishedMessage(True, b"x", PLACE, ("tab", "42")), "home")
    guest = framed(PublishedMessage(True, b"x", ("room", "", 0), ("tab", "")), "home")
    assert json.loads(known.message)["from"] == {"id": "tab", "user": "42"}
    assert json.loads(guest.message) == {"ns": "room", "m": "x", "from": {"id": "tab"}}


def test_a_frame_is_built_once_also_for_several_messages() -> None:
    one, other = message("a"), message("b")
    joined = Outgoing.join([one, other])
    assert framed(joined, "home") is framed(joined, "elsewhere")
    assert framed(one, "home") is framed(one, "elsewhere")
    assert framed(joined, "home").frame == framed(one, "").frame + framed(other, "").frame


def test_a_message_without_a_namespace_is_from_home_and_kept_for_no_other_client() -> None:
    alone = message("x", source=None)
    assert json.loads(framed(alone, "first").message)["ns"] == "first"
    assert json.loads(framed(alone, "second").message)["ns"] == "second"
    joined = Outgoing.join([alone, message("y")])
    assert framed(joined, "first").frame != framed(joined, "second").frame


def test_frames_of_the_server_itself_stay_as_they_are() -> None:
    welcome = client_frames.welcome("tab", "room", "42", 17.5)
    assert framed(welcome, "home") is welcome
    assert json.loads(welcome.message) == {
        "welcome": {"id": "tab", "ns": "room", "user": "42", "expires": 17.5}
    }
    assert json.loads(client_frames.welcome("tab", "room", None, None).message) == {
        "welcome": {"id": "tab", "ns": "room"}
    }
    assert json.loads(client_frames.done(1).message) == {"ref": 1, "ok": True}
    assert json.loads(client_frames.done("r", 1.5).message) == {
        "ref": "r",
        "ok": True,
        "expires": 1.5,
    }
    assert json.loads(client_frames.refused("r", "taken", "why").message) == {
        "ref": "r",
        "error": "taken",
        "reason": "why",
    }
    assert json.loads(client_frames.left("room", "removed").message) == {
        "left": "room",
        "cause": "removed",
    }
    joined = Outgoing.join([welcome, message("y")])
    assert framed(joined, "home").frame.startswith(welcome.frame)


def test_a_loss_names_its_namespace() -> None:
    assert client_frames.lost("ä").message == '{"lost":"ä"}'
