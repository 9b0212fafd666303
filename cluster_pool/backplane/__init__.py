"""Everything that knows what a Redis is: the bus (may lose messages) and the registry (must not)."""
