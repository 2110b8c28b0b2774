"""The source ``github_issues``: issues of a repository and what people said of them, over GitHub's REST API."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from treadle.core.errors import UserError
from treadle.core.settings import Moment
from treadle.integrations.rest_api import Answer, RestApi
from treadle.integrations.threads import Comments, Piece, Post, Threads, each, labels_at, number_at, text_at, time_at
from treadle.text.accounting import Quarantined
from treadle.text.source import SourceContext

SOURCE = "github_issues"
_VERSION = "2022-11-28"
_REPOSITORY = re.compile(r"[A-Za-z0-9-]{1,39}/[\w.-]{1,100}\Z")


class GithubIssues:
    """Source ``github_issues``. ``fields`` of a document: ``kind`` (issue or comment), ``number``, ``state``,
    ``labels``, ``updated``, ``from`` (a keyed digest); of a comment also ``thread``.

    ``repository`` is owner/name, ``token`` is ``${env:NAME}``. ``comments`` are documents of their own (``apart``),
    part of the issue's (``whole``), or left out (``none``). Pull requests and what programs wrote are dropped unless
    asked for. ``url`` is another one for GitHub Enterprise. ``patience`` are the seconds it may wait for the server's
    limits.
    """

    version = 1
    instead: ClassVar[Mapping[str, str]] = {"url": "take it out, and write `token: ${env:NAME}` beside it"}

    def __init__(
        self,
        *,
        repository: str,
        context: SourceContext,
        token: str | None = None,
        comments: Comments = "apart",
        pulls: bool = False,
        bots: bool = False,
        license: str | None = None,  # noqa: A002 (the file's word)
        purpose: str | None = None,
        retain_until: Moment | None = None,
        url: str = "https://api.github.com",
        patience: float = 3700.0,
    ) -> None:
        if not _REPOSITORY.match(repository):
            raise UserError(f"{SOURCE}: repository is {repository[:60]!r}; expected owner/name")
        self._base = f"/repos/{repository}/issues"
        self._comments, self._pulls, self._bots = comments, pulls, bots
        common = {"license": license, "purpose": purpose, "retain_until": retain_until}
        self._threads = Threads(SOURCE, common, context.keyed)
        self._settings: dict[str, Any] = {"where": SOURCE, "token": token, "headers": _headers, "patience": patience}
        self._url = url
        self._api()

    def fingerprint(self) -> str:
        """How many issues and comments there are, and when the latest of each was changed: two requests."""
        with self._api() as api:
            told = [_told(api.get(self._base, state="all", sort="updated", direction="desc", per_page=1))]
            if self._comments != "none":
                told.append(_told(api.get(f"{self._base}/comments", sort="updated", direction="desc", per_page=1)))
        return ", ".join(told)

    def read(self, cursor: str | None = None) -> Iterator[Piece]:
        """Issues in the order they were opened, then (``apart``) all comments in theirs; with ``cursor``, a time, what
        was changed since. What was deleted says nothing.
        """
        since = {} if cursor is None else {"since": cursor}
        with self._api() as api:
            for page in api.pages(self._base, Answer.next_page, state="all", **_ASCENDING, **since):
                for post in each(page.value, self._issue, self._threads, self._base):
                    yield self._piece(api, post)
            if self._comments == "apart":
                place = f"{self._base}/comments"
                for page in api.pages(place, Answer.next_page, **_ASCENDING, **since):
                    for post in each(page.value, self._comment, self._threads, place):
                        yield post if isinstance(post, Quarantined) else self._threads.document(post)

    def _piece(self, api: RestApi, post: Post | Quarantined) -> Piece:
        if isinstance(post, Quarantined):
            return post
        said = post.fields.pop("said")
        if self._comments != "whole" or post.rule or not said:
            return self._threads.document(post)
        place, comments = f"{self._base}/{post.fields['number']}/comments", []
        for page in api.pages(place, Answer.next_page, per_page=100):
            for comment in each(page.value, self._comment, self._threads, place):
                if isinstance(comment, Quarantined):
                    return comment
                comments += [] if comment.rule else [comment]
        return self._threads.whole(post, comments)

    def _issue(self, found: Any) -> Post:
        title, body = text_at(found, "title"), text_at(found, "body", default="")
        fields = {
            "kind": "issue",
            "number": number_at(found, "number"),
            "title": title,
            "state": text_at(found, "state"),
            "labels": labels_at(found, "labels"),
            "updated": time_at(found, "updated_at"),
            "said": found.get("comments", 0),
        }
        rule, reason = self._refused(found, pull="pull_request" in found)
        text = f"{title}\n\n{body}".strip()
        return Post(text_at(found, "html_url"), text, _login(found), time_at(found, "created_at"), fields, rule, reason)

    def _comment(self, found: Any) -> Post:
        locator = text_at(found, "html_url")
        thread = locator.partition("#")[0]
        fields = {"kind": "comment", "thread": thread, "updated": time_at(found, "updated_at")}
        rule, reason = self._refused(found, pull="/pull/" in thread)
        text = text_at(found, "body", default="")
        return Post(locator, text, _login(found), time_at(found, "created_at"), fields, rule, reason)

    def _refused(self, found: Any, *, pull: bool) -> tuple[str, str]:
        if pull and not self._pulls:
            return "pull_request", "of a pull request; `pulls: true` keeps it"
        user = found.get("user")
        if not self._bots and isinstance(user, Mapping) and user.get("type") == "Bot":
            return "bot", "a program wrote it; `bots: true` keeps it"
        return "", ""

    def _api(self) -> RestApi:
        return RestApi(self._url, **self._settings)


_ASCENDING = {"sort": "created", "direction": "asc", "per_page": 100}


def _headers(token: str | None) -> Mapping[str, str]:
    headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": _VERSION}
    return {**headers, "Authorization": f"Bearer {token}"} if token else headers


def _told(answer: Answer) -> str:
    found = answer.value
    if not isinstance(found, list) or not found or not isinstance(found[0], dict):
        return "0"
    return f"{answer.last_page() or 1} until {found[0].get('updated_at')}"


def _login(found: Any) -> str | None:
    """Who wrote it; nobody where the account is gone."""
    return text_at(found, "user", "login", default="") or None
