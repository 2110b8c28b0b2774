"""Tokens: the examples of each split as token ids, with which of them are to be learned.

On disk each split is a few plain arrays, read through memory maps, so that any example is found at once and a split may
be larger than memory:

    <split>.ids        uint16 or uint32, the ids of all examples one after the other
    <split>.answer     uint8, 1 where a token is to be learned; absent where all are
    <split>.ends       int64, where each example ends
    <split>.rows       int64, where each packed row ends, counted in examples; absent where nothing is packed
    <split>.documents  32 bytes an example: the id of its document; absent where an example has several or none
    tokens.json        format, counts, the type of the ids
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from treadle.core.artifacts import Artifact
from treadle.core.digest import canonical_json
from treadle.core.errors import Corrupt, MissingExtra, UserError
from treadle.lm.packed_rows import PackedRows
from treadle.lm.packing import TokenizedExample
from treadle.lm.shuffled import shuffled

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FORMAT = 2  # 1 was one .npz a split with ``ids``, ``answer`` and ``ends``; it is still read
_BLOCK = 4_096  # places of a shuffle computed at a time
_DOCUMENT_BYTES = 32


class Tokens(Artifact):
    """The arrays above; ``tokens.json``."""

    kind: ClassVar[str] = "tokens"

    def examples(self, split: str) -> list[TokenizedExample]:
        """The examples of a split in the dataset's order."""
        ids, answer, ends = self._arrays(split)
        starts = [0, *ends.tolist()]
        return [
            TokenizedExample(ids[start:end].tolist(), _learned(answer, start, end)) for start, end in pairwise(starts)
        ]

    def lengths(self, split: str) -> list[int]:
        """Tokens of each example."""
        import numpy as np

        found: list[int] = np.diff(self._arrays(split)[2], prepend=0).tolist()
        return found

    def document(self, split: str, place: int) -> str | None:
        """The id of the document that an example is of, where it is of one."""
        if not self.has(f"{split}.documents"):
            return None
        with self.path(f"{split}.documents").open("rb") as file:
            file.seek(place * _DOCUMENT_BYTES)
            return "doc:" + file.read(_DOCUMENT_BYTES).hex()

    def rows(self, split: str) -> PackedRows:
        """The packed rows of a split."""
        if not self.has(f"{split}.rows"):
            raise UserError(f"{self.digest}: the tokens of {split} are not packed")
        info = self.read_json("tokens.json")
        rows = _mapped(self.path(f"{split}.rows"), "int64", info["splits"][split]["rows"])
        ids, _, ends = self._arrays(split)
        return PackedRows(ids, ends, rows, int(info["width"]))

    def stream(
        self, split: str, seed: int, start: int = 0, rank: int = 0, world: int = 1, *, epochs: int = 1
    ) -> Iterator[tuple[int, TokenizedExample]]:
        """``(place in the split, example)`` in an order drawn from ``seed`` and the epoch.

        The order is one for all workers: worker ``rank`` of ``world`` takes every ``world``-th, so that together they
        see each example once an epoch. ``start`` counts samples of all workers; a run that saw n of them goes on with
        ``start=n``, on as many workers as it likes. Nothing is held but what is yielded.
        """
        import numpy as np

        if not 0 <= rank < world or start < 0:
            raise UserError(
                f"tokens: worker {rank} of {world} from sample {start}; expected 0 <= rank < world, start >= 0"
            )
        ids, answer, ends = self._arrays(split)
        count = len(ends)
        for first in range(start + rank, epochs * count, _BLOCK * world):
            samples = np.arange(first, min(first + _BLOCK * world, epochs * count), world, dtype=np.uint64)
            for epoch in np.unique(samples // np.uint64(count)).tolist():
                within = samples[samples // np.uint64(count) == epoch] - np.uint64(epoch * count)
                for place in shuffled(within, count, f"{seed}\0{epoch}").tolist():
                    begin, end = int(ends[place - 1]) if place else 0, int(ends[place])
                    yield place, TokenizedExample(ids[begin:end].tolist(), _learned(answer, begin, end))

    def _arrays(self, split: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8] | None, npt.NDArray[np.int64]]:
        import numpy as np

        info = self.read_json("tokens.json")
        if info["format"] == 1:
            with np.load(self.path(f"{split}.npz"), allow_pickle=False) as arrays:
                return arrays["ids"], arrays["answer"].astype(np.uint8), arrays["ends"]
        if info["format"] != FORMAT:
            raise Corrupt(f"{self.path()} is of tokens format {info['format']}; this Treadle reads formats 1 and 2")
        counts = info["splits"][split]
        ids = _mapped(self.path(f"{split}.ids"), info["ids"], counts["tokens"])
        ends = _mapped(self.path(f"{split}.ends"), "int64", counts["examples"])
        if not self.has(f"{split}.answer"):
            return ids, None, ends
        return ids, _mapped(self.path(f"{split}.answer"), "uint8", counts["tokens"]), ends


class TokenWriter:
    """Appends examples to one split; what is written is in the files and no longer in memory."""

    def __init__(self, folder: Path, split: str, ids: str, *, with_: Sequence[str] = ()) -> None:
        """``ids``: ``uint16`` or ``uint32``. ``with_``: which of ``answer``, ``documents`` and ``rows`` there are."""
        self._kind = ids
        names = ("ids", "ends", *with_)
        self._files: dict[str, BinaryIO] = {name: (folder / f"{split}.{name}").open("wb") for name in names}
        self.examples = self.tokens = self.answer_tokens = self.rows = 0

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def add(
        self,
        ids: npt.NDArray[Any],
        ends: npt.NDArray[np.int64],
        answer: npt.NDArray[Any] | None = None,
        documents: Sequence[str] = (),
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Several examples, one after the other in ``ids``, each up to its end, a document for each; ``rows`` says
        after how many examples each packed row ends.
        """
        if rows is not None:
            self._files["rows"].write((rows + self.examples).astype("<i8").tobytes())
            self.rows += len(rows)
        self._files["ids"].write(ids.astype(f"<{_LETTERS[self._kind]}").tobytes())
        self._files["ends"].write((ends + self.tokens).astype("<i8").tobytes())
        if answer is not None:
            self._files["answer"].write(answer.astype("u1").tobytes())
        if "documents" in self._files:
            self._files["documents"].write(b"".join(bytes.fromhex(name.removeprefix("doc:")) for name in documents))
        self.examples += len(ends)
        self.tokens += len(ids)
        self.answer_tokens += len(ids) if answer is None else int(answer.sum())

    def counts(self) -> dict[str, int]:
        """What ``tokens.json`` says of the split."""
        counts = {"examples": self.examples, "tokens": self.tokens, "answer_tokens": self.answer_tokens}
        return {**counts, "rows": self.rows} if "rows" in self._files else counts


_LETTERS = {"uint16": "u2", "uint32": "u4"}


def ids_kind(vocabulary_size: int) -> str:
    """The smallest type that holds every id."""
    return "uint16" if vocabulary_size <= 1 << 16 else "uint32"


def write_info(folder: Path, ids: str, splits: Mapping[str, TokenWriter], info: Mapping[str, object]) -> None:
    """``tokens.json``, last."""
    counts = {name: writer.counts() for name, writer in splits.items()}
    (folder / "tokens.json").write_bytes(canonical_json({"format": FORMAT, "ids": ids, "splits": counts, **info}))


def write_tokens(folder: Path, splits: Mapping[str, Sequence[TokenizedExample]], info: Mapping[str, object]) -> None:
    """Write every split. The bytes depend on the examples alone."""
    try:
        import numpy as np
    except ModuleNotFoundError:
        raise MissingExtra("numpy", extra="data") from None
    largest = max((max(each.ids, default=0) for examples in splits.values() for each in examples), default=0)
    kind = ids_kind(largest + 1)
    writers = {}
    for name, examples in splits.items():
        with TokenWriter(folder, name, kind, with_=("answer",)) as writers[name]:
            writers[name].add(
                np.array([token for each in examples for token in each.ids], dtype=np.int64),
                np.cumsum([len(each.ids) for each in examples], dtype=np.int64),
                np.array([flag for each in examples for flag in each.answer], dtype=np.uint8),
            )
    write_info(folder, kind, writers, info)


def _mapped(path: Path, kind: str, count: int) -> npt.NDArray[Any]:
    import numpy as np

    kept = np.dtype(kind).newbyteorder("<")
    if path.stat().st_size != count * kept.itemsize:
        raise Corrupt(f"{path} holds {path.stat().st_size:,} bytes where {count:,} {kind} should be")
    return np.memmap(path, dtype=kept, mode="r") if count else np.zeros(0, dtype=kept)


def _learned(answer: npt.NDArray[np.uint8] | None, start: int, end: int) -> list[bool]:
    return [True] * (end - start) if answer is None else [bool(flag) for flag in answer[start:end].tolist()]
