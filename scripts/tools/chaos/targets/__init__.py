"""What each fault costs, in seconds and in counts, beside the target that it must keep.

One module per fault; each gives rows. Pools run in this process against a real server, or through
the proxy of ``tools.harness.proxy``; where a node must be killed or frozen, it is
``cluster-pool serve``.
"""
