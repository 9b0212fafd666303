"""The part of one process: connections, their outboxes, and the pool without a cluster."""
