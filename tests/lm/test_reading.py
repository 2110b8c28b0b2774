"""A tiny encoder learns to find answers; windows, places and what there is no answer to."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tiny_models import write_encoder
from treadle.core.errors import UserError
from treadle.lm.engines import BlockingEngine
from treadle.lm.fitting import FitSettings
from treadle.lm.reading import Reader, _best, _target, train_reader
from treadle.lm.windows import WindowEncoder

SETTINGS = FitSettings(learning_rate=3e-3, epochs=14, max_length=64, seed=3, threads=1)
PEOPLE = ("Ann", "Bob", "Carol", "Dan", "Eve", "Finn", "Gus", "Hal")
PLACES = ("Paris", "Oslo", "Rome", "Lima", "Bonn", "Kyiv")


def asked() -> list[tuple[str, str, tuple[int, int] | None]]:
    rows: list[tuple[str, str, tuple[int, int] | None]] = []
    for person in PEOPLE:
        for place in PLACES:
            text = f"{person} lives in {place} ."
            at = text.index(place)
            rows.append(("Who is it?", text, (0, len(person))))
            rows.append(("Where is it?", text, (at, at + len(place))))
            rows.append(("When is it?", text, None))
    return rows


ROWS = asked()
QUESTIONS, TEXTS, ANSWERS = ([row[i] for row in ROWS] for i in range(3))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "bert", [*TEXTS, *QUESTIONS, "filler words here"])


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reader") / "model"
    assert train_reader(encoder, out, QUESTIONS, TEXTS, ANSWERS, SETTINGS).loss < 0.2
    return out


def test_it_learns_and_knows_what_is_not_said(trained: Path) -> None:
    found = Reader(trained, threads=1, max_length=64).find(QUESTIONS, TEXTS)
    right = sum(each[:2] == (answer or (0, 0)) for each, answer in zip(found, ANSWERS, strict=True))
    assert right / len(ROWS) > 0.9
    assert all(0 < score <= 1 for *_, score in found)


def test_a_text_of_many_windows_gives_one_answer_within_it(trained: Path) -> None:
    text = "filler words here " * 60 + "Ann lives in Rome ." + " filler words here" * 60
    reader = Reader(trained, threads=1, max_length=64)
    assert len(WindowEncoder(trained, 64).pairs(["Where is it?"], [text])) > 5
    (start, end, _), again = reader.find(["Where is it?", "Where is it?"], [text, text])
    assert (start, end) == again[:2]
    assert 0 <= start <= end <= len(text)
    assert reader.find([], []) == []
    (empty,) = reader.find(["Where is it?"], [" "])
    assert empty[:2] == (0, 0)


def test_every_answer_is_whole_in_some_window_and_marked_there(encoder: Path) -> None:
    text = " ".join(TEXTS[::3])
    encode = WindowEncoder(encoder, 64)
    for at in range(0, len(text) - 4, 37):
        start = text.rindex(" ", 0, at + 1) + 1 if " " in text[: at + 1] else 0
        end = text.index(" ", start)
        windows = encode.pairs(["Where is it? " * 30], [text])  # a question longer than a quarter is cut
        assert all(len(window.ids) <= 64 for window in windows)
        marked = [(window, _target(window, (start, end))) for window in windows]
        hits = [(window, target) for window, target in marked if target != (0, 0)]
        assert hits
        for window, (first, last) in hits:
            begin, stop = window.pieces[first], window.pieces[last]
            assert begin is not None
            assert stop is not None
            assert text[begin[0] : stop[1]] == text[start:end]


def test_the_best_span_is_the_best_of_all(encoder: Path) -> None:
    import torch

    (window,) = WindowEncoder(encoder, 64).pairs(["Who is it?"], [TEXTS[0]])
    draw = torch.Generator().manual_seed(1)
    first, last = (torch.randn(len(window.ids), generator=draw, dtype=torch.double) for _ in range(2))
    inside = [i for i, piece in enumerate(window.pieces) if piece is not None]
    ways: list[tuple[float, Any, Any]] = [
        (float(first[i] + last[j]), window.pieces[i], window.pieces[j])
        for i in inside
        for j in inside
        if i <= j < i + 30
    ]
    score, begin, end = max(ways, key=lambda way: way[0])
    found, (start, stop, probability), (none, _) = _best(window, first, last)
    assert (found, start, stop) == (pytest.approx(score), begin[0], end[1])
    places = [0, *inside]
    norm = float(first[places].logsumexp(0) + last[places].logsumexp(0))
    assert probability == pytest.approx(math.exp(score - norm))
    assert none == pytest.approx(float(first[0] + last[0]))


def test_without_unanswerable_questions_it_always_answers(encoder: Path, tmp_path: Path) -> None:
    kept = [row for row in ROWS if row[2] is not None][:32]
    questions, texts, answers = ([row[i] for row in kept] for i in range(3))
    train_reader(encoder, tmp_path / "m", questions, texts, answers, replace(SETTINGS, epochs=1))
    found = Reader(tmp_path / "m", threads=1, max_length=64).find(QUESTIONS[:9], TEXTS[:9])
    assert all(end > start for start, end, _ in found)


def test_an_engine_extracts_and_says_what_it_cannot(trained: Path, encoder: Path) -> None:
    with BlockingEngine("auto", trained, threads=1) as engine:
        (found,) = engine.extract([(QUESTIONS[1], TEXTS[1])])
        assert (found.start, found.end) == ANSWERS[1]
        with pytest.raises(UserError, match="cannot tag with BertForQuestionAnswering"):
            engine.tag(["text"])
    with BlockingEngine("auto", encoder, threads=1) as engine, pytest.raises(UserError, match="cannot extract"):
        engine.extract([("q", "t")])


def test_bad_input_is_named(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1 questions without an answer"):
        train_reader(encoder, tmp_path / "m", ["q"], ["t"], [None], SETTINGS)
    with pytest.raises(UserError, match="max_length: 16 tokens; expected at least 32"):
        train_reader(encoder, tmp_path / "m", QUESTIONS, TEXTS, ANSWERS, replace(SETTINGS, max_length=16))
    assert not (tmp_path / "m").exists()
