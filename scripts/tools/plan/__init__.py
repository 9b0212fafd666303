"""Plans how much Redis a cluster of many nodes needs, from what ``scripts/bench`` measured.

It needs the standard library alone.
"""
