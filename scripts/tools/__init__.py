"""Programs of the scripts beside this folder, and the parts of them that tests use.

harness     servers, processes, clients and a bad network, for tests and tools alike
bench       what a message and a connection cost: scripts/bench
chaos       everything broken, every message accounted for, and what each fault costs: scripts/chaos
contenders  the libraries that both compare us with: scripts/bench --only peers, scripts/chaos-peers
fuzz        hostile input to everything that parses: scripts/fuzz
"""
