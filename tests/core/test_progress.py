"""How far a channel was processed, over counters that begin again."""

from cluster_pool.core.progress import NOWHERE, Mark, Progress


def test_a_mark_is_passed_once_its_message_was_processed() -> None:
    """Messages of one epoch come in the order of their numbers."""
    progress = Progress()
    assert progress.passed("c", NOWHERE)
    assert not progress.passed("c", Mark("7", 1))
    progress.reach("c", "7", 2)
    assert progress.passed("c", Mark("7", 1))
    assert progress.passed("c", Mark("7", 2))
    assert not progress.passed("c", Mark("7", 3))
    assert not progress.passed("d", Mark("7", 1))


def test_a_number_of_a_new_epoch_is_not_taken_for_an_old_one() -> None:
    """The counter expired and begins at 1 again: earlier numbers do not count."""
    progress = Progress()
    progress.reach("c", "7", 1000)
    assert not progress.passed("c", Mark("8", 1))
    progress.reach("c", "8", 1)
    assert progress.passed("c", Mark("8", 1))
    assert progress.passed("c", Mark("7", 1000))


def test_epochs_need_not_grow() -> None:
    """The clock of Redis was set back between two counters."""
    progress = Progress()
    progress.reach("c", "9", 5)
    assert not progress.passed("c", Mark("3", 1))
    progress.reach("c", "3", 2)
    assert progress.passed("c", Mark("3", 1))


def test_a_forgotten_mark_is_not_passed() -> None:
    """After an interruption, or for a channel that is no longer subscribed."""
    progress = Progress()
    for channel in "cd":
        progress.reach(channel, "7", 1)
        progress.reach(channel, "8", 1)
    progress.forget("c")
    assert not progress.passed("c", Mark("8", 1))
    assert not progress.passed("c", Mark("7", 1))
    assert progress.passed("d", Mark("7", 1))
    progress.begin_anew("cd".__contains__)
    assert not progress.passed("d", Mark("8", 1))


def test_a_mark_is_read_as_the_scripts_write_it() -> None:
    """``epoch SP number``."""
    assert Mark.parse(b"1795000000000000 42") == Mark("1795000000000000", 42)
