"""The running server: one gateway in front of an engine in its own process."""
