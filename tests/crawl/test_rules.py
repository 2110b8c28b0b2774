"""robots.txt as RFC 9309 has it, and what pages and headers ask for."""

from __future__ import annotations

import pytest

from treadle.text.crawl.opt_outs import Policy, read_tdmrep, wishes
from treadle.text.crawl.page import Page, read_page, read_sitemap, words_of
from treadle.text.crawl.robots import Robots, matches, parse
from treadle.text.crawl.scope import Scope

# RFC 9309 section 5.1.
SIMPLE = b"""\
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""


@pytest.mark.parametrize(
    ("product", "path", "allowed"),
    [
        ("anybot", "/publications/x", True), ("anybot", "/example/x", False), ("anybot", "/a.gif", False),
        ("anybot", "/a.gif?x", True), ("FooBot", "/example/page.html", True), ("foobot", "/else", False),
        ("barbot", "/example/page.html", False), ("bazbot", "/example/page.html", False), ("bazbot", "/a.gif", True),
        ("quxbot", "/example/page.html", True), ("foobot", "/robots.txt", True),
    ],
)  # fmt: skip
def test_the_groups_of_the_rfc(product: str, path: str, allowed: bool) -> None:
    assert (parse(SIMPLE, product).rule_for(path) is None) is allowed


def test_the_longest_rule_wins_and_of_equals_the_one_that_allows() -> None:
    robots = parse(b"user-agent: *\nallow: /p\ndisallow: /\nallow: /folder\ndisallow: /folder\ndisallow: /p/q*/r", "t")
    assert robots.rule_for("/page") is None
    assert robots.rule_for("/folder/x") is None
    assert robots.rule_for("/p/q9/r") == "/p/q*/r"


def test_two_groups_for_one_crawler_are_one_and_lines_of_others_do_not_end_it() -> None:
    robots = parse(
        b"\xef\xbb\xbfUser-agent: treadle/2.0 (x)\r\nDisallow: /a\r\n\r\nUser-agent: *\r\nDisallow: /\r\n"
        b"Sitemap: /s.xml # all\r\nUser-agent: TREADLE\r\nnonsense\r\nUnknown: 1\r\n"
        b"Disallow: /b%2f\xc3\xbc\r\nCrawl-delay: 2.5",
        "treadle",
    )
    assert robots.rule_for("/a") and robots.rule_for("/b%2F%C3%BC")
    assert robots.rule_for("/c") is None
    assert (robots.delay, robots.sitemaps) == (2.5, ("/s.xml",))


def test_no_robots_txt_and_one_full_of_noise_allow_everything() -> None:
    assert parse(b"", "t") == Robots()
    assert parse(bytes(range(256)) * 4000, "t").rule_for("/x") is None


def test_patterns_cannot_take_for_ever() -> None:
    assert not matches("/*a" * 600 + "$", "/" + "a" * 1900 + "b")
    assert not matches("/" + "*a" * 900 + "*z", "/" + "ab" * 900)
    assert matches("/*.pdf$", "/a.pdf.pdf") and not matches("/*.pdf$", "/a.pdf?x")


def test_signals_about_training() -> None:
    robots = parse(b"User-Agent: *\nContent-Signal: search=yes, ai-train=no\nAllow: /", "t")
    assert robots.keeps_from_training("/x")
    robots = parse(b"User-Agent: *\nContent-Usage: /books/ train-ai=n\nContent-Usage: train-ai=y", "t")
    assert robots.keeps_from_training("/books/1") and not robots.keeps_from_training("/x")


def test_tags_of_a_page() -> None:
    page = read_page(
        "<html><head><base href='/sub/'><title>a <a href=/no0></title><META name=Robots content='NoIndex, nofollow'>"
        '<meta name="treadle" content="noai"><meta name="tdm-reservation" content="1"><link rel=canonical href="/c">'
        "<link rel=next href=/n><link rel=stylesheet href=/s.css><meta http-equiv=refresh content='0; url=/moved'>"
        "</head><!-- <a href=/no1> --><script>'<a href=/no2>'</script><textarea><a href=/no3></textarea>"
        '<a class=\'x>y\' href="p?a=1&amp;b=2">x</a><a rel="external nofollow" href=q>y</a><a name=z>'
        "<area href=/m><iframe src='i.html'></iframe><a href='mailto:x@y.z'><abbr href=/no4><a href='/last",
        "http://h/",
        "treadle",
    )
    assert list(page.links) == [
        "http://h/n", "http://h/moved", "http://h/sub/p?a=1&b=2", "http://h/m", "http://h/sub/i.html",
    ]  # fmt: skip
    assert list(page.nofollow) == ["http://h/sub/q"]
    assert page.canonical == "http://h/c"
    assert page.robots == {"noindex", "nofollow", "noai"}
    assert page.reserved is True


def test_directives_in_headers_are_for_all_or_for_one() -> None:
    found = words_of(
        ["noindex", "treadle: noai, nofollow", "otherbot: noarchive, nosnippet", "unavailable_after: 25 Jun 2027"],
        "Treadle",
    )
    assert found == {"noindex", "noai", "nofollow", "unavailable_after"}


@pytest.mark.parametrize(
    ("headers", "meta", "expected"),
    [
        ([], None, True), ([("TDM-Reservation", "0")], None, False), ([("tdm-reservation", "1")], False, False),
        ([("tdm-reservation", "0")], True, True),
    ],
)  # fmt: skip
def test_the_word_nearest_to_the_page_holds(headers: list[tuple[str, str]], meta: bool | None, expected: bool) -> None:
    rules = read_tdmrep(b'[{"location": "/free*", "tdm-reservation": 0}, {"location": "/*", "tdm-reservation": 1}]')
    policy = Policy(reservations=rules)
    found = wishes("http://h/x", headers, Page(reserved=meta), policy, "treadle")
    assert ("tdm-reservation" in found.training) is expected
    assert wishes("http://h/free/1", [], Page(), policy, "treadle").training == ()


@pytest.mark.parametrize("data", [b"", b"{}", b"[1, null, {}]", b"[" * 100_000, b'[{"location": 3}]', b"\xff"])
def test_a_tdmrep_that_is_none(data: bytes) -> None:
    assert read_tdmrep(data) == ()


def test_a_sitemap() -> None:
    data = b"<urlset xmlns='x'><url><loc> http://h/a?x=1&amp;y=2 </loc></url><s:loc><![CDATA[http://h/b]]></s:loc><loc>"
    assert list(read_sitemap(data, "http://h/s.xml")) == ["http://h/a?x=1&y=2", "http://h/b"]


def test_a_glob_for_the_host_reaches_into_no_path() -> None:
    scope = Scope((), "allow", ("https://*.example.org/*", "http://docs.example.com"), ("https://*/print/*", "*.pdf"))
    assert scope.refuses("https://a.example.org/x") is None
    assert scope.refuses("http://docs.example.com/anything") is None
    assert scope.refuses("https://evil.com/x.example.org/y") == "matches nothing in allow"
    assert scope.refuses("https://a.example.org/print/y") == "matches deny"
    assert scope.refuses("https://a.example.org/y.pdf") == "matches deny"


def test_endless_blanks_and_rules_take_no_time() -> None:
    assert not read_sitemap(b"<urlset><loc>" + b" " * 200_000 + b"<loc>" * 10, "http://h/s.xml")
    read_page(f'<meta http-equiv=refresh content="{" " * 9_000}1{" " * 9_000}">', "http://h/", "treadle")
    rules = "\n".join(f"Disallow: /private/{number}/" for number in range(28_000))
    robots = parse(f"User-agent: *\n{rules}\nDisallow: /*/last$\n".encode(), "treadle")
    paths = [f"/public/{number}" for number in range(100)]
    assert [robots.rule_for(path) for path in paths] == [None] * 100
    assert robots.rule_for("/private/27/x") == "/private/27/"


def test_a_pause_of_any_length_is_read() -> None:
    for delay in ("999999", "9999999", "9" * 5_000):
        assert parse(f"User-agent: *\nCrawl-delay: {delay}".encode(), "treadle").delay > 300
