"""What knows that there is a Redis: the bus (may lose messages), the registry (must not)."""
