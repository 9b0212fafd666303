"""Patterns of names, in which ``*`` stands for any text. Pure."""


def matches(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern: ``room:*`` fits ``room:`` and ``room:7``.

    Only ``*`` is special. It takes time in proportion to both lengths, for any pattern.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    if not name.startswith(first):
        return False
    *middle, last = rest
    at = len(first)
    for part in middle:
        found = name.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(name) - at >= len(last) and name.endswith(last)
