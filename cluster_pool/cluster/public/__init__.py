"""The public calls of a pool or publisher: signatures, docstrings, and delegation.

A class of calls has no state. Each call gets the parts of the present start from ``_running()``,
which raises if there are none, and passes its arguments to one of them.
"""
