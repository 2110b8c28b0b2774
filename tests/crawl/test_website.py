"""A crawl of a real site on this machine: what it asks for, what it keeps, and what it does not survive badly."""

from __future__ import annotations

import gzip
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from crawl import site as made
from crawl.conftest import QUICK, collected, crawled, opened
from crawl.site import Handler, Site, answers, in_turn, page, redirect
from treadle.core.errors import Corrupt, UserError
from treadle.text.crawl.snapshot import read_lines
from treadle.text.crawl.warc_file import read_record


def hostile(site: Site) -> None:
    """Everything at once."""
    site.pages = {
        "/": page(
            "home", "/a", "/b?x=2&y=1", "/b?y=1&x=2&utm_source=mail", "/private/x", "http://elsewhere.example/",
            "/loop1", "/forever/0", "/slow", "/broken", "/busy", "/huge", "/endless", "/noindex", "/noai", "/img.png",
            "/bomb", "/missing", "/chunked", "/twin", "/cal/2026", "/deep/", "/vary?n=0", "/feed.xml", "/plain.txt",
            '<a rel=nofollow href="/unfollowed">no</a>', "javascript:x()", "/header", "/whole", "/garbled.pdf",
        ),
        "/a": page("a", "/", "/c"),
        "/c": page("c", head='<link rel=canonical href="/a">'),
        "/b?x=2&y=1": page("b"),
        "/twin": page("b"),
        "/robots.txt": b"User-agent: *\nDisallow: /private/\n",
        "/noindex": page("n", "/through", head="<meta name=robots content=noindex>"),
        "/through": page("through"),
        "/noai": page("noai", head="<meta name=robots content=noai>"),
        "/img.png": b"\x89PNG",
        "/feed.xml": b"<rss><channel><item><title>News of the day</title></item></channel></rss>",
        "/plain.txt": b"Nothing but text, plain as it can be.",
        "/garbled.pdf": b"%PDF-1.4 and nothing else",
        "/unfollowed": page("unfollowed"),
    }  # fmt: skip
    site.types = {"/robots.txt": "text/plain", "/img.png": "image/png", "/feed.xml": "application/rss+xml",
                  "/plain.txt": "text/plain", "/garbled.pdf": "application/pdf"}  # fmt: skip
    site.answers = {
        "/loop1": redirect("/loop2"),
        "/loop2": redirect("/loop1"),
        "/slow": made.drips,
        "/broken": answers(500, Retry_After="0"),
        "/busy": in_turn(answers(429, Retry_After="0"), answers(200, page("was busy"))),
        "/huge": made.claims(10**10),
        "/endless": made.endless,
        "/bomb": made.bomb,
        "/chunked": made.chunked(page("chunked")),
        "/header": answers(200, page("header"), X_Robots_Tag="otherbot: nofollow, treadle: noindex"),
        "/whole": made.claims(500),
    }

    def onwards(handler: Handler) -> None:
        start, _, number = handler.path.rpartition("/")
        redirect(f"{start}/{int(number) + 1}")(handler)

    def years(handler: Handler) -> None:
        year = int(handler.path.rpartition("/")[2][:4])
        handler.say(200, page(handler.path, f"/cal/{year + 1}-01"))

    def deeper(handler: Handler) -> None:
        handler.say(200, page(handler.path, handler.path + "deep/"))

    def varies(handler: Handler) -> None:
        number = int(handler.path.rpartition("=")[2])
        handler.say(200, page(handler.path, f"/vary?n={number + 1}"))

    site.prefixes = {"/forever/": onwards, "/cal/": years, "/deep/": deeper, "/vary": varies}


LIMITS = {"seconds": 1.0, "largest": 200_000, "max_variants": 4}


def test_a_hostile_site_is_fetched_exactly_as_it_should_be(site: Site, tmp_path: Path) -> None:
    hostile(site)
    found = crawled(tmp_path, site.url, crawl=LIMITS)

    def paths(urls: Any) -> set[str]:
        return {url.removeprefix(site.url) for url in urls}

    year = time.gmtime().tm_year
    years = {f"/cal/{each}-01" for each in range(2027, year + 2)}
    assert paths(found.documents) == {
        "/", "/a", "/b?x=2&y=1", "/busy", "/chunked", "/through", "/feed.xml", "/plain.txt", "/cal/2026", *years,
        "/deep/", "/deep/deep/", "/deep/deep/deep/", "/vary?n=0", "/vary?n=1", "/vary?n=2", "/vary?n=3",
    }  # fmt: skip
    assert {key.removeprefix(site.url): reason for key, reason in found.quarantined.items()} == {
        "/loop1": "redirects in a circle",
        "/loop2": "redirects in a circle",
        "/forever/10": "redirected more than 10 times",
        "/slow": "took longer than 1 seconds",
        "/broken": "answered 500 2 times",
        "/huge": "longer than 200000 bytes; raise largest",
        "/endless": "longer than 200000 bytes; raise largest",
        "/bomb": "its body unpacks to more than 200000 bytes",
        "/whole": "the connection failed (RemoteProtocolError)",
        "/garbled.pdf": found.quarantined[site.url + "/garbled.pdf"],
    }
    assert found.accounting.dropped == {
        "website.robots": 1, "website.out_of_scope": 1, "website.redirect": 10, "website.noindex": 2,
        "website.opt_out": 1, "website.content_type": 1, "website.status": 1, "website.same_content": 1,
        "website.canonical": 1, "website.trap": 3, "website.nofollow": 1,
    }  # fmt: skip
    for path, rule in {"/private/x": "robots", "/noai": "opt_out", "/header": "noindex", "/twin": "same_content",
                       "/c": "canonical", "/unfollowed": "nofollow", "/vary?n=4": "trap"}.items():  # fmt: skip
        assert found.rule_of(site.url + path) == f"website.{rule}"
    twice = {"/busy": 2, "/broken": 2, "/whole": 2}
    expected = paths(found.documents) | paths(found.quarantined)
    expected |= {f"/forever/{number}" for number in range(11)}
    expected |= {"/robots.txt", "/.well-known/tdmrep.json", "/noindex", "/noai", "/header", "/img.png", "/missing",
                 "/twin", "/c"}  # fmt: skip
    assert Counter(site.asked) == {path: twice.get(path, 1) for path in expected}
    document = found.documents[site.url + "/a"]
    assert (document.source, document.fields["title"], document.fields["language"]) == ("website", "a", "en")
    assert all("Cookie" not in headers for headers in site.headers)
    assert {headers["User-Agent"].partition("/")[0] for headers in site.headers} == {"treadle"}
    assert all("(+crawler@example.org)" in headers["User-Agent"] for headers in site.headers)


def test_only_what_changed_is_fetched_again(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": page("home", "/a", "/b", "/c", "/unversioned"), "/a": page("a"), "/b": page("b"),
                  "/c": page("c", "/d"), "/d": page("d")}  # fmt: skip
    site.answers = {"/unversioned": answers(200, page("always sent"))}
    source = opened(tmp_path, site.url)
    source.refresh(lambda line: None)
    before, first = source.fingerprint(), collected(source).documents
    assert set(site.statuses) == {200, 404}
    site.forget()
    source.refresh(lambda line: None)  # nothing is due
    assert site.asked == []
    source.refresh(lambda line: None, asked=True)
    assert source.fingerprint() == before
    assert site.statuses == {304: 5, 200: 1, 404: 2}
    assert collected(source).documents == first

    site.forget()
    site.pages["/b"] = page("b, changed", "/e")
    site.pages["/e"] = page("e, new")
    del site.pages["/d"]
    source.refresh(lambda line: None, asked=True)
    assert source.fingerprint() != before
    assert site.statuses == {304: 3, 200: 3, 404: 3}
    second = collected(source)
    changed = {url for url in first.keys() | second.documents.keys() if first.get(url) != second.documents.get(url)}
    assert changed == {site.url + path for path in ("/b", "/d", "/e")}
    assert second.rule_of(site.url + "/d") == "website.status"
    # A third look finds a body that lies two crawls back.
    site.forget()
    source.refresh(lambda line: None, asked=True)
    assert site.statuses == {304: 5, 200: 1, 404: 3}
    assert collected(source).documents == second.documents


def test_what_does_not_answer_for_now_is_as_it_was(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": page("home", "/a"), "/a": page("a", "/b"), "/b": page("b"), "/listed": page("listed"),
                  "/robots.txt": f"User-agent: *\nSitemap: {site.url}/map.xml".encode(),
                  "/map.xml": f"<urlset><loc>{site.url}/listed</loc></urlset>".encode()}  # fmt: skip
    site.types = {"/map.xml": "application/xml", "/robots.txt": "text/plain"}
    source = opened(tmp_path, site.url)
    source.refresh(lambda line: None)
    first = source.fingerprint()
    assert len(collected(source).documents) == 4
    site.answers["/a"] = answers(503, Retry_After="0")
    source.refresh(lambda line: None, asked=True)
    assert (source.fingerprint(), len(collected(source).documents)) == (first, 4)
    site.answers["/robots.txt"] = answers(503, Retry_After="0")  # nothing may be asked for
    site.forget()
    source.refresh(lambda line: None, asked=True)
    assert set(site.asked) == {"/robots.txt"}
    assert (source.fingerprint(), len(collected(source).documents)) == (first, 4)
    site.answers = {"/a": answers(410)}
    source.refresh(lambda line: None, asked=True)
    assert collected(source).rule_of(site.url + "/a") == "website.status"


@pytest.mark.parametrize(
    ("rules", "outage"), [("/robots.txt", made.hangs_up), ("/rules.txt", answers(503, Retry_After="0"))]
)
def test_an_outage_changes_nothing_and_is_told(site: Site, tmp_path: Path, rules: str, outage: Any) -> None:
    links = ("/none", "/pr/1", "/moved", "/image", "/long", "/circle", "/nowhere", "/reserved", "/late", "/deep")
    site.pages = {"/": page("home", *links), "/to": page("to"), "/deep": page("deep", "/pr/2"), "/pr/1": page("1"),
                  "/image": b"png", "/long": page("long", text="word " * 1_000), "/reserved": page("reserved"),
                  "/.well-known/tdmrep.json": b'[{"location": "/reserved", "tdm-reservation": 1}]',
                  rules: b"User-agent: *\nDisallow: /pr/"}  # fmt: skip
    site.types = {"/image": "image/png", rules: "text/plain"}
    site.answers = {"/moved": redirect("/to"), "/circle": redirect("/circle"), "/nowhere": answers(302),
                    "/late": answers(503, Retry_After="0")}  # fmt: skip
    if rules != "/robots.txt":
        site.answers["/robots.txt"] = redirect(rules)
    source = opened(tmp_path, site.url, crawl={"largest": 3_000})
    told: list[str] = []
    source.refresh(told.append)
    assert not any("did not answer" in line for line in told)
    first, before = source.fingerprint(), collected(source)
    assert set(before.documents) == {site.url + path for path in ("/", "/to", "/deep")}
    assert set(before.quarantined) == {site.url + path for path in ("/long", "/circle", "/nowhere", "/late")}
    assert before.accounting.dropped["website.robots"] == 2

    site.prefixes = {"/": outage}
    for _ in range(2):  # the second starts from what the first could keep
        told.clear()
        source.refresh(told.append, asked=True)
        assert source.fingerprint() == first
        assert any(f"{site.url}: robots.txt of this site cannot be had" in line for line in told)
        assert any("11 addresses did not answer; what was known of them stays as it was" in line for line in told)
    assert set(site.asked[-2:]) <= {"/robots.txt", rules}

    site.prefixes = {"/none": outage, "/moved": outage, "/image": outage, "/to": outage}
    source.refresh(told.append, asked=True)
    assert source.fingerprint() == first
    assert any("4 addresses did not answer" in line for line in told)
    site.prefixes = {}
    site.answers["/moved"] = answers(200, page("moved no more"))
    source.refresh(told.append, asked=True)
    assert set(collected(source).documents) == {site.url + path for path in ("/", "/moved", "/deep")}


@pytest.mark.parametrize(
    ("answer", "pages", "reason"),
    [
        (answers(404), 1, ""),
        (answers(403), 1, ""),
        (answers(500), 0, "robots.txt of this site cannot be had (answered 500 2 times)"),
        (answers(429, Retry_After="86400"), 0, "and asks to wait for 86400 seconds"),
        (redirect("/rules.txt", 301), 1, ""),
        (redirect("/robots.txt"), 0, "status 302"),
        (made.endless, 0, "robots.txt of this site cannot be had"),
    ],
)
def test_robots_txt_that_is_not_there(site: Site, tmp_path: Path, answer: Any, pages: int, reason: str) -> None:
    site.pages = {"/": page("home", "/hidden"), "/hidden": page("hidden"),
                  "/rules.txt": b"User-agent: treadle\nDisallow: /hidden"}  # fmt: skip
    site.answers["/robots.txt"] = answer
    found = crawled(tmp_path, site.url, crawl={"max_pages": 1})
    assert len(found.documents) == pages
    assert reason in found.quarantined.get(site.url + "/", "")
    assert ("/" in site.asked) is bool(pages)
    if "/rules.txt" in site.asked:
        assert found.rule_of(site.url + "/hidden") == "website.robots"


def test_opt_outs_drop_or_are_recorded(site: Site, tmp_path: Path) -> None:
    site.pages = {
        "/": page("home", "/books/1", "/meta", "/header"),
        "/books/1": page("book"),
        "/meta": page("meta", head="<meta name='tdm-reservation' content='1'>"),
        "/.well-known/tdmrep.json": json.dumps([{"location": "/books/*", "tdm-reservation": 1}]).encode(),
    }
    site.answers["/header"] = answers(200, page("header"), TDM_Reservation="1", X_Robots_Tag="noai")
    reserved = {site.url + path for path in ("/books/1", "/meta", "/header")}
    found = crawled(tmp_path, site.url)
    assert set(found.documents) == {site.url + "/"}
    assert found.accounting.dropped["website.opt_out"] == 3
    recorded = crawled(tmp_path, site.url, opt_outs="record").documents
    assert {url for url, document in recorded.items() if document.opt_out} == reserved
    assert recorded[site.url + "/header"].opt_out == ("noai", "tdm-reservation")


def test_sitemaps_and_a_start_that_is_one(site: Site, tmp_path: Path) -> None:
    site.pages = {f"/{number}": page(str(number)) for number in range(4)}
    site.pages["/index.xml"] = f"<sitemapindex><loc>{site.url}/one.xml.gz</loc></sitemapindex>".encode()
    locations = "".join(f"<loc>{site.url}/{number}</loc>" for number in range(3))
    site.pages["/one.xml.gz"] = gzip.compress(f"<urlset>{locations}</urlset>".encode(), mtime=0)
    site.types = {"/index.xml": "text/xml", "/one.xml.gz": "application/x-gzip"}
    found = crawled(tmp_path, f"{site.url}/index.xml")
    assert set(found.documents) == {f"{site.url}/{number}" for number in range(3)}
    assert found.accounting.dropped == {"website.sitemap": 2}


def test_scope_and_reach(site: Site, tmp_path: Path) -> None:
    site.pages = {"/docs/": page("docs", "/docs/a", "/blog/", "/docs/old/x", "/docs/deep1"),
                  "/docs/a": page("a"), "/docs/old/x": page("old"), "/blog/": page("blog"),
                  "/docs/deep1": page("1", "/docs/deep2"), "/docs/deep2": page("2", "/docs/deep3")}  # fmt: skip
    found = crawled(tmp_path, f"{site.url}/docs/", scope="prefix", deny=["*/old/*"], crawl={"max_depth": 2})
    names = {url.rpartition("/docs/")[2] for url in found.documents}
    assert names == {"", "a", "deep1", "deep2"}
    assert found.accounting.dropped == {"website.out_of_scope": 2, "website.max_depth": 1}
    few = crawled(tmp_path, f"{site.url}/docs/", allow=["*/docs/*"], crawl={"max_pages": 3})
    assert len(few.documents) == 3
    assert few.accounting.dropped["website.max_pages"] == 2


def test_private_addresses_only_where_start_names_them(site: Site, tmp_path: Path) -> None:
    with Site(pages={"/": page("inner"), "/secret": page("secret")}) as inner:
        site.pages = {"/": page("home", "/away", inner.url + "/")}
        site.answers = {"/away": redirect(inner.url + "/secret")}
        found = crawled(tmp_path, site.url, scope="allow", allow=["http://*"])
        assert inner.asked == []
        assert len(found.documents) == 1
        assert "private network" in found.quarantined[inner.url + "/secret"]
        both = crawled(tmp_path, [site.url, inner.url], folder="both")
        assert len(both.documents) == 3
        assert list(both.documents) == sorted(both.documents)


def test_a_body_that_lies_about_its_type_and_one_of_another_encoding(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": page("home", "/latin", "/zip")}
    latin = "<html><body><p>D\u00e9j\u00e0 vu, d\u00e9j\u00e0 lu, d\u00e9j\u00e0 su.</p></body></html>".encode(
        "latin-1"
    )
    site.answers = {"/latin": lambda handler: handler.say(200, latin, content_type="text/html; charset=iso-8859-1"),
                    "/zip": answers(200, b"PK\x03\x04" + bytes(100))}  # fmt: skip
    found = crawled(tmp_path, site.url)
    assert found.documents[site.url + "/latin"].text == "D\u00e9j\u00e0 vu, d\u00e9j\u00e0 lu, d\u00e9j\u00e0 su."
    assert found.rule_of(site.url + "/zip") == "website.content_type"


def test_times_are_the_pages_own_or_the_servers(site: Site, tmp_path: Path) -> None:
    when = "Tue, 03 Mar 2020 04:05:06 GMT"
    site.pages = {"/": page("home", "/own", "/served")}
    head = "<meta property='article:published_time' content='2019-01-02'>"
    site.answers = {"/own": answers(200, page("own", head=head), Last_Modified=when),
                    "/served": answers(200, page("served"), Last_Modified=when)}  # fmt: skip
    documents = crawled(tmp_path, site.url).documents
    times = {url.rpartition("/")[2]: document.time for url, document in documents.items()}
    assert times == {"": None, "own": "2019-01-02", "served": "2020-03-03T04:05:06Z"}


def test_the_warc_is_one_for_others_and_what_is_read_is_what_was_crawled(site: Site, tmp_path: Path) -> None:
    warc = pytest.importorskip("fastwarc.warc")
    site.pages = {"/": page("home", "/a"), "/a": page("a")}
    site.answers["/down"] = answers(500, Retry_After="0")
    crawled(tmp_path, [site.url, site.url + "/down"])
    source = opened(tmp_path, [site.url, site.url + "/down"])
    source.refresh(lambda line: None, asked=True)
    first, second = sorted((tmp_path / "crawls").glob("*/*.warc.gz"))

    def kinds(path: Path) -> Counter[str]:
        with path.open("rb") as file:
            found = Counter()
            for record in warc.ArchiveIterator(file, parse_http=True):
                found[str(record.record_type)] += 1
                assert str(record.record_type) != "response" or record.verify_payload_digest()
            return found

    assert kinds(first) == {"warcinfo": 1, "request": 4, "response": 4, "metadata": 1}
    assert kinds(second) == {"warcinfo": 1, "request": 4, "response": 2, "revisit": 2, "metadata": 1}
    lines = {line.url: line for line in read_lines(first.parent)}
    place = lines[site.url + "/a"].place
    assert place is not None and place.file == first.name
    assert read_record(first.parent, place).body == site.pages["/a"]
    data = bytearray(first.read_bytes())
    data[place.offset : place.offset + place.length] = gzip.compress(b"x" * 10)[:1] * place.length
    first.write_bytes(data)
    with pytest.raises(Corrupt, match="is not what was crawled"):
        collected(source)


def test_a_snapshot_that_was_changed_is_refused(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": page("home")}
    crawled(tmp_path, site.url)
    (path,) = (tmp_path / "crawls").glob("*/snapshot.jsonl")
    path.write_text(path.read_text().replace('"page"', '"dropped"'))
    with pytest.raises(Corrupt, match="as the crawl left it"):
        collected(opened(tmp_path, site.url))


def test_when_a_crawl_is_due(site: Site, tmp_path: Path) -> None:
    site.answers = {"/": in_turn(answers(503, Retry_After="0"), answers(503, Retry_After="0"), answers(200))}
    source = opened(tmp_path, site.url)
    assert (source.due(), source.fingerprint()) == ("it was not crawled yet", "website@2 not crawled yet")
    source.refresh(lambda line: None)
    assert source.due() == "its last crawl brought home no page"
    source.refresh(lambda line: None)
    assert source.due() is None
    assert opened(tmp_path, site.url, every="7d").due() is None
    assert "the last crawl began" in str(opened(tmp_path, site.url, every="0s").due())
    assert opened(tmp_path, site.url, crawl={"max_pages": 7}).due() == "settings of its crawl changed"
    assert opened(tmp_path, site.url, deny=["*x*"]).due() == "it was not crawled yet"  # another crawl, another folder
    assert opened(tmp_path, site.url, crawl={"delay": 3.0}).due() is None


def test_two_sources_of_one_host_keep_their_own(site: Site, tmp_path: Path) -> None:
    site.pages = {"/one/": page("one"), "/two/": page("two")}
    sources = [opened(tmp_path, f"{site.url}/{name}/", scope="prefix") for name in ("one", "two")]
    for source in sources:
        source.refresh(lambda line: None)
    assert [source.due() for source in sources] == [None, None]
    assert [list(collected(source).documents) for source in sources] == [[f"{site.url}/one/"], [f"{site.url}/two/"]]


def test_two_sources_in_one_folder_are_told_apart(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": page("home", "/a"), "/a": page("a")}
    first = opened(tmp_path, site.url, folder="both")
    second = opened(tmp_path, site.url, folder="both", crawl={"max_pages": 1})
    first.refresh(lambda line: None)
    second.refresh(lambda line: None)
    with pytest.raises(UserError, match="name a `folder` for each"):
        collected(first)
    assert len(collected(second).documents) == 1


@pytest.mark.parametrize("packed", ["br", "zstd", "broken", "bomb"])
def test_rules_that_cannot_be_read_allow_nothing(site: Site, tmp_path: Path, packed: str) -> None:
    rules = {"broken": b"\x1f\x8b\x08 no gzip", "bomb": gzip.compress(b"#" * (8 << 20), mtime=0)}
    name = packed if packed in ("br", "zstd") else "gzip"
    site.pages = {"/": page("home")}
    site.answers = {
        "/robots.txt": answers(
            200, rules.get(packed, b"\x0b\x02\x80hey\x03"), content_type="text/plain", Content_Encoding=name
        )
    }
    found = crawled(tmp_path, site.url)
    assert site.asked == ["/robots.txt"]
    assert "robots.txt of this site cannot be had" in found.quarantined[site.url + "/"]


def test_rules_larger_than_a_page_may_be(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": page("home"), "/robots.txt": b"#" * 5_000}
    found = crawled(tmp_path, site.url, crawl={"largest": 2_000})
    assert "larger than crawl.largest" in found.quarantined[site.url + "/"]


def test_a_site_that_wants_days_between_two_pages_is_left_alone(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": page("home"), "/robots.txt": b"User-agent: *\nCrawl-delay: 86400\n"}
    found = crawled(tmp_path, site.url)
    assert site.asked == ["/robots.txt"]
    assert "Crawl-delay 86400" in found.quarantined[site.url + "/"]


def test_odd_headers_end_nothing(site: Site, tmp_path: Path) -> None:
    odd = {"ETag": '"caf\u00e9"', "Last_Modified": "Tue, 01 Jan 99999999999 00:00:00 GMT"}
    late = answers(503, Retry_After="Tue, 01 Jan 99999999999 00:00:00 GMT")
    site.answers = {"/": answers(200, page("home", "/late"), **odd), "/late": in_turn(late, answers(200, page("late")))}
    assert len(crawled(tmp_path, site.url).documents) == 2
    assert len(crawled(tmp_path, site.url).documents) == 2
    assert any("caf" in sent.get("If-None-Match", "") for sent in site.headers)


def test_what_was_asked_with_other_settings_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.pages = {"/": page("home", "/long"), "/long": page("long", text="word " * 1_000)}

    def falls(line: str) -> None:
        if "2 addresses settled" in line or "1 addresses settled" in line:
            raise KeyboardInterrupt

    source = opened(tmp_path, site.url, crawl={"largest": 3_000})
    with pytest.raises(KeyboardInterrupt):
        source.refresh(falls)
    site.forget()
    found = crawled(tmp_path, site.url)
    assert site.asked.count("/") == 1
    assert len(found.documents) == 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"start": "ftp://example.org/"}, "start is an address"),
        ({"start": "https://me:secret@example.org/"}, "without a name or password"),
        ({"start": []}, "names no address"),
        ({"contact": "me"}, "contact is where"),
        ({"user_agent": "a b"}, "user_agent is the name"),
        ({"scope": "allow"}, "needs globs"),
        ({"scope": "allow", "allow": ["*.example.org/*"]}, "names no host"),
        ({"every": "soon"}, "expected a number and a unit"),
        ({"crawl": {"attempts": 0}}, "crawl.attempts is 0"),
        ({"crawl": {"speed": 9}}, "speed"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as told:
        opened(tmp_path, **{"start": "https://example.org/", **settings})
    assert "secret" not in str(told.value)


def killed_and_resumed(site: Site, folder: Path, moments: list[int]) -> int:
    """Crawl in a process that is killed when the site was asked so many times, until one comes to its end."""
    settings = {"type": "website", "start": site.url, "contact": "a@example.org", "crawl": {**QUICK, **LIMITS}}
    program = (
        "import json, sys; from pathlib import Path; from treadle.text.source import SourceContext, open_source\n"
        "open_source(json.loads(sys.argv[1]), SourceContext(Path(sys.argv[2]), str)).refresh(lambda line: None)"
    )
    kills = 0
    for moment in [*moments, 10**9]:
        site.forget()
        running = subprocess.Popen([sys.executable, "-c", program, json.dumps(settings), str(folder)])
        while running.poll() is None and len(site.asked) < moment:
            time.sleep(0.002)
        if running.poll() is None:
            running.send_signal(signal.SIGKILL)
            kills += 1
        running.wait()
    assert running.returncode == 0
    return kills


def kill_at(site: Site, folder: Path, moments: list[int]) -> None:
    hostile(site)
    site.answers["/busy"] = answers(200, page("was busy"))
    del site.answers["/slow"], site.answers["/whole"]  # waiting for them is another test
    expected = crawled(folder / "whole", site.url, crawl=LIMITS)
    asked = Counter(site.asked)
    kills = killed_and_resumed(site, folder / "killed", moments)
    assert kills >= len(moments) - 1
    source = opened(folder / "killed", site.url, crawl=LIMITS)
    assert source.fingerprint() == opened(folder / "whole", site.url, crawl=LIMITS).fingerprint()
    assert collected(source).documents == expected.documents
    assert site.asked == [] or len(site.asked) < asked.total()  # the last one did not begin anew


def test_killed_and_started_again_gives_the_same(site: Site, tmp_path: Path) -> None:
    kill_at(site, tmp_path, [1, 9, 4])


@pytest.mark.slow
def test_killed_many_times_gives_the_same(site: Site, tmp_path: Path) -> None:
    chosen = random.Random(20)
    for number in range(4):
        kill_at(site, tmp_path / str(number), [chosen.randint(1, 6) for _ in range(8)])
