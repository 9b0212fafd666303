"""Faults on real processes, and an account of every message sent meanwhile. See scripts/chaos.

Rooms: ``proxy`` is the bad network, ``servers`` the Redis that is killed and frozen.
"""
