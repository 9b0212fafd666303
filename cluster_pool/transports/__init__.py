"""Thin wrappers that turn a library's WebSocket into write and close; one file per library."""
