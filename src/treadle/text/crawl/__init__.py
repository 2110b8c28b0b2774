"""A polite crawler: what it fetched lies in WARC files, and everything else is worked out from those."""
