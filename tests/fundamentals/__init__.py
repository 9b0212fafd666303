"""A tutorial: how the library works, from one process to a cluster. Read the files in order."""
