"""A lake: a corpus as Parquet files that other tools read as they are, partitioned by source and month.

    source=files/month=2024-05/<32 hex of the file's BLAKE3>.parquet
    source=files/month=undated/...                          documents without a time of their own
    _treadle/current.json                                  which corpus this is, and its files with rows and bytes

The folders are Hive's convention (DuckDB, Spark, pandas, Daft and Arrow all know it), so ``source`` stands in the path
and not in the files. Files carry statistics of their columns for whoever skips by them. A file's name is what is in it:
the same corpus gives the same files, a partition that did not change is not written again, and a ``pour`` that was
killed anywhere goes on where it was. New files come first, ``current.json`` after them, and only then do those go that
it no longer names; who needs exactly one corpus while another is poured reads the files that ``current.json`` names.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from treadle.core.digest import PREFIX, blake3_bytes, canonical_json
from treadle.core.errors import UserError
from treadle.core.remote import Remote
from treadle.text.arrow import pyarrow
from treadle.text.document import Document

FORMAT = 1
CURRENT = "_treadle/current.json"
UNDATED = "undated"  # not Hive's word for null, over which pandas stumbles
_FILE_CHARACTERS = 64_000_000  # of text in one file, and about what is held in memory of one partition
_HELD_CHARACTERS = 256_000_000  # of text held of all partitions together
_GROUP_DOCUMENTS = 5_000
_STATISTICS = ["id", "locator", "license", "time", "origin", "characters"]
_DICTIONARY = ["license", "origin", "purpose", "subject"]


@dataclass(frozen=True, slots=True)
class Poured:
    """What a lake holds now, and what had to be done for it. ``digest`` names exactly this set of files."""

    digest: str
    documents: int
    files: int
    written: int
    bytes_written: int
    deleted: int


@dataclass(slots=True)
class _Partition:
    documents: list[Document] = field(default_factory=list)
    characters: int = 0


def current(remote: Remote) -> dict[str, Any] | None:
    """What a lake says of itself; None where there is no lake yet. ``UserError`` for one of a format not known here."""
    try:
        raw = remote.read(CURRENT)
    except FileNotFoundError:
        return None
    try:
        said = json.loads(raw)
        found = said["format"], said["corpus"], said["files"]
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{remote.url}: {CURRENT} is not what Treadle wrote; remove it to pour the lake anew") from None
    if found[0] != FORMAT:
        raise UserError(f"{remote.url} is a lake of format {found[0]!r}; this Treadle knows {FORMAT}, update it")
    return dict(said)


def left_over(remote: Remote, said: dict[str, Any]) -> bool:
    """Whether files lie there that what the lake says of itself no longer names: a pour was killed before its end."""
    return any(_ours(name) and name not in said["files"] for name in remote.names(""))


def pour(
    remote: Remote,
    corpus: str,
    batches: Iterable[Sequence[Document]],
    tell: Callable[[int], None] = lambda _: None,
) -> Poured:
    """Make the lake at ``remote`` hold exactly these documents, those of the corpus with this digest.

    ``tell`` hears how many documents went by. Memory: the text of the partitions that are being filled, at most about
    256 million characters. ``UserError`` where something other than a lake lies there.
    """
    before = current(remote)
    there = {name for name in remote.names("") if name.endswith(".parquet")}
    if before is None and there and any(not _ours(name) for name in there):
        raise UserError(f"{remote.url} holds Parquet files that are no lake's; name an empty folder")
    files: dict[str, dict[str, int]] = {}
    written = size = count = 0
    for folder, documents in _files(batches):
        data = _parquet(documents)
        name = f"{folder}/{blake3_bytes(data).removeprefix(PREFIX)[:32]}.parquet"
        files[name] = {"rows": len(documents), "bytes": len(data)}
        if name not in there:
            remote.write(name, data)
            written, size = written + 1, size + len(data)
        count += len(documents)
        tell(count)
    said = {"format": FORMAT, "corpus": corpus, "documents": count, "files": dict(sorted(files.items()))}
    raw = canonical_json(said)
    if before != said:
        remote.write(CURRENT, raw)
    gone = sorted(name for name in there if name not in files and _ours(name))
    for name in gone:
        remote.delete(name)
    return Poured(blake3_bytes(raw), count, len(files), written, size, len(gone))


def _files(batches: Iterable[Sequence[Document]]) -> Iterator[tuple[str, list[Document]]]:
    """Documents by partition, a file at a time. Where files end depends on the documents alone."""
    open_: dict[str, _Partition] = {}
    held = 0
    for batch in batches:
        for document in batch:
            folder = _folder(document)
            partition = open_.setdefault(folder, _Partition())
            partition.documents.append(document)
            partition.characters += len(document.text)
            held += len(document.text)
            if partition.characters >= _FILE_CHARACTERS:
                held -= partition.characters
                yield folder, open_.pop(folder).documents
        if held >= _HELD_CHARACTERS:
            yield from ((folder, open_.pop(folder).documents) for folder in sorted(open_))
            held = 0
    yield from ((folder, open_.pop(folder).documents) for folder in sorted(open_))


def _folder(document: Document) -> str:
    time = document.time or ""
    month = time[:7] if len(time) >= 7 and time[4] == "-" else UNDATED
    return f"source={quote(document.source, safe=' ')}/month={month}"


def _ours(name: str) -> bool:
    parts = name.split("/")
    stem = parts[-1].removesuffix(".parquet")
    named = len(parts) == 3 and parts[0].startswith("source=") and parts[1].startswith("month=")
    return named and len(stem) == 32 and set(stem) <= set("0123456789abcdef")


def _parquet(documents: Sequence[Document]) -> bytes:
    """The bytes of a file; the same documents give the same under one version of pyarrow."""
    pa, pq = pyarrow()
    text, texts = pa.string(), pa.list_(pa.field("item", pa.string(), nullable=False))
    columns: list[tuple[str, Any, list[Any]]] = [
        ("id", text, [each.id for each in documents]),
        ("locator", text, [each.locator for each in documents]),
        ("text", text, [each.text for each in documents]),
        ("characters", pa.int64(), [len(each.text) for each in documents]),
        ("license", text, [each.license for each in documents]),
        ("time", text, [each.time for each in documents]),
        ("origin", text, [each.origin for each in documents]),
        ("parents", texts, [list(each.parents) for each in documents]),
        ("purpose", text, [each.purpose for each in documents]),
        ("subject", text, [each.subject for each in documents]),
        ("retain_until", text, [each.retain_until for each in documents]),
        ("opt_out", texts, [list(each.opt_out) for each in documents]),
        ("fields", text, [canonical_json(each.fields).decode() for each in documents]),
    ]
    arrays = [pa.array(values, type=kind) for _, kind, values in columns]
    table = pa.Table.from_arrays(arrays, names=[name for name, _, _ in columns])
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=_DICTIONARY,
        write_statistics=_STATISTICS,
        row_group_size=_GROUP_DOCUMENTS,
        data_page_version="1.0",
        version="2.6",
    )
    return sink.getvalue()
