"""The public calls of a pool or publisher: signatures, docstrings, and the way to its parts.

A class of calls holds no state. Each call asks ``_running()`` for the parts of the present start,
which raises where there are none, and hands its arguments to one of them.
"""
