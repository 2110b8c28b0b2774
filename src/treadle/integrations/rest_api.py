"""JSON from a REST API that gives pages and has limits: one client for the sources that read issues and wikis.

A token goes to the server it is for and nowhere else: pages and redirects that lead to another are refused. When the
server says to wait, that is what happens, within ``patience``; an answer that does not come is an error, so that what
is read is whole.
"""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from treadle.core.errors import MissingExtra, UserError
from treadle.core.secrets import is_reference, resolve

if TYPE_CHECKING:
    import httpx

_LARGEST = 64 << 20  # bytes of an answer
_PIECE = 1 << 20  # bytes that are unpacked at a time
_MOST_PAGES = 1_000_000
_SECONDS = 60.0  # of silence
_RETRIES = 4
_REDIRECTS = 5
_ALTOGETHER = 600.0  # seconds for one answer
_FIRST_PAUSE = 0.5  # seconds; doubled each time
_LOCAL = ("127.0.0.1", "::1", "localhost")
_NEXT = re.compile(r'<([^<>]+)>\s*;[^,]*?\brel="?next"?')
_WHOLE_SECONDS = re.compile(r"[0-9]{1,12}\Z")
_LAST = re.compile(r'<([^<>]+)>\s*;[^,]*?\brel="?last"?')


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: what it holds, its headers (names in lower case), and the address it came from."""

    value: Any
    headers: Mapping[str, str]
    url: str

    def next_page(self) -> str | None:
        """The address of the next page, as the header ``Link`` names it."""
        match = _NEXT.search(self.headers.get("link", ""))
        return match[1] if match else None

    def last_page(self) -> int | None:
        """The number of the last page, where the header says it."""
        match = _LAST.search(self.headers.get("link", ""))
        found = re.search(r"[?&]page=(\d{1,9})\b", match[1]) if match else None
        return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class _Raw:
    status: int
    headers: Mapping[str, str]
    content: bytes


class RestApi:
    """One server. ``where`` begins the errors; ``headers`` make the token's header of the token."""

    def __init__(
        self,
        url: str,
        *,
        where: str,
        token: str | None,
        headers: Callable[[str | None], Mapping[str, str]],
        patience: float,
    ) -> None:
        self.url, self._where, self._token, self._headers, self._patience = (
            url.rstrip("/"),
            where,
            token,
            headers,
            patience,
        )
        scheme, host = _server(self.url)
        if scheme not in ("http", "https") or not host:
            raise UserError(f"{where}: expected an address such as https://host, without a login in it")
        if token is not None and not is_reference(token):
            raise UserError(f"{where}: a token does not stand in the file; write `token: ${{env:NAME}}`")
        if token is not None and scheme == "http" and host not in _LOCAL:
            raise UserError(f"{where}: a token is sent over https only; give an address that begins with https://")
        self._waited = 0.0
        self._client: httpx.Client | None = None

    def __enter__(self) -> RestApi:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def get(self, place: str, **parameters: Any) -> Answer:
        """What is at a path, or at an address on this server."""
        url = place if "://" in place else self.url + place
        for _ in range(_REDIRECTS):
            answer = self._patiently(url, parameters)
            if answer.status not in (301, 302, 307, 308):
                return Answer(self._value(answer, url), answer.headers, url)
            url, parameters = self._same(url, answer.headers.get("location", "")), {}
        raise UserError(f"{self._where}: {self._shown()} redirects for ever; check url")

    def pages(self, place: str, following: Callable[[Answer], str | None], **parameters: Any) -> Iterator[Answer]:
        """Page after page; ``following`` finds the next one's address in an answer."""
        seen: set[str] = set()
        answer = self.get(place, **parameters)
        while True:
            yield answer
            url = following(answer)
            if url is None:
                return
            url = self._same(answer.url, url)
            if url in seen or len(seen) >= _MOST_PAGES:
                raise UserError(f"{self._where}: the server's pages lead round in a circle; nothing was kept")
            seen.add(url)
            answer = self.get(url)

    def _same(self, base: str, place: str) -> str:
        """Where a page or redirect leads, on the same server."""
        try:
            url = urljoin(base, place)
            here, there = urlsplit(self.url), urlsplit(url)
        except ValueError:
            raise UserError(f"{self._where}: {self._shown()} names an address that is none") from None
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            raise UserError(f"{self._where}: {here.netloc} leads to {there.netloc[:100]}; give that address as url")
        return url

    def _patiently(self, url: str, parameters: Mapping[str, Any]) -> _Raw:
        import httpx

        pause = _FIRST_PAUSE
        for tried in range(_RETRIES + 1):
            try:
                answer = self._once(url, parameters)
            except (httpx.TransportError, httpx.DecodingError) as error:
                if tried == _RETRIES:
                    told = f"{self._shown()} does not answer ({type(error).__name__})"
                    raise UserError(f"{self._where}: {told}; check url") from None
            except httpx.InvalidURL:
                raise UserError(f"{self._where}: {self._shown()} names an address that is none") from None
            else:
                limit = _asked_to_wait(answer)
                if limit is not None:
                    self._wait(limit)
                    continue
                if answer.status < 500 or tried == _RETRIES:
                    return answer
            self._wait(pause)
            pause *= 2
        raise UserError(f"{self._where}: {self._shown()} asks to wait again and again; try again later")

    def _wait(self, seconds: float) -> None:
        self._waited += seconds
        if self._waited > self._patience:
            raise UserError(
                f"{self._where}: {self._shown()} asks to wait {seconds:.0f} s, more than patience"
                f" ({self._patience:g} s) allows; run the same command later"
            )
        time.sleep(seconds)

    def _once(self, url: str, parameters: Mapping[str, Any]) -> _Raw:
        client, deadline = self._open(), time.monotonic() + _ALTOGETHER
        with client.stream("GET", url, params=parameters or None) as answer:
            received = bytearray()
            for piece in _decoded(answer):
                received += piece
                if len(received) > _LARGEST:
                    raise UserError(f"{self._where}: {self._shown()} answered with more than {_LARGEST:,} bytes")
                if time.monotonic() > deadline:
                    raise UserError(f"{self._where}: {self._shown()} takes over {_ALTOGETHER:g} s for one answer")
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return _Raw(answer.status_code, headers, bytes(received))

    def _open(self) -> httpx.Client:
        if self._client is None:
            try:
                import httpx
            except ImportError:
                raise MissingExtra("httpx", extra="serve") from None
            headers = {
                "User-Agent": "treadle",
                "Accept-Encoding": "gzip",
                **self._headers(resolve(self._token) if self._token else None),
            }
            self._client = httpx.Client(headers=headers, timeout=_SECONDS, follow_redirects=False)
        return self._client

    def _value(self, answer: _Raw, url: str) -> Any:
        told = f"{self._where}: {self._shown()} answered {urlsplit(url).path} with"
        if answer.status in (401, 403, 404):
            advice = "check the name" + (" and that the token may read it" if self._token else ", or set a token")
            raise UserError(f"{told} {answer.status}; {advice}")
        if answer.status != 200:
            raise UserError(f"{told} {answer.status}; try again later")
        try:
            return json.loads(answer.content)
        except (ValueError, RecursionError):
            raise UserError(f"{told} something that is no JSON; check url") from None

    def _shown(self) -> str:
        return urlsplit(self.url).netloc


def _server(url: str) -> tuple[str, str]:
    """Scheme and host of an address; nothing where it is none, or has a login in it."""
    try:
        parts = urlsplit(url)
        if parts.port == 0 or "@" in parts.netloc:
            return "", ""
    except ValueError:
        return "", ""
    return parts.scheme, parts.hostname or ""


def _decoded(answer: httpx.Response) -> Iterator[bytes]:
    """What an answer holds, in pieces of bounded size: a megabyte that was packed twice can be a terabyte."""
    import httpx

    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        yield from answer.iter_raw()
        return
    if encoding not in ("gzip", "x-gzip"):
        raise httpx.DecodingError(f"content-encoding is {encoding[:40]!r}; gzip was asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        for packed in answer.iter_raw():
            left = packed
            while left:
                yield unpacker.decompress(left, _PIECE)
                left = unpacker.unconsumed_tail
        yield unpacker.flush()
    except zlib.error:
        raise httpx.DecodingError("what it sent is no gzip") from None
    if not unpacker.eof:
        raise httpx.DecodingError("what it sent is cut off")


def _asked_to_wait(answer: _Raw) -> float | None:
    """Seconds to wait before asking again, as GitHub (``x-ratelimit-*``), GitLab (``ratelimit-*``) and others
    (``retry-after``) say it; None when the answer is one.
    """
    if answer.status not in (403, 429, 503):
        return None
    after = answer.headers.get("retry-after", "").strip()
    if _WHOLE_SECONDS.match(after):
        return float(after)
    with suppress(ValueError, TypeError, OverflowError, IndexError):
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    for name in ("x-ratelimit", "ratelimit"):
        left, reset = (answer.headers.get(f"{name}-{word}", "").strip() for word in ("remaining", "reset"))
        if left == "0" and _WHOLE_SECONDS.match(reset):
            return max(0.0, int(reset) - time.time()) + 1
    return 60.0 if answer.status == 429 else None
