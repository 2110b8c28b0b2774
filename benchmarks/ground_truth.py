"""Documents of the test data with the text that is in them, and how near each reader comes to it."""

from __future__ import annotations

import html.parser
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy import character_accuracy, without_markdown
from treadle.text.readers.catalog import reader_of
from treadle.text.readers.piece import Documents, Text, UnreadableError

_FOLDER = "6-pretraining-docs"


@dataclass(frozen=True, slots=True)
class Case:
    """A document, the kind of its reader, and what it says."""

    kind: str
    name: str
    data: bytes
    expected: str
    markdown: bool = True

    def accuracy(self, longest: int = 40_000) -> float:
        """Of characters, in [0, 1]; of a long text its beginning counts. The time grows with the square of that."""
        found = text_of(self.kind, self.data)
        plain = without_markdown if self.markdown else str
        return character_accuracy(plain(found), plain(self.expected), longest)


def text_of(kind: str, data: bytes) -> str:
    """All texts of a document; empty when it cannot be read."""
    try:
        pieces = list(reader_of(kind)(data, Documents(boilerplate=kind == "html")))
    except UnreadableError:
        return ""
    return "\n\n".join(piece.text for piece in pieces if isinstance(piece, Text))


def cases(data: Path) -> Iterator[Case]:
    """Every document that comes with its text: docling's, the UDHR's, chardet's, and two books of Standard Ebooks."""
    folder = data / _FOLDER
    for kind, archive, place in (
        ("html", "office_html_docling_gt", "html"),
        ("docx", "office_html_docling_gt", "docx"),
        ("xml", "office_html_docling_gt", "jats"),
        ("pdf", "pdf_docling_gt", "pdf"),
        ("epub", "pdf_docling_gt", "epub"),
        ("tex", "latex_docling", ""),
    ):
        yield from _docling(kind, members(folder / f"{archive}.tar.gz"), place)
    yield from _books(folder)
    yield from _declarations(folder)
    yield from _encodings(folder)


def members(archive: Path) -> dict[str, bytes]:
    """Files of a tar by name."""
    found = {}
    with tarfile.open(archive) as opened:
        for member in opened:
            file = opened.extractfile(member) if member.isfile() else None
            if file is not None:
                found[member.name.removeprefix("./")] = file.read()
    return found


def _docling(kind: str, found: dict[str, bytes], place: str) -> Iterator[Case]:
    prefix = f"{place}/" if place else ""
    for name, expected in sorted(found.items()):
        if not (name.startswith(f"{prefix}groundtruth/") and name.endswith(".md")):
            continue
        base = name.rpartition("/")[2].removesuffix(".md")
        for source in (base, f"{base}.pdf", base.replace("_main.tex", "/main.tex")):
            raw = found.get(f"{prefix}sources/{source}")
            # A paper in several files is several documents here, and one text there.
            if raw is not None and not (kind == "tex" and b"\n\\input" in raw):
                yield Case(kind, source, raw, expected.decode())
                break


def _books(folder: Path) -> Iterator[Case]:
    texts = members(folder / "standardebooks_text.tar.gz")
    for path in sorted(folder.glob("*.epub")):
        for name, text in texts.items():
            if path.stem in name:
                yield Case("epub", path.name, path.read_bytes(), text.decode())


def _declarations(folder: Path) -> Iterator[Case]:
    """The text of a page as the standard library's own parser gives it: another program's reading of the same bytes."""
    for name, data in sorted(members(folder / "udhr_html.tar.gz").items()):
        words = _Words()
        words.feed(data.decode("utf-8"))
        yield Case("html", name, data, " ".join(words.found), markdown=False)


def _encodings(folder: Path) -> Iterator[Case]:
    """Texts in folders named after their encoding."""
    for name, data in sorted(members(folder / "encodings_chardet.tar.gz").items()):
        parts = name.split("/")
        encoding = parts[-2].lower()
        for _ in range(2):
            try:
                expected = data.decode(encoding)
                break
            except (LookupError, UnicodeDecodeError):
                encoding = encoding.rpartition("-")[0] or "none"
        else:
            continue
        yield Case("txt", name, data, expected.lstrip("\ufeff"), markdown=False)


class _Words(html.parser.HTMLParser):
    """What stands between the tags of the body."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._body = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._body = self._body or tag == "body"

    def handle_data(self, data: str) -> None:
        if self._body:
            self.found.append(data)
