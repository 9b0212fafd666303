"""Faults on real processes, and an account of every message sent meanwhile. See scripts/chaos.

``runner`` goes round by round; ``harm`` breaks things; ``cluster`` holds what runs: ``servers``,
``proxy``, and ``node`` and ``clients`` as ``programs``. Their reports go to the ``ledger``,
which makes the ``books`` of a round, on which ``account`` decides. ``peers`` is a program of its
own, scripts/chaos-peers, whose messages ``count`` judges.
"""
