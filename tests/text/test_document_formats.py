"""Documents of each format, through the source ``files``."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from text import made
from treadle.core.errors import UserError
from treadle.text.accounting import Accounting
from treadle.text.document import Document
from treadle.text.readers.sniff import KNOWN, sniff

Collect = Callable[..., tuple[list[Document], Accounting]]
Keyed = Callable[[str], str]

PAGE = """<!DOCTYPE html><html lang="de-CH"><head><title>Der  Titel</title>
<meta property="article:published_time" content="2021-03-04T05:06:07+01:00"></head><body>
<nav><a href="/">Startseite</a></nav><h1>Überschrift</h1><p>Grüße aus Zürich.</p>
<ul><li>erstens</li><li>zweitens</li></ul><footer>Impressum</footer><script>var no = 1;</script></body></html>"""


def test_a_page_has_main_text_title_language_and_date(tmp_path: Path, collect: Collect) -> None:
    (tmp_path / "a.html").write_text(PAGE, encoding="utf-8")
    (document,), accounting = collect(path="a.html")
    assert document.text.split() == ["Überschrift", "Grüße", "aus", "Zürich.", "•", "erstens", "•", "zweitens"]
    assert document.time == "2021-03-04T04:06:07Z"
    assert document.fields == {"format": "html", "title": "Der Titel", "language": "de-CH"}
    assert document.locator == "a.html"
    (whole,), _ = collect(path="a.html", reading={"boilerplate": True})
    assert {"Startseite", "Impressum"} <= set(whole.text.split())
    assert accounting.read == 1


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "iso-8859-15"])
def test_a_page_says_in_what_encoding_it_is(tmp_path: Path, collect: Collect, encoding: str) -> None:
    page = PAGE.replace("<title>", f'<meta charset="{encoding}"><title>')
    (tmp_path / "a.html").write_bytes(page.encode(encoding))
    (document,), _ = collect(path="a.html")
    assert "Grüße aus Zürich." in document.text
    assert document.fields["encoding"] == encoding


def test_the_chapters_of_a_book_come_in_the_order_of_its_spine(tmp_path: Path, collect: Collect) -> None:
    book = made.epub({"c1": "<h1>One</h1><p>First&nbsp;words.</p>", "c2": "<p>Second.</p>", "cover": "<img src='x'/>"})
    (tmp_path / "a.epub").write_bytes(book)
    documents, accounting = collect(path="a.epub")
    assert [document.text.replace("\xa0", " ").split("\n")[-1] for document in documents] == ["First words.", "Second."]
    assert [document.locator for document in documents] == ["a.epub!/OEBPS/c1.xhtml", "a.epub!/OEBPS/c2.xhtml"]
    assert documents[0].time == "1901-02-03"
    assert documents[0].fields == {"format": "epub", "title": "The Book", "language": "en-GB", "chapter": 1}
    assert not accounting.quarantined


def test_a_chapter_that_cannot_be_read_costs_no_other(tmp_path: Path, collect: Collect) -> None:
    locked = (
        '<encryption xmlns="http://www.w3.org/2001/04/xmlenc#"><CipherReference URI="OEBPS/c1.xhtml"/></encryption>'
    )
    (tmp_path / "a.epub").write_bytes(
        made.epub({"c1": "<p>x</p>", "c2": "<p>y</p>"}, more={"META-INF/encryption.xml": locked})
    )
    documents, accounting = collect(path="a.epub")
    assert [document.text for document in documents] == ["y"]
    (piece,) = accounting.quarantined
    assert (piece.source, piece.reason.split(":")[0]) == ("files:a.epub!/OEBPS/c1.xhtml", "encrypted")


def test_a_docx_gives_paragraphs_lists_tables_boxes_and_notes(tmp_path: Path, collect: Collect) -> None:
    numbers = (
        f"<w:numbering {made._WORD}>"
        '<w:abstractNum w:abstractNumId="7"><w:lvl w:ilvl="0"><w:numFmt w:val="decimal"/></w:lvl></w:abstractNum>'
        '<w:num w:numId="2"><w:abstractNumId w:val="7"/></w:num></w:numbering>'
    )
    item = '<w:numPr><w:ilvl w:val="0"/><w:numId w:val="{}"/></w:numPr>'
    cell = "<w:tc>{}</w:tc>"
    inner = f"<w:tbl><w:tr>{cell.format(made.paragraph('deep'))}</w:tr></w:tbl>"
    rows = "".join(
        f"<w:tr>{''.join(cell.format(made.paragraph(text)) for text in row)}</w:tr>" for row in (("a", "b"), ("c", "d"))
    )
    body = (
        made.paragraph("Heading", '<w:pStyle w:val="Heading1"/>')
        + made.paragraph("one", item.format(2))
        + made.paragraph("two", item.format(2))
        + made.paragraph("dot", item.format(9))
        + f"<w:tbl>{rows}<w:tr>{cell.format(inner)}</w:tr></w:tbl>"
        + "<w:p><w:r><w:t>kept </w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        "<w:ins><w:r><w:t>added</w:t></w:r></w:ins><w:r><w:txbxContent>"
        + made.paragraph("box")
        + "</w:txbxContent></w:r></w:p>"
    )
    notes = f"<w:footnotes {made._WORD}><w:footnote>{made.paragraph('a note')}</w:footnote></w:footnotes>"
    core = '<p xmlns:dc="http://x/"><dc:title>T</dc:title><dc:created>2020-01-02T03:04:05Z</dc:created></p>'
    parts = {"word/numbering.xml": numbers, "word/footnotes.xml": notes, "docProps/core.xml": core}
    (tmp_path / "a.docx").write_bytes(made.docx(body, parts))
    (document,), _ = collect(path="a.docx")
    blocks = ["Heading", "1. one", "2. two", "- dot", "a\tb\nc\td\ndeep", "kept added", "box", "a note"]
    assert document.text.split("\n\n") == blocks
    assert (document.time, document.fields["title"]) == ("2020-01-02T03:04:05Z", "T")


def test_formulas_of_a_docx_are_latex(tmp_path: Path, collect: Collect) -> None:
    def run(text: str) -> str:
        return f"<m:r><m:t>{text}</m:t></m:r>"

    root = (
        f"<m:rad><m:deg/><m:e>{run('b')}<m:sSup><m:e>{run('c')}</m:e><m:sup>{run('2')}</m:sup></m:sSup></m:e></m:rad>"
    )
    fraction = f"<m:f><m:num>{run('a')}{root}</m:num><m:den>{run('2')}</m:den></m:f>"
    sign = '<m:naryPr><m:chr w:val="∑"/></m:naryPr>'
    total = f"<m:nary>{sign}<m:sub>{run('n')}</m:sub><m:sup/><m:e>{fraction}</m:e></m:nary>"
    formula = f'<m:oMath xmlns:m="http://m/">{run("x=")}{total}<m:d><m:e>{run("y")}</m:e></m:d></m:oMath>'
    (tmp_path / "a.docx").write_bytes(made.docx(f"<w:p><w:r><w:t>So </w:t></w:r>{formula}</w:p>"))
    (document,), _ = collect(path="a.docx")
    assert document.text == "So $x=∑_{n}\\frac{a\\sqrt{bc^{2}}}{2}(y)$"


def test_a_pdf_is_read_page_by_page(tmp_path: Path, collect: Collect) -> None:
    (tmp_path / "a.pdf").write_bytes(made.pdf("First page", "", "Third page"))
    (tmp_path / "scan.pdf").write_bytes(made.pdf("", ""))
    (document,), accounting = collect(path="*.pdf")
    assert document.text == "First page\n\nThird page"
    assert document.time == "2020-01-02T02:04:05Z"
    assert document.fields == {"format": "pdf", "title": "Made", "pages": 3, "pages_without_text": 1}
    assert accounting.quarantined[0].source == "files:scan.pdf"
    assert "no text on any of 2 pages" in accounting.quarantined[0].reason


def test_latex_is_read_without_its_commands(tmp_path: Path, collect: Collect) -> None:
    source = r"""\documentclass{article}\title{On \emph{tea}}\author{A. Body}
\begin{document}\maketitle \section{Leaves} % a comment
Black \textbf{tea} costs 5\,\% more~\cite{x}; $a^2$ stays.
\begin{itemize}\item one \item two\end{itemize}
\end{document} never read"""
    (tmp_path / "a.tex").write_text(source)
    (tmp_path / "b.tex").write_text("An \\emph{open brace {and more\n\n" * 30 + "the end")
    (document, broken), _ = collect(path="*.tex")
    assert document.fields["title"] == "On tea"
    assert document.text.startswith("On tea\n\nA. Body\n\nLeaves\n")
    assert "$a^2$ stays." in document.text
    assert "- one" in document.text
    assert not {"never", "comment", "20"} & set(document.text.split())
    assert broken.text.endswith("the end")


def mail(sender: str = "Ann Example <Ann@Example.org>", **headers: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, "bob@example.org", "Grüße"
    message["Date"] = "Wed, 01 May 2024 10:00:00 +0200"
    for name, value in headers.items():
        message[name] = value
    return message


def test_a_mail_has_subject_date_and_a_sender_nobody_can_read(tmp_path: Path, collect: Collect, keyed: Keyed) -> None:
    message = mail()
    message.set_content("Hello Bob\n\nOn Tue, 30 Apr 2024, Bob wrote:\n> quoted words\n\nBye")
    message.add_alternative("<p>not this form</p>", subtype="html")
    message.add_attachment(
        made.docx(made.paragraph("attached words")), maintype="application", subtype="x", filename="a.docx"
    )
    message.add_attachment(b"\x89PNG\r\n", maintype="image", subtype="png", filename="../b.png")
    (tmp_path / "a.eml").write_bytes(message.as_bytes())
    (document,), _ = collect(path="a.eml")
    assert document.text == "Hello Bob\n\nOn Tue, 30 Apr 2024, Bob wrote:\n> quoted words\n\nBye"
    assert (document.time, document.subject) == ("2024-05-01T08:00:00Z", keyed("ann@example.org"))
    assert document.fields["title"] == "Grüße"
    assert [each["name"] for each in document.fields["attachments"]] == ["a.docx", "b.png"]
    assert "ann" not in repr(document).lower()
    settings = {"quoted": False, "attachments": "read"}
    (own, attached), accounting = collect(path="a.eml", reading=settings)
    assert own.text == "Hello Bob\n\nBye"
    assert (attached.text, attached.locator, attached.fields["format"]) == ("attached words", "a.eml!/a.docx", "docx")
    (piece,) = accounting.quarantined
    assert piece.source == "files:a.eml!/b.png"
    assert "image/png" in piece.reason


def test_the_messages_of_a_mailbox_are_documents(tmp_path: Path, collect: Collect) -> None:
    first, second, third = mail(), mail("Max"), mail()
    first.set_content("First line\nFrom here on\n")
    second.set_content("<html><body><p>Second <b>one</b></p></body></html>", subtype="html")
    third.set_content(" ")
    separator = b"From someone@example.org Wed May  1 10:00:00 2024\n"
    data = b"".join(
        separator + message.as_bytes().replace(b"\nFrom here", b"\n>From here") + b"\n"
        for message in (first, second, third)
    )
    (tmp_path / "a.mbox").write_bytes(data)
    (tmp_path / "b.txt").write_bytes(data)  # under a wrong name
    documents, accounting = collect(path="*.*")
    assert [document.text for document in documents] == ["First line\nFrom here on", "Second one"] * 2
    assert [document.locator for document in documents] == ["a.mbox:1", "a.mbox:2", "b.txt:1", "b.txt:2"]
    assert accounting.quarantined[0].reason == "message 3: a mail without text"
    assert accounting.quarantined[0].offset == data.rindex(separator)


def test_a_crawl_gives_its_pages_by_their_addresses(tmp_path: Path, collect: Collect) -> None:
    chunked = b"5\r\n<html\r\n1d\r\n><body><p>in chunks</p></body>\r\n0\r\n\r\n"
    packed = gzip.compress(b"<html><body><p>packed</p></body></html>")
    russian = "<html><body><p>Привет, мир</p></body></html>".encode("koi8-r")
    html = "Content-Type: text/html"
    records = [
        made.warc_record("warcinfo", "", b"software: x"),
        made.response("http://a.org/1", chunked, html, "Transfer-Encoding: chunked"),
        made.response("http://a.org/2", packed, html, "Content-Encoding: gzip"),
        made.response("http://a.org/3", russian, html + "; charset=koi8-r"),
        made.response("http://a.org/4", b"moved", html, status="301 Moved"),
        made.response("http://a.org/5.png", b"\x89PNG\r\n", "Content-Type: image/png"),
        made.warc_record("conversion", "http://a.org/6", b"plain words", Content_Type="text/plain"),
    ]
    data = b"".join(records) + b"garbage\r\n" + made.response("http://a.org/7", b"<html><p>after</p>", html)
    (tmp_path / "a.warc.gz").write_bytes(b"".join(gzip.compress(record) for record in (data, data[:90])))
    documents, accounting = collect(path="a.warc.gz")
    assert [document.locator for document in documents] == [f"http://a.org/{n}" for n in (1, 2, 3, 6, 7)]
    assert [document.text for document in documents] == ["in chunks", "packed", "Привет, мир", "plain words", "after"]
    assert documents[0].time == "2024-05-01T10:00:00Z"
    assert documents[0].fields["file"] == "a.warc.gz:2"
    assert accounting.dropped == {"files.warc_record": 1, "files.http_status": 1}
    reasons = [piece.reason for piece in accounting.quarantined]
    assert reasons[0] == "record 6: no reader for it (image/png)"
    assert "bytes where a record should begin are none" in reasons[1]
    assert accounting.quarantined[1].offset == len(b"".join(records))
    assert len(reasons) == 3


def test_a_record_that_is_cut_off_is_told(tmp_path: Path, collect: Collect) -> None:
    html = "Content-Type: text/html"
    data = made.response("http://a.org/1", b"<html><p>whole</p>", html) + made.response(
        "http://a.org/2", b"<p>cut" * 99, html
    )
    (tmp_path / "a.warc").write_bytes(data[:-200])
    (document,), accounting = collect(path="a.warc")
    assert document.text == "whole"
    assert accounting.quarantined[0].reason.startswith("record 2: cut off")


def test_the_pages_of_a_wiki_are_read_as_its_readers_see_them(tmp_path: Path, collect: Collect) -> None:
    wikitext = (
        "{{Infobox|a={{nested}}}}'''Tea''' is a [[hot drink|drink]]&lt;ref&gt;no&lt;/ref&gt; from [[Asia]].\n"
        "{| class=x\n|cell\n|}\n== History ==\n* [http://x.org old]\n[[File:x.png|thumb|A [[cup]]]][[Category:Drinks]]"
    )
    page = (
        "<page><title>{}</title><ns>0</ns><id>{}</id>{}<revision><id>9</id>"
        "<timestamp>2024-05-01T10:00:00Z</timestamp><text>{}</text></revision></page>"
    )
    pages = page.format("Tea", 7, "", wikitext) + page.format("Chai", 8, '<redirect title="Tea"/>', "#REDIRECT [[Tea]]")
    (tmp_path / "a.xml").write_text(f"<mediawiki>{pages}</mediawiki>")
    (document,), accounting = collect(path="a.xml")
    assert document.text.split() == ["Tea", "is", "a", "drink", "from", "Asia.", "History", "old"]
    assert (document.locator, document.time) == ("a.xml#7", "2024-05-01T10:00:00Z")
    assert accounting.dropped == {"files.redirect": 1}
    (tmp_path / "b.xml").write_text(f"<mediawiki>{pages}<page><title>cut")
    documents, accounting = collect(path="b.xml")
    assert len(documents) == 1
    assert accounting.quarantined[0].reason == "the rest cannot be read: the dump is cut off"


ENTITIES = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.docx", made.zipped({"word/document.xml": f"{ENTITIES}<x>&b;</x>"}), "declares entities"),
        (
            "a.epub",
            made.zipped({"mimetype": "", "META-INF/container.xml": f"{ENTITIES}<x>&b;</x>"}),
            "declares entities",
        ),
        ("a.xml", f"{ENTITIES}<x>&b;</x>".encode(), "declares entities"),
        (
            "w.xml",
            b"<mediawiki>".replace(b"<media", f"{ENTITIES.replace('x [', 'mediawiki [')}<media".encode()),
            "declares entities",
        ),
        ("a.docx", made.docx("<w:p>" * 50), "not well-formed"),
        ("a.docx", made.docx("<w:sdt>" * 3000 + "</w:sdt>" * 3000), "nested too deep"),
        ("a.docx", made.zipped({"word/document.xml": b" " * 70_000_000}), "unpacks to more than"),
        ("a.docx", made.docx("")[:-40], "not a ZIP archive that can be read"),
        ("a.docx", b"words", "not a ZIP archive"),
        ("a.docx", made.docx(""), "a document without text"),
        ("a.xlsx", made.zipped({"xl/workbook.xml": "<x/>"}), "no reader for it (XLSX); known: bz2, csv, docx"),
        ("a.html", b"<html>" + b"<div>" * 100_000 + b"deep", "nested deeper"),
        ("a.html", b"<html><body></body></html>", "a page without text"),
        ("a.tex", b"{" * 5000 + b"x" + b"}" * 5000, "nested deeper"),
        ("a.pdf", b"%PDF-1.4\nnothing", "not a PDF that can be opened"),
        ("a.eml", b"", "empty"),
        ("a.eml", b"no headers here\n\nbody", "not a mail"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c123", "no reader for it (7Z)"),
        ("a.bin", bytes(range(256)), "no reader for it; known"),
        ("a.jsonl", b"", "empty: there is nothing"),
        ("a.txt", b" \n ", "empty"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, collect: Collect, name: str, data: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(data)
    (tmp_path / "z.txt").write_text("the rest goes on")
    documents, accounting = collect(path="*.*")
    assert [document.text for document in documents] == ["the rest goes on"]
    (piece,) = accounting.quarantined
    assert piece.source == f"files:{name}"
    assert reason in piece.reason


def test_the_bytes_win_over_a_wrong_name(tmp_path: Path, collect: Collect) -> None:
    (tmp_path / "a.txt").write_bytes(made.pdf("Really a PDF"))
    (tmp_path / "b.csv").write_text(PAGE)
    (tmp_path / "c.zip").write_bytes(made.docx(made.paragraph("Really a DOCX")))
    (tmp_path / "README").write_text("no suffix at all")
    documents, accounting = collect(path="*")
    found = {document.locator: (document.fields["format"], document.fields.get("named")) for document in documents}
    assert found == {
        "README": ("txt", None),
        "a.txt": ("pdf", "txt"),
        "b.csv": ("html", "csv"),
        "c.zip": ("docx", "zip"),
    }
    assert accounting.kept == 4


def test_what_stands_before_the_markup_is_passed_over_at_once() -> None:
    comments = b"\xef\xbb\xbf<?xml version='1.0'?>" + b"<!-- x -->\n" * 600
    assert sniff("a", comments + b"<html lang='en'>").name == "html"
    assert sniff("a", comments + b"<mediawiki xmlns='x'>").name == "mediawiki"
    assert sniff("a.xml", comments + b"<feed>").name == "xml"
    assert sniff("a.xml", b"<!--" * 2000).name == "xml"


def test_every_known_kind_is_found_by_its_suffix() -> None:
    odd = {"mediawiki": "xml", "mbox": "mbox"}
    for kind in KNOWN:
        assert sniff(f"a.{odd.get(kind, kind)}", b"").name == odd.get(kind, kind)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reading": {"second": 3}}, "reading.second"),
        ({"reading": {"attachments": "open"}}, "reading.attachments"),
        ({"archives": {"ratio": "much"}}, "archives.ratio"),
    ],
)
def test_mistakes_in_the_settings_are_told(tmp_path: Path, collect: Collect, settings: Any, message: str) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=message):
        collect(path="a.txt", **settings)


def test_without_its_package_a_format_names_the_command(tmp_path: Path) -> None:
    """In a process where lxml cannot be imported; the worker's answer reaches the user."""
    (tmp_path / "a.docx").write_bytes(made.docx(made.paragraph("x")))
    (tmp_path / "lxml.py").write_text("raise ImportError")
    program = (
        "import sys; sys.path.insert(0, '.')\n"
        "from pathlib import Path\n"
        "from treadle.text.source import SourceContext, open_source\n"
        "source = open_source({'type': 'files', 'path': 'a.docx'}, SourceContext(Path.cwd(), str)).source\n"
        "try: list(source.read())\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program.replace("'.'", repr(str(tmp_path)))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "lxml is not installed; run: pip install 'treadle[documents]'", done.stderr
