"""One spelling for each page, and traps told from pages."""

from __future__ import annotations

import pytest

from treadle.text.crawl.address import normalize, trap
from treadle.text.crawl.client import is_public


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("HTTP://Example.COM:80/a/./b/../c?b=2&a=1&utm_source=x#f", "http://example.com/a/c?a=1&b=2"),
        ("https://example.com:443", "https://example.com/"),
        ("http://example.com:8080/%7euser/%e4?x=%2f", "http://example.com:8080/~user/%E4?x=%2F"),
        ("http://m\u00fcller.example/\u00fc ?q=a b", "http://xn--mller-kva.example/%C3%BC%20?q=a%20b"),
        ("http://example.com/a;jsessionid=1A2B?PHPSESSID=9&sid=short", "http://example.com/a?sid=short"),
        ("http://example.com/?sid=0123456789abcdef0123", "http://example.com/"),
        ("http://example.com/../../a/..", "http://example.com/"),
        ("http://example.com/50%", "http://example.com/50%25"),
        ("mailto:a@example.com", None),
        ("javascript:void(0)", None),
        ("http://user:secret@example.com/", None),
        ("http://exa mple.com/", None),
        ("http://example.com:99999/", None),
        ("http://[::1/", None),
    ],
)
def test_spelling(address: str, expected: str | None) -> None:
    assert normalize(address) == expected
    if expected:
        assert normalize(expected) == expected


def test_relative_to_a_page() -> None:
    assert normalize("../x?b&a", "http://example.com/one/two/three") == "http://example.com/one/x?a&b"
    assert normalize("//other.example/x", "https://example.com/") == "https://other.example/x"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/calendar/2031/05", "calendar"),
        ("/events?year=2031", "calendar"),
        ("/a/b/a/b/a/b/a/b", "one part"),
        ("/" + "/".join(map(str, range(21))), "more than 20 parts"),
        ("/" + "x" * 2000, "longer"),
        ("/?" + "&".join(f"p{number}=1" for number in range(20)), "parameters"),
    ],
)
def test_traps(path: str, words: str) -> None:
    assert words in str(trap("http://example.com" + path, 2026))


@pytest.mark.parametrize("path", ["/archive/1850/06", "/calendar/2027/01", "/item/209911", "/a/b/c", "/v/2.0/05"])
def test_pages_that_are_no_traps(path: str) -> None:
    assert trap("http://example.com" + path, 2026) is None


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("::127.0.0.1", False),
        ("::ffff:0:127.0.0.1", False),
        ("64:ff9b:1::7f00:1", False),
        ("64:ff9b:1::808:808", False),
        ("::8.8.8.8", True),
        ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.1.1.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False),
        ("::ffff:10.0.0.1", False), ("64:ff9b::a00:1", False), ("2002:a00:1::", False), ("fe80::1%eth0", False),
        ("fc00::1", False),
    ],
)  # fmt: skip
def test_addresses_of_the_internet(address: str, public: bool) -> None:
    assert is_public(address) is public
