"""The part of a single process: connections, their outboxes, and the pool without a cluster."""
