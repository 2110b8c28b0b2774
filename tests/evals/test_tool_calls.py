"""The right call is a call with the same name and arguments, however it is spelled."""

from __future__ import annotations

from treadle.evals.item import Item, Output
from treadle.evals.metric import load_metric
from treadle.evals.results import Evaluation, read_evaluation, write_evaluation
from treadle.evals.runner import items_from, rejected_items
from treadle.text.dataset import Example

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
TOOLS = ({"type": "function", "function": {"name": "add"}},)


def test_names_and_arguments_have_to_be_the_same(tmp_path) -> None:
    said = {
        '<tool_call>{"arguments": {"b": 2, "a": 1}, "name": "add"}</tool_call>': 1,
        'I add. <tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}': 1,
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 3}}</tool_call>': 0,
        '<tool_call>{"name": "sum", "arguments": {"a": 1, "b": 2}}</tool_call>': 0,
        "3": 0,
    }
    items = [Item(str(n), tools=TOOLS, calls=(CALL,)) for n in range(len(said))]
    items += [
        Item("none wanted", reference="3", tools=TOOLS),
        Item("none wanted but made", tools=TOOLS),
        Item("no tools"),
    ]
    outputs = [Output(text) for text in [*said, "3", next(iter(said)), "3"]]
    metric = load_metric("tool_call_match")
    rows = metric.score(items, outputs)
    assert rows == [*((float(right), 1.0) for right in said.values()), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)]
    evaluation = Evaluation("model", tuple(items), tuple(outputs))
    scores = write_evaluation(tmp_path, evaluation, [metric], seed=1)
    assert scores["tool_call_match"].value == 3 / 7
    assert read_evaluation(tmp_path) == evaluation


def test_a_rejected_answer_is_one_to_the_same_question() -> None:
    asked = {"role": "user", "content": "1 + 2?"}
    good, bad = ({"role": "assistant", "content": text} for text in ("3", "4"))
    other = [{"role": "user", "content": "2 + 2?"}, bad]
    examples = [
        Example(("doc:1",), messages=(asked, good), fields={"rejected": [asked, bad]}),
        Example(("doc:2",), messages=(asked, good), fields={"rejected": other}),
        Example(("doc:3",), messages=(asked, good)),
    ]
    found = rejected_items(items_from(examples))
    assert {place: item.reference for place, item in found.items()} == {0: "4"}


def test_preferred_is_what_is_more_probable() -> None:
    metric = load_metric("preference_accuracy")
    items = [Item(str(n)) for n in range(4)]
    outputs = [
        Output(log_likelihood=-1.0, rejected_log_likelihood=-2.0),
        Output(log_likelihood=-3.0, rejected_log_likelihood=-2.0),
        Output(log_likelihood=-2.0, rejected_log_likelihood=-2.0),
        Output(log_likelihood=-2.0),
    ]
    assert metric.score(items, outputs) == [(1.0, 1.0), (0.0, 1.0), (0.5, 1.0), (0.0, 0.0)]
