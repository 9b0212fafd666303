"""All targets by name, and what is asked of them."""

from collections.abc import Callable

from tools.fuzz import channels, commands, envelopes, settings, sockets
from tools.fuzz.harness import Target

MOST_TURN_MS = 50
NO_TURN = ("items", "settings", "urls", "commands")
"""Targets whose cases are no turns of a loop: items have others between them (see ``channels``),
and the rest is read before there is one.
"""
TARGETS: dict[str, Callable[[], Target]] = {
    made.name: made
    for made in (
        *(envelopes.Items, envelopes.Header, envelopes.Raw),
        *(settings.Requests, settings.Settings, settings.Urls, commands.Commands),
        *(channels.Channels, channels.Sealed),
        *(sockets.Requests, sockets.Frames, sockets.Inbound),
    )
}
