"""Tasks as data: read, refused in one line, made into items, and put to a model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from treadle.core.errors import UserError
from treadle.evals.choices import acc, acc_bytes, acc_norm
from treadle.evals.evaluation_task import EvaluationTask, LoadedTask, load_evaluation_task
from treadle.evals.item import Item, Output
from treadle.evals.metric import load_metric, score_rows
from treadle.evals.results import Evaluation, read_evaluation, write_evaluation
from treadle.evals.task_items import items_of, make_task_examples, worked_rows
from treadle.evals.task_runner import TaskRunner, rolling
from treadle.evals.task_template import RowError, compile_template, first_name
from treadle.lm.engines import BlockingEngine
from treadle.lm.scored_pair import text_pair
from treadle.lm.tokenizer import ChatTokenizer
from treadle.text.accounting import Dropped
from treadle.text.dataset import Example
from treadle.text.document import Document

CHOICE: dict[str, Any] = {
    "name": "colors",
    "version": 1,
    "kind": "multiple_choice",
    "items": {"type": "files", "path": "q.jsonl"},
    "prompt": "Q: {{ question }}\nA:",
    "choices": "options",
    "answer": "right",
}
ROWS: list[dict[str, Any]] = [
    {"question": "What color is grass?", "options": ["blue", "green"], "right": 1},
    {"question": "And the sea?", "options": ["blue", "green", "a dark red"], "right": "blue"},
    {"question": "And a ripe tomato?", "options": ["a dark red", "white"], "right": "0"},
]
LM_EVAL: dict[str, Any] = {
    "task": "colors",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "q.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "Q: {{question}}\nA:",
    "doc_to_target": "{{right}}",
    "doc_to_choice": "{{options}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    "metadata": {"version": 2.0},
}


def loaded(**changes: Any) -> LoadedTask:
    return LoadedTask(EvaluationTask.model_validate({**CHOICE, **changes}), {})


def test_a_template_is_a_column_a_value_or_text() -> None:
    row = {"name": "Kim", "many": ["a", "b"], "n": 3}
    assert compile_template("name", "x")(row) == "Kim"
    assert compile_template("{{ many }}", "x")(row) == ["a", "b"]
    assert compile_template("{{ n * 2 }}", "x")(row) == 6
    assert compile_template("Hello {{ name }}\n", "x")(row) == "Hello Kim\n"
    assert compile_template("{{ name }} and {{ many[0] }}", "x")(row) == "Kim and a"
    assert [first_name(each) for each in ("q", "A {{ b.c }} {{ d }}", "none")] == ["q", "b", "none"]


@pytest.mark.parametrize(
    "source",
    [
        "{{ nothing }}",
        "nothing",
        "A {{ nothing }}",
        "{{ name.__class__.__mro__ }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 9 ** 999999999 }}",
        "{{ many.append(1) }}",
        "{% for a in range(99999999) %}{{ a }}{% endfor %}",
    ],
)
def test_a_template_reaches_nothing_but_its_row(source: str) -> None:
    with pytest.raises(RowError):
        compile_template(source, "x")({"name": "Kim", "many": []})


def test_items_of_rows_and_why_there_are_none() -> None:
    documents = [
        Document(f"doc:{place}", "files", f"q.jsonl:{place}", str(row.pop("question", "")), fields=row)
        for place, row in enumerate([*(dict(each) for each in ROWS), {"options": ["one"], "right": 0}, {"right": 5}])
    ]
    made = list(make_task_examples(documents, loaded(), "question"))
    items = items_of([each for each in made if isinstance(each, Example)], "multiple_choice")
    assert [(each.reference, each.gold) for each in items] == [("green", 1), ("blue", 0), ("a dark red", 0)]
    assert items[0].text == "Q: What color is grass?\nA:"
    assert items[0].fields["right"] == 1
    dropped = [each.reason for each in made if isinstance(each, Dropped)]
    assert dropped == ["choices: expected a list of two or more texts", "there is no column options"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "generate"}, "choices belong to multiple_choice"),
        ({"choices": None}, "choices belong to multiple_choice"),
        ({"kind": "perplexity", "choices": None}, "perplexity scores the answer alone"),
        ({"promt": "x"}, "unknown key 'promt'; did you mean 'prompt'"),
        ({"version": None}, "version"),
    ],
)
def test_a_file_that_is_no_task_is_refused_in_a_line(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(yaml.safe_dump({**CHOICE, **changes}))
    with pytest.raises(UserError, match=words) as refused:
        load_evaluation_task("task.yaml", tmp_path)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="there is no file"):
        load_evaluation_task("other.yaml", tmp_path)


def test_a_function_stands_for_templates(tmp_path: Path) -> None:
    (tmp_path / "evalx_parts.py").write_text(
        f"def colors():\n    return {{**{CHOICE!r}, 'prompt': lambda row: row['question'].upper()}}\n"
    )
    task = load_evaluation_task("evalx_parts:colors", tmp_path)
    assert items_of(worked_rows(ROWS, task), "multiple_choice")[0].text == "WHAT COLOR IS GRASS?"
    assert task.digest != loaded().digest
    (tmp_path / "evalx_parts.py").write_text("def colors():\n    return 7\n")
    with pytest.raises(UserError, match="expected a mapping"):
        load_evaluation_task("evalx_parts:colors", tmp_path)


def test_a_plain_file_of_lm_eval_is_the_same_task(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(LM_EVAL))
    task = load_evaluation_task("theirs.yaml", tmp_path)
    assert (task.task.name, task.task.version, task.task.metrics) == ("colors", "2.0", ["acc"])
    assert items_of(worked_rows(ROWS, task), "multiple_choice") == items_of(
        worked_rows(ROWS, loaded()), "multiple_choice"
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dataset_path": "allenai/openbookqa"}, "dataset_path"),
        ({"process_docs": "utils.process"}, "process_docs"),
        ({"output_type": "loglikelihood"}, "output_type"),
        ({"num_fewshot": 2}, "fewshot_config"),
        ({"num_fewshot": 2, "fewshot_config": {"sampler": "first_n"}}, "fewshot_split"),
        ({"metric_list": [{"metric": "mcc"}]}, "metric_list"),
        ({"metric_list": [{"metric": "exact_match", "ignore_case": True}]}, "metric_list"),
        ({"filter_list": []}, "filter_list"),
        ({"repeats": 4}, "repeats"),
        ({"description": "{{ x }}"}, "description"),
        ({"doc_to_choice": 5}, "doc_to_choice"),
        ({"output_type": "generate_until"}, "doc_to_choice"),
        ({"output_type": "generate_until", "doc_to_choice": None, "generation_kwargs": {"top_k": 3}}, "doc_to_choice"),
    ],
)
def test_what_lm_eval_can_say_and_we_cannot_is_refused_by_name(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump({**LM_EVAL, **changes}))
    with pytest.raises(UserError, match=rf"theirs\.yaml: {named} cannot be taken over"):
        load_evaluation_task("theirs.yaml", tmp_path)


def test_code_in_a_file_of_lm_eval_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(LM_EVAL) + "process_results: !function utils.check\n")
    with pytest.raises(UserError, match=r"theirs\.yaml"):
        load_evaluation_task("theirs.yaml", tmp_path)


@given(st.integers(0, 40), st.integers(1, 9))
def test_a_long_text_is_scored_once_in_full_pieces(length: int, room: int) -> None:
    """Each token once; every piece but the first sees as much as the context holds."""
    ids = list(range(100, 100 + length))
    pieces = list(rolling(ids, 7, room))
    assert [token for _, continuation in pieces for token in continuation] == ids
    for place, (before, continuation) in enumerate(pieces):
        assert len(before) + len(continuation) - 1 == (room if place else len(continuation))
        start = ids.index(continuation[0])
        assert before == ([7] if not start else ids[start - len(before) : start])


def test_spaces_at_the_end_of_a_prompt_belong_to_the_answer(tiny_model: Path) -> None:
    tokenizer = ChatTokenizer.load(tiny_model)
    for context, continuation in (("the value ", "returns"), ("the value", " returns"), ("the", "n")):
        prompt, answer = text_pair(tokenizer, context, continuation)
        assert tokenizer.decode(prompt + answer) == context + continuation
        assert tokenizer.decode(prompt) == context.rstrip()
    assert text_pair(tokenizer, "", "the") == ([tokenizer.first_id], tokenizer.encode("the"))


def test_choices_are_judged_by_likelihood(tiny_model: Path, tmp_path: Path) -> None:
    """Against every choice scored alone, with and without worked examples."""
    tokenizer = ChatTokenizer.load(tiny_model)
    worked = worked_rows(ROWS[:1], loaded())
    items = items_of(worked_rows(ROWS[1:], loaded()), "multiple_choice")
    outputs: list[Output] = []
    with BlockingEngine("transformers", tiny_model, settings={"precision": "f32"}, here=True) as engine:
        for shown in ((), worked):
            outputs = TaskRunner(engine, tokenizer, loaded().task, shown).run(items)
            before = f"{ROWS[0]['question']}" if shown else ""
            for item, output in zip(items, outputs, strict=True):
                context = (f"Q: {before}\nA: green\n\n" if shown else "") + item.text
                alone = [
                    engine.score([text_pair(tokenizer, context, f" {choice}")])[0].total for choice in item.choices
                ]
                assert output.choices == pytest.approx(alone, abs=1e-4)
                assert output.text == item.choices[alone.index(max(alone))]
                assert math.fsum(output.probabilities.values()) == pytest.approx(1)
        texts = [Item("a", reference="the function returns the value"), Item("b", reference="the value " * 90)]
        scored = TaskRunner(engine, tokenizer, loaded(kind="perplexity", choices=None, prompt="").task).run(texts)
        with pytest.raises(UserError, match="context holds"):
            TaskRunner(engine, tokenizer, loaded().task).run([Item("c", text="x" * 600, choices=("a", "b"), gold=0)])
    assert scored[1].reference_tokens == len(tokenizer.encode("the value " * 90)) > 256 // 2
    metrics = [load_metric(name) for name in ("acc", "acc_norm", "brier")]
    write_evaluation(tmp_path, Evaluation("m", tuple(items), tuple(outputs)), metrics, seed=1)
    again = read_evaluation(tmp_path)
    assert (again.items, again.outputs) == (tuple(items), tuple(outputs))


def test_normalized_accuracies_by_hand() -> None:
    items = [Item("a", choices=("ab", "äöüß"), gold=1), Item("b", choices=("x", "yyyyyy"), gold=0)]
    outputs = [Output(choices=(-3.0, -6.5)), Output(choices=(-2.0, -3.0))]
    assert acc(items, outputs) == [0, 1]
    assert acc_norm(items, outputs) == [0, 0]  # -1.5 and -1.625 a character; -2 and -.5
    assert acc_bytes(items, outputs) == [1, 0]  # -1.5 and -.8125 a byte
    with pytest.raises(UserError, match="were not scored"):
        acc(items, [Output(), Output()])


def test_an_evaluation_without_choices_is_written_as_before(tmp_path: Path) -> None:
    made = Evaluation("m", (Item("a", reference="x"), Item("b", reference="y")), (Output("x"), Output("x")))
    write_evaluation(tmp_path, made, [load_metric("exact_text")], seed=1)
    row = json.loads((tmp_path / "items.jsonl").read_text().splitlines()[0])
    assert set(row["item"]) == {"id", "messages", "text", "reference", "documents", "fields"}
    assert set(row["output"]) == {"text", "log_likelihood", "reference_tokens", "probabilities"}
    assert row["values"] == {"exact_text": 1.0}


def test_word_and_byte_perplexity_count_what_the_text_has() -> None:
    items, outputs = (
        [Item("a", reference="two words"), Item("b", reference="é")],
        [
            Output(log_likelihood=-3.0, reference_tokens=2),
            Output(log_likelihood=-1.0, reference_tokens=1),
        ],
    )
    for name, count in (("word_perplexity", 3), ("byte_perplexity", 11)):
        metric = load_metric(name)
        total = score_rows(metric, items, outputs).sum(axis=0)
        assert metric.reduce(total) == pytest.approx(math.exp(4 / count))


def test_a_text_of_one_long_word_has_a_perplexity_that_can_be_written(tmp_path: Path) -> None:
    items = (Item("a", reference="x" * 5000), Item("b", reference="two words"))
    outputs = (
        Output(log_likelihood=-9000.0, reference_tokens=2500),
        Output(log_likelihood=-6.0, reference_tokens=2),
    )
    metrics = [load_metric(name) for name in ("word_perplexity", "byte_perplexity")]
    scores = write_evaluation(tmp_path, Evaluation("long", items, outputs), metrics, seed=1)
    assert scores["byte_perplexity"].value == pytest.approx(math.exp(9006 / 5009))
    rows = [json.loads(line)["values"] for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert rows[0]["word_perplexity"] == pytest.approx(math.exp(700))
