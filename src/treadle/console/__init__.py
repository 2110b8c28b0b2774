"""The console: pages to see the whole loop and to do a person's part in it."""
