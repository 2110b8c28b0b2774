"""Documents whose address stands on a list: of hosts, of pages, of words in an address.

As RefinedWeb filters URLs (Penedo et al. 2023, arXiv:2306.01116, G.1), with lists of one's own, for example those of
the University of Toulouse (UT1): no list comes with Treadle.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import urlsplit

from treadle.core.errors import UserError
from treadle.text.accounting import Dropped
from treadle.text.document import Document
from treadle.text.list_files import ListFiles
from treadle.text.transform import Piece, TransformContext, declare

_SOURCE = "RefinedWeb (Penedo et al. 2023, G.1)"
_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
_SINK = ("0.0.0.0", "127.0.0.1", "::1")  # noqa: S104 (what a hosts file names, no address that is bound)
_SHOWN = 200  # characters of an entry


@declare(version=1)
class BlockList:
    """Drops documents whose address is on a list: `blocklist.host`, `blocklist.page`, `blocklist.word`.

    ``hosts`` are names, whose subdomains are meant as well; ``pages`` are a host and the beginning of a path. ``files``
    hold either, one a line. ``words`` stand in an address by themselves, between anything that is no letter or digit.
    The address is the locator, or else the field ``url``; documents without one stay.
    """

    def __init__(
        self,
        *,
        hosts: list[str] | None = None,
        pages: list[str] | None = None,
        words: list[str] | None = None,
        files: list[str] | None = None,
        context: TransformContext | None = None,
    ) -> None:
        self._files = ListFiles(files or (), context.project if context else None, "blocklist")
        self._hosts: set[str] = set()
        self._pages: set[str] = set()
        self._take([*(hosts or ()), *(pages or ()), *self._files.entries()])
        self._words = {word.strip().casefold() for word in words or () if word.strip()}
        if not (self._hosts or self._pages or self._words):
            raise UserError("blocklist lists nothing; for example `blocklist: {files: [hosts.txt]}`")
        if bad := next((word for word in sorted(self._words) if not word.isalnum()), None):
            raise UserError(f"blocklist: words has {bad[:_SHOWN]!r}; expected letters and digits only")

    def fingerprint(self) -> str:
        """What the files hold now."""
        return self._files.fingerprint()

    def __call__(self, documents: Sequence[Document]) -> Iterator[Piece]:
        """Each document, or why it is dropped."""
        for document in documents:
            found = self._found(document)
            if found is None:
                yield document
            else:
                rule, entry = found
                reason = f"{entry[:_SHOWN]!r} is on the list of {rule}s ({_SOURCE})"
                yield Dropped(document, f"blocklist.{rule}", reason)

    def _take(self, entries: Iterable[str]) -> None:
        for entry in entries:
            host, path = _parts(entry)
            if not host:
                raise UserError(
                    f"blocklist: {entry[:_SHOWN]!r} is no host or page; expected example.com or example.com/a"
                )
            if path.strip("/"):
                self._pages.add(f"{host}{path.rstrip('/')}")
            else:
                self._hosts.add(host)

    def _found(self, document: Document) -> tuple[str, str] | None:
        address = _address(document)
        if address is None:
            return None
        host, path = _parts(address)
        labels = host.split(".")
        for first in range(len(labels)):
            name = ".".join(labels[first:])
            if name in self._hosts:
                return "host", name
        page = f"{host}{path}"
        if self._pages:
            ends = [end for end in range(len(host), len(page)) if page[end] in "/?#"] + [len(page)]
            for end in ends:
                if page[:end] in self._pages:
                    return "page", page[:end]
        if self._words:
            word = next((word for word in re.split(r"[\W_]+", page.casefold()) if word in self._words), None)
            return None if word is None else ("word", word)
        return None


def _address(document: Document) -> str | None:
    for value in (document.locator, document.fields.get("url")):
        if isinstance(value, str) and _ADDRESS.match(value):
            return value
    return None


def _parts(entry: str) -> tuple[str, str]:
    """Host in lower case without ``www.``, and path with query; nothing for what is no address.

    A line of a hosts file (``0.0.0.0 example.com``) is its name.
    """
    words = entry.split()
    if len(words) > 1 and words[0] in _SINK:
        entry = words[1]
    entry = entry.strip().removeprefix("*.").removeprefix("||").removesuffix("^")
    try:
        parts = urlsplit(entry if "://" in entry else f"http://{entry}")
        host = (parts.hostname or "").rstrip(".").removeprefix("www.")
        host = host.encode("idna").decode("ascii")
    except (ValueError, UnicodeError):
        return "", ""
    if not host or re.search(r"[\s\"'<>]", host):
        return "", ""
    return host, parts.path + (f"?{parts.query}" if parts.query else "")
