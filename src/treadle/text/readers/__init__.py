"""One module a format: bytes of a document in, texts and what could not be read out.

A reader is a function ``read(data, options) -> Iterator[Text | Unreadable]``. It trusts nothing in ``data``, opens no
file and no connection, and runs in a process that may be killed (``workers``).
"""
