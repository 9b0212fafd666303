"""The only floor that knows Redis: the bus (may lose messages) and the registry (must not)."""
