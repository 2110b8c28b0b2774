"""Fine-tuning an encoder to find spans of text (people, places, ...), and asking it.

The model gives each word a tag, on its first piece. Of all sequences of tags in which no span goes on that did not
begin, the most probable is taken (Viterbi 1967).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import torch_runtime
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import OnStep
from treadle.lm.epochs import Epochs, Outcome, Piece, fitted, in_batches, passes, teaching
from treadle.lm.fitting import FitSettings, Fitted
from treadle.lm.taught import teach
from treadle.lm.team import Team, maker_for
from treadle.lm.windows import Window, WindowEncoder, learned_window
from treadle.lm.word_tags import OUTSIDE, Span, spans_of, tags_of, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

_IGNORED = -100  # torch's cross_entropy: no target

Places = Sequence[tuple[int, int]]
Scored = tuple[int, int, str, float]  # a span and its probability


def train_tagger(
    base: Path,
    out: Path,
    texts: Sequence[str],
    spans: Sequence[Sequence[Span]],
    settings: FitSettings,
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
    team: Team | None = None,
) -> Fitted:
    """Train a head over the types that occur, and the encoder ``base`` with it; write a model folder to ``out``.

    Long texts are learned in windows, so none is cut. Checkpoints and teams as in ``teach``; samples of ``looks`` are
    texts and spans. ``UserError`` when no text has a span.
    """
    _, transformers = torch_runtime.libraries()
    types = sorted({kind for each in spans for _, _, kind in each})
    if len(texts) != len(spans) or not types:
        raise UserError(f"training: {len(texts)} texts without a span; expected some, such as [[0, 5, PERSON]]")
    settings.check()
    names = [OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in "BI")]
    number = {name: i for i, name in enumerate(names)}
    judged = list(zip(*settings.looks.samples, strict=True)) if settings.looks else []
    judged = [each for each in judged if {kind for _, _, kind in each[1]} <= set(types)]
    encode = WindowEncoder(base, settings.max_length)
    every = [*texts, *(text for text, _ in judged)]
    windows = encode.texts(every)
    placed = [words(text) for text in every]
    marked = zip(placed, [*spans, *(each for _, each in judged)], strict=True)
    tags = [tags_of(places, each) for places, each in marked]
    targets = [
        {position: number[tags[window.text][word]] for position, word in found}
        for window, found in zip(windows, _first_pieces(windows, placed), strict=True)
    ]

    def outcome(model: Any, piece: Piece) -> Outcome:
        from torch import tensor
        from torch.nn.functional import cross_entropy

        members = piece.members
        logits = model(**encode.batch([windows[i] for i in members], model.device)).logits.float()
        wanted = [[targets[i].get(position, _IGNORED) for position in range(logits.shape[1])] for i in members]
        loss = cross_entropy(logits.transpose(1, 2), tensor(wanted, device=logits.device), reduction="sum")
        return Outcome(loss, lambda: _said(logits, wanted))

    def begun() -> Any:
        labels = {"id2label": dict(enumerate(names)), "label2id": number, "num_labels": len(names)}
        model = torch_runtime.load(base, transformers.AutoModelForTokenClassification, **labels)
        model.config.update({"window": settings.max_length})
        return model

    how = teaching(settings)
    lengths, count = [len(window.ids) for window in windows], sum(window.text < len(texts) for window in windows)
    lessons = Epochs(
        outcome,
        passes(lengths[:count], settings.batch_size, settings),
        lengths,
        how,
        learned=[len(each) for each in targets],
        held_out=in_batches(count, len(windows), settings.batch_size),
        metrics=("accuracy", "f1"),
    )
    make = maker_for(settings, team or Team())
    carried: Any = {"make": make, "on_step": on_step, "checkpoints": checkpoints, "team": team}
    seen = (window.ids for window in windows)
    return fitted(teach(base, out, begun, lambda _model: lessons, how, texts=seen, looks=settings.looks, **carried))


def _said(logits: Any, wanted: Sequence[Sequence[int]]) -> Iterator[tuple[int | None, int | None]]:
    """The tag of each word, and the right one; outside of spans is no answer, so that F1 is of what is in them."""
    for answers, right in zip(logits.argmax(-1).tolist(), wanted, strict=True):
        yield from ((a or None, r or None) for a, r in zip(answers, right, strict=True) if r != _IGNORED)


class Tagger:
    """A trained tagger, loaded once. ``types``: those of the spans it finds."""

    def __init__(
        self,
        folder: Path,
        *,
        max_length: int = 256,
        batch_size: int = 32,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        """``UserError`` when the folder holds no token classifier, or one whose labels are not tags."""
        try:
            import transformers
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), extra="train") from None
        self._encode = WindowEncoder(folder, min(max_length, learned_window(folder) or max_length))
        self._model = torch_runtime.load(folder, transformers.AutoModelForTokenClassification).to(device).eval()
        self._batch_size = batch_size
        self._threads = threads
        self._names = [str(name) for _, name in sorted(self._model.config.id2label.items())]
        strange = [name for name in self._names if name != OUTSIDE and not name.startswith(("B-", "I-"))]
        if OUTSIDE not in self._names or strange:
            raise UserError(f"{folder}: labels {self._names[:5]} are no tags; expected O, B-TYPE and I-TYPE")
        self.types: tuple[str, ...] = tuple(sorted({name[2:] for name in self._names if name != OUTSIDE}))

    def find(self, texts: Sequence[str]) -> list[list[Scored]]:
        """The spans of each text in order, none within another; a probability is the mean of its words' tags."""
        import torch

        windows = self._encode.texts(texts)
        placed = [words(text) for text in texts]
        pieces = _first_pieces(windows, placed)
        best = _most_surrounded(windows, pieces)
        rows: list[dict[int, list[float]]] = [{} for _ in texts]
        order = sorted(range(len(windows)), key=lambda i: len(windows[i].ids))
        with torch_runtime.session(self._threads, 0), torch.inference_mode():
            for start in range(0, len(order), self._batch_size):
                batch = order[start : start + self._batch_size]
                inputs = self._encode.batch([windows[i] for i in batch], self._model.device)
                found = self._model(**inputs).logits.double().softmax(-1).tolist()
                for i, row in zip(batch, found, strict=True):
                    number = windows[i].text
                    rows[number] |= {word: row[at] for at, word in pieces[i] if best[number, word] == i}
        return [self._spans(places, row) for places, row in zip(placed, rows, strict=True)]

    def _spans(self, places: Places, row: dict[int, list[float]]) -> list[Scored]:
        import numpy as np

        if not places:
            return []
        nothing = [float(name == OUTSIDE) for name in self._names]  # of a word that the tokenizer leaves out
        shares = np.array([row.get(word, nothing) for word in range(len(places))])
        chosen = _most_probable(shares, self._names)
        found: list[Scored] = []
        for start, end, kind in spans_of(places, [self._names[i] for i in chosen]):
            inside = [w for w, (first, last) in enumerate(places) if first >= start and last <= end]
            found.append((start, end, kind, float(np.mean([shares[w, chosen[w]] for w in inside]))))
        return found


def _first_pieces(windows: Sequence[Window], placed: Sequence[Places]) -> list[list[tuple[int, int]]]:
    """For each window (position, word) wherever a word's first piece stands in it."""
    begins: dict[tuple[int, int], int] = {}
    of: list[list[tuple[int, int, int]]] = []
    for window in windows:
        places, word, found = placed[window.text], 0, list[tuple[int, int, int]]()
        for position, piece in enumerate(window.pieces):
            if piece is None:
                continue
            while word < len(places) and places[word][1] <= piece[0]:
                word += 1
            if word < len(places) and places[word][0] <= piece[0]:
                key = (window.text, word)
                begins[key] = min(begins.get(key, piece[0]), piece[0])
                found.append((position, word, piece[0]))
        of.append(found)
    firsts: list[list[tuple[int, int]]] = []
    for window, found in zip(windows, of, strict=True):
        taken: dict[int, int] = {}
        for position, word, start in found:
            if begins[window.text, word] == start:
                taken.setdefault(word, position)  # several pieces of one letter begin at the same place
        firsts.append([(position, word) for word, position in taken.items()])
    return firsts


def _most_surrounded(
    windows: Sequence[Window], pieces: Sequence[Sequence[tuple[int, int]]]
) -> dict[tuple[int, int], int]:
    """Which window says what a (text, word) is: the one that shows most of the text on both sides of it."""
    seen: dict[tuple[int, int], tuple[int, int]] = defaultdict(lambda: (-1, 0))
    for number, (window, found) in enumerate(zip(windows, pieces, strict=True)):
        for position, word in found:
            room = min(position, len(window.ids) - 1 - position)
            if room > seen[window.text, word][0]:
                seen[window.text, word] = (room, number)
    return {key: number for key, (_, number) in seen.items()}


def _most_probable(shares: NDArray[Any], names: Sequence[str]) -> list[int]:
    """The most probable tags of probabilities (words, tags) in which each ``I`` continues its type."""
    import numpy as np

    allowed = np.array([[not to.startswith("I-") or at[2:] == to[2:] for at in names] for to in names])  # (to, from)
    with np.errstate(divide="ignore"):
        logs = np.log(shares)
    steps = np.where(allowed, 0.0, -np.inf)
    total = logs[0] + np.array([-np.inf if name.startswith("I-") else 0.0 for name in names])
    back = []
    for row in logs[1:]:
        ways = steps + total
        back.append(ways.argmax(1))
        total = ways.max(1) + row
    chosen = [int(total.argmax())]
    for came in reversed(back):
        chosen.append(int(came[chosen[-1]]))
    return chosen[::-1]
