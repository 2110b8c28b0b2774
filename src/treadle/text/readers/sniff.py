"""What a file is, by its first bytes and its name. Bytes that can only be one thing win over the name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

HEAD = 8192  # bytes looked at

ROWS = ("csv", "json", "jsonl", "parquet", "tsv")
TEXTS = ("md", "txt")
DOCUMENTS = ("docx", "eml", "epub", "html", "ipynb", "pdf", "tex", "xml")
STREAMS = ("mbox", "mediawiki", "warc")
ARCHIVES = ("tar", "zip")
PACKINGS = ("bz2", "gz", "lzma", "xz", "zst")
KNOWN = tuple(sorted((*ROWS, *TEXTS, *DOCUMENTS, *STREAMS, *ARCHIVES, *PACKINGS)))

_SUFFIXES = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
    ".txt": "txt", ".text": "txt", ".md": "md", ".markdown": "md", ".rst": "txt", ".log": "txt", ".srt": "txt",
    ".html": "html", ".htm": "html", ".xhtml": "html", ".pdf": "pdf", ".epub": "epub", ".docx": "docx",
    ".ipynb": "ipynb", ".tex": "tex", ".ltx": "tex", ".eml": "eml", ".mbox": "mbox", ".xml": "xml", ".nxml": "xml",
    ".warc": "warc", ".wet": "warc", ".wat": "warc", ".zip": "zip", ".jar": "zip", ".tar": "tar",
}  # fmt: skip
_PACKED = {".gz": "gz", ".bz2": "bz2", ".xz": "xz", ".zst": "zst", ".lzma": "lzma"}
_PACKED_TAR = {".tgz": "gz", ".tbz2": "bz2", ".tbz": "bz2", ".txz": "xz", ".tzst": "zst"}

# Bytes at the start that belong to one kind of file; in capitals what has a name and no reader.
_MAGIC = (
    (b"%PDF-", "pdf"), (b"PK\x03\x04", "zip"), (b"PK\x05\x06", "zip"), (b"\x1f\x8b", "gz"), (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zst"), (b"PAR1", "parquet"), (b"WARC/", "warc"),
    (b"7z\xbc\xaf\x27\x1c", "7Z"), (b"Rar!\x1a\x07", "RAR"), (b"!<arch>\n", "AR"), (b"\x04\x22\x4d\x18", "LZ4"),
    (b"LZIP", "LZIP"), (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "OLE (old Office, msg)"), (b"\x89PNG\r\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"), (b"GIF8", "GIF"), (b"\x7fELF", "ELF"), (b"\xca\xfe\xba\xbe", "class"),
    (b"SQLite format 3\x00", "SQLite"), (b"filedesc:", "ARC"), (b"wOFF", "WOFF"), (b"wOF2", "WOFF"),
    (b"\xed\xab\xee\xdb", "RPM"), (b"\x1f\x9d", "compress"), (b"070701", "CPIO"), (b"070702", "CPIO"),
    (b"070707", "CPIO"), (b"\xc7\x71", "CPIO"), (b"{\\rtf", "RTF"),
)  # fmt: skip
_BZ2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)")
_MBOX = re.compile(rb"From [^\r\n]{3,200}\d{4}[^\r\n]{0,20}\r?\n>?[A-Za-z][A-Za-z0-9-]{1,60}:? ")
_MAIL = re.compile(rb"(?i)(?:Return-Path|Delivered-To|Received|X-Original-To): ?[^\r\n]*\r?\n[ \t]*[^\r\n]*[: ]")
_HTML = re.compile(rb"(?i)<!doctype html|<html\b")
_WIKI = re.compile(rb"<mediawiki\b")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is (``KNOWN``; else no reader has it, and ``name`` says what it may be), and the kind its suffix
    promises where that is another.
    """

    name: str
    promised: str | None = None

    @property
    def known(self) -> bool:
        """Whether there is a reader."""
        return self.name in KNOWN

    def refusal(self) -> str:
        """Why nobody reads it."""
        what = f" ({self.name})" if self.name else ""
        return f"no reader for it{what}; known: {', '.join(KNOWN)}"


def sniff(name: str, head: bytes) -> Kind:
    """The kind of a file of this name that begins with these bytes (up to ``HEAD``)."""
    promised = promised_by(name)
    found = _by_content(head, promised)
    if found is None:
        if promised is not None:
            return Kind(promised)
        return Kind("txt" if _is_text(head) else "")
    # An Office or EPUB file is a ZIP: which one is for the reader to say.
    if found == "zip" and promised in ("docx", "epub"):
        return Kind(promised)
    return Kind(found, promised if promised not in (None, found) else None)


def unpacked_name(name: str, packing: str) -> str:
    """The name of what is in a packed file: ``a.jsonl`` of ``a.jsonl.gz``, ``a.tar`` of ``a.tgz``."""
    suffix = PurePosixPath(name).suffix.lower()
    stem = name[: len(name) - len(suffix)]
    if _PACKED_TAR.get(suffix) == packing:
        return stem + ".tar"
    return stem if _PACKED.get(suffix) == packing and stem else name


def suffix_of(name: str) -> str:
    """The suffix without its dot, lower case; empty when there is none."""
    return PurePosixPath(name).suffix.lower().removeprefix(".")


def promised_by(name: str) -> str | None:
    """The kind that a file's suffix stands for."""
    suffix = PurePosixPath(name).suffix.lower()
    return _SUFFIXES.get(suffix) or _PACKED.get(suffix) or _PACKED_TAR.get(suffix)


def _by_content(head: bytes, promised: str | None) -> str | None:
    for start, kind in _MAGIC:
        if head.startswith(start) and (kind != "bz2" or _BZ2.match(head)):
            # Plain texts can begin like these by chance.
            return None if kind in ("CPIO", "ARC") and promised is not None else kind
    if head[257:262] == b"ustar":
        return "tar"
    begin = _first_element(head)
    if _HTML.match(head, begin):
        return "html"
    if _WIKI.match(head, begin):
        return "mediawiki"
    if promised in (None, "txt", "eml") and _MBOX.match(head):
        return "mbox"
    if promised in (None, "txt") and _MAIL.match(head):
        return "eml"
    if promised in (None, "txt") and b"\\documentclass" in head[:4096]:
        return "tex"
    return "pdf" if promised in (None, "pdf") and b"%PDF-" in head[:1024] else None


def _first_element(head: bytes) -> int:
    """Where the markup begins, after a byte order mark, an XML declaration, comments and a document type of XML."""
    at = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    while True:
        while head[at : at + 1].isspace():
            at += 1
        for opened, closed in ((b"<?", b"?>"), (b"<!--", b"-->"), (b"<!DOCTYPE mediawiki", b">")):
            if head.startswith(opened, at):
                end = head.find(closed, at)
                if end < 0:
                    return at
                at = end + len(closed)
                break
        else:
            return at


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    if not head or _CONTROL.search(head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 and len(head) >= HEAD
    return True
