"""The shared nouns, one file each: what the stages and the server leave for each other."""
