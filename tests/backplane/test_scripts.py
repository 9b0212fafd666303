"""The texts of the scripts, and the parts that they share."""

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


def test_shared_words_have_the_values_of_python(backend: Backend) -> None:
    """Each is a local of its name, with all its bytes, in every script."""
    words = script_words.constants()
    prelude = "\n".join(constants())
    with backend.sync_client() as client:
        for name, value in words.items():
            expected = value if isinstance(value, int | bytes) else value.encode()
            assert client.eval(f"{prelude}\nreturn {name}", 0) == expected, name


def test_scripts_use_no_word_that_python_does_not_have() -> None:
    """An undefined word in capitals would be nil."""
    for name, text in sources().items():
        code = re.sub(r"--.*|'(?:[^'\\]|\\.)*'", "", text)
        local = set(re.findall(r"local ([A-Z][A-Z_]+) = ", code))
        assert set(WORD.findall(code)) <= local | OF_LUA_OR_REDIS, name


def test_a_script_starts_with_only_the_helpers_it_uses() -> None:
    """Helpers are created at each call; helpers of a used helper are included, too."""
    text = sources()["renew_epoch"]
    assert "local function note_mended" in text
    assert "function redis.call" in text
    assert "local function publish" not in text
    assert "local ABSENT" not in text
    assert "local function str_header" in sources()["claim"]


def test_a_repair_is_reported_in_front_of_the_reply() -> None:
    """No other reply of a script is taken for such a report."""
    assert mended([b"MENDED", [b"this"], 1]) == [b"this"]
    assert mended([b"OK", [b"this"], 1]) == []
    assert mended([b"MENDED", b"1", 1]) == []
    assert mended(1) == []
