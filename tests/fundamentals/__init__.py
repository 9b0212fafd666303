"""A tutorial in tests: how the library works, from one process to a cluster.

Read the files in the order of their numbers; each takes a few minutes. They import only what every
user can import, and need no Redis: fakeredis stands in for it.
"""
