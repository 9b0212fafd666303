"""Decides who may connect, and keeps what it found out. Knows no WebSocket and no Redis."""
