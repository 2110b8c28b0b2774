"""One request, and nothing it may not do: private addresses, cookies, redirects, endless bodies and endless waiting.

A host's name is resolved here, and the connection goes to the address that was looked at: a name that points
somewhere else a moment later does not matter.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

from treadle.core.errors import MissingExtra, UserError
from treadle.text.crawl.address import host_of
from treadle.text.crawl.warc_file import Headers

_MOST_ADDRESSES = 4  # of one host that are tried
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)  # X509_V_ERR_…: signed by itself, or by somebody whose certificate is not here
# IPv6 networks whose last four bytes are an IPv4 address (RFC 4291 2.5.5.1, RFC 2765, RFC 6052), and one in which only
# the network's own people know where it lies (RFC 8215).
_EMBEDDING = tuple(map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
_LOCAL_TRANSLATION = ipaddress.IPv6Network("64:ff9b:1::/48")
Wanted = Callable[[int, Headers], bool]


@dataclass(frozen=True, slots=True)
class Limits:
    """``seconds`` for one page from beginning to end, ``largest`` bytes of it as they come; ``private`` hosts (with
    their ports) may lie in a private network.
    """

    seconds: float
    largest: int
    private: frozenset[str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request. ``failure`` says why nothing did; ``truncated`` why the body was not read: ``length`` or
    ``type``. ``again``: another attempt may have more luck.
    """

    status: int = 0
    reason: str = ""
    headers: Headers = ()
    body: bytes = b""
    truncated: str = ""
    failure: str = ""
    again: bool = False
    request: Headers = ()
    address: str = ""


class Client:
    """Asks one site. Use it in one event loop."""

    def __init__(self, sent: Mapping[str, str], limits: Limits) -> None:
        try:
            import httpx
        except ImportError:
            raise MissingExtra("httpx", extra="crawl") from None
        self._errors: tuple[type[Exception], ...] = (httpx.HTTPError, httpx.InvalidURL)
        self._unconnected: type[Exception] = httpx.ConnectError
        self._limits = limits
        self._client = httpx.AsyncClient(
            headers=dict(sent),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # none is kept, so none is sent
            follow_redirects=False,
            trust_env=False,
            verify=_authorities(httpx.create_ssl_context),
            timeout=limits.seconds,
        )

    async def get(self, url: str, conditions: Mapping[str, str], wanted: Wanted) -> Answer:
        """The answer to a GET; of a body only what ``wanted`` says yes to, by status and headers."""
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._get(url, conditions, wanted)
        except TimeoutError:
            return Answer(failure=f"took longer than {self._limits.seconds:g} seconds")
        except self._errors as error:
            refused = _refused_certificate(error)
            if refused:
                return Answer(failure=refused)
            return Answer(failure=f"the connection failed ({type(error).__name__})", again=True)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def _get(self, url: str, conditions: Mapping[str, str], wanted: Wanted) -> Answer:
        addresses = await self._resolved(url)
        if isinstance(addresses, Answer):
            return addresses
        for address in addresses[:-1]:
            with suppress(self._unconnected):
                return await self._asked(url, address, conditions, wanted)
        return await self._asked(url, addresses[-1], conditions, wanted)

    async def _asked(self, url: str, address: str, conditions: Mapping[str, str], wanted: Wanted) -> Answer:
        asked = self._client.build_request(
            "GET",
            self._client.base_url.join(url).copy_with(host=address),
            headers=[
                (name.encode(), value.encode("latin-1")) for name, value in {"Host": host_of(url), **conditions}.items()
            ],
            extensions={"sni_hostname": urlsplit(url).hostname},
        )
        answer = await self._client.send(asked, stream=True)
        try:
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers.raw]
            request = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in asked.headers.raw]
            known: dict[str, Any] = {
                "status": answer.status_code,
                "reason": answer.reason_phrase,
                "headers": headers,
                "request": request,
                "address": address,
            }
            if not wanted(answer.status_code, headers):
                return Answer(**known, truncated="type")
            length = answer.headers.get("content-length", "")
            if length.isdecimal() and int(length) > self._limits.largest:
                return Answer(**known, truncated="length")
            body = bytearray()
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > self._limits.largest:
                    return Answer(**known, truncated="length")
            return Answer(**known, body=bytes(body))
        finally:
            await answer.aclose()

    async def _resolved(self, url: str) -> list[str] | Answer:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return Answer(failure="no such host", again=True)
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))[:_MOST_ADDRESSES]
        if host_of(url) not in self._limits.private:
            addresses = [each for each in addresses if is_public(each)]
        if not addresses:
            return Answer(failure="an address in a private network, which only `start` may name")
        return addresses


def _authorities(trusted: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Who may sign certificates: those that everybody trusts, or those of a company that $SSL_CERT_FILE names."""
    try:
        return trusted()
    except OSError:
        named = os.environ.get("SSL_CERT_FILE")
        if not named:
            raise
        raise UserError(f"SSL_CERT_FILE: {named} is no file with certificates (PEM); name one, or unset it") from None


def _refused_certificate(error: BaseException) -> str:
    """Why a site's certificate does not hold; empty where an error is about something else."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return ""
    told = cause.verify_message.rstrip(".")
    advice = "; SSL_CERT_FILE names a file with the authorities to trust"
    return f"its certificate does not hold: {told}{advice if cause.verify_code in _UNKNOWN_AUTHORITY else ''}"


def is_public(address: str) -> bool:
    """Whether anybody could reach it: an address of the internet, by whatever way it is written."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found in _LOCAL_TRANSLATION:
            return False
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if any(found in network for network in _EMBEDDING):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast
