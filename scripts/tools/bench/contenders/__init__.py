"""Others who send to WebSockets, over Redis where they can: measured beside us by ``peers``.

    install            an environment for each, made by us and cached beside the checkout
    line_up            who they are: what is installed, what is run, what clients speak to it
    uvicorn_server     how they are served
    socketio_python, channels_layer, websockets_alone, socketio_node.cjs     the programs

Each is used as its own documentation says, with compression off. A program runs in its own
environment: what it imports of ours needs the standard library alone. It is given its own
arguments, the URL of Redis and the end of a gate, and does what ``tools.bench.sender`` says.
"""
