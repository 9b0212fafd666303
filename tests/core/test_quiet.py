"""Log lines that a storm would repeat."""

from cluster_pool.core.quiet import LINES, PERIOD, Quiet, fault, others


def test_a_subject_is_logged_once_in_a_period_and_the_others_are_counted() -> None:
    """The next line gives the number since the last one."""
    quiet = Quiet()
    assert [quiet.due("a", at) for at in (0.0, 1.0, 2.0)] == [1, 0, 0]
    assert quiet.due("b", 2.0) == 1
    assert quiet.due("a", PERIOD + 1) == 3
    assert (others(1), others(3)) == ("", " (and 2 more like it)")


def test_many_subjects_share_the_lines_of_a_period() -> None:
    """With any subjects."""
    quiet = Quiet()
    assert sum(quiet.due(subject, 0.0) for subject in range(100)) == LINES


def test_faults_are_told_apart_by_type_and_place() -> None:
    """One line of code that fails a thousand times is one fault."""

    def caught(kind: type[Exception]) -> Exception:
        try:
            raise kind
        except Exception as error:
            return error

    assert fault(caught(ValueError)) == fault(caught(ValueError))
    assert fault(caught(ValueError)) != fault(caught(KeyError))
    assert fault(caught(ValueError)) != fault(ValueError())
