"""A dataset: examples in named splits, each with the ids of the documents it was made from.

On disk one Parquet file a split, whose schema and format number are explicit, and whose bytes depend on the
examples and the version of pyarrow alone. Values that have no fixed type (``fields``, ``tools``, the calls in a
message) are one JSON text each, so any reader of Parquet can open the file. A split without calls of tools is
written as format 1, which has no column for them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from treadle.core.artifacts import Artifact
from treadle.core.digest import blake3_bytes, canonical_json
from treadle.core.errors import Corrupt, UserError
from treadle.text.arrow import pyarrow
from treadle.text.tool_calls import spoken

FORMAT = 2
FORMATS = ("1", "2")  # 1: no ``tools``, and messages of role and content alone
SPLITS = ("train", "validation", "test", "holdout")
ROLES = ("system", "user", "assistant", "tool")
DATASET_FILE = "dataset.json"
ACCOUNTING_FILE = "accounting.json"
_ROWS_PER_GROUP = 8_192
_FORMAT_KEY = b"treadle.dataset.format"


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn from or be tested on.

    ``messages`` is an OpenAI-style conversation whose last message is the assistant's reference answer
    (chat), and ``tools`` the functions it may call; ``text`` and ``label`` are set instead for classification.
    ``group`` is the value the split was made by (a module, a customer).
    """

    documents: tuple[str, ...]
    messages: tuple[dict[str, Any], ...] = ()
    text: str = ""
    label: str | None = None
    group: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def id(self) -> str:
        """``ex:<32 hex>``: what it says and the documents it is made from; group and fields do not count."""
        parts: list[Any] = [list(self.documents), [dict(each) for each in self.messages], self.text, self.label]
        if self.tools:
            parts.append(list(self.tools))
        return "ex:" + blake3_bytes(canonical_json(parts))[3:35]

    @property
    def rejected(self) -> tuple[dict[str, Any], ...]:
        """The conversation as somebody liked it less, where there is one beside this."""
        found = self.fields.get("rejected")
        return tuple(found) if isinstance(found, list | tuple) else ()

    @property
    def question(self) -> str:
        """What is asked: the user's messages joined, or the text to classify."""
        if not self.messages:
            return self.text
        return "\n".join(message["content"] for message in self.messages if message["role"] == "user")

    @property
    def answer(self) -> str:
        """The reference: the last message when the assistant says it, its calls as JSON, or the label."""
        if not self.messages:
            return self.label or ""
        return spoken(self.messages[-1]) if self.messages[-1]["role"] == "assistant" else ""


class Dataset(Artifact):
    """``train|validation|test|holdout.parquet`` (a row an example), ``dataset.json``, ``accounting.json``."""

    kind: ClassVar[str] = "dataset"

    def examples(self, split: str) -> list[Example]:
        """All examples of a split, in the order written; an unknown split is a ``UserError``."""
        return read_split(self.path(), split)

    def counts(self) -> dict[str, int]:
        """Examples per split."""
        return {name: int(n) for name, n in self.read_json(DATASET_FILE)["counts"].items()}

    def split_document_ids(self, split: str) -> tuple[str, ...]:
        """Sorted ids of the documents that a split was made from."""
        return split_document_ids(self.path(), split)


def write_dataset(
    folder: Path,
    splits: Mapping[str, Sequence[Example]],
    *,
    accounting: Mapping[str, Any],
    info: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Write every split (an absent one is written empty) and the two JSON files; returns examples per split.

    ``info`` joins ``dataset.json`` beside ``format`` and ``counts``: task, seed, how the split was made. An
    example with a role other than these four, or without documents, is a ``UserError``: nothing in a dataset may
    be without lineage.
    """
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise UserError(f"unknown split {unknown[0]!r}; a dataset has {', '.join(SPLITS)}")
    counts = {name: len(splits.get(name, ())) for name in SPLITS}
    written = max(_write_split(folder / f"{name}.parquet", splits.get(name, ())) for name in SPLITS)
    described = {**(info or {}), "format": written, "counts": counts}
    (folder / DATASET_FILE).write_bytes(canonical_json(described))
    (folder / ACCOUNTING_FILE).write_bytes(canonical_json(dict(accounting)))
    return counts


def read_split(folder: Path, split: str) -> list[Example]:
    """The examples of one split; ``Corrupt`` when the file is not a dataset's of this format."""
    return [example for batch in iterate_split(folder, split) for example in batch]


def iterate_split(folder: Path, split: str, *, rows: int = _ROWS_PER_GROUP) -> Iterator[list[Example]]:
    """The examples of one split in batches of at most ``rows``."""
    with _open(folder, split) as file:
        for batch in file.iter_batches(batch_size=rows):
            yield [_example(row) for row in batch.to_pylist()]


def split_document_ids(folder: Path, split: str) -> tuple[str, ...]:
    """Sorted ids of the documents in one split, read from that column alone."""
    with _open(folder, split) as file:
        column = file.read(columns=["documents"]).column("documents")
        return tuple(sorted({name for row in column.to_pylist() for name in row}))


def split_groups(folder: Path) -> dict[str, str]:
    """Which split each group of a dataset is in; held-back examples count as training's."""
    groups: dict[str, str] = {}
    for split in SPLITS:
        with _open(folder, split) as file:
            side = "train" if split == "holdout" else split
            groups.update(dict.fromkeys(file.read(columns=["group"]).column("group").to_pylist(), side))
    return groups


def _schema(version: int) -> Any:
    pa, _ = pyarrow()
    message = [pa.field("role", pa.string(), False), pa.field("content", pa.string(), False)]
    if version > 1:
        message += [pa.field(name, pa.string(), True) for name in ("tool_calls", "tool_call_id", "name")]
    return pa.schema(
        [
            pa.field("documents", pa.list_(pa.field("element", pa.string(), False)), False),
            pa.field("messages", pa.list_(pa.field("element", pa.struct(message), False)), False),
            pa.field("text", pa.string(), False),
            pa.field("label", pa.string(), True),
            pa.field("group", pa.string(), False),
            pa.field("fields", pa.string(), False),
            *([pa.field("tools", pa.string(), True)] if version > 1 else []),
        ],
        metadata={_FORMAT_KEY: str(version).encode()},
    )


def _write_split(path: Path, examples: Sequence[Example]) -> int:
    """Writes the oldest format that can hold the examples, and says which."""
    pa, pq = pyarrow()

    plain = not any(e.tools or any(set(m) != {"role", "content"} for m in e.messages) for e in examples)
    version = 1 if plain else FORMAT
    table = pa.Table.from_pylist([_row(example) for example in examples], schema=_schema(version))
    partial = path.with_suffix(".partial")
    # Everything that shapes the bytes is said here, so that a changed default of the library cannot change a
    # digest.
    pq.write_table(
        table,
        partial,
        row_group_size=_ROWS_PER_GROUP,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=["group", "label"],
        write_statistics=False,
    )
    partial.replace(path)
    return version


def _row(example: Example) -> dict[str, Any]:
    if not example.documents:
        raise UserError(f"example {example.id} names no document; an example maker must say what it was made from")
    return {
        "documents": list(example.documents),
        "messages": [_written(example, message) for message in example.messages],
        "text": example.text,
        "label": example.label,
        "group": example.group,
        "fields": canonical_json(example.fields).decode(),
        "tools": canonical_json(list(example.tools)).decode() if example.tools else None,
    }


def _written(example: Example, message: Mapping[str, Any]) -> dict[str, Any]:
    more = set(message) - {"role", "content"}
    allowed = {"assistant": {"tool_calls"}, "tool": {"tool_call_id", "name"}}.get(message.get("role", ""), set())
    if "content" not in message or message.get("role") not in ROLES or not more <= allowed:
        raise UserError(
            f"example {example.id} has a message {sorted(message)} of role {message.get('role')!r};"
            f" expected role ({', '.join(ROLES)}) and content; an assistant may have tool_calls, a tool tool_call_id"
            " and name"
        )
    if "tool_calls" in more:
        return {**message, "tool_calls": canonical_json(message["tool_calls"]).decode()}
    return dict(message)


def _example(row: dict[str, Any]) -> Example:
    return Example(
        documents=tuple(row["documents"]),
        messages=tuple(map(_read_message, row["messages"])),
        text=row["text"],
        label=row["label"],
        group=row["group"],
        fields=json.loads(row["fields"]),
        tools=tuple(json.loads(row.get("tools") or "[]")),
    )


def _read_message(row: dict[str, Any]) -> dict[str, Any]:
    message = {key: value for key, value in row.items() if value is not None}
    if "tool_calls" in message:
        message["tool_calls"] = json.loads(message["tool_calls"])
    return message


def _open(folder: Path, split: str) -> Any:
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; a dataset has {', '.join(SPLITS)}")
    pa, pq = pyarrow()

    path = folder / f"{split}.parquet"
    if not path.is_file():
        raise Corrupt(f"{folder} holds no {path.name}; not a dataset")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise Corrupt(f"{path} is not Parquet: {str(error).splitlines()[0]}") from None
    written = (file.schema_arrow.metadata or {}).get(_FORMAT_KEY, b"none").decode(errors="replace")
    if written not in FORMATS:
        file.close()
        raise Corrupt(f"{path} is of dataset format {written}; this Treadle reads formats {' and '.join(FORMATS)}")
    return file
