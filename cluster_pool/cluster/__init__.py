"""Makes many nodes one pool: ownership, routing, and the pool that users hold."""
