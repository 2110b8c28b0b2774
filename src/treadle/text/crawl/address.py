"""Addresses of pages: one spelling for each page, and which ones lead nowhere but deeper.

RFC 3986 section 6.2 (case, percent encoding, dot segments, default port); besides, parameters that say who came from
where are taken out and the others sorted, so that one page is fetched once.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

LONGEST = 2000  # characters of an address
_MOST_SEGMENTS = 20
_MOST_ALIKE = 3  # times that one segment may stand in a path
_MOST_PARAMETERS = 12
_PORTS = {"http": 80, "https": 443}
_SAFE = "!$&'()*+,;=:@/~%-._"
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SESSION = re.compile(
    r"(?i:utm_\w+|mtm_\w+|pk_\w+|gclid|gbraid|wbraid|dclid|fbclid|msclkid|yclid|igshid|mc_[ce]id|_ga|_gl|ref_src"
    r"|phpsessid|jsessionid|aspsessionid\w*|asp\.net_sessionid|cfid|cftoken|sessid|session_?id)(?:=.*)?"
    r"|(?i:sid)=[0-9A-Za-z-]{16,}"
)
_IN_PATH = re.compile(r"(?i);(?:jsessionid|phpsessid|sid)=[^/;]*")
_DATE = re.compile(r"(?<!\d)(2[01]\d\d)[-/_](?:0?[1-9]|1[0-2])(?!\d)|[?&]y(?:ear)?=(2[01]\d\d)\b")


def normalize(address: str, base: str | None = None) -> str | None:
    """The one spelling of an address (relative to ``base`` when given); None where it is none of http or https."""
    try:
        joined = urljoin(base, address.strip()) if base else address.strip()
        parts = urlsplit(re.sub(r"[\t\r\n]", "", joined))
        port = parts.port
        scheme, host = parts.scheme.lower(), _host(parts.hostname or "")
    except (ValueError, UnicodeError):
        return None
    if scheme not in _PORTS or not host or parts.username is not None:
        return None
    where = host if port in (None, _PORTS[scheme]) else f"{host}:{port}"
    path = _dots(spelled(_IN_PATH.sub("", parts.path))) or "/"
    return urlunsplit((scheme, where, path, _query(parts.query), ""))


def spelled(text: str) -> str:
    """Percent encoding in capitals, and only where it is needed; of a path, or of a pattern for paths."""

    def one(found: re.Match[str]) -> str:
        character = chr(int(found[1], 16))
        return character if character in _UNRESERVED else found[0].upper()

    # A percent sign that escapes nothing is one itself.
    sound = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", _ESCAPED.sub(one, text))
    return quote(sound, safe=_SAFE)


def site_of(url: str) -> str:
    """Host and port: what is asked for ``robots.txt``, and waited for between two requests."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def host_of(url: str) -> str:
    """Host, and port where it is none of the two usual ones: http and https are one place."""
    return urlsplit(url).netloc


def path_of(url: str) -> str:
    """Path and query, as a request names them."""
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def variant_of(url: str) -> str | None:
    """What addresses that differ in their query only have in common; None for one without a query."""
    before, mark, _ = url.partition("?")
    return before if mark else None


def trap(url: str, year: int) -> str | None:
    """Why an address looks like one of endlessly many; None when it does not. ``year`` is that of the crawl."""
    if len(url) > LONGEST:
        return f"longer than {LONGEST} characters"
    parts = urlsplit(url)
    segments = [segment for segment in parts.path.split("/") if segment]
    if len(segments) > _MOST_SEGMENTS:
        return f"a path of more than {_MOST_SEGMENTS} parts"
    if any(segments.count(segment) > _MOST_ALIKE for segment in set(segments)):
        return f"one part stands in its path more than {_MOST_ALIKE} times"
    if parts.query.count("&") >= _MOST_PARAMETERS:
        return f"more than {_MOST_PARAMETERS} parameters"
    for found in _DATE.finditer(path_of(url)):
        if int(found[1] or found[2]) > year + 1:
            return "a calendar's page of a time to come"
    return None


def _host(name: str) -> str:
    name = name.rstrip(".").lower()
    if ":" in name:
        return f"[{name}]"
    host = name if name.isascii() else name.encode("idna").decode("ascii")
    return host if re.fullmatch(r"[a-z0-9._-]{1,253}", host) else ""


def _dots(path: str) -> str:
    done: list[str] = []
    parts = path.split("/")
    for segment in parts[1:] if path.startswith("/") else parts:
        if segment == "..":
            done[-1:] = []
        elif segment != ".":
            done.append(segment)
    if parts[-1] in (".", ".."):
        done.append("")
    return "/" + "/".join(done) if done else "/"


def _query(query: str) -> str:
    kept = [part for part in query.split("&") if part and not _SESSION.fullmatch(part)]
    return "&".join(sorted(quote(spelled(part), safe=_SAFE + "?[]") for part in kept))
