"""Fine-tuning an encoder to find the answer to a question in a text, and asking it.

As Devlin et al. 2019 (section 4.2 and 4.3): each piece of the text has a score as the answer's beginning and one as its
end; the first token of a window, which is no text, stands for "not here".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from treadle.core.errors import MissingExtra, UserError
from treadle.lm import torch_runtime
from treadle.lm.checkpoint import Checkpoints
from treadle.lm.course import OnStep
from treadle.lm.epochs import Epochs, Outcome, Piece, fitted, in_batches, passes, teaching
from treadle.lm.fitting import FitSettings, Fitted
from treadle.lm.taught import teach
from treadle.lm.team import Team, maker_for
from treadle.lm.windows import Window, WindowEncoder, learned_window

_LONGEST = 30  # pieces of an answer
_UNANSWERED = "no_answer"  # in the config: whether the model learned that a text may hold none

Place = tuple[int, int]  # characters of the text
Found = tuple[int, int, float]  # and the probability; 0, 0 where the text holds no answer


def train_reader(
    base: Path,
    out: Path,
    questions: Sequence[str],
    texts: Sequence[str],
    answers: Sequence[Place | None],
    settings: FitSettings,
    on_step: OnStep | None = None,
    checkpoints: Checkpoints | None = None,
    team: Team | None = None,
) -> Fitted:
    """Train beginning and end of the answer, and the encoder ``base`` with them; write a model folder to ``out``.

    ``answers``: None where the text holds none. Long texts are learned in windows, and windows without the answer that
    they hold none. Checkpoints and teams as in ``teach``; samples of ``looks`` are questions, texts and answers.
    ``UserError`` when no question has an answer.
    """
    _, transformers = torch_runtime.libraries()
    if not len(questions) == len(texts) == len(answers) or not any(answers):
        raise UserError(f"training: {len(questions)} questions without an answer in their text; expected some")
    settings.check()
    encode = WindowEncoder(base, settings.max_length)
    judged = settings.looks.samples if settings.looks else ((), (), ())
    every = [*answers, *judged[2]]
    windows = encode.pairs([*questions, *judged[0]], [*texts, *judged[1]])
    targets = [_target(window, every[window.text]) for window in windows]

    def outcome(model: Any, piece: Piece) -> Outcome:
        from torch import tensor
        from torch.nn.functional import cross_entropy

        output = model(**encode.batch([windows[i] for i in piece.members], model.device))
        wanted = tensor([targets[i] for i in piece.members], device=output.start_logits.device)
        first, last = output.start_logits.float(), output.end_logits.float()
        ends = (cross_entropy(scores, wanted[:, at], reduction="sum") for at, scores in enumerate((first, last)))

        def said() -> Iterator[tuple[Place, Place]]:
            found = zip(first.argmax(-1).tolist(), last.argmax(-1).tolist(), strict=True)
            return zip(found, [targets[i] for i in piece.members], strict=True)

        return Outcome(sum(ends) / 2, said)

    def begun() -> Any:
        model = torch_runtime.load(base, transformers.AutoModelForQuestionAnswering)
        model.config.update({"window": settings.max_length, _UNANSWERED: None in answers})
        return model

    how = teaching(settings)
    lengths, count = [len(window.ids) for window in windows], sum(window.text < len(texts) for window in windows)
    lessons = Epochs(
        outcome,
        passes(lengths[:count], settings.batch_size, settings),
        lengths,
        how,
        held_out=in_batches(count, len(windows), settings.batch_size),
        metrics=("accuracy",),
    )
    make = maker_for(settings, team or Team())
    carried: Any = {"make": make, "on_step": on_step, "checkpoints": checkpoints, "team": team}
    seen = (window.ids for window in windows)
    return fitted(teach(base, out, begun, lambda _model: lessons, how, texts=seen, looks=settings.looks, **carried))


class Reader:
    """A trained reader, loaded once."""

    def __init__(
        self,
        folder: Path,
        *,
        max_length: int = 384,
        batch_size: int = 16,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        """``UserError`` when the folder holds no model for extractive question answering."""
        try:
            import transformers
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), extra="train") from None
        self._encode = WindowEncoder(folder, min(max_length, learned_window(folder) or max_length))
        self._model = torch_runtime.load(folder, transformers.AutoModelForQuestionAnswering).to(device).eval()
        self._batch_size = batch_size
        self._threads = threads
        self._unanswered = bool(getattr(self._model.config, _UNANSWERED, False))

    def find(self, questions: Sequence[str], texts: Sequence[str]) -> list[Found]:
        """The place of each answer: the best in all windows of its text; probabilities are those in its window."""
        import torch

        windows = self._encode.pairs(questions, texts)
        best: list[tuple[float, Found]] = [(-math.inf, (0, 0, 0.0))] * len(texts)
        nothing: list[tuple[float, float]] = [(math.inf, 0.0)] * len(texts)
        order = sorted(range(len(windows)), key=lambda i: len(windows[i].ids))
        with torch_runtime.session(self._threads, 0), torch.inference_mode():
            for start in range(0, len(order), self._batch_size):
                batch = order[start : start + self._batch_size]
                output = self._model(**self._encode.batch([windows[i] for i in batch], self._model.device))
                for row, i in enumerate(batch):
                    number, count = windows[i].text, len(windows[i].ids)
                    first, last = (v[row, :count].double().cpu() for v in (output.start_logits, output.end_logits))
                    score, found, none = _best(windows[i], first, last)
                    best[number] = max(best[number], (score, found))
                    nothing[number] = min(nothing[number], none)  # of all windows, as SQuAD 2's baseline has it
        return [
            (0, 0, none[1]) if score == -math.inf or (self._unanswered and none[0] > score) else found
            for (score, found), none in zip(best, nothing, strict=True)
        ]


def _target(window: Window, answer: Place | None) -> Place:
    """First and last piece of the answer in a window; 0, 0 where it is not all there."""
    if answer is None:
        return 0, 0
    start, end = answer
    inside = [
        position
        for position, piece in enumerate(window.pieces)
        if piece is not None and piece[0] < end and piece[1] > start
    ]
    shown = [piece for piece in window.pieces if piece is not None]
    if not inside or shown[0][0] > start or shown[-1][1] < end:
        return 0, 0
    return inside[0], inside[-1]


def _best(window: Window, first: Any, last: Any) -> tuple[float, Found, tuple[float, float]]:
    """Of the scores (tokens) of beginning and end: the best answer's sum and place, and the same of there being none.

    Probabilities are over the pieces of the text and the first token.
    """
    import torch

    outside = torch.tensor([piece is None for piece in window.pieces])
    hidden = outside.clone()
    hidden[0] = False
    totals = [values.masked_fill(hidden, -math.inf).logsumexp(0) for values in (first, last)]
    norm = float(totals[0] + totals[1])
    none = float(first[0] + last[0])
    score, found = -math.inf, (0, 0, 0.0)
    if not bool(outside.all()):
        first, last = first.masked_fill(outside, -math.inf), last.masked_fill(outside, -math.inf)
        sums = first[:, None] + last[None, :]
        ones = torch.ones_like(sums, dtype=torch.bool)
        sums = sums.masked_fill(~(ones.triu() & ones.tril(_LONGEST - 1)), -math.inf)
        place = int(sums.argmax())
        begin, end = window.pieces[place // len(window.ids)], window.pieces[place % len(window.ids)]
        assert begin is not None
        assert end is not None
        score = float(sums.flatten()[place])
        found = (begin[0], end[1], math.exp(score - norm))
    return score, found, (none, math.exp(none - norm))
