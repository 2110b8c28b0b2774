"""Everything in the shared data at once, hostile files included: each is read, quarantined or left out by name, and
none is short of what an independent count finds in it.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import re
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from treadle.core.digest import keyed_digest
from treadle.text.accounting import Accounting, Dropped, Quarantined
from treadle.text.document import Document
from treadle.text.source import SourceContext, open_source, read_sources
from treadle.text.transform import load_transforms, run_transforms

pytestmark = pytest.mark.slow

STEPS: list[Any] = [
    "normalize",
    {"filter": {"min_chars": 20}},
    "deduplicate",
    "gopher_repetition",
    "gopher_quality",
    "redact",
    "deduplicate_near",
]
ROWS = (".jsonl", ".json", ".csv", ".tsv")
HOSTILE = "8-nasty-inputs/"
BROKEN_ROWS = "6-pretraining-docs/office_html_docling_gt.tar.gz"  # tables with too many columns and too few, on purpose


@dataclass
class Everything:
    """What came of all of it: pieces by file, and by member of an archive as ``file!/member``."""

    folder: Path
    pieces: Counter[str] = field(default_factory=Counter)
    texts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    elsewhere: int = 0  # records of crawls that a rule left out, which are named by their address
    documents: list[Document] = field(default_factory=list)
    accounting: Accounting = field(default_factory=Accounting)

    def names(self) -> list[str]:
        """Every file, by its path in the folder."""
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def everything(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Everything:
    found = Everything(shared_data)
    context = SourceContext(tmp_path_factory.mktemp("project"), lambda name: keyed_digest(b"k" * 32, "subject", name))
    opened = open_source({"type": "files", "path": str(shared_data)}, context)
    names = set(found.names())

    def watched() -> Iterator[Any]:
        for piece in read():
            place = _place(piece).removeprefix("files:").removeprefix(f"{shared_data}/")
            file, _, member = place.partition("!/")
            file = next((name for name in (file, re.sub(r"[:#][^/]*$", "", file)) if name in names), "")
            if not file:
                found.elsewhere += 1
                assert isinstance(piece, Dropped), place
            else:
                found.pieces[file] += 1
                if member:
                    found.pieces.update({f"{file}!/{one}" for one in (member, re.sub(r"[:#][^/]*$", "", member))})
                if isinstance(piece, Document):
                    found.texts[place].append(piece.text)
            yield piece

    read = opened.source.read
    vars(opened.source)["read"] = watched
    found.documents = [document for batch in read_sources([opened], found.accounting) for document in batch]
    return found


def _place(piece: Document | Dropped | Quarantined) -> str:
    if isinstance(piece, Quarantined):
        return piece.source
    document = piece.document if isinstance(piece, Dropped) else piece
    return str(document.fields.get("file", document.locator))


def test_every_file_and_member_is_told_of(everything: Everything) -> None:
    everything.accounting.close()
    assert (
        everything.accounting.read
        == sum(count for name, count in everything.pieces.items() if "!/" not in name) + everything.elsewhere
    )
    untold = [name for name in everything.names() if not everything.pieces[name]]
    assert untold == []
    for name, member, _ in _members(everything):
        told = any(place.startswith(f"{name}!/{member}") for place in everything.pieces)
        # Of a crawl without pages there are only records, named by their addresses.
        assert told or re.search(r"\.w?arc\b", member), f"{name}!/{member}"
    assert all(piece.reason and piece.offset >= 0 for piece in everything.accounting.quarantined)


def test_rows_pages_and_texts_are_as_many_as_counted_independently(everything: Everything) -> None:
    counted = 0
    for name, data in _plain(everything):
        expected = _count(name, data)
        if expected is None:
            continue
        counted += 1
        assert everything.pieces[name] == expected, name
    assert counted > 50
    for name, member, data in _members(everything):
        if member.endswith(ROWS) and not name.startswith(HOSTILE) and name != BROKEN_ROWS:
            assert everything.pieces[f"{name}!/{member}"] == _count(member, data), f"{name}!/{member}"


def test_texts_are_whole(everything: Everything) -> None:
    whole = 0
    places = [*_plain(everything), *((f"{name}!/{member}", data) for name, member, data in _members(everything))]
    for place, data in places:
        if not re.search(r"\.(txt|conll)(\.gz)?$", place) or place not in everything.texts:
            continue
        found = everything.texts[place]
        try:
            expected = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        # A mail is no plain text, whatever its name, and escapes are of an encoding with 7 bits.
        if found[0][:40] == expected[:40] and b"\x1b" not in data:
            whole += 1
            assert found == [expected], place
    assert whole > 300


def test_the_sum_holds_at_every_step(everything: Everything) -> None:
    documents = everything.documents
    whole = everything.accounting
    for step in STEPS:
        accounting = Accounting()
        shards = run_transforms([documents], load_transforms([step], None), accounting)
        left = [document for shard in shards for document in shard]
        accounting.close()
        assert accounting.read == len(documents)
        assert accounting.kept == len(left) == len(documents) - sum(accounting.dropped.values())
        assert {document.id for document in left} <= {document.id for document in documents}
        documents, whole = left, whole.then(accounting)
    assert whole.close().read == everything.accounting.read
    assert len(documents) > 1_000


def _plain(everything: Everything) -> Iterator[tuple[str, bytes]]:
    for name in everything.names():
        if ".tar" not in name:
            data = (everything.folder / name).read_bytes()
            unpack = gzip.decompress if name.endswith(".gz") else bz2.decompress if name.endswith(".bz2") else bytes
            yield name, unpack(data)


def _members(everything: Everything) -> Iterator[tuple[str, str, bytes]]:
    for name in everything.names():
        if ".tar" in name:
            with tarfile.open(everything.folder / name) as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.isfile() else None
                    if file is not None:
                        yield name, member.name, file.read()


def _count(name: str, data: bytes) -> int | None:
    """Rows or pages by other code than ours; None for what holds neither."""
    name = name.removesuffix(".gz").removesuffix(".bz2")
    if name.endswith(".jsonl"):
        return sum(bool(line.strip()) for line in data.split(b"\n"))
    if name.endswith(".json"):
        value = json.loads(data)
        return len(value) if isinstance(value, list) else 1
    if name.endswith((".csv", ".tsv")):
        text = io.StringIO(data.decode("utf-8-sig"), newline="")
        return sum(map(bool, csv.reader(text, delimiter="\t" if name.endswith(".tsv") else ","))) - 1
    if name.endswith(".xml"):
        return data.count(b"<page>")
    return 1 if name.endswith((".txt", ".conll", ".md")) else None
