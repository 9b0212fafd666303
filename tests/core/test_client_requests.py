"""Requests of ``cluster-pool.v1``: what is one, and what odd input becomes."""

import base64
import json
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from cluster_pool.core.client_requests import (
    VERBS,
    ClientRequest,
    RefusedRequestError,
    largest_frame,
    read_request,
)

MESSAGE, INFO = 100, 20


def read(text: str) -> ClientRequest:
    return read_request(text, MESSAGE, INFO)


def refused(text: str) -> tuple[Any, str]:
    """The ref and the code of a request that is not carried out."""
    with pytest.raises(RefusedRequestError) as error:
        read(text)
    assert str(error.value)
    return error.value.ref, error.value.code


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ('{"join": "a", "ref": 1}', ClientRequest("join", 1, "a")),
        ('{"join": "a", "info": {"x": 1}}', ClientRequest("join", None, "a", info={"x": 1})),
        ('{"join": "a", "info": null}', ClientRequest("join", None, "a")),
        ('{"leave": "a", "ref": "r", "new": []}', ClientRequest("leave", "r", "a")),
        ('{"publish": "a", "m": "x"}', ClientRequest("publish", None, "a", "x")),
        ('{"publish": "a", "m": ""}', ClientRequest("publish", None, "a", "")),
        ('{"publish": "a", "b": "AAE="}', ClientRequest("publish", None, "a", b"\0\1")),
        ('{"info": [1], "ref": null}', ClientRequest("info", None, None, info=[1])),
        ('{"info": null, "ns": "a"}', ClientRequest("info", None, "a")),
        ('{"renew": "token"}', ClientRequest("renew", None, token="token")),
        ('{"join": "a", "join": "b"}', ClientRequest("join", None, "b")),
        ('{"join": "\\u00e4", "ref": -9007199254740992}', ClientRequest("join", -(2**53), "ä")),
    ],
)
def test_a_request_is_read(text: str, request_: ClientRequest) -> None:
    assert read(text) == request_


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "[]", "1", '"join"', "null", "{}", '{"m": "x"}', '{"join": "a"', "{" * 60_000),
        *("[" * 60_000, '{"join": "a", "x": ' + "[" * 30_000 + "]" * 30_000 + "}"),
        *('{"join": "a", "x": NaN}', '{"join": "a", "x": -Infinity}'),
        '{"join": "a", "x": ' + "9" * 5000 + "}",
        *('{"ref": true, "join": "a"}', '{"ref": 1.5, "join": "a"}', '{"ref": [], "join": "a"}'),
        *('{"ref": 9007199254740993, "join": "a"}', '{"ref": "\\ud800", "join": "a"}'),
        '{"ref": "' + "r" * 65 + '", "join": "a"}',
    ],
)
def test_a_frame_without_a_ref_that_counts_is_refused_without_an_answer(text: str) -> None:
    assert refused(text) == (None, "invalid")


@pytest.mark.parametrize(
    "fields",
    [
        *('"x": 1', '"join": "a", "leave": "a"', '"publish": "a", "info": 1, "m": "x"'),
        *('"join": 1', '"join": null', '"join": ""', '"join": "\\ud800"', '"join": "~user:1"'),
        *('"join": "a{b}"', '"leave": []', '"renew": 1', '"renew": null', '"info": 1, "ns": 1'),
        *('"publish": "a"', '"publish": "a", "m": "x", "b": ""', '"publish": "a", "m": 1'),
        *('"publish": "a", "m": null', '"publish": "a", "m": "\\ud800"', '"publish": null'),
        *('"publish": "a", "b": "AAE"', '"publish": "a", "b": "A A="', '"publish": "a", "b": "ä"'),
        *('"publish": "a", "b": 1', '"info": "\\ud800"', '"info": 1e999'),
    ],
)
def test_a_request_with_a_value_that_is_not_allowed_is_refused(fields: str) -> None:
    assert refused(f'{{"ref": 7, {fields}}}') == (7, "invalid")


@pytest.mark.parametrize(
    "fields",
    [
        f'"publish": "a", "m": "{"x" * 101}"',
        f'"publish": "a", "m": "{"ä" * 51}"',
        f'"publish": "a", "b": "{base64.b64encode(bytes(101)).decode()}"',
        f'"info": "{"x" * 19}"',
        f'"join": "a", "info": "{"x" * 19}"',
    ],
)
def test_a_message_or_an_info_beyond_the_limit_is_too_large(fields: str) -> None:
    assert refused(f'{{"ref": 7, {fields}}}') == (7, "too_large")


@pytest.mark.parametrize(
    "content",
    ["\x01" * 100, "ä" * 50, "\U0001f600" * 25, '"' * 100],
    ids=["control characters", "two bytes", "four bytes", "quotes"],
)
def test_a_permitted_message_fits_into_the_largest_frame_however_it_is_escaped(
    content: str,
) -> None:
    text = json.dumps({"publish": "ä" * 128, "m": content, "ref": "\x01" * 64})
    assert len(text) <= largest_frame(MESSAGE)
    assert read(text).message == content


def test_much_that_is_no_message_is_refused_before_it_is_read() -> None:
    """Lists need fifty times their bytes of memory, and time; a string does not."""
    assert refused('{"join": "a", "x": [' + "[]," * 100_000 + "0]}") == (None, "too_large")
    long = '{"publish": "a", "m": "' + "[" * 300_000 + '"}'
    assert len(read_request(long, 300_000, INFO).message) == 300_000
    before = time.process_time()
    assert refused('{"m": "' + '\\"' * 500_000) == (None, "invalid")
    assert time.process_time() - before < 5  # not in the square of its length


@pytest.mark.parametrize(
    "frame",
    [
        '{"ref": 1, "info": [' + '{"a":1},' * 15_000 + "0]}",
        '{"ref": 1, "join": "a", "info": [' + "1," * 60_000 + "0]}",
        '{"ref": 1, "join": "' + "x" * 6_000_000 + '"}',
    ],
    ids=["objects", "numbers", "a namespace"],
)
def test_to_refuse_takes_little_longer_than_to_parse(frame: str) -> None:
    """Else few clients could take the time of all."""
    parsing = min(_seconds(lambda: json.loads(frame)) for _ in range(5))
    refusing = min(_seconds(lambda: refused(frame)) for _ in range(5))
    assert refusing < 4 * parsing


def _seconds(call: Callable[[], object]) -> float:
    before = time.process_time()
    call()
    return time.process_time() - before


@pytest.mark.parametrize(
    "fields",
    [
        '"info": ["{long}"]',
        '"info": {"{long}": 1}',
        '"join": "a", "info": {"name": "{long}"}',
        '"join": "a", "x": "\\u0000long", "info": [["{long}"], "\\u0000long"]',
    ],
)
def test_a_long_string_within_a_value_is_not_cut_out_of_it(fields: str) -> None:
    """The message of a large frame is read beside the rest; of nothing else there is so much."""
    long = fields.replace("{long}", "x" * 140_000)
    assert refused(f'{{"ref": 7, {long}}}')[1] == "too_large"


def test_fields_beside_a_long_string_stay_as_they_are() -> None:
    """No message is exchanged for another field of its frame."""
    frame = {"publish": "a", "m": "\0long", "x": "x" * 140_000}
    assert read(json.dumps(frame)).message == "\0long"


def test_mutated_requests_are_read_or_refused() -> None:
    """No other error comes out, whatever a client sends."""
    random = Random(7)
    valid = [
        '{"join": "a", "ref": 1, "info": {"x": [1, "y"]}}',
        '{"publish": "a", "b": "AAE=", "ref": "r"}',
        '{"publish": "a", "m": "\\u00e4\\n"}',
        '{"info": null, "ns": "a", "renew": "x"}',
    ]
    long = '{"publish": "a", "m": "' + "x" * 140_000 + '", "ref": 7}'
    alphabet = '{}[]",:\\u0d8 1e9-tfn.\x00äN' + "\ud800"
    refusals = []
    for turn in range(4_000):
        text = long if turn % 40 == 0 else random.choice(valid)
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(text)) if random.random() < 0.9 else -5
            text = text[:at] + random.choice(alphabet) + text[at + random.randint(0, 2) :]
        try:
            request = read_request(text, 200_000, INFO)
        except RefusedRequestError as error:
            refusals.append(error)
        else:
            assert request.verb in (*VERBS, "info")
    assert all(error.unreadable for error in refusals)
