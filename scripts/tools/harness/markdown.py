"""Tables in Markdown that can also be read as they are."""

from collections.abc import Sequence


def table(lines: Sequence[Sequence[str]]) -> str:
    """The first line is the head; all columns but the last are aligned."""
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]) - 1)]

    def text(cells: Sequence[str]) -> str:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
        return "| " + " | ".join([*padded, cells[-1]]) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|---|"
    return "\n".join([text(lines[0]), rule, *[text(line) for line in lines[1:]]])
