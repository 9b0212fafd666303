"""What the scripts beside this folder run, and what the tests share with them.

harness  servers, processes, clients and a bad network, for tests and tools alike
bench    what a message, a connection and a fault cost: scripts/bench
chaos    everything broken, every message accounted for: scripts/chaos
fuzz     hostile input to everything that parses: scripts/fuzz
"""
