"""A rolling restart of a cluster behind HAProxy, measured from where it counts: at the clients.

``scripts/bench --only rolling``. Eight node processes, thousands of WebSockets that come back the
moment they are closed, confirmed sends and broadcasts all the while; restarted in two waves of
four, in three ways: with one budget for the cluster, with a pace for each node, and all at once.
"""
