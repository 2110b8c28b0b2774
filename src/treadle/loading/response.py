"""An HTTP answer as it comes over a connection: its head, its body out of chunks, and when the words in it came."""

from __future__ import annotations

import json
import re
from array import array
from contextlib import suppress

_LARGEST = 64 << 20  # bytes of one answer
_LARGEST_HEAD = 64 << 10
_SIZE = re.compile(rb"([0-9a-fA-F]{1,12})[ \t]*(?:;|\Z)")
_WORDS = re.compile(rb'"(?:content|text|arguments)": ?"[^"]')
_SAID = re.compile(rb'"(?:content|text)": ?("(?:[^"\\]|\\.)*")')
_RELEASE = re.compile(rb'"system_fingerprint": ?"([^"]{1,200})"')
_CODE = re.compile(rb'"code": ?"?([\w.-]{1,60})')
_COUNTED = {name: re.compile(b'"%s": ?([0-9]{1,9})' % name.encode()) for name in ("prompt_tokens", "completion_tokens")}


class BadResponse(Exception):
    """What came is no HTTP that anybody could read."""


class Response:
    """Fed with what arrives; ``done`` once it is whole. ``words`` are the times at which text came."""

    def __init__(self) -> None:
        self.status = 0
        self.done = False
        self.keeps = True  # the connection may be used again
        self.words = array("d")
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()
        self._raw = bytearray()
        self._left: int | None = None  # bytes of the body, or of the chunk; None: until the connection ends
        self._chunked = False
        self._behind = False  # a chunk was taken, and not yet the line end behind it
        self._seen = 0  # of the body, events looked at

    @property
    def begun(self) -> bool:
        """True once anything came."""
        return bool(self.status or self._raw)

    def feed(self, data: bytes, now: float) -> None:
        """Take what arrived at ``now``. Raises ``BadResponse``."""
        self._raw += data
        if not self.status and not self._head():
            return
        if self._chunked:
            self._chunks()
        elif self._left is None:
            self._take(len(self._raw))
        else:
            self._left -= self._take(min(self._left, len(self._raw)))
            self.done = self._left == 0
        if len(self.body) > _LARGEST:
            raise BadResponse("too large")
        end = len(self.body) if self.done else self.body.rfind(b"\n\n", self._seen)
        if end > self._seen:
            if _WORDS.search(self.body, self._seen, end):
                self.words.append(now)
            self._seen = end

    def end(self) -> bool:
        """The connection ended; True when the answer is whole by that."""
        self.done = self.done or (bool(self.status) and not self._chunked and self._left is None)
        return self.done

    def _head(self) -> bool:
        while True:
            end = self._raw.find(b"\r\n\r\n")
            if end < 0:
                self._bound()
                return False
            lines = bytes(self._raw[:end]).split(b"\r\n")
            found = re.match(rb"HTTP/1\.[01] (\d{3})", lines[0])
            if found is None:
                raise BadResponse("no status line")
            del self._raw[: end + 4]
            if not found[1].startswith(b"1"):  # those announce another
                break
        self.status = int(found[1])
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            self.headers[name.strip().lower()] = value.strip()
        self.keeps = self.headers.get(b"connection", b"").lower() != b"close" and not lines[0].startswith(b"HTTP/1.0")
        self._chunked = b"chunked" in self.headers.get(b"transfer-encoding", b"").lower()
        length = self.headers.get(b"content-length")
        if self._chunked or self.status in (204, 304):
            self._left = 0
        elif length is not None:
            if not length.isdigit() or len(length) > 12:
                raise BadResponse("no length")
            self._left = int(length)
        else:
            self.keeps = False
        return True

    def _chunks(self) -> None:
        while not self.done:
            if self._left:
                self._left -= self._take(min(self._left, len(self._raw)))
                if self._left:
                    return
                self._behind = True
            if self._behind:
                if len(self._raw) < 2:
                    return
                del self._raw[:2]
                self._behind = False
            end = self._raw.find(b"\r\n")
            if end < 0:
                self._bound()
                return
            said = _SIZE.match(self._raw, 0, end)
            if said is None:
                raise BadResponse("no chunk")
            size = int(said[1], 16)
            if size:
                del self._raw[: end + 2]
                self._left = size
                continue
            if b"\r\n\r\n" not in self._raw:  # trailers, or not all of the end yet
                self._bound()
                return
            self.done = True

    def _bound(self) -> None:
        """What is not whole yet has to be some day."""
        if len(self._raw) > _LARGEST_HEAD:
            raise BadResponse("no end of a head")

    def _take(self, size: int) -> int:
        self.body += self._raw[:size]
        del self._raw[:size]
        return size

    def said(self) -> str:
        """The text of the answer, all pieces together."""
        return "".join(json.loads(piece) for piece in _SAID.findall(self.body))

    def release(self) -> str | None:
        """What the server calls that which answered."""
        found = _RELEASE.search(self.body)
        return found[1].decode("latin-1") if found else None

    def counted(self, name: str) -> int | None:
        """``prompt_tokens`` or ``completion_tokens``, as the server counted them."""
        found = _COUNTED[name].findall(self.body, max(0, len(self.body) - 2000))
        return int(found[-1]) if found else None

    def retry_after(self) -> int | None:
        """Seconds; None where nothing, or a date, was said."""
        with suppress(KeyError, ValueError):
            return int(self.headers[b"retry-after"])
        return None

    def problem(self, *, streamed: bool) -> str | None:
        """Why this is no good answer, in a few words; None when it is one."""
        if self.status != 200:
            code = _CODE.search(self.body)
            return f"{self.status} {code[1].decode()}" if code and code[1] != b"null" else str(self.status)
        if streamed and self.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
            tail = bytes(self.body[-4000:])
            if b'"error":' in tail and (broken := re.search(rb'data: ?\{"error":.*', tail)):
                code = _CODE.search(broken[0])
                return f"stream broke off: {code[1].decode() if code else 'error'}"
            if b"[DONE]" not in tail:
                return "stream broke off"
        return None
