"""The runner on a real engine: prompts as they are served, likelihoods as the model itself gives them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from treadle.core.errors import Corrupt, UserError
from treadle.evals.baselines import majority, tfidf, worked_examples
from treadle.evals.item import Item, Output
from treadle.evals.labels import F1Macro
from treadle.evals.metric import load_metric
from treadle.evals.results import Evaluation, read_evaluation, write_evaluation
from treadle.evals.runner import encode_item, items_from, output_of, run_chat, run_classifier, with_worked_examples
from treadle.lm.engine import ClassScores
from treadle.lm.engines import BlockingEngine
from treadle.lm.tokenizer import ChatTokenizer
from treadle.text.dataset import Example

SYSTEM = "You explain."


def qa(name: str, answer: str, group: str = "json") -> Example:
    messages = ({"role": "user", "content": f"What is {name}?"}, {"role": "assistant", "content": answer})
    return Example((f"doc:{name}",), messages=messages, group=group, fields={"module": group})


def labeled(text: str, label: str) -> Example:
    return Example((f"doc:{text}",), text=text, label=label, fields={"language": "en" if "good" in text else "de"})


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> ChatTokenizer:
    return ChatTokenizer.load(tiny_model)


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[BlockingEngine]:
    with BlockingEngine("transformers", tiny_model, threads=1, here=True) as opened:
        yield opened


EXAMPLES = [qa("dumps", "It writes the value."), qa("loads", "It reads it."), qa("a", "The function returns.", "gzip")]


def test_likelihoods_are_the_models_own(engine: BlockingEngine, tokenizer: ChatTokenizer, tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    metrics = [load_metric(name) for name in ("log_likelihood", "perplexity", "rouge_l")]
    told: list[tuple[int, int]] = []
    outputs = run_chat(
        engine,
        tokenizer,
        items_from(EXAMPLES),
        metrics=metrics,
        system_prompt=SYSTEM,
        max_tokens=6,
        on_progress=lambda done, wanted: told.append((done, wanted)),
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    for item, output in zip(items_from(EXAMPLES), outputs, strict=True):
        prompt = tokenizer.encode_chat([{"role": "system", "content": SYSTEM}, *item.messages])
        ids = [*prompt, *tokenizer.encode(item.reference), *tokenizer.eos_ids]
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        each = [float(logprobs[place - 1, ids[place]]) for place in range(len(prompt), len(ids))]
        assert output.reference_tokens == len(each)
        assert output.log_likelihood == pytest.approx(sum(each), rel=5e-3)  # the engine's is of 16 bits
    assert told[-1] == (6, 6)


def test_only_what_is_needed_is_run(engine: BlockingEngine, tokenizer: ChatTokenizer) -> None:
    items = items_from(EXAMPLES)
    scored = run_chat(engine, tokenizer, items, metrics=[load_metric("perplexity")])
    assert all(output.text == "" and output.log_likelihood is not None for output in scored)
    answered = run_chat(engine, tokenizer, items, metrics=[load_metric("rouge_l")], max_tokens=4)
    assert all(output.log_likelihood is None for output in answered)
    assert any(output.text for output in answered)


def test_worked_examples_come_between_system_and_question(tokenizer: ChatTokenizer) -> None:
    item = items_from([qa("dump", "It writes.")])[0]
    shown = with_worked_examples([{"role": "system", "content": SYSTEM}, *item.messages], EXAMPLES[:2])
    assert [message["role"] for message in shown] == ["system", "user", "assistant", "user", "assistant", "user"]
    prompt, reference = encode_item(tokenizer, item, system_prompt=SYSTEM, worked=EXAMPLES[:2])
    assert prompt == tokenizer.encode_chat(shown)
    assert tokenizer.decode(reference) == "It writes."
    assert reference[-1] in tokenizer.eos_ids
    assert encode_item(tokenizer, item)[1] == reference


def test_what_does_not_fit_is_named(engine: BlockingEngine, tokenizer: ChatTokenizer) -> None:
    items = items_from([qa("dump", "It writes."), qa("long " * 300, "It does.")])
    with pytest.raises(UserError, match=rf"item {items[1].id}: .* more than the model's 256"):
        run_chat(engine, tokenizer, items, metrics=[load_metric("perplexity")])
    with pytest.raises(UserError, match="need a classifier"):
        run_chat(engine, tokenizer, items, metrics=[F1Macro()])
    with pytest.raises(UserError, match="no reference answer"):
        items_from([Example(("doc:1",), text="unlabeled")])


def test_worked_examples_are_chosen_by_seed_and_of_other_groups() -> None:
    train = [qa(f"n{n}", "It does this. " * (1 + n % 9), group=f"g{n % 7}") for n in range(70)]
    chosen = worked_examples(train, seed=17)
    assert chosen == worked_examples(train[::-1], seed=17)
    assert chosen != worked_examples(train, seed=18)
    assert len({example.group for example in chosen}) == 3
    lengths = sorted(len(example.answer) for example in train)
    assert all(lengths[17] <= len(example.answer) <= lengths[52] for example in chosen)
    assert len(worked_examples([qa("a", "x"), qa("b", "y"), qa("c", "z")], seed=1)) == 3
    with pytest.raises(UserError, match="training has 1 conversations"):
        worked_examples([qa("a", "x")], seed=1)


def test_classification_baselines() -> None:
    train = [labeled(f"good fine lovely {n}", "yes") for n in range(12)]
    train += [labeled(f"schlecht mies furchtbar {n}", "no") for n in range(8)]
    items = items_from([labeled("a lovely good one", "yes"), labeled("mies und schlecht", "no")])
    most = majority(train, items)
    assert [output.text for output in most] == ["yes", "yes"]
    assert most[0].probabilities == {"no": 0.4, "yes": 0.6}
    weighed = tfidf(train, items, seed=1)
    assert [output.text for output in weighed] == ["yes", "no"]
    assert sum(weighed[0].probabilities.values()) == pytest.approx(1)
    assert weighed == tfidf(train, items, seed=1)
    with pytest.raises(UserError, match="at least two labels"):
        tfidf(train[:3], items, seed=1)
    with pytest.raises(UserError, match="no words to count"):
        tfidf([labeled("!", "yes"), labeled("?", "no")], items, seed=1)
    with pytest.raises(UserError, match="no labels"):
        majority([], items)


def test_classes_become_outputs() -> None:
    class Uniform:
        def classify(self, texts: Any, on_progress: Any = None) -> list[ClassScores]:
            return [ClassScores(("b", "a", "c"), (0.4, 0.4, 0.2)) for _ in texts]

    outputs = run_classifier(Uniform(), items_from([labeled("x", "a")]))
    assert outputs == [output_of(ClassScores(("b", "a", "c"), (0.4, 0.4, 0.2)))]
    assert outputs[0].text == "a"
    with pytest.raises(UserError, match="no number: its weights are damaged"):
        output_of(ClassScores(("b", "a"), (float("nan"), 0.4)))


def evaluation(name: str, shift: float, count: int = 40) -> Evaluation:
    items = tuple(
        Item(
            f"ex:{n}",
            ({"role": "user", "content": f"{n}?"},),
            reference="It is.",
            documents=(f"doc:{n}",),
            fields={"language": "en" if n % 2 else "de"},
        )
        for n in range(count)
    )
    outputs = tuple(Output("It is.", log_likelihood=-10.0 - n % 7 + shift, reference_tokens=4) for n in range(count))
    return Evaluation(name, items, outputs)


METRICS = [load_metric(name) for name in ("log_likelihood", "perplexity", "rouge_l")]


def test_an_evaluation_is_written_and_read_again(tmp_path: Path) -> None:
    written = evaluation("base", 0.0)
    scores = write_evaluation(tmp_path, written, METRICS, seed=1, info={"split": "test"})
    assert read_evaluation(tmp_path) == written
    about = json.loads((tmp_path / "scores.json").read_bytes())
    assert about["n"] == 40
    assert about["split"] == "test"
    assert about["scores"]["perplexity"]["value"] == scores["perplexity"].value
    assert about["scores"]["perplexity"]["higher_is_better"] is False
    lines = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert lines[0]["values"]["log_likelihood"] == -2.5
    assert lines[0]["output"]["text"] == "It is."
    before = (tmp_path / "scores.json").read_bytes()
    write_evaluation(tmp_path, written, METRICS, seed=1, info={"split": "test"})
    assert (tmp_path / "scores.json").read_bytes() == before


def test_comparisons_are_paired_by_item() -> None:
    base, tuned = evaluation("base", 0.0), evaluation("tuned", 1.0)
    turned = Evaluation("tuned", tuned.items[::-1], tuned.outputs[::-1])
    found = turned.against(base, METRICS[0], seed=1)
    assert found.difference == pytest.approx(0.25)
    assert (found.n, found.better, found.worse, found.wins) == (40, 40, 0, True)
    part = Evaluation("tuned", tuned.items[:30], tuned.outputs[:30])
    assert part.against(base, METRICS[0], seed=1).n == 30
    alone = Evaluation("other", (Item("ex:else"),), (Output(),))
    with pytest.raises(UserError, match="other and base share 0 items"):
        alone.against(base, METRICS[0], seed=1)


def test_slices() -> None:
    found = evaluation("base", 0.0).slices("language", METRICS[0], seed=1)
    assert set(found) == {"de", "en"}
    assert found["de"].n == 20
    assert evaluation("base", 0.0).slices("customer", METRICS[0], seed=1) == {}


def test_what_is_no_evaluation_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="holds no evaluation"):
        read_evaluation(tmp_path)
    write_evaluation(tmp_path, evaluation("base", 0.0), METRICS, seed=1)
    with (tmp_path / "items.jsonl").open("ab") as file:
        file.write(b'{"item": {"id": 1, "messages": [], "documents": [], "surprise": 2}}\n')
    with pytest.raises(Corrupt, match="surprise"):
        read_evaluation(tmp_path)
    (tmp_path / "scores.json").write_text('{"format": 5}')
    with pytest.raises(Corrupt, match="format 5"):
        read_evaluation(tmp_path)
