"""Metrics agree with the packages that define them, and with a count by hand."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from treadle.core.errors import UserError
from treadle.evals.answers import bag_f1, common_subsequence, exact_match, rouge_l, rouge_l_f, token_f1
from treadle.evals.item import Item, Output
from treadle.evals.labels import CalibrationError, F1Macro, F1Micro, accuracy
from treadle.evals.likelihood import BitsPerByte, LogLikelihood, Perplexity
from treadle.evals.metric import Mean, as_metric, load_metric, score_rows
from treadle.evals.overlap import Bleu, ChrF, rouge_1, rouge_2
from treadle.evals.results import Evaluation, write_evaluation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat.", "Cat", "x_1", "--"]), max_size=14).map(
    " ".join
)
LABELS = st.sampled_from(["red", "green", "blue", "none"])


def items_of(references: list[str]) -> list[Item]:
    return [Item(id=f"ex:{place}", reference=reference) for place, reference in enumerate(references)]


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6))
def test_rouge_l_is_that_of_rouge_score(pairs: list[tuple[str, str]]) -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    ours = rouge_l(items_of([first for first, _ in pairs]), [Output(text=second) for _, second in pairs])
    assert ours == pytest.approx([scorer.score(first, second)["rougeL"].fmeasure for first, second in pairs])


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6))
def test_rouge_n_is_that_of_rouge_score(pairs: list[tuple[str, str]]) -> None:
    scorer = RougeScorer(["rouge1", "rouge2"], use_stemmer=False)
    items, outputs = items_of([first for first, _ in pairs]), [Output(text=second) for _, second in pairs]
    for name, function in (("rouge1", rouge_1), ("rouge2", rouge_2)):
        theirs = [scorer.score(first, second)[name].fmeasure for first, second in pairs]
        assert function(items, outputs) == pytest.approx(theirs)


@given(st.lists(st.tuples(WORDS | st.text(max_size=40), WORDS | st.text(max_size=40)), min_size=1, max_size=6))
def test_bleu_and_chrf_are_those_of_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    """Also of one answer alone, which is what is shown beside an item."""
    references, said = [first for first, _ in pairs], [second for _, second in pairs]
    items, outputs = items_of(references), [Output(text=each) for each in said]
    for metric, theirs in (
        (Bleu(), sacrebleu.BLEU(force=True, effective_order=True)),
        (ChrF(), sacrebleu.CHRF()),
    ):
        rows = score_rows(metric, items, outputs)
        assert metric.reduce(rows.sum(axis=0)) == pytest.approx(theirs.corpus_score(said, [references]).score)
        each = [theirs.sentence_score(second, [first]).score for first, second in pairs]
        assert metric.reduce(rows) == pytest.approx(each)


def test_a_score_that_can_be_counted_in_many_ways_says_how(tmp_path: Path) -> None:
    pairs = [("The cat sat on the mat.", "The cat sat on a mat."), ("A dog barks at night.", "A dog barks at night.")]
    items, outputs = items_of([first for first, _ in pairs]), [Output(text=second) for _, second in pairs]
    made = Evaluation("model", tuple(items), tuple(outputs))
    write_evaluation(tmp_path, made, [load_metric("bleu"), load_metric("chrf"), load_metric("rouge_2")], seed=1)
    scores = json.loads((tmp_path / "scores.json").read_bytes())["scores"]
    theirs = sacrebleu.corpus_bleu([second for _, second in pairs], [[first for first, _ in pairs]])
    assert scores["bleu"]["value"] == pytest.approx(theirs.score)
    assert scores["bleu"]["signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert scores["chrf"]["signature"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert "signature" not in scores["rouge_2"]


def test_rouge_l_counts_words_of_every_script() -> None:
    assert rouge_l_f("Serialisiert größere Objekte", "serialisiert größere Objekte") == 1
    assert rouge_l_f("привет мир", "привет всем") == pytest.approx(0.5)


@given(st.lists(st.integers(0, 4), max_size=30), st.lists(st.integers(0, 4), max_size=30))
def test_common_subsequence_is_that_of_the_textbook(first: list[int], second: list[int]) -> None:
    row = [0] * (len(second) + 1)
    for left in first:
        before = 0
        for place, right in enumerate(second):
            before, row[place + 1] = row[place + 1], before + 1 if left == right else max(row[place], row[place + 1])
    words = [str(number) for number in first], [str(number) for number in second]
    assert common_subsequence(*words) == row[-1]


@pytest.mark.parametrize(
    ("reference", "answer", "f1", "exact"),
    [
        ("The cat sat.", "cat sat", 1.0, 1.0),
        ("the cat sat on it", "a cat", 0.4, 0.0),
        ("cat cat", "cat", 2 / 3, 0.0),
        ("dog", "cat", 0.0, 0.0),
        ("", "", 1.0, 1.0),
        ("the", "", 1.0, 1.0),
        ("dog", "", 0.0, 0.0),
    ],
)
def test_squad_scores(reference: str, answer: str, f1: float, exact: float) -> None:
    items, outputs = items_of([reference]), [Output(text=answer)]
    assert token_f1(items, outputs) == [pytest.approx(f1)]
    assert exact_match(items, outputs) == [exact]
    assert bag_f1(reference, answer) == bag_f1(answer, reference)


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=40))
def test_labels_agree_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    true, chosen = [first for first, _ in pairs], [second for _, second in pairs]
    items, outputs = items_of(true), [Output(text=label) for label in chosen]
    rows = score_rows(F1Macro(), items, outputs)
    assert F1Macro().reduce(rows.sum(axis=0)) == pytest.approx(f1_score(true, chosen, average="macro"))
    assert F1Micro().reduce(rows.sum(axis=0)) == pytest.approx(f1_score(true, chosen, average="micro"))
    assert np.mean(accuracy(items, outputs)) == pytest.approx(accuracy_score(true, chosen))


def test_calibration_error_by_hand() -> None:
    # Two answers at .9 of which one is right, one at .5 that is wrong: (|.9 + .9 - 1| + |.5 - 0|) / 3.
    items = items_of(["a", "b", "a"])
    outputs = [
        Output("a", probabilities={"a": 0.9}),
        Output("a", probabilities={"a": 0.9}),
        Output("b", probabilities={"b": 0.5}),
    ]
    metric = CalibrationError()
    rows = score_rows(metric, items, outputs)
    assert metric.reduce(rows.sum(axis=0)) == pytest.approx((0.8 + 0.5) / 3)
    sure = [Output(item.reference, probabilities={item.reference: 1.0}) for item in items]
    assert metric.reduce(score_rows(metric, items, sure).sum(axis=0)) == 0
    with pytest.raises(UserError, match="needs probabilities"):
        score_rows(metric, items, [Output("a")] * 3)


def test_likelihoods_weigh_tokens_not_items() -> None:
    items = items_of(["ab", "cdef"])
    outputs = [Output(log_likelihood=-2.0, reference_tokens=1), Output(log_likelihood=-4.0, reference_tokens=7)]
    rows = score_rows(LogLikelihood(), items, outputs)
    assert LogLikelihood().reduce(rows.sum(axis=0)) == pytest.approx(-6 / 8)
    assert Perplexity().reduce(rows.sum(axis=0)) == pytest.approx(math.exp(6 / 8))
    bits = score_rows(BitsPerByte(), items, outputs)
    assert BitsPerByte().reduce(bits.sum(axis=0)) == pytest.approx(6 / math.log(2) / 6)
    with pytest.raises(UserError, match="was not scored"):
        score_rows(LogLikelihood(), items, [Output("x")] * 2)


@pytest.mark.parametrize(
    "name",
    [
        "log_likelihood",
        "perplexity",
        "bits_per_byte",
        "rouge_l",
        "rouge_1",
        "rouge_2",
        "bleu",
        "chrf",
        "token_f1",
        "exact_match",
        "accuracy",
        "f1_macro",
        "f1_micro",
        "ece",
    ],
)
def test_built_in_metrics_come_in_by_the_door(name: str) -> None:
    metric = load_metric(name)
    assert metric.name == name
    assert metric.higher_is_better is (name not in ("perplexity", "bits_per_byte", "ece"))


def test_needs_are_what_the_metric_says() -> None:
    assert load_metric("perplexity").needs == "likelihood"
    assert load_metric("rouge_l").needs == "answer"
    assert load_metric("accuracy").needs == "probabilities"
    with pytest.raises(UserError, match="did you mean 'rouge_l'"):
        load_metric("rougel")


def test_a_metric_from_the_projects_folder(tmp_path: Path) -> None:
    (tmp_path / "brevity.py").write_text(
        "def length(items, outputs):\n"
        "    return [len(output.text) for output in outputs]\n"
        "length.higher_is_better = False\n"
    )
    metric = load_metric("brevity:length", tmp_path)
    rows = score_rows(metric, items_of(["", ""]), [Output("abc"), Output("a")])
    assert metric.reduce(rows.sum(axis=0)) == 2
    assert (metric.name, metric.higher_is_better) == ("length", False)


def test_rows_that_are_none_are_refused() -> None:
    items, outputs = items_of(["a", "b"]), [Output("a"), Output("b")]
    for function, words in (
        (lambda items, outputs: [1.0], "expected a row each"),
        (lambda items, outputs: [1.0, math.nan], "no finite number for 1 items, ex:1 first"),
        (lambda items, outputs: ["x", "y"], "could not convert"),
    ):
        with pytest.raises(UserError, match=words):
            score_rows(Mean("mine", function), items, outputs)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="1 outputs for 2 items"):
        score_rows(Mean("mine", token_f1), items, outputs[:1])
    with pytest.raises(UserError, match="neither a Metric nor a function"):
        as_metric("mine", 7)
