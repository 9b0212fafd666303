"""Programs beside the library, for tests and tools alike."""
