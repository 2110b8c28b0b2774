"""Documents as rows of fixed width to train on from the first token: encoded, cut where they are too long, packed.

A window of documents is held at a time, so memory does not grow with the input. A row says where each of its pieces
ends, so that a trainer can keep each from seeing its neighbors (``lm.packing``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from treadle.lm.bulk_encoder import BulkEncoder, Encoded
from treadle.lm.tokens import TokenWriter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

WINDOW_BYTES = 16 << 20  # of text, in UTF-8 or thereabouts, that is packed together


def write_packed(
    folder: Path,
    split: str,
    documents: Iterable[tuple[str, str]],
    encoder: BulkEncoder,
    *,
    width: int,
    ids: str,
    end: int | None = None,
    window: int = WINDOW_BYTES,
) -> TokenWriter:
    """Write ``(document id, text)`` as packed rows; returns the writer with its counts.

    ``end`` is a token put behind each document. A document of more than ``width`` tokens is cut into pieces of
    ``width`` and a rest, each under its id: no token is lost.
    """
    import numpy as np

    with TokenWriter(folder, split, ids, with_=("documents", "rows")) as writer:
        for names, texts in _windows(documents, window):
            encoded = encoder.encode(texts)
            tokens, starts, lengths, owners = _pieces(encoded, width, end)
            order, rows = pack_lengths(lengths, width)
            starts, lengths = starts[order], lengths[order]
            ends = np.cumsum(lengths)
            places = np.repeat(starts - (ends - lengths), lengths) + np.arange(int(ends[-1]) if len(ends) else 0)
            writer.add(tokens[places], ends, documents=[names[i] for i in owners[order].tolist()], rows=rows)
    return writer


def pack_lengths(lengths: npt.NDArray[np.int64], width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Best fit, longest first: the order of the pieces row by row, and after how many of them each row ends.

    The row with the least room that still holds a piece is found in a number whose bit n says that some row has n
    places free.
    """
    import numpy as np

    if len(lengths) and (int(lengths.max()) > width or int(lengths.min()) < 1):
        raise ValueError(f"a piece has {lengths.min()} to {lengths.max()} tokens; expected 1 to {width}")
    longest_first = np.argsort(-lengths, kind="stable")
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(width + 1)]
    rooms = 0
    for piece, length in zip(longest_first.tolist(), lengths[longest_first].tolist(), strict=True):
        if fitting := rooms >> length:
            room = length + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
        else:
            room, row = width, len(rows)
            rows.append([])
        rows[row].append(piece)
        if left := room - length:
            by_room[left].append(row)
            rooms |= 1 << left
    order = np.array([piece for row in rows for piece in row], dtype=np.int64)
    return order, np.cumsum([len(row) for row in rows], dtype=np.int64)


def _windows(documents: Iterable[tuple[str, str]], size: int) -> Iterator[tuple[list[str], list[str]]]:
    names: list[str] = []
    texts: list[str] = []
    held = 0
    for name, text in documents:
        names.append(name)
        texts.append(text)
        held += len(text)
        if held >= size:
            yield names, texts
            names, texts, held = [], [], 0
    if texts:
        yield names, texts


def _pieces(
    encoded: Encoded, width: int, end: int | None
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All tokens, and for each piece of at most ``width`` of them its start, its length and its document."""
    import numpy as np

    tokens, ends = encoded.ids, encoded.ends
    if end is not None:
        tokens, ends = np.insert(tokens, ends, end), ends + np.arange(1, len(ends) + 1)
    sizes = np.diff(ends, prepend=0)
    counts = -(-sizes // width)
    owners = np.repeat(np.arange(len(sizes)), counts)
    number = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = (ends - sizes)[owners] + number * width
    return tokens, starts, np.minimum(width, ends[owners] - starts), owners
