"""One file or folder per neighbor, found by entry point; nothing imports this package."""
