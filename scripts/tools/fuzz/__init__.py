"""Fuzzing of whatever parses what others wrote. See scripts/fuzz.

Rooms: ``mutation`` makes hostile bytes and values out of a ``random.Random``; ``harness`` runs the
cases of a target and measures; ``traffic`` records what nodes really say to each other. Each other
file is a group of targets: ``envelopes``, ``settings`` and ``commands`` call what parses,
``channels`` and ``sockets`` go through a running node; ``targets`` lists them.
"""
