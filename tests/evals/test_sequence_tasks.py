"""Baselines that answer with the source, or with its first sentences."""

from __future__ import annotations

import pytest

from treadle.core.errors import UserError
from treadle.evals.item import Item
from treadle.evals.task import load_task
from treadle.evals.tasks.sequences import sentences
from treadle.lm.fitting import FitSettings
from treadle.text.dataset import Example

TEXT = 'We built it (cf. Fig. 2). Dr. Smith, e.g. J. Smith, said: "It works!" Does it? It costs 3.5 percent.'


def test_sentences_end_where_a_reader_would_say() -> None:
    assert sentences(TEXT) == [
        "We built it (cf. Fig. 2).",
        'Dr. Smith, e.g. J. Smith, said: "It works!"',
        "Does it?",
        "It costs 3.5 percent.",
    ]
    assert sentences("这是一句。这是另一句。") == ["这是一句。", "这是另一句。"]
    assert sentences(" no end ") == ["no end"]
    assert sentences("  ") == []


def test_baselines_leave_the_prefix_out() -> None:
    messages = ({"role": "system", "content": "summarize: "}, {"role": "user", "content": TEXT})
    items = [Item("1", messages, reference="x")]
    simple = {**load_task("summarize").simple, **load_task("translate").simple}
    answers = {name: simple[name]([], items, seed=0)[0].text for name in ("copy", "lead_1", "lead_3")}
    assert answers == {
        "copy": TEXT,
        "lead_1": "We built it (cf. Fig. 2).",
        "lead_3": TEXT.removesuffix(" It costs 3.5 percent."),
    }


def test_two_prefixes_cannot_be_learned() -> None:
    task = load_task("translate")
    assert task.fit is not None
    examples = [
        Example(("d",), messages=({"role": "system", "content": p}, {"role": "user", "content": "a"}))
        for p in ("one: ", "two: ")
    ]
    with pytest.raises(UserError, match="2 prefixes before the sources"):
        task.fit(None, None, examples, FitSettings(1e-3, 1, 8, 0), lambda *_: None)  # type: ignore[arg-type]
