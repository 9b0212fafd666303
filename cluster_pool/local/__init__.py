"""What one process does alone: connections, their outboxes, and the pool without a cluster."""
