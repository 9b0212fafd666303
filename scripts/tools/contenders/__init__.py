"""Libraries that send to WebSockets, as programs: scripts/bench and scripts/chaos-peers run them.

    line_up            their names, how each is started, what its clients speak
    program            one node of one of them as a process
    served             what a node is: a port, and two functions that send
    streams            numbered messages at a steady rate through these functions
    engineio           the packets of Socket.IO
    uvicorn_server     how the ASGI applications are served
    ours, socketio_server, channels_layer, websockets_alone, socketio_node.cjs     the libraries

Each is used as its documentation says, with compression off. ``-tuned`` behind a name stands for
the options of redis-py against bad links, where a library hands them through.
"""
