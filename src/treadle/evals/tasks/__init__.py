"""The tasks that ship, a file each."""
