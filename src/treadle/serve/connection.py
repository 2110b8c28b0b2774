"""HTTP connections with limits on what comes before a request is whole: httptools itself sets none.

A head that grows without end, or comes a byte at a time, would otherwise hold memory and a connection for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 << 10
HEAD_SECONDS = 30.0


class BoundedConnection(HttpToolsProtocol):
    """Counts what came since the last request was whole, and gives the rest of a head a deadline."""

    _head_bytes = 0
    _head_open = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A client came; its first request's head is due."""
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        self._no_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then look whether a head is still open and how large it is."""
        super().data_received(data)
        if self._head_open and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        """The parser met a request's first byte."""
        super().on_message_begin()
        self._head_bytes = 0
        self._head_open = True
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def on_headers_complete(self) -> None:
        """The head is whole; the body has limits of its own."""
        self._no_timer()
        self._head_open = False
        super().on_headers_complete()

    def _no_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.send_400_response("The head of the request came too slowly.")
