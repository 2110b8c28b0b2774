"""Archives and packed files, through the source ``files``: members are files, and nothing leads out of them."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from text import made
from treadle.text.accounting import Accounting
from treadle.text.document import Document
from treadle.text.readers import compression
from treadle.text.source import SourceContext, open_source

Collect = Callable[..., tuple[list[Document], Accounting]]

PACK = {
    "gz": gzip.compress,
    "bz2": lambda data: bz2.compress(data, 1),
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "zst": zstandard.compress,
}


def tarred(members: dict[str, bytes], *special: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info in special:
            archive.addfile(info)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def told(accounting: Accounting) -> dict[str, str]:
    return {piece.source.removeprefix("files:"): piece.reason for piece in accounting.quarantined}


@pytest.mark.parametrize("packing", PACK)
def test_packed_rows_and_archives_are_read(tmp_path: Path, collect: Collect, packing: str) -> None:
    rows = b'{"text": "one"}\n{"text": "two"}\n'
    (tmp_path / f"a.jsonl.{packing}").write_bytes(PACK[packing](rows))
    (tmp_path / f"b.tar.{packing}").write_bytes(PACK[packing](tarred({"in/c.jsonl": rows, "in/d.txt": b"three"})))
    documents, accounting = collect(path="*.*")
    assert [(document.locator, document.text) for document in documents] == [
        (f"a.jsonl.{packing}:1", "one"),
        (f"a.jsonl.{packing}:2", "two"),
        (f"b.tar.{packing}!/in/c.jsonl:1", "one"),
        (f"b.tar.{packing}!/in/c.jsonl:2", "two"),
        (f"b.tar.{packing}!/in/d.txt", "three"),
    ]
    assert not accounting.quarantined


@pytest.mark.parametrize("packing", PACK)
def test_what_is_cut_off_is_kept_up_to_there(tmp_path: Path, collect: Collect, packing: str) -> None:
    import random

    source = random.Random(3)
    rows = "".join(json.dumps({"text": f"{n} {source.random()}"}) + "\n" for n in range(8_000)).encode()
    whole = PACK[packing](rows)
    (tmp_path / f"a.jsonl.{packing}").write_bytes(whole[: len(whole) * 3 // 4])
    documents, accounting = collect(path=f"a.jsonl.{packing}")
    assert 100 < len(documents) < 7_800
    assert "stream ends too early" in accounting.quarantined[-1].reason


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz", "zst"])
def test_streams_one_after_the_other_are_one(tmp_path: Path, collect: Collect, packing: str) -> None:
    pack = PACK[packing]
    (tmp_path / f"a.txt.{packing}").write_bytes(pack(b"one ") + pack(b"two ") + pack(b"three"))
    (document,), _ = collect(path=f"a.txt.{packing}")
    assert document.text == "one two three"


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz", "zst"])
def test_a_bomb_is_not_unpacked(
    tmp_path: Path, collect: Collect, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "_FREE", 1 << 22)
    line = b'{"text": "first"}\n'
    (tmp_path / f"a.jsonl.{packing}").write_bytes(PACK[packing](line + (b" " * 1_000_000 + b"\n") * 10))
    documents, accounting = collect(path=f"a.jsonl.{packing}", archives={"ratio": 100})
    assert [document.text for document in documents] == ["first"]
    assert "unpacks to more than 100 times its size" in accounting.quarantined[-1].reason


def test_nothing_leads_out_of_an_archive(tmp_path: Path, collect: Collect) -> None:
    (tmp_path / "secret.txt").write_text("never read")
    link, hard, device = tarfile.TarInfo("link.txt"), tarfile.TarInfo("hard.txt"), tarfile.TarInfo("dev.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "secret.txt"
    hard.type, hard.linkname = tarfile.LNKTYPE, "/etc/passwd"
    device.type = tarfile.CHRTYPE
    members = {"../up.txt": b"x", "/abs.txt": b"x", "a/../../b.txt": b"x", "fine.txt": b"fine"}
    (tmp_path / "a.tar").write_bytes(tarred(members, link, hard, device))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for name in (*members, "C:/win.txt", "..\\back.txt"):
            archive.writestr(name, b"fine")
        info = zipfile.ZipInfo("link.txt")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "secret.txt")
    documents, accounting = collect(path="[ab].*")
    assert [document.locator for document in documents] == ["a.tar!/fine.txt", "b.zip!/fine.txt"]
    reasons = told(accounting)
    assert len(reasons) == len(accounting.quarantined) == 12
    assert reasons["a.tar!/link.txt"] == reasons["b.zip!/link.txt"] == "a link, which is not followed"
    assert reasons["a.tar!/dev.txt"] == "neither a file nor a folder"
    assert reasons["a.tar!/../up.txt"] == "its name leads out of the archive (..)"
    assert reasons["b.zip!//abs.txt"] == reasons["b.zip!/C:/win.txt"] == "its name is absolute"
    assert accounting.kept + len(accounting.quarantined) == accounting.read


def test_archives_within_archives_are_read_to_a_depth(tmp_path: Path, collect: Collect) -> None:
    inner = made.zipped({"c.txt": "in the middle", "d.docx": made.docx(made.paragraph("a document"))})
    packed = gzip.compress(tarred({"b.zip": inner, "e.txt": b"beside"}))
    (tmp_path / "a.zip").write_bytes(made.zipped({"x/b.tar.gz": packed}))
    documents, _ = collect(path="a.zip")
    assert [(document.locator, document.text) for document in documents] == [
        ("a.zip!/x/b.tar.gz!/b.zip!/c.txt", "in the middle"),
        ("a.zip!/x/b.tar.gz!/b.zip!/d.docx", "a document"),
        ("a.zip!/x/b.tar.gz!/e.txt", "beside"),
    ]
    documents, accounting = collect(path="a.zip", archives={"depth": 2})
    assert not documents
    assert told(accounting) == {"a.zip!/x/b.tar.gz": "an archive within 2 others; raise archives.depth"}


def test_methods_of_a_zip_that_unpack_without_bounds(tmp_path: Path, collect: Collect) -> None:
    """A block of bzip2 can hold gigabytes; of LZMA any piece."""
    (tmp_path / "a.txt").write_text("before")
    for name, method, text in (("b", "BZIP2", "in bzip2"), ("bomb", "BZIP2", "a" * 150_000_000), ("l", "LZMA", "x")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", getattr(zipfile, f"ZIP_{method}")) as archive:
            archive.writestr("c.txt", text)
    tracemalloc.start()
    documents, accounting = collect(path="*.*")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [document.text for document in documents] == ["before", "in bzip2"]
    assert {name: reason.split(";")[0] for name, reason in told(accounting).items()} == {
        "bomb.zip!/c.txt": "longer than 16000000 bytes",
        "l.zip!/c.txt": "packed with LZMA, which is not read in a ZIP",
    }
    assert peak < 100_000_000


def test_limits_on_members_and_bytes(tmp_path: Path, collect: Collect) -> None:
    (tmp_path / "a.zip").write_bytes(made.zipped({f"{n}.txt": f"text {n}" for n in range(10)}))
    documents, accounting = collect(path="a.zip", archives={"members": 3})
    assert len(documents) == 3
    assert told(accounting) == {"a.zip": "holds more than 3 files; the rest was not read"}
    documents, accounting = collect(path="a.zip", archives={"largest": 20})
    assert len(documents) == 3
    assert told(accounting) == {"a.zip": "unpacks to more than 20 bytes; the rest was not read"}


def test_a_member_that_is_broken_costs_no_other(tmp_path: Path, collect: Collect) -> None:
    data = bytearray(made.zipped({"a.txt": b"first " * 99, "b.txt": b"second", "c.txt": b"third"}))
    data[40] ^= 0xFF
    encrypted = made.zipped({"d.txt": b"x"}).replace(b"\x14\x00\x00\x00\x08\x00", b"\x14\x00\x01\x00\x08\x00")
    (tmp_path / "a.zip").write_bytes(data)
    (tmp_path / "b.zip").write_bytes(encrypted)
    documents, accounting = collect(path="*.zip")
    assert [document.text for document in documents] == ["second", "third"]
    assert "a.zip!/a.txt" in told(accounting)
    assert told(accounting)["b.zip!/d.txt"] == "encrypted: it needs a password"


def test_a_tar_that_stops_is_told(tmp_path: Path, collect: Collect) -> None:
    whole = tarred({"a.txt": b"first", "b.txt": b"x" * 2000, "c.txt": b"third"})
    (tmp_path / "cut.tar").write_bytes(whole[:2000])
    broken = bytearray(whole)
    broken[1024:1034] = b"\xff" * 10  # the second header, whose checksum is wrong now
    (tmp_path / "header.tar").write_bytes(broken)
    (tmp_path / "mark.tar").write_bytes(whole[: 512 * 9])
    documents, accounting = collect(path="*.tar")
    assert [document.locator for document in documents][:2] == ["cut.tar!/a.txt", "header.tar!/a.txt"]
    assert len(documents) == 5
    reasons = told(accounting)
    assert "breaks off" in reasons["cut.tar!/b.txt"]
    assert reasons["header.tar"] == "the rest cannot be read: a broken header"
    assert "without its end mark" in reasons["mark.tar"]


def test_ignored_members_are_counted(tmp_path: Path, collect: Collect) -> None:
    members = {"__MACOSX/._a.txt": "x", ".DS_Store": "x", "a.txt": "kept", "b.log": "left out"}
    (tmp_path / "a.zip").write_bytes(made.zipped(members))
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    _, accounting = collect(path="*")
    assert (accounting.kept, accounting.dropped) == (2, {"files.ignored": 3})
    _, accounting = collect(path="*", ignore=["*.log"])
    assert (accounting.kept, accounting.dropped) == (4, {"files.ignored": 1})


def test_tables_are_read_out_of_archives(tmp_path: Path, collect: Collect) -> None:
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{"text": "a row"}]), table)
    (tmp_path / "a.tar.gz").write_bytes(
        gzip.compress(tarred({"t.parquet": table.getvalue(), "t.csv": b"text\nof csv\n"}))
    )
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress(table.getvalue()))
    documents, _ = collect(path="*.gz")
    assert [document.text for document in documents] == ["a row", "of csv", "a row"]


def test_a_changed_member_changes_the_fingerprint_and_its_document(tmp_path: Path, collect: Collect) -> None:
    def taken() -> tuple[str, dict[str, str]]:
        documents, _ = collect(path="a.zip")
        source = open_source({"type": "files", "path": "a.zip"}, SourceContext(tmp_path, str))
        return source.fingerprint(), {document.locator: document.id for document in documents}

    (tmp_path / "a.zip").write_bytes(made.zipped({"a.txt": "one", "b.html": "<html><p>two"}))
    before = taken()
    assert taken() == before
    (tmp_path / "a.zip").write_bytes(made.zipped({"a.txt": "one", "b.html": "<html><p>2"}))
    after = taken()
    assert before[0] != after[0]
    assert before[1]["a.zip!/a.txt"] == after[1]["a.zip!/a.txt"]
    assert before[1]["a.zip!/b.html"] != after[1]["a.zip!/b.html"]


def test_headers_that_would_fill_the_memory_are_refused(tmp_path: Path, collect: Collect) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, (1 << 33) - 1
    (tmp_path / "a.tar").write_bytes(tarred({"a.txt": b"first"})[:1024] + info.tobuf() + b"\0" * 4096)
    documents, accounting = collect(path="a.tar")
    assert [document.text for document in documents] == ["first"]
    assert told(accounting) == {"a.tar": "the rest cannot be read: a broken header"}
