"""An evaluation in the store, how it comes about, and the engine a model is evaluated with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from treadle.core.artifacts import Artifact
from treadle.core.errors import UserError

if TYPE_CHECKING:
    from treadle.core.runs import Run
    from treadle.evals.item import Item, Output
    from treadle.evals.metric import Metric, Need
    from treadle.evals.results import Evaluation
    from treadle.lm.engines import BlockingEngine
    from treadle.text.dataset import Example

_BESIDE = (".json", ".jinja", ".txt", ".model")


class EvaluationReport(Artifact):
    """``scores.json`` with intervals, ``items.jsonl`` with every prompt, answer and value (see ``evals.results``)."""

    kind: ClassVar[str] = "evaluation"

    def scores(self) -> dict[str, dict[str, Any]]:
        """Value, interval, number of items and direction by metric."""
        scores: dict[str, dict[str, Any]] = self.read_json("scores.json")["scores"]
        return scores

    def value(self, metric: str) -> float:
        """One score."""
        return float(self.scores()[metric]["value"])

    def items(self) -> Evaluation:
        """Items and outputs, to compare or to look at."""
        from treadle.evals.results import read_evaluation

        return read_evaluation(self.path())


def answer_all(
    model: Path,
    examples: Sequence[Example],
    metrics: Sequence[Metric],
    run: Run,
    *,
    engine: str,
    system_prompt: str | None,
    max_tokens: int = 64,
    worked: Sequence[Example] = (),
    scoring: str | None = None,
) -> Evaluation:
    """Put the examples' questions to the causal model in a folder, and score their reference answers.

    ``scoring`` is the engine that scores; by default torch where there are safetensors, because it computes once what
    prompts share, and logits for answers alone.
    """
    from treadle.evals.item import Output
    from treadle.evals.likelihood import LogLikelihood
    from treadle.evals.results import Evaluation
    from treadle.evals.runner import items_from, rejected_items, run_chat
    from treadle.lm.tokenizer import ChatTokenizer

    items, tokenizer = items_from(examples), ChatTokenizer.load(model)

    def put(name: str, needs: set[Need], items: Sequence[Item], note: str, *, exact: bool) -> list[Output]:
        chosen = [metric for metric in metrics if metric.needs in needs]
        if not chosen:
            return [Output() for _ in items]
        with evaluation_engine(model, name, run.scratch, exact=exact) as opened:
            return run_chat(
                opened,
                tokenizer,
                items,
                metrics=[LogLikelihood()] if exact else chosen,
                system_prompt=system_prompt or "",
                worked=worked,
                max_tokens=max_tokens,
                on_progress=lambda done, total: run.progress(done, total, "items", note),
            )

    scoring = scoring or ("transformers" if any(model.glob("*.safetensors")) else engine)
    answers = put(engine, {"answer"}, items, "answering", exact=False)
    likely = put(scoring, {"likelihood", "preference"}, items, "scoring", exact=True)
    less = rejected_items(items)
    asked = [metric.name for metric in metrics if metric.needs == "preference"]
    if asked and len(less) < 2:
        raise UserError(
            f"metric {asked[0]}: {len(less)} of {len(items)} test items have a rejected answer to the same question;"
            " it needs two or more (columns chosen and rejected)"
        )
    scored = put(scoring, {"preference"}, list(less.values()), "scoring rejected answers", exact=True)
    rejected = {place: output.log_likelihood for place, output in zip(less, scored, strict=True)}
    outputs = [
        replace(
            answer,
            log_likelihood=score.log_likelihood,
            reference_tokens=score.reference_tokens,
            rejected_log_likelihood=rejected.get(place),
        )
        for place, (answer, score) in enumerate(zip(answers, likely, strict=True))
    ]
    return Evaluation("model", tuple(items), tuple(outputs))


def classify_all(
    model: Path, examples: Sequence[Example], metrics: Sequence[Metric], run: Run, **asked: Any
) -> Evaluation:
    """Classify the examples' texts with the model in a folder."""
    from treadle.evals.results import Evaluation
    from treadle.evals.runner import items_from, run_classifier

    items = items_from(examples)
    with evaluation_engine(model, "transformers", run.scratch) as opened:
        outputs = run_classifier(opened, items, on_progress=lambda done, total: run.progress(done, total, "items"))
    return Evaluation("model", tuple(items), tuple(outputs))


def commit(
    run: Run,
    evaluation: Evaluation,
    metrics: Sequence[Metric],
    documents: Sequence[str],
    info: Mapping[str, Any] | None = None,
) -> EvaluationReport:
    """The evaluation as an artifact; its scores become the run's metrics. ``info`` joins what ``scores.json`` says."""
    from treadle.evals.results import write_evaluation

    with run.create(EvaluationReport) as report:
        scores = write_evaluation(report.path, evaluation, metrics, seed=run.seed, info=info)
        report.add_documents(documents)
        run.summary(**{metric: interval.value for metric, interval in scores.items()})
        return report.commit()


def load_metrics(names: Sequence[str], run: Run) -> list[Metric]:
    """Metrics by name, from entry points or the project's own code."""
    from treadle.evals.metric import load_metric

    return [load_metric(name, run.folder) for name in names]


@contextmanager
def evaluation_engine(
    model: Path, engine: str, scratch: Path, *, exact: bool = False, by_torch_too: bool = False
) -> Iterator[BlockingEngine]:
    """An engine on a model folder. Answers come as they will be served; ``exact`` asks for 32-bit arithmetic, so that
    a score does not depend on an engine's shortcuts; torch still scores in 16 bits where the machine has them, .1 %
    off, unless ``by_torch_too``.

    Torch runs in this process, where training has loaded it. Engines that read GGUF are given one in 16 bits, written
    to ``scratch``; a folder that already has one is used as it is.
    """
    from treadle.lm.engines import AUTO, BlockingEngine, find_engine, serves_gguf
    from treadle.lm.gguf_description import can_be_written

    folder = model
    reads = serves_gguf(engine) and (engine != AUTO or can_be_written(model))
    if reads and not (model / "model.gguf").exists() and _is_causal(model):
        folder = scratch / "evaluated"
        folder.mkdir(exist_ok=True)
        for path in model.iterdir():
            if path.suffix in _BESIDE:
                shutil.copyfile(path, folder / path.name)
        from treadle.lm.gguf import write_gguf

        write_gguf(model, folder / "model.gguf", "f16")
        if find_engine("auto", folder).name == "transformers":
            folder = model
    shortcuts = by_torch_too or find_engine(engine, folder).name != "transformers"
    settings = {"precision": "f32"} if exact and shortcuts else {}
    with BlockingEngine(engine, folder, settings=settings, here=True) as opened:
        yield opened


def _is_causal(model: Path) -> bool:
    architectures: Sequence[str] = json.loads((model / "config.json").read_bytes()).get("architectures") or []
    return any(name.endswith(("CausalLM", "LMHeadModel")) for name in architectures)
