"""The same faults for us and for others who carry messages over Redis: scripts/chaos-peers.

    __main__     arguments, the order of the contenders, the tables
    trial        one contender under one series of faults
    count        what became of the messages; pure
    side         a contender's sender or receiver as a process
    ours, socketio_manager, channels_layer     the contenders, used as their documentation says

Each of the others runs with its default settings, and once more ``-tuned``: with the options that
its documentation and redis-py's offer against bad links.
"""
