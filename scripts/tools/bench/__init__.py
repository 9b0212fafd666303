"""The measurements of ``scripts/bench``.

    __main__     arguments, the order of the scenarios, the output
    delivery     CPU per delivered message: broadcasts, targeted sends, and the bare write(2)
    latency      one send at a time on an idle cluster, and a raw PUBLISH
    idle         memory, CPU and commands to Redis of connections that say nothing
    storm        everybody connects at once
    scale        many nodes, many members; Redis bytes per member
    peers        CPU per delivered message of others (see tools.contenders) beside ours
    rolling      a rolling restart behind HAProxy, seen from the clients
    moves, disturbances   what clients that come back have lost, whatever happened
    rivals       a rolling restart of others, and what their clients have lost
    histories    CPU and bytes in Redis of messages that a history keeps
    accounts     CPU of positions and receipts
    stage        what the scenarios stand on: nodes and clients as processes, their CPU
    node, clients, writer, bare, comers      the programs that run as processes of their own
    sender, gate, payloads                   what these programs share
    table, chart                             rows, and how they are printed and drawn

Every scenario checks that each message arrived, once and in order; a row whose check failed says
so. Nothing here judges a time. Another tree of ``cluster_pool`` is measured by the same bench when
PYTHONPATH names it.
"""
