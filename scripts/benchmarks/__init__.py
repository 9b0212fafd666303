"""Benchmarks: real processes and sockets, CPU time from the kernel. `scripts/bench` runs them."""
