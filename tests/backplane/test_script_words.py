"""The words that Python and the Lua files share: the same on both sides, and distinct."""

import re
from importlib.resources import files

from cluster_pool.backplane import script_words, scripts
from tests.clusters import Backend


def lua_files() -> str:
    """Every Lua file, without its comments."""
    folder = files(scripts.__package__) / "lua"
    texts = (one.read_text("utf-8") for one in folder.iterdir() if one.name.endswith(".lua"))
    return "\n".join(line.partition("--")[0] for text in texts for line in text.splitlines())


def test_a_script_has_each_word_as_python_has_it(backend: Backend) -> None:
    """Numbers as numbers, bytes unchanged, as the server's own Lua reads them."""
    words = script_words.constants()
    head = "\n".join(scripts.constants())
    body = f"{head}\nreturn {{{', '.join(words)}}}"
    with backend.sync_client() as client:
        said = client.eval(body, 0)
    wanted = [one.encode() if isinstance(one, str) else one for one in words.values()]
    assert dict(zip(words, said, strict=True)) == dict(zip(words, wanted, strict=True))


def test_every_word_of_the_scripts_is_one_that_python_has() -> None:
    """A name in capitals that Lua does not know would silently be nil."""
    text = re.sub(r"'[^']*'", "", lua_files())
    used = set(re.findall(r"(?<![\w.])[A-Z][A-Z_]+(?!\w)", text)) - {"KEYS", "ARGV"}
    local = set(re.findall(r"local ([A-Z][A-Z_]+)", text))
    assert used - local - {"PUBLISH"} <= script_words.constants().keys()
    assert len(used) > 10


def test_the_words_of_a_reply_are_distinct() -> None:
    """Each kind of answer has a word of its own, and each digit is one character."""
    words = script_words
    send = (words.ABSENT, words.ROUTED, words.UNREACHABLE, words.REFUSED)
    send += (words.LATE_ITEM, words.UNKNOWN, words.HELD_ITEM)
    for kind in (
        send,
        (words.LOST, words.KEPT),
        (words.NOT_REGISTERED, words.RELEASED, words.EMPTIED),
    ):
        assert len(set(kind)) == len(kind)
        assert {len(word) for word in kind} == {1}
    for kind in (
        (words.OK, words.LATE, words.GONE, words.DONE, words.HELD, words.MENDED),
        (words.CLAIMED, words.TAKEN, words.FULL, words.LATE, words.GONE),
        (words.LIVES, words.OVER, words.GONE),
    ):
        assert len(set(kind)) == len(kind)
