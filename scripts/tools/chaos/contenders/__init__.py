"""Whoever carries messages from one process to another over Redis, each behind the same two doors.

One room per contender (``ours``, ``socketio_manager``, ``channels_layer``), used as its own
documentation says; ``side`` runs either door as a process and ``trial`` both of them; ``schedule``
and ``count`` are pure: what is done to the links, and what became of the messages. The command
line is ``tools.chaos.peers``.

Each of the others runs with its default settings, and once more ``-tuned``: with the options that
its documentation and redis-py's offer against bad links.
"""
