"""The source ``confluence``: the pages of a space and what people said of them, over Confluence Cloud's REST API.

Pages come in Confluence's storage format and are read as HTML.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from treadle.core.errors import UserError
from treadle.core.secrets import resolve
from treadle.core.settings import Moment
from treadle.integrations.rest_api import Answer, RestApi
from treadle.integrations.threads import Comments, MalformedError, Piece, Post, Threads, each, text_at, time_at
from treadle.text.accounting import Quarantined
from treadle.text.readers.piece import Documents, Text
from treadle.text.readers.workers import Workers
from treadle.text.source import SourceContext

SOURCE = "confluence"
_KEY = re.compile(r"[A-Za-z0-9~_.-]{1,255}\Z")
_DEEPEST = 10  # answers to answers
_EMPTY_TAG = re.compile(r"<(?:ac|ri):[^<>]*/>")
_PARAMETER = re.compile(r"<ac:parameter\b[^<>]*>[^<]*</ac:parameter>")
_CODE = re.compile(r"<(/?)ac:plain-text-body\b[^<>]*>")
_COMMENTS = ("footer-comments", "inline-comments")


class Confluence:
    """Source ``confluence``. ``fields`` of a document: ``kind`` (page or comment), ``title``, ``updated``, ``version``,
    ``from`` (a keyed digest of the account's id); of a comment also ``thread``.

    ``url`` is that of the wiki (``https://site.atlassian.net/wiki``), ``space`` its key; ``user`` and ``token`` are
    ``${env:NAME}``. ``comments`` are documents of their own (``apart``), part of the page's (``whole``), or left out
    (``none``). ``patience`` are the seconds it may wait for the server's limits.
    """

    version = 1
    instead: ClassVar[Mapping[str, str]] = {"url": "take it out, and write user and token beside it, as ${env:NAME}"}

    def __init__(
        self,
        *,
        url: str,
        space: str,
        context: SourceContext,
        user: str | None = None,
        token: str | None = None,
        comments: Comments = "apart",
        license: str | None = None,  # noqa: A002 (the file's word)
        purpose: str | None = None,
        retain_until: Moment | None = None,
        reading: Documents | None = None,
        patience: float = 3700.0,
    ) -> None:
        if not _KEY.match(space):
            raise UserError(f"{SOURCE}: space is {space[:60]!r}; expected its key, such as DOCS")
        if (user is None) != (token is None):
            raise UserError(f"{SOURCE}: a login needs both user and token, as ${{env:NAME}}")
        self._space, self._comments, self._user = space, comments, user
        common = {"license": license, "purpose": purpose, "retain_until": retain_until}
        self._threads = Threads(SOURCE, common, context.keyed)
        self._settings: dict[str, Any] = {
            "where": SOURCE,
            "token": token,
            "headers": self._headers,
            "patience": patience,
        }
        self._url = url.rstrip("/")
        self._documents = reading or Documents(boilerplate=True, workers=1)
        self._api()

    def fingerprint(self) -> str:
        """How many pages and comments there are and when the latest was changed, by one search. Its index may be some
        seconds behind.
        """
        kinds = "page" if self._comments == "none" else "page, comment"
        asked = f'space = "{self._space}" and type in ({kinds}) order by lastmodified desc'
        with self._api() as api:
            found = api.get("/rest/api/search", cql=asked, limit=1).value
        results = found.get("results") if isinstance(found, dict) else None
        if not isinstance(results, list) or not isinstance(found.get("totalSize"), int):
            raise UserError(f"{SOURCE}: the search answered with something other than results; check url")
        newest = results[0].get("lastModified") if results and isinstance(results[0], dict) else None
        return f"{found['totalSize']} until {newest}"

    def read(self, cursor: str | None = None) -> Iterator[Piece]:
        """Pages in the order of their ids, each with its comments; with ``cursor``, a time, the pages changed since,
        the latest first (a comment alone changes no page).
        """
        workers = Workers(self._documents)
        try:
            with self._api() as api:
                reader = _Reader(api, self._url, self._space, self._threads, workers)
                for post in reader.pages(cursor):
                    if isinstance(post, Quarantined):
                        yield post
                    else:
                        yield from self._thread(reader, post)
        finally:
            workers.close()

    def _thread(self, reader: _Reader, post: Post) -> Iterator[Piece]:
        if self._comments == "none":
            yield self._threads.document(post)
            return
        comments = reader.comments(post)
        if self._comments == "apart":
            yield self._threads.document(post)
            for comment in comments:
                yield comment if isinstance(comment, Quarantined) else self._threads.document(comment)
            return
        found = list(comments)
        broken = next((comment for comment in found if isinstance(comment, Quarantined)), None)
        yield broken or self._threads.whole(post, [one for one in found if not isinstance(one, Quarantined)])

    def _headers(self, token: str | None) -> Mapping[str, str]:
        headers = {"Accept": "application/json"}
        if token is None or self._user is None:
            return headers
        login = base64.b64encode(f"{resolve(self._user)}:{token}".encode()).decode("ascii")
        return {**headers, "Authorization": f"Basic {login}"}

    def _api(self) -> RestApi:
        return RestApi(self._url, **self._settings)


class _Reader:
    """Asks for pages and comments, and makes posts of them."""

    def __init__(self, api: RestApi, url: str, space: str, threads: Threads, workers: Workers) -> None:
        self._api, self._url, self._space, self._threads, self._workers = api, url, space, threads, workers

    def pages(self, since: str | None) -> Iterator[Post | Quarantined]:
        place = f"/api/v2/spaces/{self._space_id()}/pages"
        sort = "id" if since is None else "-modified-date"
        for post in self._each(place, self._page, sort=sort, status="current"):
            if since is not None and isinstance(post, Post) and post.fields["updated"] <= since:
                return
            yield post

    def comments(self, post: Post) -> Iterator[Post | Quarantined]:
        identity = post.fields["page"]
        for kind in _COMMENTS:
            yield from self._below(f"/api/v2/pages/{identity}/{kind}", kind, post.locator, 0)

    def _below(self, place: str, kind: str, thread: str, depth: int) -> Iterator[Post | Quarantined]:
        """Comments at a place, each with the answers to it."""
        for post in self._each(place, lambda found: self._comment(found, thread), sort="created-date"):
            yield post
            if isinstance(post, Post) and depth < _DEEPEST:
                children = f"/api/v2/{kind}/{post.fields['comment']}/children"
                yield from self._below(children, kind, thread, depth + 1)

    def _each(self, place: str, made: Callable[[Any], Post], **asked: Any) -> Iterator[Post | Quarantined]:
        for page in self._api.pages(place, _next, limit=100, **{"body-format": "storage"}, **asked):
            found = page.value.get("results") if isinstance(page.value, dict) else None
            yield from each(found, made, self._threads, place)

    def _space_id(self) -> str:
        found = self._api.get("/api/v2/spaces", keys=self._space).value
        results = found.get("results") if isinstance(found, dict) else None
        if not isinstance(results, list) or not results:
            raise UserError(f"{SOURCE}: there is no space {self._space}, or it is not yours to read; check its key")
        identity = text_at(results[0], "id")
        if not identity.isdigit():
            raise UserError(f"{SOURCE}: the server gave no id of the space {self._space}")
        return identity

    def _page(self, found: Any) -> Post:
        identity, title = _id(found), text_at(found, "title")
        fields = {
            "kind": "page",
            "page": identity,
            "title": title,
            "updated": time_at(found, "version", "createdAt"),
            "version": text_at(found, "version", "number"),
        }
        locator = f"{self._url}/spaces/{self._space}/pages/{identity}"
        text = f"{title}\n\n{self._text(found)}".strip()
        return Post(locator, text, _account(found, "authorId"), time_at(found, "createdAt"), fields)

    def _comment(self, found: Any, thread: str) -> Post:
        identity = _id(found)
        # A comment has the time of its latest version only.
        time = time_at(found, "version", "createdAt")
        fields = {"kind": "comment", "comment": identity, "thread": thread, "updated": time}
        locator = f"{thread}?focusedCommentId={identity}"
        return Post(locator, self._text(found), _account(found, "version", "authorId"), time, fields)

    def _text(self, found: Any) -> str:
        stored = text_at(found, "body", "storage", "value", default="")
        if not stored.strip():
            return ""
        pieces = self._workers.submit("html", as_html(stored).encode()).result()
        reason = next((piece.reason for piece in pieces if not isinstance(piece, Text)), None)
        if reason == "a page without text":
            return ""
        if reason:
            raise MalformedError(reason)
        return "\n\n".join(piece.text for piece in pieces if isinstance(piece, Text))


def as_html(stored: str) -> str:
    """Storage format as a page: what stands in CDATA is text, code keeps its lines, settings of macros are left out."""
    parts, place = [], 0
    while (start := stored.find("<![CDATA[", place)) >= 0 and (end := stored.find("]]>", start)) >= 0:
        parts += [stored[place:start], html.escape(stored[start + 9 : end])]
        place = end + 3
    text = "".join(parts) + stored[place:]
    text = _PARAMETER.sub("", _EMPTY_TAG.sub("", text))
    text = _CODE.sub(r"<\1pre>", text)
    return f'<!DOCTYPE html><meta charset="utf-8"><body>{text}</body>'


def _next(answer: Answer) -> str | None:
    links = answer.value.get("_links") if isinstance(answer.value, dict) else None
    found = links.get("next") if isinstance(links, dict) else None
    return found if isinstance(found, str) else None


def _id(found: Any) -> str:
    identity = text_at(found, "id")
    if not identity.isdigit():
        raise MalformedError("id is no number")
    return identity


def _account(found: Any, *path: str) -> str | None:
    return text_at(found, *path, default="") or None
