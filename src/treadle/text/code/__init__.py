"""Code repositories: what is in one at a commit, in which language, under which license, and by whom it was made."""
