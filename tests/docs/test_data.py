"""Data and drawings on the pages can be read by the programs they are for."""

import json
import re

from tests.docs.pages import blocks

PARTY = re.compile(r"(?:participant|actor) (\w+)(?: as .+)?")
MESSAGE = re.compile(r"(\w+)(?:->>|-->>|-\)|--\))[+-]?(\w+): .+")
NOTE = re.compile(r"Note (?:over|right of|left of) (\w+)(?:,(\w+))?: .+")
OPENING = re.compile(r"(?:alt|opt|loop|par) .+")
REST = re.compile(r"(?:else|and) .+|autonumber")


def test_json_can_be_read() -> None:
    """Each line is an object."""
    for block in blocks("json"):
        for line in block.text.splitlines():
            assert isinstance(json.loads(line), dict), str(block)


def test_sequence_diagrams_have_declared_parties_and_closed_blocks() -> None:
    """Each block that is opened is closed."""
    for block in blocks("mermaid"):
        first, *lines = [line.strip() for line in block.text.splitlines() if line.strip()]
        assert first == "sequenceDiagram", str(block)
        parties = {found[1] for line in lines if (found := PARTY.fullmatch(line))}
        depth = 0
        for line in lines:
            if line == "end":
                depth -= 1
            elif OPENING.fullmatch(line):
                depth += 1
            elif found := MESSAGE.fullmatch(line) or NOTE.fullmatch(line):
                assert set(filter(None, found.groups())) <= parties, f"{block}: {line}"
            else:
                assert PARTY.fullmatch(line) or REST.fullmatch(line), f"{block}: {line}"
            assert depth >= 0, f"{block}: {line}"
        assert depth == 0, str(block)
