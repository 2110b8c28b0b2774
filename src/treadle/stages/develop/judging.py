"""A judge over two evaluations, and over pairs that people have chosen from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from treadle.core.digest import blake3_bytes
from treadle.core.errors import UserError
from treadle.core.runs import Run
from treadle.core.steps import step
from treadle.evals.report import EvaluationReport, commit, evaluation_engine
from treadle.lm.model import Model
from treadle.text.corpus import Corpus

if TYPE_CHECKING:
    from treadle.evals.judging import Pair
    from treadle.evals.metric import Metric
    from treadle.lm.teacher import Teacher
    from treadle.text.document import Document


@step(name="develop.judge", version=1, packages=("tokenizers",), tolerance=0.2)
def judge_answers(
    candidate: EvaluationReport,
    baseline: EvaluationReport,
    judging: Model | None,
    *,
    judge: dict[str, Any],
    template: dict[str, Any],
    run: Run,
) -> EvaluationReport:
    """Which of two models' answers a judge finds better, pair by pair, with the places swapped."""
    from treadle.evals.item import Item
    from treadle.evals.judging import WinRate, pairs_of

    ours, theirs = candidate.items(), baseline.items()
    pairs = pairs_of(
        list(zip(ours.items, ours.outputs, strict=True)), list(zip(theirs.items, theirs.outputs, strict=True))
    )
    documents = {item.id: item.documents for item in ours.items}
    items = [Item(pair.id, text=pair.question, documents=documents[pair.id]) for pair in pairs]
    return _judged(run, judge, template, judging, pairs, items, [WinRate()], candidate.document_ids())


@step(name="develop.judge_people", version=1, packages=("tokenizers",), tolerance=0.2)
def judge_people(
    preferences: Corpus, judging: Model | None, *, judge: dict[str, Any], template: dict[str, Any], run: Run
) -> EvaluationReport:
    """How far a judge agrees with people who chose one of two answers: Cohen's kappa."""
    from treadle.evals.item import Item
    from treadle.evals.judging import Agreement, Kappa

    pairs, items = [], []
    for document in (document for batch in preferences.documents() for document in batch):
        found = _chosen_from(document)
        if found is not None:
            pair, chosen = found
            pairs.append(pair)
            items.append(Item(pair.id, text=pair.question, reference=chosen, documents=(document.id,)))
    if len(pairs) < 2:
        raise UserError(f"judge: {len(pairs)} pairs with chosen and rejected in people; agreement needs two or more")
    documents = sorted({name for item in items for name in item.documents})
    return _judged(run, judge, template, judging, pairs, items, [Agreement(), Kappa()], documents)


def _judged(
    run: Run,
    settings: dict[str, Any],
    words: dict[str, Any],
    judging: Model | None,
    pairs: Sequence[Pair],
    items: Sequence[Any],
    metrics: Sequence[Metric],
    documents: Sequence[str],
) -> EvaluationReport:
    """The verdicts as an evaluation; those that could not be read are counted, and left out of the scores."""
    from treadle.evals.item import Output
    from treadle.evals.judging import JudgeTemplate, judge
    from treadle.evals.results import Evaluation

    template = JudgeTemplate.model_validate(words)
    with _teacher(settings, judging, run) as teacher:
        found = judge(teacher, template, pairs)
    kept = [place for place, verdict in enumerate(found.verdicts) if verdict != "unparsed"]
    counts = Counter(found.verdicts)
    if len(kept) < 2:
        raise UserError(
            f"judge: {len(kept)} of {len(pairs)} verdicts could be read; expected exactly one of {template.first},"
            f" {template.second} and {template.tie} in each reply"
        )
    said = [dict(zip(("straight", "swapped"), both, strict=True)) for both in found.replies]
    judged = tuple(replace(items[place], fields=said[place]) for place in kept)
    evaluation = Evaluation(template.name, judged, tuple(Output(found.verdicts[place]) for place in kept))
    info = {
        "judge": {"template": template.name, "version": template.version, "model": settings.get("model") or ""},
        "verdicts": dict(counts),
        "unparsed": counts["unparsed"],
        "unparsed_replies": [said[place] for place in range(len(said)) if place not in set(kept)],
        "swayed": counts["swayed"],
    }
    return commit(run, evaluation, metrics, documents, info)


@contextmanager
def _teacher(settings: dict[str, Any], judging: Model | None, run: Run) -> Iterator[Teacher]:
    from treadle.lm.endpoint import EndpointTeacher, Limits
    from treadle.lm.teacher import EngineTeacher, Sampling

    sampling = Sampling(settings["max_tokens"])
    if settings.get("url"):
        limits = Limits(timeout=settings["timeout"], at_once=settings["at_once"])
        key = settings.get("api_key")
        with EndpointTeacher(settings["url"], settings["model"], key, sampling, limits, where="judge") as teacher:
            yield teacher
        return
    from treadle.lm.base_model import resolve
    from treadle.lm.tokenizer import ChatTokenizer

    folder = judging.path() if judging is not None else resolve(settings["model"]).path
    tokenizer = ChatTokenizer.load(folder)
    if not tokenizer.has_chat_template:
        raise UserError("judge: the model has no chat template, so it cannot be asked; expected a model that chats")
    with evaluation_engine(folder, "auto", run.scratch, exact=True) as engine:
        yield EngineTeacher(engine, tokenizer, sampling)


def _chosen_from(document: Document) -> tuple[Pair, str] | None:
    """The pair that a document holds, in an order that has nothing to do with which was chosen, and that one."""
    from treadle.evals.judging import Pair

    said, rejected = document.fields.get("messages") or (), document.fields.get("rejected") or ()
    if not said or not rejected or said[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        return None
    question = "\n".join(message["content"] for message in said if message["role"] == "user")
    chosen, other = said[-1]["content"], rejected[-1]["content"]
    if int(blake3_bytes(document.id.encode())[-1], 16) % 2:
        return Pair(document.id, question, other, chosen), "other"
    return Pair(document.id, question, chosen, other), "one"
