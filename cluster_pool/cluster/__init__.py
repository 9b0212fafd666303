"""What makes many nodes one pool: ownership, routing, and the pool that users hold."""
