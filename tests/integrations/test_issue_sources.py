"""Issues and pages over REST APIs: every one is counted, people stand there as digests, limits are kept."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from integrations.api_server import ApiServer, api_server
from treadle.core.digest import keyed_digest
from treadle.core.errors import UserError
from treadle.integrations.confluence import as_html
from treadle.text.accounting import Accounting
from treadle.text.document import Document
from treadle.text.source import SourceContext, open_source, read_sources

keyed = partial(keyed_digest, b"k" * 32, "subject")
GITHUB, GITLAB = "/repos/tea/pot/issues", "/api/v4/projects/tea/pot/issues"
Collect = Callable[..., tuple[list[Document], Accounting]]


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as server:
        fill_github(server)
        fill_gitlab(server)
        fill_confluence(server)
        yield server


@pytest.fixture
def collect(tmp_path: Path, server: ApiServer) -> Collect:
    def run(kind: str, cursor: str | None = None, **settings: Any) -> tuple[list[Document], Accounting]:
        named = {"github_issues": {"repository": "tea/pot"}, "gitlab_issues": {"project": "tea/pot"},
                 "confluence": {"space": "TEA"}}[kind]  # fmt: skip
        url = server.url + ("/wiki" if kind == "confluence" else "")
        opened = open_source({"type": kind, "url": url, **named, **settings}, SourceContext(tmp_path, keyed))
        if cursor is not None:
            return [piece for piece in opened.source.read(cursor) if isinstance(piece, Document)], Accounting()
        accounting = Accounting()
        return [each for batch in read_sources([opened], accounting) for each in batch], accounting.close()

    return run


def day(number: int) -> str:
    return f"2024-05-{number:02}T10:00:00Z"


def fill_github(server: ApiServer) -> None:
    def user(login: str, kind: str = "User") -> dict[str, Any]:
        return {"login": login, "id": 1, "type": kind}

    def issue(number: int, body: str | None, by: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
        return {"number": number, "title": f"Title {number}", "body": body, "user": by, "state": "open", "comments": 0,
                "labels": [{"name": "bug"}], "created_at": day(number), "updated_at": day(number + 10),
                "html_url": f"https://github.com/tea/pot/issues/{number}", **more}  # fmt: skip

    def comment(number: int, of: str, by: dict[str, Any]) -> dict[str, Any]:
        return {"id": number, "body": f"Said {number}", "user": by,
                "created_at": day(number), "updated_at": day(number),
                "html_url": f"https://github.com/tea/pot/{of}#issuecomment-{number}"}  # fmt: skip

    server.rows[GITHUB] = [
        issue(1, "It **leaks**.", user("Octocat"), comments=2),
        issue(2, None, None),
        issue(3, "A change", user("octocat"), pull_request={"url": "x"}),
        issue(4, "Bump", user("bot[bot]", "Bot")),
        issue(5, "x", user("a")) | {"title": {"no": "text"}},
    ]
    server.rows[f"{GITHUB}/comments"] = [
        comment(11, "issues/1", user("hubot")), comment(12, "pull/3", user("x")),
        comment(13, "issues/1", user("Octocat"))
    ]  # fmt: skip
    server.rows[f"{GITHUB}/1/comments"] = [
        row for row in server.rows[f"{GITHUB}/comments"] if "issues/1" in row["html_url"]
    ]


def fill_gitlab(server: ApiServer) -> None:
    def issue(number: int, **more: Any) -> dict[str, Any]:
        return {"id": 100 + number, "iid": number, "title": f"Title {number}", "description": "It leaks.",
                "state": "opened",
                "created_at": day(number), "updated_at": day(number + 10), "labels": ["bug"], "confidential": False,
                "author": {"username": "Pipin"}, "user_notes_count": 0,
                "web_url": f"https://gitlab.com/tea/pot/-/issues/{number}", **more}  # fmt: skip

    def note(number: int, **more: Any) -> dict[str, Any]:
        return {"id": number, "body": f"Said {number}", "author": {"username": "merry"}, "created_at": day(number),
                "updated_at": day(number), "system": False, "internal": False, **more}  # fmt: skip

    server.rows[GITLAB] = [issue(1, user_notes_count=2), issue(2, confidential=True), issue(3, description=None)]
    server.rows[f"{GITLAB}/1/notes"] = [note(11), note(12, system=True), note(13, internal=True), note(14)]


def fill_confluence(server: ApiServer) -> None:
    def stored(text: str) -> dict[str, Any]:
        return {"storage": {"representation": "storage", "value": text}}

    def page(number: int, body: str) -> dict[str, Any]:
        time = f"2024-02-{number:02}T00:00:00.000Z"
        return {"id": str(number), "status": "current", "title": f"Page {number}", "authorId": "557:Ann",
                "createdAt": "2024-01-01T00:00:00.000Z", "body": stored(body),
                "version": {"number": 3, "createdAt": time, "authorId": "557:b"}}  # fmt: skip

    def comment(number: int, body: str) -> dict[str, Any]:
        version = {"createdAt": f"2024-03-{number:02}T00:00:00Z", "number": 1, "authorId": "557:bob"}
        return {"id": str(number), "status": "current", "body": stored(body), "version": version}

    base = "/wiki/api/v2"
    code = '<ac:structured-macro ac:name="code"><ac:parameter ac:name="language">py</ac:parameter><ac:plain-text-body>'
    code += "<![CDATA[if a < b:\n    pass]]></ac:plain-text-body></ac:structured-macro>"
    server.rows[f"{base}/spaces"] = [{"id": "7", "key": "TEA"}]
    server.rows[f"{base}/spaces/7/pages"] = [page(1, "<p>One</p>" + code), page(2, ""), page(3, "<p>Three</p>")]
    for number in (1, 2, 3):
        for kind in ("footer", "inline"):
            server.rows[f"{base}/pages/{number}/{kind}-comments"] = []
    server.rows[f"{base}/pages/1/footer-comments"] = [comment(11, "<p>Why?</p>"), comment(13, "<p>Good.</p>")]
    server.rows[f"{base}/footer-comments/11/children"] = [comment(12, "<p>Because.</p>")]
    for number in (12, 13):
        server.rows[f"{base}/footer-comments/{number}/children"] = []
    server.rows["/wiki/rest/api/search"] = [{"lastModified": day(5)}] * 6


def test_github_issues_and_their_comments(collect: Collect) -> None:
    documents, accounting = collect("github_issues", license="CC-BY-4.0")
    assert accounting.line() == "8 in = 4 kept + 3 dropped + 1 quarantined"
    assert accounting.dropped == {"github_issues.pull_request": 2, "github_issues.bot": 1}
    assert accounting.quarantined[0].reason == "title is not a text"
    first, second, *said = documents
    assert (first.text, first.time, first.license) == ("Title 1\n\nIt **leaks**.", day(1), "CC-BY-4.0")
    assert first.subject == first.fields["from"] == keyed("octocat")
    assert (first.locator, first.source) == ("https://github.com/tea/pot/issues/1", "github_issues")
    assert first.fields["labels"] == ["bug"]
    assert (second.text, second.subject) == ("Title 2", None)
    assert [(each.text, each.subject, each.fields["thread"]) for each in said] == [
        ("Said 11", keyed("hubot"), first.locator), ("Said 13", keyed("octocat"), first.locator)
    ]  # fmt: skip
    assert "ctocat" not in repr(documents)


def test_comments_may_be_part_of_the_issue_or_left_out(collect: Collect, server: ApiServer) -> None:
    documents, accounting = collect("github_issues", comments="whole", pulls=True, bots=True)
    assert (accounting.kept, accounting.dropped) == (4, {})
    assert documents[0].text == "Title 1\n\nIt **leaks**.\n\nSaid 11\n\nSaid 13"
    assert documents[0].fields["comments"] == [
        {"time": day(11), "from": keyed("hubot")}, {"time": day(13), "from": keyed("octocat")}
    ]  # fmt: skip
    assert len(collect("github_issues", comments="none")[0]) == 2
    (first, *_), _ = collect("gitlab_issues", comments="whole")
    assert first.text == "Title 1\n\nIt leaks.\n\nSaid 11\n\nSaid 14"
    (page, *_), _ = collect("confluence", comments="whole")
    assert page.text.endswith("Why?\n\nBecause.\n\nGood.")


def test_gitlab_issues_and_their_notes(collect: Collect) -> None:
    documents, accounting = collect("gitlab_issues")
    assert accounting.dropped == {"gitlab_issues.confidential": 2, "gitlab_issues.system": 1}
    assert [document.text for document in documents] == ["Title 1\n\nIt leaks.", "Said 11", "Said 14", "Title 3"]
    assert [document.subject for document in documents] == [
        keyed(name) for name in ("pipin", "merry", "merry", "pipin")
    ]
    assert documents[1].locator == "https://gitlab.com/tea/pot/-/issues/1#note_11"
    assert collect("gitlab_issues", confidential=True)[1].dropped == {"gitlab_issues.system": 1}


def test_confluence_pages_and_their_comments(collect: Collect, server: ApiServer) -> None:
    documents, accounting = collect("confluence")
    assert accounting.line() == "6 in = 6 kept + 0 dropped + 0 quarantined"
    texts = [document.text for document in documents]
    assert texts[0].startswith("Page 1\n\nOne\n\n")
    assert "if a < b:\n    pass" in texts[0]
    assert "py" not in texts[0]
    assert texts[1:] == ["Why?", "Because.", "Good.", "Page 2", "Page 3\n\nThree"]
    assert documents[0].locator == f"{server.url}/wiki/spaces/TEA/pages/1"
    assert (documents[0].subject, documents[1].subject) == (keyed("557:ann"), keyed("557:bob"))
    assert (documents[0].time, documents[0].fields["updated"]) == ("2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z")


def test_only_what_changed_is_asked_for(collect: Collect, server: ApiServer) -> None:
    assert [each.locator[-1] for each in collect("github_issues", cursor=day(12))[0]] == ["2", "3"]
    assert [each.text[:7] for each in collect("gitlab_issues", cursor=day(13))[0]] == ["Title 3"]
    server.asked.clear()
    assert [each.text[:6] for each in collect("confluence", cursor="2024-02-01T00:00:00Z")[0]] == ["Page 3", "Page 2"]
    assert not any("pages/1/" in path for path, _ in server.asked)


@pytest.mark.parametrize("kind", ["github_issues", "gitlab_issues", "confluence"])
def test_a_fingerprint_costs_little_and_tells_a_change(tmp_path: Path, server: ApiServer, kind: str) -> None:
    named = {"github_issues": {"repository": "tea/pot"}, "gitlab_issues": {"project": "tea/pot"},
             "confluence": {"space": "TEA"}}[kind]  # fmt: skip
    url = server.url + ("/wiki" if kind == "confluence" else "")
    source = open_source({"type": kind, "url": url, **named}, SourceContext(tmp_path, keyed))
    before = source.fingerprint()
    assert source.fingerprint() == before
    assert len(server.asked) <= 4
    path = {"github_issues": f"{GITHUB}/comments", "gitlab_issues": GITLAB, "confluence": "/wiki/rest/api/search"}[kind]
    server.rows[path] = server.rows[path][1:]
    assert source.fingerprint() != before
    after = source.fingerprint()
    for row in server.rows[path]:
        row["updated_at"] = row["lastModified"] = "2025-01-01T00:00:00Z"
    assert source.fingerprint() != after


def test_the_servers_limits_are_kept(collect: Collect, server: ApiServer) -> None:
    soon = str(int(time.time()))
    server.first = [
        (429, {"Retry-After": "0"}, b""),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": soon}, b"{}"),
        (502, {}, b"busy"),
    ]
    assert collect("github_issues")[1].kept == 4
    assert len(server.asked) == 3 + 5
    server.first = [(429, {"Retry-After": "100"}, b"")]
    with pytest.raises(UserError, match=r"asks to wait 100 s, more than patience \(5 s\)"):
        collect("gitlab_issues", patience=5)


@pytest.mark.parametrize("word", ["\xb2", "9" * 5000, "1e999", "Mon, 99 Foo", "Fri, 31 Dec 99999 00:00:00 GMT"])
def test_an_odd_limit_waits_as_if_none_was_named(collect: Collect, server: ApiServer, word: str) -> None:
    for headers in ({"Retry-After": word}, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": word}):
        server.first = [(429, headers, b"")]
        with pytest.raises(UserError, match=r"asks to wait 60 s, more than patience"):
            collect("gitlab_issues", patience=5)


def test_packed_answers_are_unpacked_once(collect: Collect, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = json.dumps(server.rows[GITHUB]).encode()
    server.first = [(200, {"Content-Encoding": "gzip"}, gzip.compress(rows))]
    assert len(collect("github_issues", comments="none")[0]) == 2
    assert server.headers[0]["accept-encoding"] == "gzip"
    monkeypatch.setattr("treadle.integrations.rest_api._FIRST_PAUSE", 0.0)
    for headers, body in [
        ({"Content-Encoding": "gzip, gzip"}, gzip.compress(gzip.compress(rows))),
        ({"Content-Encoding": "br"}, rows),
        ({"Content-Encoding": "gzip"}, rows),
        ({"Content-Encoding": "gzip"}, gzip.compress(rows)[:-9]),
    ]:
        server.first = [(200, headers, body)] * 5
        with pytest.raises(UserError, match=r"does not answer \(DecodingError\)"):
            collect("github_issues")


@pytest.mark.parametrize("url", ["http://[x", "https://host:port", "https://", "ftp://host"])
def test_an_address_that_is_none_is_refused(collect: Collect, url: str) -> None:
    with pytest.raises(UserError, match="expected an address such as https://host"):
        collect("github_issues", url=url)


def test_a_token_is_sent_to_its_server_only(
    collect: Collect, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEA_TOKEN", "s3cretword")
    collect("github_issues", token="${env:TEA_TOKEN}")
    assert {headers["authorization"] for headers in server.headers} == {"Bearer s3cretword"}
    server.headers.clear()
    collect("gitlab_issues", token="${env:TEA_TOKEN}")
    assert {headers["private-token"] for headers in server.headers} == {"s3cretword"}
    with api_server() as other:
        for answer in [(301, {"Location": f"{other.url}/x"}, b""),
                       (200, {"Link": f'<{other.url}/x>; rel="next"'}, b"[]")]:  # fmt: skip
            server.first = [answer]
            with pytest.raises(UserError, match="leads to"):
                collect("github_issues", token="${env:TEA_TOKEN}")
        assert other.asked == []
    for settings, words in [
        ({"token": "s3cretword"}, "does not stand in the file"),
        ({"token": "${env:NO_SUCH}"}, "NO_SUCH"),
        ({"url": "http://example.org", "token": "${env:TEA_TOKEN}"}, "over https only"),
        ({"url": "https://me:s3cretword@example.org"}, "without a login"),
    ]:
        with pytest.raises(UserError) as caught:
            collect("github_issues", **settings)
        assert words in str(caught.value)
        assert "s3cretword" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((404, {}, b"{}"), "answered /repos/tea/pot/issues with 404; check the name, or set a token"),
        ((200, {}, b"<html>"), "no JSON"),
        ((200, {}, b"[" * 100_000), "no JSON"),
        ((200, {}, b'{"message": "odd"}'), "something other than a list"),
        ((200, {"Link": '<?page=1>; rel="next"'}, b"[]"), ""),
        ((301, {"Location": "http://[x"}, b""), "an address that is none"),
        ((200, {"Link": '<http://[x>; rel="next"'}, b"[]"), "an address that is none"),
        ((200, {"Content-Encoding": "gzip"}, gzip.compress(b" " * (80 << 20))), "more than 67,108,864 bytes"),
        ((301, {"Location": "?x=1"}, b""), ""),
    ],
)
def test_what_a_server_may_answer(collect: Collect, server: ApiServer, answer: Any, words: str) -> None:
    if words:
        server.first = [answer]
        with pytest.raises(UserError, match="github_issues: ") as caught:
            collect("github_issues")
        assert words in str(caught.value)
        return
    server.first = [answer] * 20
    with pytest.raises(UserError, match=r"in a circle|redirects for ever"):
        collect("github_issues")


def test_a_piece_that_is_malformed_takes_nothing_with_it(collect: Collect, server: ApiServer) -> None:
    good = server.rows[GITLAB][0] | {"user_notes_count": 0}
    bad: list[Any] = [None, "x", {}, good | {"created_at": "noon"}, good | {"title": "\ud800"}, good | {"iid": "1"}]
    server.first = [(200, {}, json.dumps([*bad, good]).encode())]
    documents, accounting = collect("gitlab_issues")
    assert [document.text for document in documents] == ["Title 1\n\nIt leaks."]
    assert [piece.reason for piece in accounting.quarantined] == [
        "title is not a text", "title is not a text", "title is not a text", "created_at is no time",
        "title: half of a surrogate pair, which is no text", "iid is no number",
    ]  # fmt: skip
    assert accounting.quarantined[0].source == f"gitlab_issues:{GITLAB.replace('tea/pot', 'tea%2Fpot')} item 1"


def test_storage_format_as_html() -> None:
    assert "<pre>a &lt; b &amp;&amp; c</pre>" in as_html(
        "<ac:plain-text-body><![CDATA[a < b && c]]></ac:plain-text-body>"
    )
    assert "<ri:" not in as_html('<ac:link><ri:user ri:account-id="557:x" /></ac:link>')
    assert "py" not in as_html('<ac:parameter ac:name="language">py</ac:parameter>')
    assert as_html("<![CDATA[" * 200_000).count("CDATA") == 200_000
