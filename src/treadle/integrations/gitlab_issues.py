"""The source ``gitlab_issues``: issues of a project and what people said of them, over GitLab's REST API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from treadle.core.digest import blake3_bytes
from treadle.core.errors import UserError
from treadle.core.settings import Moment
from treadle.integrations.rest_api import Answer, RestApi
from treadle.integrations.threads import Comments, Piece, Post, Threads, each, labels_at, number_at, text_at, time_at
from treadle.text.accounting import Quarantined
from treadle.text.source import SourceContext
from treadle.text.units import LOOSE, Known, Unit, nothing_known, without_units

SOURCE = "gitlab_issues"


class GitlabIssues:
    """Source ``gitlab_issues``. ``fields`` of a document are those of ``github_issues``.

    ``project`` is its path or number, ``token`` is ``${env:NAME}``. Confidential issues and internal comments are
    dropped unless ``confidential`` is true, and so is what GitLab writes itself. ``comments`` are documents of their
    own (``apart``), part of the issue's (``whole``), or left out (``none``). ``patience`` are the seconds it may wait
    for the server's limits.
    """

    version = 1
    instead: ClassVar[Mapping[str, str]] = {"url": "take it out, and write `token: ${env:NAME}` beside it"}

    def __init__(
        self,
        *,
        project: str,
        context: SourceContext,
        token: str | None = None,
        comments: Comments = "apart",
        confidential: bool = False,
        license: str | None = None,  # noqa: A002 (the file's word)
        purpose: str | None = None,
        retain_until: Moment | None = None,
        url: str = "https://gitlab.com",
        patience: float = 3700.0,
    ) -> None:
        if not project.strip("/"):
            raise UserError(f"{SOURCE}: project is empty; expected group/name, or a number")
        self._base = f"/api/v4/projects/{quote(project.strip('/'), safe='')}/issues"
        self._comments, self._confidential = comments, confidential
        common = {"license": license, "purpose": purpose, "retain_until": retain_until}
        self._threads = Threads(SOURCE, common, context.keyed)
        self._settings: dict[str, Any] = {"where": SOURCE, "token": token, "headers": _headers, "patience": patience}
        self._url = url
        self._api()

    def fingerprint(self) -> str:
        """How many issues there are, as far as the server counts (up to 10,000), and when the latest was changed, by a
        comment too: one request.
        """
        with self._api() as api:
            answer = api.get(self._base, scope="all", order_by="updated_at", sort="desc", per_page=1)
        newest = answer.value[0].get("updated_at") if isinstance(answer.value, list) and answer.value else None
        return f"{answer.headers.get('x-total', 'many')} until {newest}"

    def read(self, cursor: str | None = None) -> Iterator[Piece]:
        """Issues in the order they were opened, each with its comments; with ``cursor``, a time, what changed since."""
        return without_units(self._pieces(nothing_known, cursor))

    def read_changed(self, known: Known) -> Iterator[Piece | Unit]:
        """The same by issues; the comments of one are asked for only where it changed, for a comment changes it."""
        return self._pieces(known, None)

    def _pieces(self, known: Known, cursor: str | None) -> Iterator[Piece | Unit]:
        since = {} if cursor is None else {"updated_after": cursor}
        asked = {"scope": "all", "order_by": "created_at", "sort": "asc", "per_page": 100, **since}
        with self._api() as api:
            for page in api.pages(self._base, Answer.next_page, **asked):
                rows = page.value if isinstance(page.value, list) else []
                posts = each(page.value, self._issue, self._threads, self._base)
                for post, row in zip(posts, rows, strict=False):  # where there is no list, `each` says so
                    mark = blake3_bytes(json.dumps(row, sort_keys=True).encode())
                    if isinstance(post, Quarantined):
                        yield LOOSE
                        yield post
                        continue
                    unit = Unit(post.locator, mark, known(post.locator, mark))
                    yield unit
                    if not unit.known:
                        yield from self._thread(api, post)

    def _thread(self, api: RestApi, post: Post) -> Iterator[Piece]:
        said = post.fields.pop("said")
        if self._comments == "none" or not said or post.rule:
            yield self._threads.document(post)
            return
        notes = self._notes(api, post)
        if self._comments == "apart":
            yield self._threads.document(post)
            for note in notes:
                yield note if isinstance(note, Quarantined) else self._threads.document(note)
            return
        found = list(notes)
        broken = next((note for note in found if isinstance(note, Quarantined)), None)
        kept = [note for note in found if not isinstance(note, Quarantined) and not note.rule]
        yield broken or self._threads.whole(post, kept)

    def _notes(self, api: RestApi, post: Post) -> Iterator[Post | Quarantined]:
        place = f"{self._base}/{post.fields['number']}/notes"
        for page in api.pages(place, Answer.next_page, order_by="created_at", sort="asc", per_page=100):
            yield from each(page.value, lambda found: self._note(found, post.locator), self._threads, place)

    def _issue(self, found: Any) -> Post:
        title, body = text_at(found, "title"), text_at(found, "description", default="")
        fields = {
            "kind": "issue",
            "number": number_at(found, "iid"),
            "title": title,
            "state": text_at(found, "state"),
            "labels": labels_at(found, "labels"),
            "updated": time_at(found, "updated_at"),
            "said": found.get("user_notes_count", 1),
        }
        rule, reason = self._refused(found.get("confidential") is True)
        text = f"{title}\n\n{body}".strip()
        return Post(text_at(found, "web_url"), text, _name(found), time_at(found, "created_at"), fields, rule, reason)

    def _note(self, found: Any, thread: str) -> Post:
        locator = f"{thread}#note_{text_at(found, 'id')}"
        fields = {"kind": "comment", "thread": thread, "updated": time_at(found, "updated_at")}
        rule, reason = self._refused(found.get("internal") is True or found.get("confidential") is True)
        if found.get("system") is True:
            rule, reason = "system", "GitLab wrote it: somebody changed a label, a title or a state"
        text = text_at(found, "body", default="")
        return Post(locator, text, _name(found), time_at(found, "created_at"), fields, rule, reason)

    def _refused(self, confidential: bool) -> tuple[str, str]:
        if confidential and not self._confidential:
            return "confidential", "confidential; `confidential: true` keeps it"
        return "", ""

    def _api(self) -> RestApi:
        return RestApi(self._url, **self._settings)


def _headers(token: str | None) -> Mapping[str, str]:
    return {"PRIVATE-TOKEN": token} if token else {}


def _name(found: Any) -> str | None:
    return text_at(found, "author", "username", default="") or None
