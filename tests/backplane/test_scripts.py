"""The texts of the scripts, and what all of them share."""

import re

from cluster_pool.backplane import script_words
from cluster_pool.backplane.scripts import NAMES, constants, digest, digests, mended, sources
from tests.clusters import Backend

WORD = re.compile(r"\b[A-Z][A-Z_]+\b")
OF_LUA_OR_REDIS = {"KEYS", "ARGV", "TIME"}


def test_every_file_is_a_script_and_every_script_has_its_digest() -> None:
    """None is forgotten when a link loads them."""
    assert set(sources()) == set(digests()) == set(NAMES)
    assert all(digest(text) == digests()[name] for name, text in sources().items())


def test_words_that_both_sides_say_are_those_of_python(backend: Backend) -> None:
    """Each is a local of its name, with all its bytes, wherever a script runs."""
    words = script_words.constants()
    prelude = "\n".join(constants())
    with backend.sync_client() as client:
        for name, value in words.items():
            expected = value if isinstance(value, int | bytes) else value.encode()
            assert client.eval(f"{prelude}\nreturn {name}", 0) == expected, name


def test_scripts_say_no_word_that_python_does_not() -> None:
    """A word in capitals that stands for itself is a nil, and a mistake."""
    for name, text in sources().items():
        code = re.sub(r"--.*|'(?:[^'\\]|\\.)*'", "", text)
        local = set(re.findall(r"local ([A-Z][A-Z_]+) = ", code))
        assert set(WORD.findall(code)) <= local | OF_LUA_OR_REDIS, name


def test_a_script_has_only_what_it_uses_in_front() -> None:
    """Whatever is in front is made anew at each call; what that uses itself is there, too."""
    text = sources()["renew_epoch"]
    assert "local function note_mended" in text
    assert "function redis.call" in text
    assert "local function publish" not in text
    assert "local ABSENT" not in text
    assert "local function str_header" in sources()["claim"]


def test_what_was_mended_stands_in_front_of_the_reply() -> None:
    """Nothing else that a script replies is taken for it."""
    assert mended([b"MENDED", [b"this"], 1]) == [b"this"]
    assert mended([b"OK", [b"this"], 1]) == []
    assert mended([b"MENDED", b"1", 1]) == []
    assert mended(1) == []
